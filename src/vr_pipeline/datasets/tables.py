"""Catalog dataset of a table that a user brings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset

from vr_pipeline.datasets.previews import TablePreview, table_preview

if TYPE_CHECKING:
    import pandas as pd


class TableFileDataset(AbstractDataset[None, "pd.DataFrame"]):
    """Loads a table of any type that :func:`vr_pipeline.storage.tables.read_entries` reads; read only.

    Values are those of the file: cells of text files are text. Rows that cannot be read are left out with a warning.

    Example::

        preference_clips:
          type: vr_pipeline.datasets.tables.TableFileDataset
          filepath: data/01_raw/clips.csv
          validator: vr_pipeline.schemas.PreferenceClips

    Args:
        filepath: the file.
        encoding: of a text file without a byte order mark.
        metadata: for plugins; not used here.
    """

    def __init__(self, *, filepath: str, encoding: str = "utf-8", metadata: dict[str, Any] | None = None) -> None:
        self._filepath, self._encoding = Path(filepath), encoding
        self.metadata = metadata

    def load(self) -> pd.DataFrame:
        from vr_pipeline.storage.tables import left_out, read_entries

        entries = read_entries(self._filepath, encoding=self._encoding)
        left_out(entries.problems(), len(entries.rows), what="rows")
        return entries.table().reset_index(drop=True)

    def preview(self) -> TablePreview:
        """For Kedro-Viz: the first rows."""
        return table_preview(self.load())

    def save(self, data: None) -> None:
        raise NotImplementedError("tables that you bring are only read")

    def _exists(self) -> bool:
        return self._filepath.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "encoding": self._encoding}
