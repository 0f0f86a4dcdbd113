"""Catalog datasets of given tables, large tables and optional tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset, DatasetError

from vr_pipeline.datasets.places import FileDataset
from vr_pipeline.datasets.previews import TablePreview, table_preview
from vr_pipeline.errors import InputError
from vr_pipeline.schemas.parts import TableParts, parts_of
from vr_pipeline.storage.atomic import replaced
from vr_pipeline.storage.tables import left_out, read_entries

if TYPE_CHECKING:
    import pandas as pd


class TableFileDataset(FileDataset[None, "pd.DataFrame"]):
    """A table of any type that :func:`vr_pipeline.storage.tables.read_entries` reads; read only.

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
        entries = read_entries(self._path, encoding=self._encoding)
        left_out(entries.problems(), len(entries.rows), what="rows")
        return entries.table().reset_index(drop=True)

    def preview(self) -> TablePreview:
        """Return the first rows, for Kedro-Viz."""
        return table_preview(self.load())


class TablePartsDataset(FileDataset["pd.DataFrame | TableParts", TableParts]):
    """A parquet table that need not fit in memory: saved and loaded part by part, each a row group.

    Example::

        checklist_answers:
          type: vr_pipeline.datasets.tables.TablePartsDataset
          filepath: data/04_feature/checklist_answers.parquet
          validator: vr_pipeline.schemas.ChecklistAnswers
    """

    def save(self, data: pd.DataFrame | TableParts) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with replaced(self._path) as temporary, ExitStack() as stack:
            writer = None
            for part in parts_of(data):
                schema = None if writer is None else writer.schema
                table = pa.Table.from_pandas(part, schema=schema, preserve_index=False)
                if writer is None:
                    writer = stack.enter_context(pq.ParquetWriter(temporary, table.schema))
                writer.write_table(table)
            if writer is None:
                raise DatasetError(f"{self._path} would have no rows and no columns")

    def load(self) -> TableParts:
        if not self._path.is_file():
            raise InputError("the table is missing", remedy="run the pipeline that makes it", file=self._path)
        return TableParts(self._parts)

    def _parts(self) -> Iterator[pd.DataFrame]:
        import pyarrow.parquet as pq

        with pq.ParquetFile(self._path) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group).to_pandas()

    def preview(self, nrows: int = 20) -> TablePreview:
        """Return the first rows, for Kedro-Viz."""
        return table_preview(next(iter(self.load())), nrows)


class OptionalTableDataset(AbstractDataset["pd.DataFrame", "pd.DataFrame | None"]):
    """An optional parquet table; None is loaded if there is none.

    Args:
        filepath: the table; null if there is none.
        missing_ok: whether a missing file is no error.
        metadata: for plugins; not used here.
    """

    def __init__(
        self, *, filepath: str | None, missing_ok: bool = False, metadata: dict[str, Any] | None = None
    ) -> None:
        self._path = Path(filepath) if filepath is not None else None
        self._missing_ok, self.metadata = missing_ok, metadata

    def load(self) -> pd.DataFrame | None:
        import pandas as pd

        if self._path is None or (self._missing_ok and not self._path.exists()):
            return None
        if not self._path.is_file():
            raise InputError(
                "the table is missing", remedy="make it, or set its filepath to null in the catalog", file=self._path
            )
        return pd.read_parquet(self._path)

    def save(self, data: pd.DataFrame) -> None:
        if self._path is None:
            raise InputError("there is no place for the table", remedy="give a filepath in the catalog")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(self._path) as temporary:
            data.to_parquet(temporary, index=False)

    def _exists(self) -> bool:
        return self._path is None or self._path.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._path)}
