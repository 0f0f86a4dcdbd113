"""The project's catalog, which replaces files as a whole, whatever dataset class writes them."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from kedro.io import DataCatalog

from vr_pipeline.storage.atomic import replaced


class ReplacingCatalog(DataCatalog):
    """Kedro's catalog, whose local files replace old ones in one step.

    Datasets of kedro-datasets write in place: a kill would leave half a file, and files that DVC linked to its cache
    would be overwritten in the cache. Datasets of this project replace their files themselves.
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
                # Some datasets add files. Files that DVC links to its cache are read-only, their copies are not.
                shutil.copytree(place, temporary, copy_function=shutil.copyfile)
            elif place.is_file() and _appends(dataset):
                shutil.copyfile(place, temporary)
            with _moved(dataset, temporary):
                super().save(ds_name, data)


def _written_in_place(dataset: Any) -> Path | None:
    """Return the local file or folder that a dataset of kedro-datasets writes; None for other datasets.

    Versioned ones are others, since they write to a new place each time.
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
