"""Catalog datasets of labelled items: scores and preferences in the formats that judges are trained on."""

from pathlib import Path
from typing import Any

import pandas as pd

from vr_pipeline.datasets.clips import ClipFolderDataset
from vr_pipeline.datasets.places import FileDataset
from vr_pipeline.datasets.previews import TablePreview, table_preview
from vr_pipeline.preferences.clip_names import ClipNames
from vr_pipeline.preferences.embedded import write_embedded
from vr_pipeline.preferences.items.clips import clips_of_items, with_clips
from vr_pipeline.preferences.items.formats import read_items
from vr_pipeline.storage.tables import read_entries


class LabelledItemsDataset(FileDataset[None, pd.DataFrame | None]):
    """Labelled items from a file in one of the formats of :func:`read_items`, with the paths of their clips; read only.

    Example::

        unified_labels:
          type: vr_pipeline.datasets.labelled_items.LabelledItemsDataset
          filepath: data/01_raw/videofeedback.json
          format: video_feedback
          videos: {path: data/01_raw/videofeedback}
          fps: 8.0

    Args:
        filepath: JSON, JSON lines, CSV or parquet; null if there is none: then None is loaded.
        format: unified_reward_items, llava_critic, video_feedback or evalmuse.
        videos: the folder of images, frames and clips, under ``path``. Images within the table are written there.
        patterns: patterns of the conversations, if they differ from the format.
        fps: rate of clips that come as frames, in 1/s; each is encoded once, in the folder of clips.
        source: value of the column ``source``.
    """

    def __init__(
        self,
        *,
        filepath: str | None,
        format: str,  # the word of the catalog entry
        videos: dict[str, str],
        patterns: dict[str, Any] | None = None,
        fps: float = 8.0,
        source: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(filepath=filepath or "", metadata=metadata)
        self._given = filepath is not None
        self._format, self._patterns, self._fps, self._source = format, patterns, fps, source
        self._videos = Path(videos["path"])

    def load(self) -> pd.DataFrame | None:
        if not self._given:
            return None
        items = read_items(self._path, self._format, patterns=self._patterns, source=self._source)
        entries = read_entries(self._path)
        write_embedded(entries, [("image", "id")], self._videos)
        names = ClipNames(self._videos, ClipFolderDataset(path=str(self._videos)).load(), self._path.parent)
        return with_clips(items, names, file=self._path, fps=self._fps)

    def preview(self) -> TablePreview:
        """Return the first items, for Kedro-Viz."""
        items = self.load()
        return table_preview(pd.DataFrame() if items is None else items)

    def _exists(self) -> bool:
        return not self._given or super()._exists()

    def _describe(self) -> dict[str, Any]:
        return {**super()._describe(), "format": self._format}


class LabelledItemClipsDataset(LabelledItemsDataset):
    """The clips that a file of labelled items names, one row each; takes the options of :class:`LabelledItemsDataset`.

    Example::

        unified_clips:
          type: vr_pipeline.datasets.labelled_items.LabelledItemClipsDataset
          filepath: data/01_raw/videofeedback.json
          format: video_feedback
          videos: {path: data/01_raw/videofeedback}
    """

    def load(self) -> pd.DataFrame | None:
        items = super().load()
        return None if items is None else clips_of_items(items)
