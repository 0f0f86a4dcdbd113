"""Comparisons of generated clips as long work: all pairs of a prompt are compared and stored together."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash
from vr_pipeline.rewards.contract import Ranker
from vr_pipeline.video.clip import VideoReadError
from vr_pipeline.video.sampled import SampledClip, Sampling, sample_clips
from vr_pipeline.work import ItemFailure, WorkItem, WorkPlan

logger = logging.getLogger(__name__)

_VERSION = "comparisons 1"
_READERS = 4
_SIDES = ("video_id_a", "video_id_b")
_FAILED = {"p_a": 0.0, "p_b": 0.0, "p_tie": 1.0, "position_bias": 0.0, "outside_mass": 0.0, "better": "tie"}
"""The columns of every comparison, with the values of a failed one, whose row is dropped later."""

Pair = tuple[str, str]


def plan_comparisons(ranker: Ranker, videos: Any, index: pd.DataFrame, pairs: pd.DataFrame) -> WorkPlan:
    """Plan comparisons of clips; an item is all pairs of one prompt.

    A resumed run compares the missing prompts only. The identity of an item depends on the ranker, the pairs, and the
    content and prompt of their clips.

    Args:
        ranker: compares the clips.
        videos: the folder of clips.
        index: schema ``VideoIndex``.
        pairs: prompt_id, video_id_a and video_id_b, as :func:`vr_pipeline.pairs.schedule.scheduled_pairs` lists them.

    Returns:
        a plan whose items are tables of comparisons; a failed comparison has the reason in ``error``.

    Raises:
        InputError: a pair names a clip that is not in the index or failed.
    """
    usable = index[index["status"] == "ok"]
    clips: dict[str, Mapping[str, Any]] = {
        str(row["video_id"]): {str(name): value for name, value in row.items()}
        for row in usable[["video_id", "prompt", "path", "sha256"]].to_dict("records")
    }
    of_prompt: dict[str, list[Pair]] = {}
    for prompt, a, b in pairs[["prompt_id", *_SIDES]].itertuples(index=False):
        for name in (a, b):
            if name not in clips:
                raise InputError(
                    f"clip '{name}' of a pair is not in the clip index",
                    remedy="Make the list of pairs again from these clips",
                    field="pairs",
                )
        of_prompt.setdefault(str(prompt), []).append((str(a), str(b)))
    identity, groups, items = ranker.identity, {}, []
    for prompt, listed in sorted(of_prompt.items()):
        shown = [clips[name] for name in dict.fromkeys(name for pair in listed for name in pair)]
        key = content_hash("comparisons", prompt)
        groups[key] = (shown, listed)
        contents = [str(clip[name]) for clip in shown for name in ("video_id", "sha256", "prompt")]
        made_of = content_hash(_VERSION, identity, *contents, "pairs", *(name for pair in listed for name in pair))
        cost = {"clips": len(shown), "comparisons": len(listed), "requests": requests(ranker, len(shown), len(listed))}
        items.append(WorkItem(key, made_of, {"ranker": identity, **cost}))

    def make_batch(sampling: Sampling | None, batch: Sequence[WorkItem]) -> list[pd.DataFrame | ItemFailure]:
        return [_compare_prompt(ranker, sampling, videos, *groups[item.key]) for item in batch]

    return WorkPlan(
        items,
        make_batch,
        batch_size=1,
        description=f"prompts ({len(pairs):,} comparisons)",
        setup=ranker.sampling,
    )


def requests(ranker: Ranker, clips: int, pairs: int) -> int:
    """Return the number of model requests: one per clip, or one per pair and order."""
    return pairs * ranker.orders if ranker.orders else clips


def collect_comparisons(stored: Any, index: pd.DataFrame) -> pd.DataFrame:
    """Return all stored comparisons in one table, without failed ones, which are logged.

    Args:
        stored: folder made by :func:`plan_comparisons`.
        index: the clips.

    Returns:
        schema ``Comparisons``, sorted by prompt, in the order in which pairs were listed.

    Raises:
        InputError: all comparisons failed.
    """
    keys = stored.keys
    if not keys:
        empty = {name: pd.Series(dtype=type(value)) for name, value in _FAILED.items()}
        named = {name: pd.Series(dtype=str) for name in ("prompt_id", *_SIDES)}
        return pd.DataFrame({**named, **empty, "ranker": pd.Series(dtype=str)})
    table = stored.load_joined(keys)
    failed = table[table["error"] != ""]
    for a, b, error in failed[[*_SIDES, "error"]].head(5).itertuples(index=False):
        logger.warning("Clips %s and %s were not compared: %s", a, b, error)
    if len(failed):
        logger.warning("%d of %d comparisons failed and were dropped.", len(failed), len(table))
    if len(failed) == len(table):
        raise InputError(
            f"all comparisons failed; the first reason: {failed['error'].iloc[0]}",
            remedy="Correct this, then run again",
        )
    made = table[table["error"] == ""].drop(columns="error").reset_index(drop=True)
    prompts = index.set_index("video_id")["prompt_id"]
    made.insert(0, "prompt_id", made["video_id_a"].map(prompts).to_numpy())
    return made.sort_values("prompt_id", kind="stable", ignore_index=True)


def _compare_prompt(
    ranker: Ranker,
    sampling: Sampling | None,
    videos: Any,
    clips: Sequence[Mapping[str, Any]],
    pairs: Sequence[Pair],
) -> pd.DataFrame | ItemFailure:
    """Read the clips of a prompt and compare its pairs.

    A pair with a clip that cannot be decoded or ranked has a row with the reason. If clips decode but no pair can be
    compared, the clips may not be the cause: the item counts as failed, and the next run tries it again.
    """
    read = dict(
        zip((str(clip["video_id"]) for clip in clips), sample_clips(videos, clips, sampling, _READERS), strict=True)
    )
    shown = {name: clip for name, clip in read.items() if isinstance(clip, SampledClip)}
    possible = [(a, b) for a, b in pairs if a in shown and b in shown]
    compared = _compared(ranker, shown, possible, str(clips[0]["prompt"]))
    if possible and all(isinstance(one, InputError) for one in compared):
        return ItemFailure(str(compared[0]))
    of_pair = dict(zip(possible, compared, strict=True))
    rows = []
    for pair in pairs:
        one = of_pair.get(pair) or next(read[name] for name in pair if isinstance(read[name], VideoReadError))
        names = dict(zip(_SIDES, pair, strict=True))
        if isinstance(one, dict):
            rows.append({**names, **one, "ranker": ranker.identity, "error": ""})
        else:
            rows.append({**names, **_FAILED, "ranker": ranker.identity, "error": str(one)})
    return pd.DataFrame(rows)


def _compared(
    ranker: Ranker, clips: Mapping[str, SampledClip], pairs: Sequence[Pair], prompt: str
) -> list[dict[str, Any] | InputError]:
    """Return the comparison of each pair, or why there is none."""
    if not pairs:
        return []
    needed = {name: clips[name] for name in dict.fromkeys(name for pair in pairs for name in pair)}
    try:
        table = ranker.compare_group(needed, pairs, prompt)
    except InputError as error:
        if len(pairs) == 1:
            return [error]
        # Compare pair by pair, so that only the pairs at fault fail.
        return [one for pair in pairs for one in _compared(ranker, clips, [pair], prompt)]
    if "outside_mass" not in table:
        table = table.assign(outside_mass=0.0)
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
