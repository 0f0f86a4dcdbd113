"""Policies and checkpoints over dimensions: what each gains and loses, and which of them no other one dominates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from markupsafe import Markup

from vr_pipeline.evaluation.metrics import rewards_by_source
from vr_pipeline.evaluation.pareto import pareto_front
from vr_pipeline.evaluation.report import elements, planes
from vr_pipeline.evaluation.report.charts import Chart
from vr_pipeline.evaluation.report.comparison import SOURCES, dimensions_of, witness
from vr_pipeline.evaluation.report.elements import Cells, Table, number
from vr_pipeline.evaluation.report.planes import Point
from vr_pipeline.evaluation.report.wording import signed
from vr_pipeline.generators.policy import ORIGINAL

_MOST_CHARTS = 3
"""Pairs of dimensions that are drawn: those that trade off most."""


def make(
    titles: Mapping[str, str],
    judge_rewards: pd.DataFrame,
    oracle_rewards: pd.DataFrame,
    auditor_rewards: pd.DataFrame | None,
    *validation_logs: pd.DataFrame,
) -> list[Markup]:
    """Show policies by judge and witness, and checkpoints by the judge; nothing with fewer than two dimensions."""
    by_source = rewards_by_source(judge_rewards, oracle_rewards, auditor_rewards)
    sources = [name for name in dict.fromkeys(("judge", witness(by_source))) if name in by_source]
    made = [_policies(titles, by_source[source], source) for source in sources]
    trained = [name for name in titles if name != ORIGINAL]
    order = [f"dim_{name}" for name in dimensions_of(judge_rewards)]
    checkpoints = _checkpoints(titles, dict(zip(trained, validation_logs, strict=True)), order)
    made += [] if checkpoints is None else [(checkpoints, "Checkpoints by the judge, on the prompts of validation")]
    shown = [(table, caption) for table, caption in made if len(_dimensions(table)) > 1]
    if not shown:
        return []
    text = (
        "Gains over the original by dimension. A policy or checkpoint is on the front if no other one here, the "
        "original included, is at least as good in every dimension and better in one. Means carry noise: a front is no "
        "test."
    )
    charts = [chart for table, caption in shown for chart in _charts(titles, table, caption)]
    return [
        elements.paragraph(text),
        *([elements.charts(charts, small=True)] if charts else []),
        *(elements.table(_listed(table, caption)) for table, caption in shown),
    ]


def _dimensions(table: pd.DataFrame) -> list[str]:
    return [name for name in table.columns if str(name).startswith("dim_")]


def _policies(titles: Mapping[str, str], rewards: pd.DataFrame, source: str) -> tuple[pd.DataFrame, str]:
    names = [f"dim_{name}" for name in dimensions_of(rewards)]
    means = rewards.groupby("policy")[names].mean()
    rows = [
        {"name": title, "policy": policy, **(means.loc[policy] - means.loc[ORIGINAL]).to_dict()}
        for policy, title in titles.items()
        if policy in means.index
    ]
    return _with_front(pd.DataFrame(rows)), f"Policies by the {SOURCES[source].lower()}"


def _checkpoints(
    titles: Mapping[str, str], logs: Mapping[str, pd.DataFrame], order: Sequence[str]
) -> pd.DataFrame | None:
    """Return the checkpoints of all trainings, dimensions in this order; None where none was validated by dimension."""
    rows: list[dict[str, object]] = []
    for policy, log in logs.items():
        names = sorted(_dimensions(log), key=lambda name: order.index(name) if name in order else len(order))
        start = log[log["step"] == 0]
        if not names or len(start) != 1:
            continue
        gains = log[names] - start[names].iloc[0]
        if not rows:
            rows.append({"name": titles[ORIGINAL], "policy": ORIGINAL, **dict.fromkeys(names, 0.0)})
        for place in log.index[log["step"] > 0]:
            chosen = ", chosen" if log.loc[place, "chosen"] else ""
            name = f"{titles[policy]}, step {int(log.loc[place, 'step'])}{chosen}"
            rows.append({"name": name, "policy": policy, **gains.loc[place].to_dict()})
    table = pd.DataFrame(rows)
    # Trainings that were judged by other dimensions cannot be set side by side.
    return None if table.empty or table.isna().any(axis=None) else _with_front(table)


def _with_front(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(front=pareto_front(table[_dimensions(table)]))


def _listed(table: pd.DataFrame, caption: str) -> Table:
    names = _dimensions(table)
    rows: list[Cells] = []
    for row in table.to_dict("records"):
        below = [name.removeprefix("dim_") for name in names if row[name] < -1e-9]
        gains = (number(row[name], 3, sign=True) for name in names)
        rows.append([row["name"], *gains, ", ".join(below) or "none", "yes" if row["front"] else "no"])
    columns = ["Policy", *(name.removeprefix("dim_") for name in names), "Below the original", "On the front"]
    return Table(f"{caption}: gain by dimension", columns, rows, words=columns[-2:])


def _charts(titles: Mapping[str, str], table: pd.DataFrame, caption: str) -> list[Chart]:
    """Draw the pairs of dimensions whose gains trade off most, where there are points enough to see it."""
    names = _dimensions(table)
    if len(table) < 4:
        return []
    varying = [name for name in names if table[name].std() > 1e-9]
    correlation = table[varying].corr().to_numpy()
    pairs = sorted(combinations(range(len(varying)), 2), key=lambda pair: (round(float(correlation[pair]), 9), pair))
    places = {name: place for place, name in enumerate(titles)}
    present = dict.fromkeys(table["policy"])
    made = []
    for first, second in (tuple(varying[place] for place in pair) for pair in pairs[:_MOST_CHARTS]):
        x, y = (name.removeprefix("dim_") for name in (first, second))
        # The front of these two dimensions alone, which is what the picture can show.
        front = pareto_front(table[[first, second]])
        points = [
            Point(
                places[row["policy"]],
                row[first],
                row[second],
                f"{row['name']}: {x} {signed(row[first])}, {y} {signed(row[second])}",
                ringed=bool(on_front),
            )
            for row, on_front in zip(table.to_dict("records"), front, strict=True)
        ]
        on = [str(name) for name in table["name"][np.flatnonzero(front)]]
        note = f"{caption}. Rings: the front of these two dimensions. Lines: the original."
        description = f"on the front: {'; '.join(on)}"
        made.append(
            planes.points_chart(
                f"{x} and {y}",
                points,
                axes=(f"gain in {x}", f"gain in {y}"),
                description=description,
                note=note,
                series=[(places[name], titles[name]) for name in present],
            )
        )
    return made
