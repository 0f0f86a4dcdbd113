"""Page of an ablation: Tables 4 and 5 of the paper, differences between combinations, all trainings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from markupsafe import Markup

from vr_pipeline.evaluation.ablation.config import AblationParameters
from vr_pipeline.evaluation.ablation.gains import TOTAL, combinations
from vr_pipeline.evaluation.report import charts, elements
from vr_pipeline.evaluation.report.charts import Chart, Mark, Row
from vr_pipeline.evaluation.report.elements import Cell, Cells, Finding, Table, count, interval, number, with_interval
from vr_pipeline.evaluation.report.page import Part, page_html
from vr_pipeline.generators.policy import ORIGINAL


def ablation_page(
    gains: pd.DataFrame, counts: Mapping[str, Any], trainings: pd.DataFrame, parameters: AblationParameters
) -> str:
    """Return the page."""
    over_original = gains[gains["against"] == ORIGINAL]
    between = gains[gains["against"] != ORIGINAL]
    matched = "equally many pairs" if parameters.match_numbers else "all of its pairs"
    note = (
        f"{len(parameters.pair_rules)} pair rules times {len(parameters.objectives)} objectives, "
        f"{len(parameters.seeds)} seeds each, every rule with {matched}. Policies are the last step of training; their "
        "clips have the same prompts and seeds."
    )
    sections = [
        (Part("gains", "Gains", "Gains over the original"), _gains(over_original)),
        (Part("differences", "Differences", "Between pair rules and between objectives"), _differences(between)),
        (Part("pairs", "Pairs", "Pairs by rule"), [elements.table(_pairs(counts))]),
        (Part("trainings", "Trainings", "All trainings"), _every_training(trainings)),
    ]
    return page_html(parameters.title, note, [(part, made) for part, made in sections if made], Markup())


def _gains(gains: pd.DataFrame) -> list[Markup]:
    sources = list(dict.fromkeys(gains["source"]))
    if not sources:
        return []
    of_source = {source: gains[gains["source"] == source] for source in sources}
    return [
        elements.paragraph(
            "Mean gain in reward over the original on the held-out prompts, pooled over seeds, with 95 % intervals by "
            "prompt (Student's t over prompts), not corrected for the number of dimensions. Intervals show the "
            "uncertainty over prompts; the range of seeds shows the spread of trainings.",
            note=True,
        ),
        elements.charts([_chart(table, source) for source, table in of_source.items()]),
        *(elements.table(_rewards(table, source)) for source, table in of_source.items()),
        *(
            elements.folded(f"Gains by the {source}", _by_dimension(table, source))
            for source, table in of_source.items()
        ),
    ]


def _chart(gains: pd.DataFrame, source: str) -> Chart:
    names = [_title(*name) for name in combinations(gains)]
    rows = [
        Row(
            str(dimension),
            [
                Mark(place, row["gain"], row["ci_low"], row["ci_high"], f"{name}, {dimension}: {row['gain']:+.3f}")
                for place, (name, row) in enumerate(zip(names, own.to_dict("records"), strict=True), start=1)
            ],
        )
        for dimension, own in gains.groupby("dimension", sort=False)
    ]
    return charts.intervals_chart(
        f"Gain by the {source}",
        rows,
        axis="gain in reward, 95 % interval",
        series=list(enumerate(names, start=1)),
    )


def _rewards(gains: pd.DataFrame, source: str) -> Table:
    """Return mean rewards, the original first (the layout of the paper's Table 4)."""
    dimensions = list(dict.fromkeys(gains["dimension"]))
    first = gains.drop_duplicates("dimension").set_index("dimension")
    rows: list[Cells] = [["Original", *(number(first.loc[name, "original"], 3) for name in dimensions)]]
    for pairs, objective in combinations(gains):
        own = gains[(gains["pairs"] == pairs) & (gains["objective"] == objective)].set_index("dimension")
        rows.append([_title(pairs, objective), *(number(own.loc[name, "reward"], 3) for name in dimensions)])
    return Table(f"Mean reward by the {source}", ["Policy", *dimensions], rows)


def _title(pairs: str, objective: str) -> str:
    return f"{objective} on {pairs} pairs"


def _by_dimension(gains: pd.DataFrame, source: str) -> Table:
    dimensions = list(dict.fromkeys(gains["dimension"]))
    rows: list[Cells] = []
    for pairs, objective in combinations(gains):
        own = gains[(gains["pairs"] == pairs) & (gains["objective"] == objective)].set_index("dimension")
        total = own.loc[TOTAL]
        by_seed = f"{total['lowest_seed']:+.2f} to {total['highest_seed']:+.2f}"
        rows.append(
            [
                _title(pairs, objective),
                *(with_interval(*own.loc[name, ["gain", "ci_low", "ci_high"]]) for name in dimensions),
                Cell(by_seed),
            ]
        )
    columns = ["Combination", *dimensions, "total by seed"]
    return Table(f"Gain by the {source}, by dimension", columns, rows, words=["total by seed"])


def _differences(between: pd.DataFrame) -> list[Markup]:
    totals = between[between["dimension"] == TOTAL]
    if totals.empty:
        return []
    rows: list[Cells] = [
        [
            _title(row["pairs"], row["objective"]),
            _title(*str(row["against"]).split(".", 1)),
            str(row["source"]),
            number(row["gain"], sign=True),
            interval(row["ci_low"], row["ci_high"], sign=True),
        ]
        for row in totals.to_dict("records")
    ]
    columns = ["Combination", "Over", "Source", "Difference", "95 % interval"]
    return [elements.table(Table("Differences in total reward", columns, rows, words=["Over", "Source"]))]


def _pairs(counts: Mapping[str, Any]) -> Table:
    rows: list[Cells] = [
        [name, *(count(own[key]) for key in ("n", "dominating", "not_dominating", "trained_on"))]
        for name, own in counts.items()
    ]
    columns = ["Pair rule", "Pairs", "Winner dominates", "Does not", "Trained on"]
    return Table("Pairs whose winner is at least as good in every dimension", columns, rows)


def _every_training(trainings: pd.DataFrame) -> list[Markup]:
    failed = trainings[trainings["error"] != ""]
    found = [Finding(f"{row.policy} failed: {row.error}", "warning") for row in failed.itertuples()]
    return [*([elements.findings(found)] if found else []), elements.table(_trainings(trainings))]


def _trainings(trainings: pd.DataFrame) -> Table:
    figures = ("loss", "implicit_accuracy", "winner_change", "loser_change")
    rows: list[Cells] = [
        [str(row["policy"]), count(row["steps"]), *(number(row[name], 3) for name in figures)]
        for row in trainings.to_dict("records")
    ]
    columns = ["Training", "Steps", "Loss", "Implicit accuracy", "Winners' error", "Losers' error"]
    return Table("Means of the last tenth of the steps; errors relative to the original", columns, rows)
