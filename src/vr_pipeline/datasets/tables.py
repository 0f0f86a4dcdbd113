"""Catalog dataset of a table that a user brings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vr_pipeline.datasets.places import FileDataset
from vr_pipeline.datasets.previews import TablePreview, table_preview

if TYPE_CHECKING:
    import pandas as pd


class TableFileDataset(FileDataset[None, "pd.DataFrame"]):
    """Loads a table of any type that :func:`vr_pipeline.storage.tables.read_entries` reads; read only.

    Values are those of the file: cells of text files are text. Rows that cannot be read are left out with a warning.

    Example::

        preference_clips:
          type: vr_pipeline.datasets.tables.TableFileDataset
          filepath: data/01_raw/clips.csv
          validator: vr_pipeline.schemas.PreferenceClips

    Args:
        encoding: of a text file without a byte order mark.
    """

    def __init__(self, *, filepath: str, encoding: str = "utf-8", metadata: dict[str, Any] | None = None) -> None:
        super().__init__(filepath=filepath, metadata=metadata)
        self._encoding = encoding

    def load(self) -> pd.DataFrame:
        from vr_pipeline.storage.tables import left_out, read_entries

        entries = read_entries(self._path, encoding=self._encoding)
        left_out(entries.problems(), len(entries.rows), what="rows")
        return entries.table().reset_index(drop=True)

    def preview(self) -> TablePreview:
        """For Kedro-Viz: the first rows."""
        return table_preview(self.load())
