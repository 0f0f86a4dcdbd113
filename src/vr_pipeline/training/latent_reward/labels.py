"""Pairs of clips with a label in every dimension: by people, or by the rewards of generated clips."""

import logging
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import pair_id, sample_seed
from vr_pipeline.preferences.criteria import LABEL, OVERALL, criteria_of
from vr_pipeline.rewards.videoreward.settings import DimensionSettings
from vr_pipeline.rewards.videoreward.training.labels import label_pairs
from vr_pipeline.training.latent_reward.config import (
    LatentDimensionParameters,
    LatentRewardTrainingParameters,
    OwnPairParameters,
)

logger = logging.getLogger(__name__)

REWARD = "dim_"
LABEL_COLUMN = "label_"
"""Prefix of columns with labels: 1 (the first clip is preferred), 0 (a tie), -1 or NaN (masked)."""


def pairs_of_own_clips(
    rewards: pd.DataFrame, video_index: pd.DataFrame, parameters: LatentRewardTrainingParameters
) -> pd.DataFrame:
    """Pair the generated clips of each prompt, and label the pairs by the rewards of every dimension.

    Args:
        rewards: schema ``Rewards``.
        video_index: schema ``VideoIndex``; clips without a reward, and rewards without a clip, are left out.
        parameters: dimensions, number of pairs, width of ties, and the split.

    Returns:
        schema ``LatentRewardPairs``.

    Raises:
        InputError: a dimension is missing, or labels do not suffice; see
            :func:`~vr_pipeline.rewards.videoreward.training.labels.label_pairs`.
    """
    known = [str(name).removeprefix(REWARD) for name in rewards.columns if str(name).startswith(REWARD)]
    dimensions = _dimensions(parameters, known, f"the rewards have no column {REWARD}")
    usable = video_index.loc[video_index["status"] == "ok", ["video_id", "prompt"]]
    clips = rewards.merge(usable, on="video_id", validate="one_to_one")
    preferences = compare_own_clips(clips, [one.labelled_by for one in dimensions], parameters)
    if parameters.dimensions is None:
        dimensions = [one for one in dimensions if (preferences[f"{LABEL}{one.labelled_by}"] != "tie").any()]
        if left_out := sorted(set(known).difference(one.name for one in dimensions)):
            logger.warning("%s: all clips of a prompt have the same reward, so nothing is learned", ", ".join(left_out))
    return _labelled(preferences, video_index, dimensions, parameters, "sha256")


def pairs_of_people(
    preferences: pd.DataFrame, clips: pd.DataFrame, parameters: LatentRewardTrainingParameters
) -> pd.DataFrame:
    """Collect people's labels by criterion.

    Args:
        preferences: schema ``HumanPreferences``.
        clips: schema ``GivenClips``.
        parameters: dimensions, and the split.

    Returns:
        schema ``LatentRewardPairs``.

    Raises:
        InputError: as :func:`pairs_of_own_clips`.
    """
    known = criteria_of(preferences) or [OVERALL]
    dimensions = _dimensions(parameters, [*known, OVERALL], f"the preferences have no column {LABEL}", known)
    return _labelled(preferences, clips, dimensions, parameters, "content")


def _dimensions(
    parameters: LatentRewardTrainingParameters, known: Sequence[str], lack: str, default: Sequence[str] | None = None
) -> list[LatentDimensionParameters]:
    """Return the configured dimensions, or all.

    Raises:
        InputError: one is unknown, or there is none.
    """
    if parameters.dimensions is None:
        names = known if default is None else default
        if not names:
            raise InputError(
                f"{lack}<name>, so there is nothing to learn",
                field="latent_reward_training.dimensions",
                remedy="use rewards with dimensions",
            )
        return [LatentDimensionParameters(name=name) for name in names]
    for one in parameters.dimensions:
        if one.labelled_by not in known:
            raise InputError(
                f"{lack}{one.labelled_by} for the dimension '{one.name}'",
                field="latent_reward_training.dimensions",
                remedy=f"choose one of {', '.join(sorted(known))}",
            )
    return list(parameters.dimensions)


def compare_own_clips(
    clips: pd.DataFrame, criteria: Sequence[str], parameters: LatentRewardTrainingParameters
) -> pd.DataFrame:
    """Compare clips of the same prompt by their rewards.

    Args:
        clips: video_id, prompt_id, prompt, total, and dim_<criterion> of every criterion.
        criteria: names of dimensions.
        parameters: number of pairs, and width of ties.

    Returns:
        schema ``HumanPreferences``, with a label of every criterion.
    """
    ordered = clips.sort_values(["prompt_id", "video_id"], ignore_index=True, kind="stable")
    own, groups = parameters.own_pairs, ordered.groupby("prompt_id", sort=True).indices
    rows = [
        pair
        for prompt, members in groups.items()
        for pair in _drawn(
            str(prompt), np.asarray(members).tolist(), ordered["video_id"].astype(str), own, parameters.seed
        )
    ]
    first, second = np.array(rows, dtype=np.int64).reshape(-1, 2).T
    a, b = ordered.iloc[first].reset_index(drop=True), ordered.iloc[second].reset_index(drop=True)
    table = pd.DataFrame({"prompt": a["prompt"], "video_id_a": a["video_id"], "video_id_b": b["video_id"]})
    ends = zip(a["prompt_id"], a["video_id"], b["video_id"], strict=True)
    table.insert(0, "pair_id", [pair_id(*of_pair) for of_pair in ends])
    for column, name in {OVERALL: "total", **{f"{LABEL}{one}": f"{REWARD}{one}" for one in criteria}}.items():
        width = own.tie_width * float(ordered[name].std(ddof=0))
        apart = a[name].to_numpy(dtype=np.float64) - b[name].to_numpy(dtype=np.float64)
        # Sums of the same weights in another order differ in their last bits.
        width = max(width, 1e-9 * float(ordered[name].abs().max()))
        table[column] = np.where(np.abs(apart) <= width, "tie", np.where(apart > 0, "a", "b"))
    return table.assign(annotator="rewards", source="rewards of own clips")


def _drawn(
    prompt: str, members: list[int], names: pd.Series, parameters: OwnPairParameters, seed: int
) -> list[tuple[int, int]]:
    """Return the pairs of a prompt's clips with the smallest hashes."""
    pairs = list(combinations(members, 2))
    if parameters.pairs_per_prompt is None or len(pairs) <= parameters.pairs_per_prompt:
        return pairs
    order = {pair: sample_seed(seed, pair_id(prompt, names[pair[0]], names[pair[1]]), 0) for pair in pairs}
    return sorted(pairs, key=lambda pair: (order[pair], pair))[: parameters.pairs_per_prompt]


def _labelled(
    preferences: pd.DataFrame,
    index: pd.DataFrame,
    dimensions: Sequence[LatentDimensionParameters],
    parameters: LatentRewardTrainingParameters,
    content: str,
) -> pd.DataFrame:
    """Return the table of pairs; ``content`` is the index column with the hash of a clip."""
    named = [DimensionSettings(name=one.name, criterion=one.criterion) for one in dimensions]
    pairs = label_pairs(preferences, index, named, parameters)
    contents = index.set_index("video_id")[content]
    return pairs.table.assign(
        sha256_a=pairs.table["video_id_a"].map(contents),
        sha256_b=pairs.table["video_id_b"].map(contents),
        **{f"{LABEL_COLUMN}{name}": pairs.label[:, at] for at, name in enumerate(pairs.names)},
    )
