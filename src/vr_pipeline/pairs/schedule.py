"""Pairs of candidates to compare in a group: neighbours, all pairs, or rounds of random partners."""

from collections.abc import Iterator, Sequence
from itertools import combinations, islice

import pandas as pd

from vr_pipeline.identifiers import content_hash
from vr_pipeline.pairs.config import PairRankingParameters

COLUMNS = ("prompt_id", "video_id_a", "video_id_b")

Pair = tuple[str, str]


def scheduled_pairs(index: pd.DataFrame, parameters: PairRankingParameters, group_size: int | None) -> pd.DataFrame:
    """Return the pairs of clips to compare.

    A group of n clips has ``n // 2`` pairs of neighbours, ``n (n - 1) / 2`` pairs in total, or ``number`` random pairs
    if there are as many.

    Args:
        index: schema ``VideoIndex``; clips of status 'failed' are ignored.
        parameters: the kind of pairs.
        group_size: pairs only within blocks of this many consecutive samples of a prompt; None for the whole prompt.

    Returns:
        prompt_id, video_id_a (the earlier sample) and video_id_b; sorted by prompt and sample, independent of the
        order of rows and of other prompts.
    """
    usable = index[index["status"] == "ok"].sort_values(["prompt_id", "sample_index", "video_id"], kind="stable")
    block = usable["sample_index"] // group_size if group_size else usable["sample_index"] * 0
    rows: list[tuple[str, str, str]] = []
    for (prompt, _), of_group in usable.groupby([usable["prompt_id"], block], sort=True):
        names = [str(name) for name in of_group["video_id"]]
        place = {name: at for at, name in enumerate(names)}
        pairs = sorted(tuple(sorted((place[a], place[b]))) for a, b in _pairs(names, parameters))
        rows += [(str(prompt), names[a], names[b]) for a, b in pairs]
    return pd.DataFrame(rows, columns=list(COLUMNS), dtype=str)


def _pairs(names: Sequence[str], parameters: PairRankingParameters) -> list[Pair]:
    if parameters.pairs == "all":
        return list(combinations(names, 2))
    if parameters.pairs == "adjacent":
        return list(zip(names[::2], names[1::2], strict=False))
    number = len(names) // 2 if parameters.number is None else parameters.number
    return list(islice(_rounds(sorted(names, key=lambda name: content_hash(parameters.seed, name))), number))


def _rounds(names: Sequence[str]) -> Iterator[Pair]:
    """Yield all pairs in rounds with one partner per clip, by the circle method of tournaments.

    The first clip stays, the others move by one place per round; if their number is odd, one has no partner.
    """
    seats: list[str | None] = [*names, *([None] if len(names) % 2 else [])]
    half = len(seats) // 2
    for _ in range(len(seats) - 1):
        for a, b in zip(seats[:half], seats[: half - 1 : -1], strict=True):
            if a is not None and b is not None:
                yield a, b
        seats[1:] = [seats[-1], *seats[1:-1]]
