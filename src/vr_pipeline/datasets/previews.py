"""Previews of datasets in Kedro-Viz.

Kedro-Viz asks a dataset for ``preview`` and takes the kind from its return annotation.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from kedro_datasets._typing import ImagePreview, JSONPreview, TablePreview

if TYPE_CHECKING:
    import pandas as pd

    # Stages depend on the imports of this module, and previews of tables need no decoder.
    from vr_pipeline.video.read import Frames

COLUMNS, ROWS = 6, 4
"""Clips of a contact sheet, in each direction."""

_CELL, _GAP = 96, 4

__all__ = ["ImagePreview", "JSONPreview", "TablePreview", "contact_sheet", "spread", "table_preview"]


def spread(names: Sequence[str], number: int = COLUMNS * ROWS) -> list[str]:
    """Return at most ``number`` of the names, evenly spread."""
    if not names:
        return []
    places = np.linspace(0, len(names) - 1, min(number, len(names))).round().astype(int)
    return [names[place] for place in dict.fromkeys(places.tolist())]


def contact_sheet(clips: Sequence[Frames]) -> ImagePreview:
    """Return the middle frames of clips in a grid, as a PNG in base64; the same clips give the same bytes.

    Args:
        clips: uint8 arrays [frames, height, width, 3] of any sizes.
    """
    from matplotlib.image import imsave

    rows = max(1, -(-len(clips) // COLUMNS))
    step = _CELL + _GAP
    sheet = np.full((rows * step + _GAP, COLUMNS * step + _GAP, 3), 128, np.uint8)
    for place, clip in enumerate(clips):
        top, left = (_GAP + part * step for part in divmod(place, COLUMNS))
        cell = _fitted(clip[len(clip) // 2])
        sheet[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
    buffer = io.BytesIO()
    imsave(buffer, sheet, format="png", pil_kwargs={"compress_level": 6}, metadata={"Software": ""})
    return ImagePreview(base64.b64encode(buffer.getvalue()).decode())


def _fitted(frame: Frames) -> Frames:
    """Return a frame resized to a cell by picking pixels, its shape kept."""
    height, width = frame.shape[:2]
    scale = _CELL / max(height, width)
    shown = [max(1, round(size * scale)) for size in (height, width)]
    at = [
        np.minimum((np.arange(number) / scale).astype(int), size - 1)
        for number, size in zip(shown, (height, width), strict=True)
    ]
    return np.asarray(frame[at[0]][:, at[1]])


def table_preview(table: pd.DataFrame, rows: int = 20) -> TablePreview:
    """Return the first rows of a table."""
    shown: dict[str, Any] = table.head(rows).astype(object).where(table.head(rows).notna(), None).to_dict("split")
    return TablePreview(shown)
