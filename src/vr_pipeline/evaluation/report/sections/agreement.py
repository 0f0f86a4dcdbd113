"""Agreement of the reward with held-out human preferences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from vr_pipeline.evaluation.report import charts, elements, planes
from vr_pipeline.evaluation.report.charts import Chart
from vr_pipeline.evaluation.report.comparison import Interval
from vr_pipeline.evaluation.report.elements import Cells, Finding, Table, count, share, share_interval
from vr_pipeline.evaluation.report.planes import Line, Point
from vr_pipeline.evaluation.report.wording import percent, plain

_WEIGHTINGS = {"learned": "weights of the full fit", "refitted": "fitted with these only", "equal": "equal weights"}


def make(
    titles: Mapping[str, str],
    measured: Mapping[str, Any],
    preference_report: Mapping[str, Any] | None,
    scores: pd.DataFrame | None,
    curve: pd.DataFrame | None,
) -> list[Markup]:
    """Show the agreement of the reward with people, its calibration, and the preferences by generator."""
    pairs, ties = int(measured["n"]), int(measured["n_ties"])
    names = {
        "diff": f"diff: correct order, of the {pairs - ties:,} pairs without a human tie",
        "tau": f"tau: correct order or correct tie, of all {pairs:,}; rewards that differ by at most "
        f"{_threshold(measured['epsilon'])} are a tie (threshold chosen on these pairs)",
        "tau_transferred": f"tau with the threshold of the fitted pairs, "
        f"{_threshold(measured.get('epsilon_transferred'))}",
    }
    intervals = measured.get("intervals") or {}
    table = Table(
        "Agreement of the reward with held-out preferences (bootstrap over prompts)",
        ["Measure", "Value", "95 % interval"],
        [
            [text, share(measured[name]), share_interval(*(intervals.get(name) or (None, None)))]
            for name, text in names.items()
            if name in measured
        ],
    )
    text = "Pairs of clips whose prompts were not used in the fit. Chance level of diff: one half."
    drawn = [*_calibration(scores), *_accuracy(curve)]
    return [
        elements.paragraph(text),
        elements.table(table),
        *_linearity(measured.get("linearity")),
        *([elements.charts(drawn)] if drawn else []),
        *_generators(preference_report or {}),
    ]


def _threshold(value: float | None) -> str:
    return plain(value, 4).rstrip("0").rstrip(".")


def _linearity(found: Mapping[str, Any] | None) -> list[Markup]:
    """Say whether products of dimensions predict held-out preferences better than any weights can."""
    if not found:
        return []
    gain = Interval.of(found, "gain")
    text = (
        "Are preferences linear in the questions? With squares and products of the dimensions a logistic model orders "
        f"{percent(found['diff_products'])} of the {found['n']:,} held-out pairs without a tie correctly, with the "
        f"questions alone {percent(found['diff_linear'])}; its log-loss per pair is lower by {gain}. "
    )
    match gain.verdict():
        case "above":
            said = "They are not: no weights of the questions can express what people preferred here."
            return [elements.findings([Finding(text + said, "warning")])]
        case "unknown":
            return [elements.findings([Finding(text + "There are too few prompts to say.")])]
        case _:
            return [elements.findings([Finding(text + "Nothing shows that they are not.")])]


def _generators(preference_report: Mapping[str, Any]) -> list[Markup]:
    rows: list[Cells] = [
        [
            row["generator"],
            row["against"],
            share(row["rate"]),
            share_interval(row["ci_low"], row["ci_high"]),
            *(count(row[name]) for name in ("wins", "ties", "losses")),
        ]
        for row in preference_report.get("generator_pairs", ())
    ]
    columns = ["Generator", "Against", "Win rate", "95 % interval", "Won", "Tied", "Lost"]
    title = "Generators whose clips people compared: share of pairs won; a tie counts half; intervals by prompt"
    return [elements.table(Table(title, columns, rows, words=["Against"]))] if rows else []


def _calibration(scores: pd.DataFrame | None) -> list[Chart]:
    from vr_pipeline.rewards.checklist.curves import calibration

    if scores is None:
        return []
    pairs = scores[(scores["split"] == "held_out") & (scores["preference"] != "tie")]
    bins, loss = calibration(pairs["difference"], list(pairs["preference"]), list(pairs["prompt_id"]))
    points = [
        Point(
            2,
            row["predicted"],
            row["observed"],
            f"predicted {percent(row['predicted'])}, observed {percent(row['observed'])} "
            f"({percent(row['ci_low'])} to {percent(row['ci_high'])})",
            row["ci_low"],
            row["ci_high"],
        )
        for row in bins.to_dict("records")
    ]
    chart = planes.points_chart(
        "Calibration",
        points,
        axes=("predicted probability", "observed share"),
        description="; ".join(point.tip for point in points),
        note=f"How often people preferred a clip, against the probability that the reward gives it, on {len(pairs):,} "
        f"held-out pairs without ties; whiskers: 95 % intervals by prompt. Brier score {plain(loss, 3)}.",
        limits=(0.0, 1.0),
        diagonal=True,
    )
    return [chart] if points else []


def _accuracy(curve: pd.DataFrame | None) -> list[Chart]:
    made = []
    for kind, part in () if curve is None else curve.groupby("answers", sort=True):
        lines = []
        for series, (way, name) in enumerate(_WEIGHTINGS.items(), start=2):
            own = part[part["weighting"] == way].sort_values("n_questions", kind="stable")
            columns = ["n_questions", "diff", "ci_low", "ci_high"]
            x, y, low, high = own[columns].to_numpy(dtype=np.float64).T
            bands = (low, high) if way == "learned" and np.isfinite([low, high]).all() else (None, None)
            lines += [Line(series, x, y, name, *bands)] if len(x) else []
        ends = (f"{line.name}: {percent(line.y[0])} with one, {percent(line.y[-1])} with all" for line in lines)
        note = (
            "Share of held-out pairs without ties that are ordered correctly; band: 95 % interval by prompt. A pair "
            "with equal rewards counts as wrong, which is frequent where few questions are answered yes or no."
        )
        title = f"Accuracy by number of questions, {kind} answers"
        axis, legend = "questions kept, most important first", [(line.series, line.name) for line in lines]
        chart = planes.lines_chart(title, lines, description="; ".join(ends), note=note, axis=axis)
        made.append(replace(chart, legend=charts.legend(legend)))
    return made
