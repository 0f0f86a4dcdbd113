"""The project's catalog: every file is replaced, whatever dataset class writes it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from kedro.io import DataCatalog

from vr_pipeline.storage.atomic import replaced


class ReplacingCatalog(DataCatalog):
    """Kedro's catalog, whose local files take the place of old ones at once.

    Datasets of kedro-datasets write in place: a kill would leave half a file, and where DVC has linked its cache into
    the project they would write into the cache. Datasets of this project replace what they write by themselves.
    """

    def save(self, ds_name: str, data: Any) -> None:
        dataset = self[ds_name]
        dataset = getattr(dataset, "_dataset", dataset)  # of a CachedDataset
        place = _written_in_place(dataset)
        if place is None:
            super().save(ds_name, data)
            return
        with replaced(place) as temporary:
            if place.is_dir():
                shutil.copytree(place, temporary)  # Some add to what is there.
            elif place.is_file() and _appends(dataset):
                shutil.copyfile(place, temporary)
            with _moved(dataset, temporary):
                super().save(ds_name, data)


def _written_in_place(dataset: Any) -> Path | None:
    """Return the local file or folder that a dataset of kedro-datasets writes; None if it is another kind of dataset.

    Versioned ones write to a new place each time.
    """
    place = getattr(dataset, "_filepath", None)
    local = getattr(dataset, "_fs", None) is not None and getattr(dataset, "_protocol", "") in {"file", "local"}
    versioned = getattr(dataset, "_version", None) is not None
    return Path(place) if place is not None and local and not versioned else None


def _appends(dataset: Any) -> bool:
    options = (getattr(dataset, name, None) or {} for name in ("_fs_open_args_save", "_save_args", "_writer_args"))
    return any("a" in str(option.get("mode", "")) for option in options)


@contextmanager
def _moved(dataset: Any, place: Path) -> Iterator[None]:
    own = dataset._filepath
    dataset._filepath = PurePosixPath(place.as_posix())
    try:
        yield
    finally:
        dataset._filepath = own
