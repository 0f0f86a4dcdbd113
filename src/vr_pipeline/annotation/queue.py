"""Pairs of clips, their order, and the sides of clips, all by hashes of a seed, so that a study can be reopened."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal

import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash, pair_id

Order = Literal["random", "informative", "active", "disagreement"]
_EQUAL = 1e-9


@dataclass(frozen=True)
class Clip:
    """A clip of a pair."""

    video_id: str
    file: str
    generator: str


@dataclass(frozen=True)
class Pair:
    """Two clips of one prompt; ``first`` has the smaller identifier, independent of sides."""

    pair_id: str
    prompt_id: str
    prompt: str
    first: Clip
    second: Clip
    margin: float | None = None

    def sides(self, annotator: str, seed: int | str) -> tuple[Clip, Clip]:
        """Return left and right for an annotator, by a hash; a secret seed keeps sides unpredictable."""
        swapped = int(content_hash("sides", seed, annotator, self.pair_id), 16) % 2 == 1
        return (self.second, self.first) if swapped else (self.first, self.second)


def pairs_of_prompts(index: pd.DataFrame, *, per_prompt: int | None, seed: int, across: bool = False) -> list[Pair]:
    """Return pairs among the clips of each prompt.

    Args:
        index: video index; clips of status 'failed' are skipped.
        per_prompt: largest number of pairs per prompt, drawn by a hash; None for all.
        seed: of the hash.
        across: only pairs of different generators.

    Raises:
        InputError: with ``across``, no prompt has clips of two generators.
    """
    found: list[Pair] = []
    for _, rows in _usable(index).groupby("prompt_id", sort=True):
        pairs = [_pair(one, other) for one, other in combinations(_by_identifier(rows).values(), 2)]
        pairs = [pair for pair in pairs if not across or pair.first.generator != pair.second.generator]
        found += sorted(pairs, key=lambda pair: _draw(seed, pair.pair_id))[:per_prompt]
    if across and not found:
        raise InputError(
            "no prompt has clips of two generators",
            remedy="add a generator to preference_generators, or give a folder of clips with the same prompts",
            field="--source",
        )
    return found


def named_pairs(index: pd.DataFrame, preferences: pd.DataFrame) -> list[Pair]:
    """Return the pairs of a table of preferences with two usable clips, each once."""
    clips = _by_identifier(_usable(index))
    named = zip(preferences["video_id_a"].astype(str), preferences["video_id_b"].astype(str), strict=True)
    found = [_pair(clips[min(two)], clips[max(two)]) for two in named if clips.keys() >= set(two)]
    return list({pair.pair_id: pair for pair in found}.values())


def policy_pairs(index: pd.DataFrame, policies: tuple[str, str]) -> list[Pair]:
    """Return pairs of clips of two policies with the same prompt and seed.

    Raises:
        InputError: a policy has no clips, or there are no such pairs.
    """
    usable = _usable(index)
    known = sorted(set(usable["policy"]))
    for policy in policies:
        if policy not in known:
            raise InputError(
                f"policy '{policy}' has no evaluation clips",
                remedy=f"use two of {', '.join(known) or 'none'}, or run the pipeline evaluation",
                field="--policies",
            )
    if policies[0] == policies[1]:
        raise InputError("a policy is compared with itself", remedy="give two different ones", field="--policies")
    chosen = usable[usable["policy"].isin(policies)].sort_values(
        "policy", key=lambda names: names != policies[0], kind="stable"
    )
    places = chosen.groupby(["prompt_id", "sample_index"], sort=True)
    found = [_pair(*rows.to_dict("records")) for _, rows in places if len(rows) == 2]
    if not found:
        raise InputError(
            "the policies have no clips with the same prompt and seed",
            remedy="run the pipeline evaluation again",
            field="--policies",
        )
    return found


def with_margins(pairs: Sequence[Pair], rewards: pd.DataFrame) -> list[Pair]:
    """Return pairs with the predicted difference of rewards, or None if all dimensions are equal.

    Clips with equal dimensions have the same answers, so a choice between them does not inform the weights.

    Raises:
        InputError: a clip has no reward.
    """
    columns = ["total", *(name for name in rewards.columns if str(name).startswith("dim_"))]
    numbers = rewards[columns].to_numpy(dtype=float).tolist()
    values = dict(zip(rewards["video_id"].astype(str), numbers, strict=True))
    result = []
    for pair in pairs:
        for clip in (pair.first, pair.second):
            if clip.video_id not in values:
                raise InputError(
                    f"clip '{clip.video_id}' has no reward, so its pairs cannot be ordered by margin",
                    remedy="run the pipelines up to weight_regression (or evaluation) again, or use --order random",
                    field="--order",
                )
        one, other = values[pair.first.video_id], values[pair.second.video_id]
        differs = any(abs(x - y) > _EQUAL for x, y in zip(one, other, strict=True))
        result.append(replace(pair, margin=abs(one[0] - other[0]) if differs else None))
    return result


def ordered(pairs: Sequence[Pair], order: Order, *, seed: int, limit: int | None) -> list[Pair]:
    """Return the pairs in the order shown.

    Args:
        pairs: with margins for the order 'informative'.
        order: 'random' alternates prompts; 'informative' starts with the smallest margins and ends with pairs without
            margin. For others see :mod:`vr_pipeline.annotation.choice`.
        seed: of the random order, also among equal margins.
        limit: largest number of pairs; None for all.
    """
    shuffled = sorted(pairs, key=lambda pair: _draw(seed, pair.pair_id))
    if order == "informative":
        shuffled.sort(key=lambda pair: (pair.margin is None, round(pair.margin or 0.0, 9)))
        return shuffled[:limit]
    turn: dict[str, int] = defaultdict(int)
    turns = []
    for pair in shuffled:
        turns.append(turn[pair.prompt_id])
        turn[pair.prompt_id] += 1
    return [shuffled[at] for at in sorted(range(len(turns)), key=turns.__getitem__)[:limit]]


def _usable(index: pd.DataFrame) -> pd.DataFrame:
    return index[index["status"] == "ok"]


def _by_identifier(index: pd.DataFrame) -> dict[str, dict[Hashable, Any]]:
    return {str(row["video_id"]): row for row in index.sort_values("video_id", kind="stable").to_dict("records")}


def _pair(one: Mapping[Hashable, Any], other: Mapping[Hashable, Any]) -> Pair:
    """Return two clips with the prompt of the first; the policy replaces the generator."""
    clips = [
        Clip(str(row["video_id"]), str(row["path"]), str(row.get("policy", row["generator"]))) for row in (one, other)
    ]
    first, second = sorted(clips, key=lambda clip: clip.video_id)
    identifier = str(one["prompt_id"])
    return Pair(pair_id(identifier, first.video_id, second.video_id), identifier, str(one["prompt"]), first, second)


def _draw(seed: int, pair: str) -> str:
    return content_hash("order", seed, pair)
