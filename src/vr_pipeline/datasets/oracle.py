"""The oracle of the embedded default, or none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset

from vr_pipeline.errors import InputError
from vr_pipeline.storage.atomic import replaced

if TYPE_CHECKING:
    from vr_pipeline.micro_world.oracle import Oracle


class OracleDataset(AbstractDataset["Oracle", "Oracle | None"]):
    """Saves and loads the micro-world's oracle.

    Args:
        filepath: safetensors file; null where no oracle exists, as with real data: then None is loaded and the
            evaluation has the judge's rewards only.
        metadata: for plugins; not used here.
    """

    def __init__(self, *, filepath: str | None, metadata: dict[str, Any] | None = None) -> None:
        self._path = Path(filepath) if filepath is not None else None
        self.metadata = metadata

    def load(self) -> Oracle | None:
        if self._path is None:
            return None
        from vr_pipeline.micro_world.oracle import Oracle

        if not self._path.is_file():
            raise InputError(
                "the oracle is missing",
                file=self._path,
                remedy="run the pipeline micro_world, or set the catalog's entry 'oracle' to filepath: null",
            )
        return Oracle.load(self._path)

    def save(self, data: Oracle) -> None:
        if self._path is None:
            raise InputError(
                "there is no place to save the oracle", field="oracle.filepath", remedy="give a file in the catalog"
            )
        with replaced(self._path) as temporary:
            data.save(temporary)

    def _exists(self) -> bool:
        return self._path is None or self._path.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._path)}
