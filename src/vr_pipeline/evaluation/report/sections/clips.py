"""Clips of every policy side by side, from the same prompts and seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd
from markupsafe import Markup

from vr_pipeline.evaluation.metrics import rewards_by_source
from vr_pipeline.evaluation.report import elements
from vr_pipeline.evaluation.report.clips import embed_clip, room_for
from vr_pipeline.evaluation.report.comparison import SOURCES, dimensions_of
from vr_pipeline.evaluation.report.elements import ClipSet, ShownClip, Table, number
from vr_pipeline.evaluation.report.wording import plain, signed
from vr_pipeline.generators.policy import ORIGINAL
from vr_pipeline.identifiers import content_hash

if TYPE_CHECKING:
    from vr_pipeline.evaluation.config import EvaluationParameters, ReportParameters
    from vr_pipeline.items.folder import ItemFolder

CLIPS_BYTES = 4_800_000
"""Bytes of all clips here before base64, so that the whole page stays under 10 MB."""

_BUTTONS = Markup(
    '<p id="clip-buttons" hidden><button type="button" id="play-all">Play all</button> '
    '<button type="button" id="pause-all">Pause all</button> '
    '<button type="button" id="slow" aria-pressed="false">Quarter speed</button></p>'
)


def make(
    titles: Mapping[str, str],
    videos: ItemFolder,
    index: pd.DataFrame,
    judge_rewards: pd.DataFrame,
    oracle_rewards: pd.DataFrame,
    auditor_rewards: pd.DataFrame | None,
    parameters: EvaluationParameters,
) -> list[Markup]:
    """Show the clips of some held-out prompts with their rewards, one set per prompt and seed."""
    tables = rewards_by_source(judge_rewards, oracle_rewards, auditor_rewards)
    rewards = {source: table.set_index("video_id").to_dict("index") for source, table in tables.items()}
    shown, room = room_for(_chosen(index, parameters.report), len(titles), CLIPS_BYTES)
    names = dict.fromkeys(name for table in tables.values() for name in dimensions_of(table))
    columns = [f"dim_{name}" for name in names] + ["total"]
    prompts = len({str(rows["prompt_id"].iloc[0]) for rows in shown})
    text = (
        f"{prompts} of {index['prompt_id'].nunique():,} held-out prompts, chosen by a hash of their identifier. The "
        "clips of a row have the same prompt and noise. They are re-encoded for browsers (small ones enlarged without "
        "smoothing); rewards are those of the original files. "
    )
    if rewards:
        text += "Numbers are total rewards, with the difference from the original's clip in brackets."
    sets = [_clip_set(titles, rows, videos, rewards, columns, room) for rows in shown]
    nothing = [] if sets else [elements.paragraph("No clips were requested.")]
    return [elements.paragraph(text), _BUTTONS, *nothing, elements.clip_sets(sets)]


def _chosen(index: pd.DataFrame, parameters: ReportParameters) -> list[pd.DataFrame]:
    """Choose the clips to show, one table per prompt and seed, with prompts chosen by a hash."""
    sets = index.groupby(["prompt_id", "sample_index"])
    order = sorted(index["prompt_id"].unique(), key=lambda name: content_hash("shown prompt", str(name)))
    chosen = []
    for prompt in order[: parameters.num_prompts]:
        seeds = sorted(index.loc[index["prompt_id"] == prompt, "sample_index"].unique())
        chosen += [sets.get_group((prompt, seed)) for seed in seeds[: parameters.clips_per_prompt]]
    return chosen


def _clip_set(
    titles: Mapping[str, str],
    rows: pd.DataFrame,
    videos: ItemFolder,
    rewards: Mapping[str, Mapping[Any, Mapping[Any, Any]]],
    columns: list[str],
    room: int,
) -> ClipSet:
    by_policy: dict[str, Any] = {str(row["policy"]): row for row in rows.to_dict("records")}
    first = next(iter(by_policy.values()))
    prompt, sample = str(first["prompt"]), int(first["sample_index"])

    def score(source: str, policy: str, column: str) -> float:
        row = rewards[source].get(by_policy[policy]["video_id"]) if policy in by_policy else None
        return math.nan if row is None else float(row.get(column, math.nan))

    shown = []
    for policy, heading in titles.items():
        row = by_policy.get(policy)
        if row is None or row["status"] != "ok":
            problem = "There is no such clip." if row is None else f"This clip failed: {row['error']}"
            shown.append(ShownClip(heading, problem=problem))
            continue
        facts = []
        for source in rewards:
            value = score(source, policy, "total")
            gain = value - score(source, ORIGINAL, "total")
            change = f"({signed(gain)})" if policy != ORIGINAL and math.isfinite(gain) else ""
            facts.append((f"{SOURCES[source]} {plain(value)}", change))
        clip = embed_clip(videos.load(str(row["video_id"])), fps=float(row["fps"]), max_bytes=room)
        shown.append(ShownClip(heading, f"{heading}: {prompt} (sample {sample})", clip, facts))
    table = Table(
        "Rewards of these clips by dimension",
        ["Dimension", *(f"{title}, {source}" for title in titles.values() for source in rewards)],
        [
            [
                name.removeprefix("dim_"),
                *(number(score(source, policy, name)) for policy in titles for source in rewards),
            ]
            for name in columns
        ],
    )
    return ClipSet(prompt, f"Sample {sample}, seed {int(first['seed'])}", shown, table)
