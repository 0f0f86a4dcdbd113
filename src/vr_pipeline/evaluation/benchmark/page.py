"""Page of a benchmark: rewards by source, and differences with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from markupsafe import Markup

from vr_pipeline.evaluation.benchmark.figures import ALL, FIGURES
from vr_pipeline.evaluation.report import charts, elements
from vr_pipeline.evaluation.report.charts import Chart, Mark, Row
from vr_pipeline.evaluation.report.elements import Cell, Cells, Table, count, interval, number, with_interval
from vr_pipeline.evaluation.report.page import Part, page_html
from vr_pipeline.preferences.criteria import OVERALL

_TITLES = {
    "tau": "tau",
    "tau_best": "best-case tau",
    "diff": "diff",
    "three_way_accuracy": "three-way accuracy",
    "kendall": "Kendall in prompts",
}


def benchmark_page(
    title: str, figures: pd.DataFrame, differences: pd.DataFrame, biases: pd.DataFrame, report: Mapping[str, Any]
) -> str:
    """Return the page.

    Args:
        title: its heading.
        figures, differences, biases: from :mod:`vr_pipeline.evaluation.benchmark.figures`.
        report: counts of pairs by source, and descriptions of the rewards.
    """
    whole = figures[figures["by"] == ALL]
    sections = [
        (Part("rewards", "Rewards", "Agreement with people"), _agreement(whole)),
        (Part("differences", "Differences", "Differences between rewards"), _differences(differences)),
        (Part("generators", "Generators", "By pair of generators"), _grouped(figures, "generators")),
        (Part("length", "Length", "By length of the clips"), _grouped(figures, "length")),
        (Part("bias", "Bias", "Position and length"), _biases(biases)),
        (Part("data", "Data", "Pairs and rewards"), _data(report)),
    ]
    note = "Figures are of the test pairs; tie thresholds were chosen on other prompts of the same source."
    return page_html(title, note, [(part, made) for part, made in sections if made], Markup())


def _name(criterion: str) -> str:
    return "overall" if criterion == OVERALL else criterion


def _value(row: Mapping[Any, Any], name: str) -> float | None:
    return None if pd.isna(row[name]) else float(row[name])


def _agreement(whole: pd.DataFrame) -> list[Markup]:
    made = [
        elements.paragraph(
            "tau is the share of pairs with correct order or correctly predicted tie; differences up to the threshold "
            "are ties. Best-case tau uses the best threshold on these pairs. diff excludes human ties. Three-way "
            "accuracy is the share of correct answers of three. Kendall is tau-b within a prompt, averaged over "
            "prompts. Intervals are 95 %, by prompt.",
            note=True,
        )
    ]
    for (source, criterion), own in whole.groupby(["source", "criterion"], sort=False):
        title = f"{source}, {_name(str(criterion))}"
        made += [elements.chart(_chart(title, own)), elements.table(_table(title, own))]
    return made


def _chart(title: str, own: pd.DataFrame) -> Chart:
    ordered = own.sort_values("tau", ascending=False, kind="stable", na_position="last")
    shown = (("tau", 1), ("diff", 2))
    rows = []
    for row in ordered.to_dict("records"):
        marks = []
        for name, series in shown:
            value, *ends = (_value(row, key) for key in (name, f"{name}_low", f"{name}_high"))
            if value is not None:
                low, high = (float("nan") if end is None else end for end in ends)
                marks.append(Mark(series, value, low, high, f"{row['reward']}: {name} {value:.3f}"))
        rows.append(Row(str(row["reward"]), marks))
    return charts.intervals_chart(
        title,
        rows,
        axis="share of pairs, 95 % interval; line at one half",
        series=[(series, _TITLES[name]) for name, series in shown],
        reference=0.5,
    )


def _table(title: str, own: pd.DataFrame) -> Table:
    rows: list[Cells] = []
    for row in own.sort_values("tau", ascending=False, kind="stable", na_position="last").to_dict("records"):
        cells: Cells = [row["reward"], row["dimension"]]
        for name in FIGURES:
            value, low, high = (_value(row, key) for key in (name, f"{name}_low", f"{name}_high"))
            cells.append(with_interval(value, low, high, 3, sign=False))
        rows.append([*cells, count(row["n"]), count(row["n_ties"]), count(row["prompts"])])
    columns = ["Reward", "Compared", *(_TITLES[name] for name in FIGURES)]
    return Table(title, [*columns, "Pairs", "Ties", "Prompts"], rows, words=["Compared"])


def _differences(differences: pd.DataFrame) -> list[Markup]:
    made = []
    for (source, criterion), own in differences.groupby(["source", "criterion"], sort=False):
        rows: list[Cells] = []
        for row in own.to_dict("records"):
            low, high = _value(row, "ci_low"), _value(row, "ci_high")
            apart = low is not None and high is not None and (low > 0 or high < 0)
            rows.append(
                [
                    row["first"],
                    row["second"],
                    number(_value(row, "difference"), 3, sign=True),
                    interval(low, high, 3, sign=True),
                    "yes" if apart else "no",
                    count(row["n"]),
                    count(row["prompts"]),
                ]
            )
        columns = ["Reward", "Against", "Difference", "Interval", "Excludes 0", "Pairs", "Prompts"]
        title = f"{source}, {_name(str(criterion))}: difference in three-way accuracy on the same pairs"
        made.append(elements.folded(title, Table(title, columns, rows, words=["Against", "Excludes 0"])))
    if made:
        text = (
            "Intervals are by prompt, with 95 % jointly for all comparisons of a table (Bonferroni). Two rewards "
            "differ if their interval excludes 0."
        )
        made.insert(0, elements.paragraph(text, note=True))
    return made


def _grouped(figures: pd.DataFrame, kind: str) -> list[Markup]:
    made = []
    of_kind = figures[figures["by"] == kind]
    for (source, criterion), own in of_kind.groupby(["source", "criterion"], sort=False):
        groups = list(dict.fromkeys(own["group"]))
        rows: list[Cells] = []
        for reward, of_reward in own.groupby("reward", sort=False):
            by_group = of_reward.set_index("group")
            cells: Cells = [str(reward)]
            for group in groups:
                found = by_group["diff"].get(group)
                cells.append(Cell("") if found is None or pd.isna(found) else number(float(found), 3))
            rows.append(cells)
        sizes = own.drop_duplicates("group").set_index("group")["n"]
        columns = ["Reward", *(f"{group} ({sizes[group]} pairs)" for group in groups)]
        title = f"{source}, {_name(str(criterion))}: diff"
        made.append(elements.folded(title, Table(title, columns, rows)))
    return made


def _biases(biases: pd.DataFrame) -> list[Markup]:
    rows: list[Cells] = []
    for row in biases.to_dict("records"):
        first, bias, length = (_value(row, name) for name in ("first_share", "position_bias", "length"))
        rows.append(
            [
                row["source"],
                row["who"],
                Cell("") if first is None else elements.share(first),
                Cell("") if bias is None else number(bias, 3),
                number(length, 3, sign=True),
            ]
        )
    columns = ["Source", "Who", "First shown preferred", "Position bias", "Longer preferred (Spearman)"]
    text = (
        "First shown preferred: share of human answers for the clip listed first. Position bias: mean preference for "
        "the first position by a model that compares; scores of single clips have none. Longer preferred: correlation "
        "of the difference in length with the answers; a much higher one than that of people shows a reward for length."
    )
    table = Table("Position and length", columns, rows, words=["Who"])
    return [elements.paragraph(text, note=True), elements.table(table)]


def _data(report: Mapping[str, Any]) -> list[Markup]:
    pairs: list[Cells] = [
        [source, *(count(numbers[name]) for name in ("pairs", "validation", "test", "left_out"))]
        for source, numbers in report["sources"].items()
    ]
    rewards: list[Cells] = [
        [name, str(one.get("type", "")), ", ".join(one.get("dimensions", ())), str(one.get("identity", ""))]
        for name, one in report["rewards"].items()
    ]
    return [
        elements.table(Table("Pairs by source", ["Source", "Pairs", "Validation", "Test", "Left out"], pairs)),
        elements.table(
            Table(
                "Rewards",
                ["Reward", "Type", "Dimensions", "Identity"],
                rewards,
                words=["Type", "Dimensions", "Identity"],
            )
        ),
    ]
