"""Base classes of datasets with one file or folder."""

from pathlib import Path
from typing import Any, Generic, TypeVar

from kedro.io import AbstractDataset, DatasetError

Saved = TypeVar("Saved")
Loaded = TypeVar("Loaded")


class FileDataset(AbstractDataset[Saved, Loaded], Generic[Saved, Loaded]):
    """A dataset in one file; subclasses define ``load``, and ``save`` unless it is only read."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._path, self.metadata = Path(filepath), metadata

    def save(self, data: Saved) -> None:
        raise DatasetError(f"{self._path} is only read")

    def _exists(self) -> bool:
        return self._path.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._path)}


class FolderDataset(FileDataset[Saved, Loaded]):
    """A dataset in one folder."""

    def __init__(self, *, path: str, metadata: dict[str, Any] | None = None) -> None:
        super().__init__(filepath=path, metadata=metadata)
