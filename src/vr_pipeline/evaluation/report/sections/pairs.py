"""Training pairs of every recipe, and pairs that dominance rejects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from vr_pipeline.errors import InputError
from vr_pipeline.evaluation.report import charts, elements
from vr_pipeline.evaluation.report.charts import Mark, Row
from vr_pipeline.evaluation.report.clips import room_for, side_by_side
from vr_pipeline.evaluation.report.elements import (
    Cell,
    Cells,
    ClipSet,
    Table,
    count,
    number,
    share,
    share_interval,
    sort_key,
)
from vr_pipeline.evaluation.report.wording import as_number, signed
from vr_pipeline.generators.policy import ORIGINAL

if TYPE_CHECKING:
    from vr_pipeline.evaluation.config import EvaluationParameters
    from vr_pipeline.items.folder import ItemFolder

CLIPS_BYTES = 1_500_000
"""Bytes of all clips here before base64."""

_FATES = {
    "candidates": "Candidates",
    "tied": "Equal totals",
    "rejected_by_rule": "Dropped: by the rule",
    "below_margin": "Dropped: below the margin",
    "over_cap": "Dropped: over the cap",
    "over_number": "Dropped: over the matched number",
    "selected": "Selected",
}


def make(
    titles: Mapping[str, str],
    report: Mapping[str, Any],
    audit: Mapping[str, Any] | None,
    baseline_pairs: pd.DataFrame,
    videos: ItemFolder,
    index: pd.DataFrame,
    parameters: EvaluationParameters,
) -> list[Markup]:
    """Show counts of the pairs, and examples of those of the baseline that do not dominate."""
    dimensions = list(dict.fromkeys(name for gaps in (report.get("mean_gap") or {}).values() for name in gaps))
    baseline = next(title for name, title in titles.items() if name != ORIGINAL)
    table, failing = rejected_pairs(baseline_pairs, dimensions, baseline)
    examples, room = room_for(failing.head(parameters.report.num_rejected_pairs).to_dict("records"), 2, CLIPS_BYTES)
    text = (
        "Examples by failing dimension in turn, largest difference of total reward first. Winner and loser are by "
        "total reward."
    )
    return [
        elements.paragraph(
            "DPO uses pairs by total reward. MPO uses a pair only if the winner is at least as good as the loser in "
            "every dimension."
        ),
        *(elements.table(counts) for counts in _counts(titles, report)),
        *([elements.table(_audited(titles, audit))] if audit else []),
        elements.heading("Pairs that MPO rejects"),
        elements.table(table),
        *_gaps(baseline_pairs, dimensions, baseline),
        *([elements.paragraph(text)] if examples else []),
        elements.clip_sets([_example(pair, videos, index, dimensions, room) for pair in examples]),
    ]


def _gaps(pairs: pd.DataFrame, dimensions: Sequence[str], recipe: str) -> list[Markup]:
    """Draw the gaps of the pairs that dominate and of the others."""
    dominates = pairs["dominates"].astype(bool)
    if dominates.all() or not dominates.any():
        return []
    parts = {4: ("dominating", pairs[dominates]), 6: ("worse in some dimension", pairs[~dominates])}
    rows = [
        Row(
            name,
            [
                Mark(series, middle, low, high, f"{text}, {name}: {signed(middle)} ({signed(low)} to {signed(high)})")
                for series, (text, part) in parts.items()
                for low, middle, high in [part[f"dim_{name}_gap"].astype(float).quantile([0.05, 0.5, 0.95]).tolist()]
            ],
        )
        for name in dimensions
    ]
    chart = charts.intervals_chart(
        f"Winner minus loser by dimension, pairs of {recipe}",
        rows,
        axis="reward gap: median, 5 to 95 % of the pairs",
        series=[(series, f"{text} ({len(part):,} pairs)") for series, (text, part) in parts.items()],
    )
    return [elements.chart(chart)]


def _counts(titles: Mapping[str, str], report: Mapping[str, Any]) -> list[Table]:
    """Count pairs by recipe as in Table 5 of the paper, also at matched numbers, and the fates of the candidates.

    Raises:
        InputError: the report of pair_selection lacks the strategies.
    """
    strategies = report.get("strategies")
    if not strategies:
        raise InputError(
            "the report of pair selection has no strategy",
            remedy="Run pair_selection again",
            field="pair_selection_report.strategies",
        )

    def by_title(records: Mapping[str, Any] | None) -> dict[str, Any]:
        return {title: records[name] for name, title in titles.items() if records and records.get(name)}

    entries = [(name, "as selected", record) for name, record in by_title(strategies).items()]
    matched = by_title(report.get("matched"))
    entries += [(name, "at the same number of pairs", record) for name, record in matched.items()]
    made = [
        Table(
            "Training pairs: does the winner dominate the loser in every dimension? (as in Table 5 of the paper)",
            ["Strategy", "Pairs taken", "Pairs", "Dominating", "Not dominating", "Not dominating, share"],
            [
                [
                    name,
                    what,
                    *(count(record[key]) for key in ("n", "dominating", "not_dominating")),
                    share(record["not_dominating"] / record["n"] if record["n"] else None),
                ]
                for name, what, record in entries
            ],
            words=("Pairs taken",),
        ),
        Table(
            "Result for every candidate pair",
            ["Strategy", *_FATES.values()],
            [
                [name, *(count(record["fates"].get(key, 0)) for key in _FATES)]
                for name, record in by_title(strategies).items()
                if record.get("fates")
            ],
        ),
    ]
    gaps = by_title(report.get("mean_gap"))
    dimensions = list(dict.fromkeys(name for record in gaps.values() for name in record))
    made.append(
        Table(
            "Mean gap of winner over loser by dimension (judge's reward)",
            ["Strategy", *dimensions],
            [
                [name, *(number(as_number(record.get(key)), 3, sign=True) for key in dimensions)]
                for name, record in gaps.items()
            ],
        )
    )
    return [table for table in made if table.rows]


def _audited(titles: Mapping[str, str], audit: Mapping[str, Any]) -> Table:
    """List the share of every recipe's pairs whose winner the auditor scores higher."""
    rows: list[Cells] = [
        [
            titles[name],
            share(record["rate"]),
            share_interval(record["ci_low"], record["ci_high"]),
            *(count(record[key]) for key in ("wins", "ties", "losses")),
        ]
        for name, record in ((name, audit[name]) for name in titles if name in audit)
    ]
    return Table(
        "Does the auditor, which selected no pair, score the winner higher? (a tie counts half; intervals by prompt)",
        ["Strategy", "Confirmed", "95 % interval", "Higher", "Equal", "Lower"],
        rows,
    )


def rejected_pairs(pairs: pd.DataFrame, dimensions: Sequence[str], recipe: str) -> tuple[Table, pd.DataFrame]:
    """Return the failing dimensions of pairs by total reward that do not dominate.

    Args:
        pairs: preference pairs by total reward, with dominates and dim_<name>_gap.
        dimensions: of the reward.
        recipe: title of their recipe.

    Returns:
        how often each dimension fails, and the failing pairs with their worst dimension, alternating dimensions, then
        by margin.
    """
    failing = pairs[~pairs["dominates"].astype(bool)].reset_index(drop=True)
    columns = [f"dim_{name}_gap" for name in dimensions]
    missing = [name for name in columns if name not in failing.columns]
    if missing:
        raise InputError(
            f"the preference pairs have no column '{missing[0]}'",
            remedy="Run pair_selection again after a change of the reward",
            field=missing[0],
        )
    gaps = failing[columns].to_numpy(dtype=np.float64).reshape(len(failing), len(columns))
    below = gaps < -1e-9
    table = Table(
        f"Dimensions in which the winner by total reward is worse ({len(failing):,} of {len(pairs):,} pairs of "
        f"{recipe})",
        ["Dimension", "Pairs that fail here", "Share", "Mean gap there"],
        [
            [
                name,
                count(int(below[:, i].sum())),
                share(float(below[:, i].mean()) if len(failing) else None),
                number(float(gaps[below[:, i], i].mean()) if below[:, i].any() else None, 3, sign=True),
            ]
            for i, name in enumerate(dimensions)
        ],
    )
    worst = gaps.argmin(axis=1) if len(failing) else np.empty(0, dtype=np.int64)
    failing = failing.assign(worst=[dimensions[i] for i in worst])
    failing = failing.sort_values(
        ["margin", "winner_video_id", "loser_video_id"], ascending=[False, True, True], kind="stable"
    )
    turn = failing.groupby("worst").cumcount()
    return table, failing.assign(turn=turn).sort_values("turn", kind="stable", ignore_index=True)


def _example(
    pair: Mapping[Any, Any], videos: ItemFolder, index: pd.DataFrame, dimensions: Sequence[str], room: int
) -> ClipSet:
    sides = {"Winner": str(pair["winner_video_id"]), "Loser": str(pair["loser_video_id"])}
    prompt, clips = side_by_side(sides, videos, index, room)
    gaps = {name: float(pair[f"dim_{name}_gap"]) for name in dimensions}
    failing = ", ".join(f"{name} ({signed(gap)})" for name, gap in gaps.items() if gap < -1e-9)
    table = Table(
        "Winner minus loser by dimension (judge's reward)",
        ["Dimension", "Gap"],
        [
            [name, Cell(signed(gap, 3), sort_key(gap), emphasis="warning" if gap < -1e-9 else "")]
            for name, gap in gaps.items()
        ],
    )
    note = f"Total {signed(float(pair['margin']))} in the winner's favour, but worse in {failing}."
    return ClipSet(prompt, note, clips, table)
