"""Diversity of a policy's clips, and their drift from the original's.

Low diversity of the clips of a prompt can show reward hacking; drift shows how far a policy moved from the original.
Both are differences of pixels and do not measure quality.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from vr_pipeline.generators.policy import ORIGINAL
from vr_pipeline.items.folder import ItemFolder
from vr_pipeline.video.cells import cells, distance

SIDE, FRAMES = 16, 8
"""Size to which clips are reduced before the comparison: pixels per side, and evenly spread frames."""

COLUMNS = ["prompt_id", "policy", "diversity", "drift"]


def measure_spread(videos: ItemFolder, index: pd.DataFrame) -> pd.DataFrame:
    """Measure diversity and drift by prompt and policy.

    Args:
        videos: the clips.
        index: their video index with policy; failed clips are skipped.

    Returns:
        prompt_id, policy, diversity (root mean square difference of two clips of the prompt, mean over all pairs; NaN
        with one clip) and drift (the same between each clip and the original's of the same seed; NaN for the
        original), as shares of the range of pixels.
    """
    rows = [row for prompt in _prompts(videos, index[index["status"] == "ok"]) for row in prompt]
    return pd.DataFrame(rows, columns=COLUMNS)


def _prompts(videos: ItemFolder, index: pd.DataFrame) -> Iterator[list[tuple[str, str, float, float]]]:
    for prompt, part in index.groupby("prompt_id", sort=True):
        clips: dict[str, dict[int, npt.NDArray[np.float64]]] = {}
        for row in part.sort_values(["policy", "sample_index"], kind="stable").to_dict("records"):
            clips.setdefault(str(row["policy"]), {})[int(row["sample_index"])] = cells(
                videos.load(row["video_id"]), side=SIDE, times=FRAMES
            )
        original = clips.get(ORIGINAL, {})
        yield [
            (str(prompt), policy, _among(own), np.nan if policy == ORIGINAL else _between(own, original))
            for policy, own in clips.items()
        ]


def _among(clips: Mapping[int, npt.NDArray[np.float64]]) -> float:
    every = list(clips.values())
    pairs = [distance(first, second) for i, first in enumerate(every) for second in every[:i]]
    return float(np.mean(pairs)) if pairs else np.nan


def _between(clips: Mapping[int, npt.NDArray[np.float64]], others: Mapping[int, npt.NDArray[np.float64]]) -> float:
    pairs = [distance(clip, others[seed]) for seed, clip in clips.items() if seed in others]
    return float(np.mean(pairs)) if pairs else np.nan
