"""Compared pairs with the answers of all rewards: one row per pair, criterion and reward."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.evaluation.benchmark.config import RewardBenchmarkParameters
from vr_pipeline.preferences.criteria import OVERALL, aggregate_criterion, criteria_of
from vr_pipeline.preferences.labels import split_by_prompt, usable_pairs
from vr_pipeline.statistics.clustered import linked_prompts

TOTAL = "total"


def labelled_pairs(
    preferences: pd.DataFrame, index: pd.DataFrame, parameters: RewardBenchmarkParameters
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the pairs of all sources and criteria with their labels, and the unusable pairs.

    Args:
        preferences: of all sources, with the column ``source``.
        index: their clips.
        parameters: share of validation.

    Returns:
        pair_id, source, criterion, prompt_id, unit (shared by prompts with shared clips), video_id_a, video_id_b,
        preference, split ('validation' or 'test'), generators, seconds (mean length of both clips) and length_gap (A
        minus B, seconds), with clips in the order of their identifiers; shown_first is 1 if the file lists A first,
        else -1. Then the unusable pairs.

    Raises:
        InputError: no pair of a source has two readable clips.
    """
    clips = index.set_index("video_id")
    seconds = (clips["num_frames"] / clips["fps"].where(clips["fps"] > 0)).fillna(0.0)
    parts, dropped = [], []
    for source, of_source in preferences.groupby("source", sort=True):
        for criterion in (OVERALL, *criteria_of(of_source)):
            aggregated = aggregate_criterion(of_source, criterion)
            if not len(aggregated):
                continue
            pairs, unusable = usable_pairs(aggregated, index)
            if criterion == OVERALL:
                dropped.append(unusable.assign(source=source))
                if not len(pairs):
                    raise InputError(
                        f"no pair of the source '{source}' has two readable clips",
                        remedy="See the column 'error' of benchmark_video_index",
                        field=f"sources.{source}",
                    )
            parts.append(pairs.assign(source=source, criterion=criterion))
    table = pd.concat(parts, ignore_index=True)
    table["unit"] = linked_prompts(table["prompt_id"], table["video_id_a"], table["video_id_b"])
    table["split"] = "test"
    for _, rows in table.groupby("source", sort=True):
        units = rows["unit"] if rows["unit"].nunique() > 1 else rows["prompt_id"]
        if units.nunique() > 1:
            side = split_by_prompt(units, parameters.validation_share, parameters.seed)
            table.loc[rows.index, "split"] = side.map({"held_out": "validation", "fit": "test"})
    listed = preferences.drop_duplicates("pair_id").set_index("pair_id")["video_id_a"]
    table["shown_first"] = np.where(table["video_id_a"] == table["pair_id"].map(listed), 1.0, -1.0)
    made_by = clips["generator"].astype(str)
    ends = [table[f"video_id_{side}"].map(made_by) for side in "ab"]
    table["generators"] = [" / ".join(sorted(two)) for two in zip(*ends, strict=True)]
    lengths = [table[f"video_id_{side}"].map(seconds).to_numpy(dtype=np.float64) for side in "ab"]
    table["seconds"], table["length_gap"] = (lengths[0] + lengths[1]) / 2, lengths[0] - lengths[1]
    columns = ["pair_id", "source", "criterion", "prompt_id", "unit", "video_id_a", "video_id_b", "preference"]
    return table[[*columns, "split", "generators", "seconds", "length_gap", "shown_first"]], pd.concat(
        dropped, ignore_index=True
    )


def compared_pairs(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return every pair of clips once, for models that compare."""
    return pairs.drop_duplicates(["prompt_id", "video_id_a", "video_id_b"])[
        ["prompt_id", "video_id_a", "video_id_b"]
    ].sort_values(["prompt_id", "video_id_a", "video_id_b"], ignore_index=True, kind="stable")


def judged_pairs(
    pairs: pd.DataFrame,
    scores: pd.DataFrame,
    comparisons: Mapping[str, pd.DataFrame],
    parameters: RewardBenchmarkParameters,
) -> pd.DataFrame:
    """Return the answers of every reward to every pair.

    Args:
        pairs: from :func:`labelled_pairs`.
        scores: from :func:`~vr_pipeline.evaluation.benchmark.measured.score_table`.
        comparisons: of models that compare, by reward.
        parameters: rewards, and their dimensions by criterion.

    Returns:
        the columns of ``pairs`` and reward, dimension, difference (A minus B; p_a - p_b of a comparison), answer ('a',
        'b', 'tie' of a comparison, else empty) and position_bias, without pairs that a reward could not judge.
    """
    parts = []
    for name, given in parameters.rewards.items():
        for criterion, of_criterion in pairs.groupby("criterion", sort=False):
            if given.baseline is not None:
                always = of_criterion["shown_first"] if given.baseline == "always_first" else 0.0
                judged = of_criterion.assign(difference=always, answer="", position_bias=0.0)
                dimension: str = given.baseline
            elif given.compare:
                judged, dimension = _compared(of_criterion, comparisons[name]), "comparison"
            else:
                own = scores[scores["reward"] == name]
                dimension = _dimension(str(criterion), given.criteria, set(own["dimension"]))
                judged = _scored(of_criterion, own[own["dimension"] == dimension].set_index("video_id")["score"])
            parts.append(judged.assign(reward=name, dimension=dimension))
    return pd.concat(parts, ignore_index=True)


def _dimension(criterion: str, mapped: Mapping[str, str], dimensions: set[str]) -> str:
    """Return the dimension for a criterion: the configured one, else one of the same name, else the total."""
    if criterion == OVERALL:
        return mapped.get(criterion, TOTAL)
    if criterion in mapped:
        if mapped[criterion] not in dimensions:
            raise InputError(
                f"the reward has no dimension '{mapped[criterion]}'",
                remedy=f"Use one of {', '.join(sorted(dimensions))}",
                field=f"reward_benchmark.rewards.criteria.{criterion}",
            )
        return mapped[criterion]
    alike = [name for name in sorted(dimensions) if name.casefold() == criterion.casefold()]
    return alike[0] if alike else TOTAL


def _scored(pairs: pd.DataFrame, score_of: pd.Series) -> pd.DataFrame:
    first, second = (pairs[f"video_id_{side}"].map(score_of).to_numpy(dtype=np.float64) for side in "ab")
    difference = first - second
    judged = pairs.assign(difference=difference, answer="", position_bias=0.0)
    return judged[np.isfinite(difference)]


def _compared(pairs: pd.DataFrame, comparisons: pd.DataFrame) -> pd.DataFrame:
    keys = ["prompt_id", "video_id_a", "video_id_b"]
    answer = comparisons[[*keys, "p_a", "p_b", "better", "position_bias"]]
    judged = pairs.merge(answer, on=keys, how="inner")
    judged["difference"] = judged["p_a"] - judged["p_b"]
    return judged.rename(columns={"better": "answer"}).drop(columns=["p_a", "p_b"])
