"""A diffusers pipeline in a folder, safetensors only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset

from vr_pipeline.errors import InputError
from vr_pipeline.storage.atomic import replaced_folder, write_checksums


class DiffusersPipelineDataset(AbstractDataset[Any, Path]):
    """Saves a pipeline with ``save_pretrained``; loads the folder's path, since families load models in their own way.

    The folder is replaced as a whole: it is written beside its place and renamed.

    Args:
        path: the folder.
        metadata: for plugins; not used here.
    """

    def __init__(self, *, path: str, metadata: dict[str, Any] | None = None) -> None:
        self._path = Path(path)
        self.metadata = metadata

    def save(self, data: Any) -> None:
        with replaced_folder(self._path) as folder:
            data.save_pretrained(folder, safe_serialization=True)
            write_checksums(folder)

    def load(self) -> Path:
        if not self._exists():
            raise InputError(
                "there is no diffusers pipeline (model_index.json) here",
                file=self._path,
                remedy="run the pipeline that makes it, or set another path in the catalog",
            )
        return self._path

    def _exists(self) -> bool:
        return (self._path / "model_index.json").is_file()

    def _describe(self) -> dict[str, Any]:
        return {"path": str(self._path)}
