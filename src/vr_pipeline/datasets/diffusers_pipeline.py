"""Catalog dataset of a diffusers pipeline in a folder, safetensors only."""

from pathlib import Path
from typing import Any

from vr_pipeline.datasets.places import FolderDataset
from vr_pipeline.errors import InputError
from vr_pipeline.storage.atomic import replaced_folder, write_checksums


class DiffusersPipelineDataset(FolderDataset[Any, Path]):
    """A pipeline, saved with ``save_pretrained`` and loaded as a path, since families load models themselves.

    The folder is replaced as a whole: it is written beside its place and renamed.
    """

    def save(self, data: Any) -> None:
        with replaced_folder(self._path) as folder:
            data.save_pretrained(folder, safe_serialization=True)
            write_checksums(folder)

    def load(self) -> Path:
        if not self._exists():
            raise InputError(
                "there is no diffusers pipeline (model_index.json) here",
                file=self._path,
                remedy="run the pipeline that creates it, or set another path in the catalog",
            )
        return self._path

    def _exists(self) -> bool:
        return (self._path / "model_index.json").is_file()
