"""Which pairs of clips are shown, in which order, and which clip stands on which side.

Everything follows from a seed by hashing, so the order does not depend on the order of tables, and a study that is
opened again continues as it began.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash, pair_id

Order = Literal["random", "informative"]
_EQUAL = 1e-9


@dataclass(frozen=True)
class Clip:
    """A clip as it is asked about."""

    video_id: str
    file: str
    generator: str


@dataclass(frozen=True)
class Pair:
    """Two clips of one prompt; ``first`` has the smaller identifier, which says nothing about sides."""

    pair_id: str
    prompt_id: str
    prompt: str
    first: Clip
    second: Clip
    margin: float | None = None

    def sides(self, annotator: str, seed: int | str) -> tuple[Clip, Clip]:
        """Return left and right for an annotator: even chances, the same at every look.

        A server passes a secret as seed, since whoever knows the seed can compute the sides.
        """
        swapped = int(content_hash("sides", seed, annotator, self.pair_id), 16) % 2 == 1
        return (self.second, self.first) if swapped else (self.first, self.second)


def pairs_of_prompts(index: pd.DataFrame, *, per_prompt: int | None, seed: int) -> list[Pair]:
    """Return pairs among the clips of each prompt.

    Args:
        index: video index; clips of status 'failed' are left out.
        per_prompt: at most this many pairs of a prompt, drawn by hash; None takes all.
        seed: of that draw.
    """
    found: list[Pair] = []
    for prompt, rows in _usable(index).groupby("prompt_id", sort=True):
        clips = {str(row.video_id): row for row in rows.itertuples(index=False)}
        pairs = [
            _pair(str(prompt), str(clips[low].prompt), _clip(clips[low]), _clip(clips[high]))
            for low, high in combinations(sorted(clips), 2)
        ]
        found += sorted(pairs, key=lambda pair: _draw(seed, pair.pair_id))[:per_prompt]
    return found


def named_pairs(index: pd.DataFrame, preferences: pd.DataFrame) -> list[Pair]:
    """Return the pairs that a table of preferences compares, each once, as far as both clips are usable."""
    clips = {str(row.video_id): row for row in _usable(index).itertuples(index=False)}
    found: dict[str, Pair] = {}
    for first, second in zip(preferences["video_id_a"], preferences["video_id_b"], strict=True):
        low, high = sorted((str(first), str(second)))
        if low in clips and high in clips:
            row = clips[low]
            pair = _pair(str(row.prompt_id), str(row.prompt), _clip(row), _clip(clips[high]))
            found[pair.pair_id] = pair
    return list(found.values())


def policy_pairs(index: pd.DataFrame, policies: tuple[str, str]) -> list[Pair]:
    """Return clips of two policies for the same prompt and seed.

    Raises:
        InputError: a policy has no clips, or the two have none in common.
    """
    usable = _usable(index)
    known = sorted(set(usable["policy"]))
    for policy in policies:
        if policy not in known:
            raise InputError(
                f"there are no evaluation clips of the policy '{policy}'",
                remedy=f"choose two of {', '.join(known) or 'none'}, or run the pipeline evaluation",
                field="--policies",
            )
    if policies[0] == policies[1]:
        raise InputError("a policy is compared with itself", remedy="name two different ones", field="--policies")
    by_place: dict[tuple[str, int], dict[str, object]] = defaultdict(dict)
    chosen = usable[usable["policy"].isin(policies)]
    for row, sample in zip(chosen.itertuples(index=False), chosen["sample_index"].to_numpy(dtype=int), strict=True):
        by_place[str(row.prompt_id), int(sample)][str(row.policy)] = row
    found = []
    for (prompt, _), rows in sorted(by_place.items()):
        if len(rows) == 2:
            one, other = sorted(
                (_clip(row, generator=policy) for policy, row in rows.items()), key=lambda clip: clip.video_id
            )
            found.append(_pair(prompt, str(rows[policies[0]].prompt), one, other))  # type: ignore[attr-defined]
    if not found:
        raise InputError(
            "the two policies have no clip of the same prompt and seed",
            remedy="run the pipeline evaluation again",
            field="--policies",
        )
    return found


def with_margins(pairs: Sequence[Pair], rewards: pd.DataFrame) -> list[Pair]:
    """Return pairs with the predicted difference of rewards; pairs whose dimensions all agree have none.

    Such two clips have the same answers as far as the reward can tell: a person's choice between them says nothing
    about the weights, though their margin of 0 is the smallest of all.

    Raises:
        InputError: a clip has no reward.
    """
    columns = ["total", *(str(name) for name in rewards.columns if str(name).startswith("dim_"))]
    values: Mapping[str, tuple[float, ...]] = {
        str(row[0]): tuple(float(value) for value in row[1:])
        for row in rewards[["video_id", *columns]].itertuples(index=False, name=None)
    }
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
    """Return the pairs to show, first to last.

    Args:
        pairs: with margins for the order 'informative'.
        order: 'random' goes round the prompts, a pair of each in turn; 'informative' begins with the smallest margin,
            and pairs that say nothing about the weights come last.
        seed: of the random order, and of the order among equal margins.
        limit: number of pairs; None shows all.
    """
    shuffled = sorted(pairs, key=lambda pair: _draw(seed, pair.pair_id))
    if order == "informative":
        shuffled.sort(key=lambda pair: (pair.margin is None, round(pair.margin or 0.0, 9)))
        return shuffled[:limit]
    turn: dict[str, int] = defaultdict(int)
    placed = []
    for pair in shuffled:
        placed.append((turn[pair.prompt_id], pair))
        turn[pair.prompt_id] += 1
    placed.sort(key=lambda item: item[0])
    return [pair for _, pair in placed[:limit]]


def _usable(index: pd.DataFrame) -> pd.DataFrame:
    return index[index["status"] == "ok"]


def _clip(row: object, *, generator: str | None = None) -> Clip:
    return Clip(
        str(row.video_id),  # type: ignore[attr-defined]
        str(row.path),  # type: ignore[attr-defined]
        generator if generator is not None else str(row.generator),  # type: ignore[attr-defined]
    )


def _pair(prompt_identifier: str, prompt: str, first: Clip, second: Clip) -> Pair:
    return Pair(pair_id(prompt_identifier, first.video_id, second.video_id), prompt_identifier, prompt, first, second)


def _draw(seed: int, pair: str) -> str:
    return content_hash("order", seed, pair)
