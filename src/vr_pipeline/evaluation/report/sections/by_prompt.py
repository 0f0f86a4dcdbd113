"""Gains by prompt, and judge against auditor or oracle."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from markupsafe import Markup

from vr_pipeline.evaluation.metrics import rewards_by_source
from vr_pipeline.evaluation.report import charts, elements, planes
from vr_pipeline.evaluation.report.charts import Chart, Mark, Row
from vr_pipeline.evaluation.report.comparison import SOURCES, witness
from vr_pipeline.evaluation.report.elements import Cells, Table, number
from vr_pipeline.evaluation.report.planes import Point
from vr_pipeline.evaluation.report.wording import plain, signed
from vr_pipeline.generators.policy import ORIGINAL

_MOST_ROWS = 24
"""Largest number of prompts in the chart; with more, half are those of highest and half of lowest gain."""

Gains = Mapping[str, pd.DataFrame]
"""Source -> mean gain by prompt (rows) and policy (columns)."""


def make(
    titles: Mapping[str, str],
    judge_rewards: pd.DataFrame,
    oracle_rewards: pd.DataFrame,
    auditor_rewards: pd.DataFrame | None,
    index: pd.DataFrame,
) -> list[Markup]:
    """Show the gain of every policy by prompt, and judge against auditor or oracle; nothing without a reward."""
    gains = {
        source: gains_by_prompt(table, list(titles))
        for source, table in rewards_by_source(judge_rewards, oracle_rewards, auditor_rewards).items()
    }
    gains = {source: table for source, table in gains.items() if len(table) and len(table.columns)}
    if not gains:
        return []
    texts = dict(zip(index["prompt_id"], index["prompt"], strict=True))
    other = witness(gains)
    both = [elements.chart(_scatter(titles, gains, other))] if other and "judge" in gains else []
    return [
        *both,
        elements.charts([_chart(titles, gains[source], source, texts) for source in gains]),
        elements.folded("All prompts", _table(titles, gains, texts)),
    ]


def gains_by_prompt(rewards: pd.DataFrame, policies: list[str]) -> pd.DataFrame:
    """Return the mean total reward of each policy minus the original's, by prompt (rows) and policy (columns)."""
    means = rewards.pivot_table(index="prompt_id", columns="policy", values="total", aggfunc="mean")
    if ORIGINAL not in means:
        return means.head(0)
    trained = [name for name in policies if name != ORIGINAL and name in means]
    return means[trained].sub(means[ORIGINAL], axis=0).dropna(how="all").sort_index()


def _scatter(titles: Mapping[str, str], gains: Gains, other: str) -> Chart:
    places = {name: place for place, name in enumerate(titles)}
    points, found = [], []
    for policy in gains["judge"].columns:
        both = pd.concat([gains[source][policy].rename(source) for source in ("judge", other)], axis=1).dropna()
        points += [
            Point(places[policy], judge, truth, f"{titles[policy]}: judge {signed(judge)}, {other} {signed(truth)}")
            for judge, truth in both.itertuples(index=False)
        ]
        if len(both) > 2 and (both.std() > 0).all():
            found.append(f"{titles[policy]} {plain(float(np.corrcoef(both['judge'], both[other])[0, 1]))}")
    note = "Each point is a prompt. Prompts to the right of 0 and below it gained only by the judge."
    if found:
        note += f" Correlation: {', '.join(found)}."
    return planes.points_chart(
        f"Gain by prompt: judge against {other}",
        points,
        axes=("gain by the judge", f"gain by the {other}"),
        description=note,
        note=note,
        series=[(places[policy], titles[policy]) for policy in gains["judge"].columns],
    )


def _chart(titles: Mapping[str, str], gains: pd.DataFrame, source: str, texts: Mapping[str, str]) -> Chart:
    order = gains.mean(axis=1).sort_values(ascending=False, kind="stable").index
    title = f"{SOURCES[source]}: gain by prompt"
    if len(order) > _MOST_ROWS:
        half = _MOST_ROWS // 2
        order = order[:half].append(order[-half:])
        title += f", the {half} highest and the {half} lowest of {len(gains):,}"
    series = [(place, name) for place, name in enumerate(titles) if name in gains]
    rows = [
        Row(
            texts[prompt],
            [
                Mark(place, float(gains.loc[prompt, name]), tip=f"{titles[name]}: {signed(gains.loc[prompt, name])}")
                for place, name in series
            ],
        )
        for prompt in order
    ]
    low, high = float(gains.min().min()), float(gains.max().max())
    return charts.intervals_chart(
        title,
        rows,
        axis="mean gain over the original",
        series=[(place, titles[name]) for place, name in series],
        description=f"from {signed(low)} to {signed(high)}",
    )


def _table(titles: Mapping[str, str], gains: Gains, texts: Mapping[str, str]) -> Table:
    columns = [(source, policy) for source, table in gains.items() for policy in table.columns]
    prompts = sorted(set().union(*(table.index for table in gains.values())), key=lambda name: (texts[name], name))
    rows: list[Cells] = [
        [
            texts[prompt],
            *(
                number(gains[source][policy].get(prompt), 3, sign=True)  # None if a source has no clip of it
                for source, policy in columns
            ),
        ]
        for prompt in prompts
    ]
    names = [f"{titles[policy]}, {source}" for source, policy in columns]
    return Table("Mean gain over the original by prompt", ["Prompt", *names], rows)
