"""Catalog dataset of a folder of many items, see :mod:`vr_pipeline.items.filling`."""

from collections.abc import Callable
from typing import Any

from vr_pipeline.datasets.places import FolderDataset
from vr_pipeline.datasets.previews import ImagePreview, TablePreview, contact_sheet, spread, table_preview
from vr_pipeline.items.filling import fill
from vr_pipeline.items.folder import ItemFolder, is_complete, open_folder
from vr_pipeline.items.formats import VideoFormat, item_format
from vr_pipeline.work import WorkPlan


class ManifestFolderDataset(FolderDataset[WorkPlan, ItemFolder]):
    """A folder of items: saving executes a :class:`~vr_pipeline.work.WorkPlan`, loading gives an :class:`ItemFolder`.

    Example of a catalog entry::

        videos:
          type: vr_pipeline.datasets.manifest.ManifestFolderDataset
          path: data/03_primary/videos
          format: {type: video, fps: 8, enlarge: 4}

    Args:
        path: the folder, for this dataset alone; other files in it are removed.
        format: see :mod:`vr_pipeline.items.formats`.
    """

    takes_up_what_is_there = True
    """Lineage does not delete the folder before its stage runs again."""

    def __init__(self, *, path: str, format: dict[str, Any], metadata: dict[str, Any] | None = None) -> None:
        super().__init__(path=path, metadata=metadata)
        self._format = item_format(format)

    def _describe(self) -> dict[str, Any]:
        return {**super()._describe(), "format": self._format.model_dump()}

    def _exists(self) -> bool:
        return is_complete(self._path)

    @property
    def preview(self) -> Callable[[], Any]:
        """For Kedro-Viz: a contact sheet of clips, or the records of items of other kinds."""
        return self._show_clips if isinstance(self._format, VideoFormat) else self._show_records

    def _show_clips(self) -> ImagePreview:
        folder = self.load()
        return contact_sheet([folder.load(key) for key in spread(folder.keys)])

    def _show_records(self) -> TablePreview:
        return table_preview(self.load().records)

    def load(self) -> ItemFolder:
        return open_folder(self._path, self._format)

    def save(self, data: WorkPlan) -> None:
        fill(self._path, self._format, data)
