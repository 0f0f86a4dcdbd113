"""Prompt files as a catalog entry: formats are told apart by the file's ending, bad rows are kept apart."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import TablePreview

from vr_pipeline.prompts.read import read_prompts
from vr_pipeline.storage.tables import BadBytes

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


class PromptFileDataset(AbstractDataset[None, "pd.DataFrame"]):
    """A file of prompts of any type that :func:`vr_pipeline.storage.tables.read_entries` reads; read only.

    Example::

        raw_prompts:
          type: vr_pipeline.datasets.prompts.PromptFileDataset
          filepath: data/01_raw/prompts.csv
          prompt_column: prompt

    Loading gives the table described at :func:`vr_pipeline.prompts.read.read_prompts`.
    """

    def __init__(
        self,
        *,
        filepath: str,
        file_format: str | None = None,
        encoding: str = "utf-8",
        prompt_column: str | None = None,
        source_column: str = "source",
        on_bad_bytes: BadBytes = "auto",
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._filepath = Path(filepath)
        self._options: dict[str, Any] = {
            "file_format": file_format,
            "encoding": encoding,
            "prompt_column": prompt_column,
            "source_column": source_column,
            "on_bad_bytes": on_bad_bytes,
        }
        self.metadata = metadata

    def load(self) -> pd.DataFrame:
        table = read_prompts(self._filepath, **self._options)
        bad = table[table["problem"] != ""]
        if len(bad):
            first = bad.iloc[0]
            logger.warning(
                "%s: %d of %d rows are left out, the first is row %d: %s",
                self._filepath,
                len(bad),
                len(table),
                first["row"],
                first["problem"],
            )
        return table

    def save(self, data: None) -> NoReturn:
        raise DatasetError("raw prompts are read, never written")

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), **self._options}

    def preview(self, nrows: int = 5) -> TablePreview:
        """The first rows, for kedro-viz, which goes by the name of the return type."""
        table = read_prompts(self._filepath, **self._options).head(nrows)
        return TablePreview(table[["row", "prompt", "source", "problem"]].to_dict(orient="split"))
