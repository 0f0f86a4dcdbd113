"""Comparisons of clips: numbers, cost, position bias, and the result of sifting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from vr_pipeline.evaluation.report import elements
from vr_pipeline.evaluation.report.clips import room_for, side_by_side
from vr_pipeline.evaluation.report.elements import ClipSet, Finding, Table, counted_rows, interval, number, share
from vr_pipeline.evaluation.report.wording import as_number, counted, percent, plain, signed

if TYPE_CHECKING:
    from vr_pipeline.evaluation.config import EvaluationParameters
    from vr_pipeline.items.folder import ItemFolder

CLIPS_BYTES = 400_000
"""Bytes of all clips here before base64."""

MANY_FLIPS = 0.1
"""Share of answers that change with the order, above which the page warns."""

_PLANNED = {
    "prompts": "Prompts",
    "clips": "Clips looked at",
    "comparisons": "Comparisons planned",
    "requests": "Requests (each clip alone, or each order of each pair)",
    "compared": "Comparisons made",
    "failed": "Comparisons that failed",
}
_GROUPS = {
    "groups": "Groups of candidates",
    "selected": "Pairs taken",
    "groups_not_compared": "Without a comparison",
    "groups_undecided": "Undecided: ties only, or as many wins as losses",
    "groups_disagreeing": "Points disagree: no winner has more points than a loser",
    "groups_below_margin": "Below the margin",
    "groups_over_number": "Over the matched number",
}


def make(
    titles: Mapping[str, str],
    comparisons: pd.DataFrame,
    ranking: Mapping[str, Any],
    selection: Mapping[str, Any],
    videos: ItemFolder,
    index: pd.DataFrame,
    parameters: EvaluationParameters,
) -> list[Markup]:
    """Show number and cost of comparisons, ties, position bias, kept pairs, and examples."""
    sifted = {
        name: record["fates"]
        for name, record in (selection.get("strategies") or {}).items()
        if "groups_undecided" in (record.get("fates") or {})
    }
    planned = {title: ranking[name] for name, title in _PLANNED.items()}
    examples = _examples(comparisons, parameters.report.num_rejected_pairs)
    shown, room = room_for(examples, 2, CLIPS_BYTES)
    return [
        elements.paragraph(
            "Clips of a prompt were compared in pairs. The training pair is the best winner and the worst loser by "
            "points, if points and comparisons agree."
        ),
        elements.findings(_remarks(ranking, sifted)),
        elements.table(Table("Comparisons and what they cost", ["What", "Number"], counted_rows(planned))),
        elements.table(_position(ranking)),
        *(
            elements.table(
                Table(
                    f"{titles.get(name, name)}: result for every group of candidates",
                    ["Groups", "Number"],
                    counted_rows({text: fates[group] for group, text in _GROUPS.items()}),
                )
            )
            for name, fates in sifted.items()
        ),
        *([elements.heading("Comparisons in which position matters most")] if len(shown) else []),
        elements.clip_sets([_example(row, videos, index, room) for row in shown]),
    ]


def _remarks(ranking: Mapping[str, Any], sifted: Mapping[str, Mapping[str, int]]) -> list[Finding]:
    flips, remarks = ranking["order_flips"], []
    if flips is None:
        remarks.append(Finding("Each clip was scored alone: its position in a pair has no influence."))
    else:
        text = (
            f"{percent(flips)} of the answers change when the order of the clips is swapped; both orders are averaged."
        )
        remarks.append(Finding(text, "warning" if flips > MANY_FLIPS else "plain"))
    for fates in sifted.values():
        decided = fates["comparisons"] - fates["comparisons_tied"]
        if decided:
            text = (
                f"In {percent(fates['comparisons_disagreeing'] / decided)} of {counted(decided, 'decided comparison')} "
                "the winner has fewer points than the loser."
            )
            remarks.append(Finding(text))
        if left := fates["comparisons_without_points"]:
            remarks.append(Finding(f"{counted(left, 'comparison')} ignored: a clip has no points.", "warning"))
    return remarks


def _position(ranking: Mapping[str, Any]) -> Table:
    bias, outside = ranking["position_bias"], ranking["outside_mass"]
    rows: list[elements.Cells] = [
        ["Ties", share(ranking["ties"]), ""],
        ["Answers that change with the order", share(ranking["order_flips"]), ""],
        [
            "Position bias, mean (above 0: for the first clip)",
            number(as_number(bias["mean"]), 3, sign=True),
            interval(as_number(bias["ci_low"]), as_number(bias["ci_high"]), 3, sign=True),
        ],
        ["Position bias, mean size", number(as_number(bias["size"]), 3), ""],
        ["Position bias, largest size", number(as_number(bias["largest"]), 3), ""],
        ["Probability of other answers, mean", number(as_number(outside["mean"]), 3), ""],
        ["Probability of other answers, largest", number(as_number(outside["largest"]), 3), ""],
    ]
    return Table("Answers", ["What", "Value", "95 % interval by prompt"], rows)


def _examples(comparisons: pd.DataFrame, most: int) -> Sequence[Mapping[Any, Any]]:
    """Return the comparisons with the largest position bias above 0."""
    size = np.abs(comparisons["position_bias"].to_numpy(dtype=np.float64)).round(9)
    ordered = comparisons.assign(size=size)[size > 0].sort_values(
        ["size", "video_id_a", "video_id_b"], ascending=[False, True, True], kind="stable"
    )
    return ordered.head(most).to_dict("records")


def _example(row: Mapping[Any, Any], videos: ItemFolder, index: pd.DataFrame, room: int) -> ClipSet:
    clips = {"A": str(row["video_id_a"]), "B": str(row["video_id_b"])}
    prompt, shown = side_by_side(clips, videos, index, room)
    words = {"a": "A is better", "b": "B is better", "tie": "A tie"}
    note = f"{words[str(row['better'])]}. Position bias {signed(float(row['position_bias']), 3)}."
    sides = (("A is better", "p_a"), ("A tie", "p_tie"), ("B is better", "p_b"))
    table = Table(
        "Probabilities, both orders averaged",
        ["Answer", "Probability"],
        [[text, plain(float(row[name]), 3)] for text, name in sides],
    )
    return ClipSet(prompt, note, shown, table)
