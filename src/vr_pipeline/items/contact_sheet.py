"""A picture of many clips at once."""

from __future__ import annotations

import numpy as np
import pandas as pd

from vr_pipeline.drawing import Figure, new_figure
from vr_pipeline.items.folder import ItemFolder

_ROWS = 12
"""Largest number of rows, evenly spread over the prompts in order of their text."""


def contact_sheet(folder: ItemFolder, index: pd.DataFrame, *, samples: int = 6) -> Figure:
    """Draw first, middle and last frames of a few clips per prompt, with the generator if there are several.

    Args:
        samples: largest number of clips per row.
    """
    made = index[index["status"] == "ok"]
    made_by = made["generator"].set_axis(made["video_id"])
    texts = sorted(made["prompt"].unique())
    if not texts:
        figure = new_figure(figsize=(4, 1), dpi=120)
        figure.suptitle("There are no clips to show", fontsize=8)
        return figure
    chosen = [texts[at] for at in np.unique(np.linspace(0, len(texts) - 1, min(_ROWS, len(texts))).round().astype(int))]
    figure = new_figure(figsize=(2.6 + samples * 1.55, 0.3 + 0.62 * len(chosen)), layout="constrained", dpi=120)
    axes = figure.subplots(len(chosen), samples, squeeze=False)
    for row, text in enumerate(chosen):
        clips = (
            made[made["prompt"] == text].sort_values("sample_index", kind="stable")["video_id"].head(samples).tolist()
        )
        for column in range(samples):
            axis = axes[row, column]
            axis.set_axis_off()
            if column >= len(clips):
                continue
            frames = folder.load(clips[column])
            strip = np.concatenate([frames[0], frames[len(frames) // 2], frames[-1]], axis=1)
            axis.imshow(strip, interpolation="nearest", aspect="equal")
            if made_by.nunique() > 1:
                axis.set_title(made_by[clips[column]], fontsize=6, pad=2)
        axes[row, 0].text(
            -0.04, 0.5, text, transform=axes[row, 0].transAxes, ha="right", va="center", fontsize=7, wrap=True
        )
    figure.suptitle("First, middle and last frame of generated clips", fontsize=8)
    return figure
