"""Catalog dataset of a file of prompts."""

from __future__ import annotations

import logging
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vr_pipeline.datasets.places import FileDataset
from vr_pipeline.datasets.previews import TablePreview, table_preview
from vr_pipeline.prompts.read import read_prompts
from vr_pipeline.storage.tables import BadBytes
from vr_pipeline.video.first_frames import MIN_SIDE, first_frame

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


class PromptFileDataset(FileDataset[None, "pd.DataFrame"]):
    """A file of prompts of any type that :func:`vr_pipeline.storage.tables.read_entries` reads; read only.

    Example::

        raw_prompts:
          type: vr_pipeline.datasets.prompts.PromptFileDataset
          filepath: data/01_raw/prompts.csv
          prompt_column: prompt

    For image-to-video generators, ``image_folder`` is the folder with the first frames that the column ``image_column``
    names. They are checked when the prompts are loaded: a row whose image is missing, does not decode or has fewer than
    ``min_image_side`` pixels per side is excluded with the reason.

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
        image_folder: str | None = None,
        image_column: str = "image",
        min_image_side: int = MIN_SIDE,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(filepath=filepath, metadata=metadata)
        self._options: dict[str, Any] = {
            "file_format": file_format,
            "encoding": encoding,
            "prompt_column": prompt_column,
            "source_column": source_column,
            "on_bad_bytes": on_bad_bytes,
        }
        if image_folder is not None:
            image_of = cache(partial(first_frame, Path(image_folder), min_side=min_image_side))
            self._options |= {"image_column": image_column, "image_of": image_of}

    def load(self) -> pd.DataFrame:
        table = read_prompts(self._path, **self._options)
        bad = table[table["problem"] != ""]
        if len(bad):
            logger.warning(
                "%s: %d of %d rows are left out, the first is row %d: %s",
                *(self._path, len(bad), len(table), bad["row"].iloc[0], bad["problem"].iloc[0]),
            )
        return table

    def preview(self, nrows: int = 5) -> TablePreview:
        """Return the first rows without reading images, for Kedro-Viz."""
        options = self._options | {"image_of": None}
        return table_preview(read_prompts(self._path, **options)[["row", "prompt", "source", "problem"]], nrows)
