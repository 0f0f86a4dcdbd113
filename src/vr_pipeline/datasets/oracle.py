"""Catalog datasets of the oracle and the auditor of the embedded default."""

from pathlib import Path
from typing import Any, ClassVar

from kedro.io import AbstractDataset

from vr_pipeline.errors import InputError
from vr_pipeline.micro_world.auditor import Auditor
from vr_pipeline.micro_world.oracle import Oracle
from vr_pipeline.micro_world.recogniser import Recogniser
from vr_pipeline.storage.atomic import replaced


class OracleDataset(AbstractDataset["Recogniser", "Recogniser | None"]):
    """The micro-world's oracle.

    Args:
        filepath: safetensors file; null if there is none, as with real data: then None is loaded, and the
            evaluation has only the other rewards.
        metadata: for plugins; not used here.
    """

    holds: ClassVar[type[Recogniser]] = Oracle
    title: ClassVar[str] = "oracle"

    def __init__(self, *, filepath: str | None, metadata: dict[str, Any] | None = None) -> None:
        self._path = Path(filepath) if filepath is not None else None
        self.metadata = metadata

    def load(self) -> Recogniser | None:
        if self._path is None:
            return None
        if not self._path.is_file():
            raise InputError(
                f"the {self.title} is missing",
                file=self._path,
                remedy=f"run the pipeline micro_world, or set the catalog's entry '{self.title}' to filepath: null",
            )
        return self.holds.load(self._path)

    def save(self, data: Recogniser) -> None:
        if self._path is None:
            raise InputError(
                f"there is no place to save the {self.title}",
                field=f"{self.title}.filepath",
                remedy="give a file in the catalog",
            )
        with replaced(self._path) as temporary:
            data.save(temporary)

    def _exists(self) -> bool:
        return self._path is None or self._path.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._path)}


class AuditorDataset(OracleDataset):
    """The micro-world's auditor; null as for the oracle."""

    holds = Auditor
    title = "auditor"
