"""Accuracy of a latent reward on held-out pairs, by noise level."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vr_pipeline.generators.contract import Generator
from vr_pipeline.rewards.training.held_out import HeldOutParameters
from vr_pipeline.statistics.clustered import bootstrap_by_prompt

ALL = "all"
"""Stands for all dimensions together."""


def report_by_noise(
    scores: NDArray[np.float64],
    apart: NDArray[np.float64],
    label: NDArray[np.float64],
    units: Sequence[str],
    names: Sequence[str],
    bins: Mapping[tuple[float, float], float],
    parameters: HeldOutParameters,
) -> pd.DataFrame:
    """Return accuracy on pairs without ties, by bin of time and by dimension.

    Args:
        scores: of both clips at one time in each bin, [pairs, bins, 2, dimensions], with the same noise for both, as in
            training. The noise then affects both scores equally, so pairs can be ordered even at high noise.
        apart: the same with separate noise, as for single clips.
        label: 1, 0, -1 or NaN, [pairs, dimensions].
        units: prompts as units of resampling, [pairs].
        names: the dimensions.
        bins: of time from 0 to 1, each with the deviation of the noise in its middle.
        parameters: number and seed of bootstrap samples.

    Returns:
        schema ``LatentRewardReport``: one row per bin and dimension, and one per bin for all dimensions together.
    """
    leads = {
        "accuracy": (scores[:, :, 0] - scores[:, :, 1]) * label[:, None],
        "accuracy_apart": (apart[:, :, 0] - apart[:, :, 1]) * label[:, None],
    }
    decided = np.abs(label) == 1
    of_pair = np.asarray(units, dtype=np.str_)
    rows = []
    for at, ((low, high), deviation) in enumerate(bins.items()):
        for name, columns in {**{name: [i] for i, name in enumerate(names)}, ALL: list(range(len(names)))}.items():
            pair, column = np.nonzero(decided[:, columns])
            row = {"dimension": name, "time_from": low, "time_to": high, "noise_deviation": deviation}
            for what, lead in leads.items():
                right = lead[pair, at, np.asarray(columns)[column]] > 0
                row |= _accuracy(right, of_pair[pair], parameters, what)
            rows.append(row)
    return pd.DataFrame(rows)


def summarise(
    scores: NDArray[np.float64],
    label: NDArray[np.float64],
    units: Sequence[str],
    names: Sequence[str],
    parameters: HeldOutParameters,
) -> dict[str, dict[str, Any]]:
    """Return accuracy over all bins by dimension, with None for NaN."""
    lead = (scores[:, :, 0] - scores[:, :, 1]) * label[:, None]
    found = {}
    for at, name in enumerate(names):
        pair = np.flatnonzero(np.abs(label[:, at]) == 1)
        right = lead[pair, :, at] > 0
        repeated = np.repeat(np.asarray(units, dtype=np.str_)[pair], lead.shape[1])
        values = _accuracy(right.reshape(-1), repeated, parameters) | {"n": len(pair)}
        found[name] = {key: None if math.isnan(value) else value for key, value in values.items()}
    return found


def _accuracy(
    right: NDArray[np.bool_], units: NDArray[np.str_], parameters: HeldOutParameters, name: str = "accuracy"
) -> dict[str, Any]:
    """Return the accuracy with its 95 % interval by prompt; NaN without pairs."""
    if not len(right):
        return {"n": 0, "prompts": 0, name: math.nan, f"{name}_low": math.nan, f"{name}_high": math.nan}
    drawn = partial(bootstrap_by_prompt, kinds=("share",), samples=parameters.bootstrap_samples, seed=parameters.seed)
    low, high = drawn(lambda rows: float(right[rows].mean()), units)
    return {
        "n": len(right),
        "prompts": len(np.unique(units)),
        name: float(right.mean()),
        f"{name}_low": float(low),
        f"{name}_high": float(high),
    }


def noise_deviations(generator: Generator, bins: Sequence[tuple[float, float]]) -> dict[tuple[float, float], float]:
    """Return the deviation of the noise in x_t in the middle of each bin of time, from 0 to 1."""
    import torch

    middle = generator.timesteps_at(torch.tensor([(low + high) / 2 for low, high in bins]))
    shape = (len(bins), 1, 1, 1, 1)
    noised = generator.add_noise(torch.zeros(shape), torch.ones(shape), middle)
    return dict(zip(bins, noised.flatten().tolist(), strict=True))
