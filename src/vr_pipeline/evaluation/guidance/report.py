"""Page of guidance: rewards and drift by strength, and clips of the same seeds side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from markupsafe import Markup

from vr_pipeline.evaluation.guidance.config import GuidanceReportParameters
from vr_pipeline.evaluation.report import charts, elements
from vr_pipeline.evaluation.report.charts import Chart, Mark, Row
from vr_pipeline.evaluation.report.elements import Cells, Table, interval, number, with_interval
from vr_pipeline.evaluation.report.page import Part, page_html
from vr_pipeline.evaluation.report.sections import clips as clip_section
from vr_pipeline.generators.policy import ORIGINAL
from vr_pipeline.items.folder import ItemFolder
from vr_pipeline.statistics.clustered import Gain, paired_gain

SOURCES = {"latent": "latent reward", "reward": "reward model", "oracle": "oracle"}
"""Sources of scores: the latent reward of the guidance, the environment's reward, and the oracle."""

DRIFTS = {"pixel_drift": "pixels (0 to 1)", "latent_drift": "latents"}


_CLIPS = "The original is the unguided generator; the judge is the environment's reward model."


def guidance_page(
    videos: ItemFolder,
    index: pd.DataFrame,
    rewards: pd.DataFrame,
    oracle_rewards: pd.DataFrame,
    drift: pd.DataFrame,
    parameters: GuidanceReportParameters,
) -> str:
    """Return the page.

    Args:
        videos: the clips.
        index: schema ``EvaluationVideoIndex``, with the strength as policy.
        rewards: schema ``EvaluationRewards``; empty without a reward.
        oracle_rewards: the same by the oracle; empty without an oracle.
        drift: schema ``GuidanceDrift``.
        parameters: of the page.
    """
    weights = ", ".join(f"{name} {weight:g}" for name, weight in parameters.weights.items())
    note = (
        f"Weights: {weights or 'the same for every dimension'}. "
        f"{drift['prompt_id'].nunique()} prompts with {parameters.videos_per_prompt} clips each, from the same seeds "
        "at every strength w. The latent reward is maximised by the guidance, so judge its success by the others."
    )
    tables = by_source(rewards, oracle_rewards, drift)
    scored = clip_section.make(
        parameters.titles, videos, index, rewards, oracle_rewards, None, parameters.as_evaluation
    )
    sections = [
        (Part("rewards", "Rewards", "Rewards by strength"), _rewards(tables, parameters)),
        (Part("drift", "Drift", "Drift from the unguided clips"), _drift(drift, parameters)),
        (
            Part("clips", "Clips", "Clips of one seed by strength"),
            [elements.paragraph(_CLIPS, note=True), *scored],
        ),
    ]
    return page_html(parameters.title, note, sections, Markup())


def by_source(rewards: pd.DataFrame, oracle_rewards: pd.DataFrame, drift: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return scores by source, without empty ones: prompt_id, policy, and one column per dimension."""
    latent = drift[["prompt_id", "policy"]].join(
        drift.filter(regex="^latent_(?!drift$)").rename(columns=lambda name: name.removeprefix("latent_"))
    )
    tables = {"latent": latent}
    for source, table in (("reward", rewards), ("oracle", oracle_rewards)):
        if len(table):
            dimensions = [str(name) for name in table.columns if str(name).startswith("dim_")]
            own = table[["prompt_id", "policy", *dimensions, "total"]]
            tables[source] = own.rename(columns={name: name.removeprefix("dim_") for name in dimensions})
    return tables


def gains(table: pd.DataFrame, column: str, scales: Sequence[str]) -> dict[str, Gain]:
    """Return the gain over the unguided clips at every strength, with the interval by prompt."""
    unguided = table[table["policy"] == ORIGINAL]
    found = {}
    for scale in scales:
        own = table[table["policy"] == scale]
        found[scale] = paired_gain(own[column], own["prompt_id"], unguided[column], unguided["prompt_id"])
    return found


def _rewards(tables: Mapping[str, pd.DataFrame], parameters: GuidanceReportParameters) -> list[Markup]:
    scales = list(parameters.titles)[1:]
    made = [
        elements.paragraph(
            "Mean change relative to the unguided clips of the same prompts, with single 95 % intervals by prompt "
            "(Student's t). Sources have different scales: compare within a chart.",
            note=True,
        )
    ]
    pictures, listed = [], []
    for source, table in tables.items():
        names = [str(name) for name in table.columns if name not in {"prompt_id", "policy"}]
        found = {name: gains(table, name, scales) for name in names}
        pictures.append(_chart(SOURCES[source], found, parameters))
        listed.append(elements.table(_table(SOURCES[source], found, table, parameters)))
    return [*made, elements.charts(pictures), *listed]


def _chart(source: str, found: Mapping[str, Mapping[str, Gain]], parameters: GuidanceReportParameters) -> Chart:
    rows = [
        Row(
            parameters.titles[scale],
            [
                Mark(at, one[scale].mean, one[scale].ci_low, one[scale].ci_high, f"{name}: {one[scale].mean:+.3f}")
                for at, (name, one) in enumerate(found.items(), start=1)
            ],
        )
        for scale in list(parameters.titles)[1:]
    ]
    return charts.intervals_chart(
        f"Change by the {source}",
        rows,
        axis="change of the score, 95 % interval",
        series=list(enumerate(found, start=1)),
    )


def _table(
    source: str,
    found: Mapping[str, Mapping[str, Gain]],
    table: pd.DataFrame,
    parameters: GuidanceReportParameters,
) -> Table:
    means = table.groupby("policy")[list(found)].mean()
    rows: list[Cells] = [["unguided", *(number(float(means[name][ORIGINAL]), 3) for name in found)]]
    for scale in list(parameters.titles)[1:]:
        of_scale = (one[scale] for one in found.values())
        cells = (with_interval(gain.mean, gain.ci_low, gain.ci_high, 3) for gain in of_scale)
        rows.append([parameters.titles[scale], *cells])
    return Table(f"By the {source}: mean without guidance, then changes", ["Strength", *found], rows)


def _drift(drift: pd.DataFrame, parameters: GuidanceReportParameters) -> list[Markup]:
    scales = list(parameters.titles)[1:]
    found = {name: gains(drift, name, scales) for name in DRIFTS}
    pictures = [
        charts.intervals_chart(
            f"Distance in {title}",
            [
                Row(
                    parameters.titles[scale],
                    [Mark(1, one.mean, one.ci_low, one.ci_high, f"{parameters.titles[scale]}: {one.mean:.3f}")],
                )
                for scale, one in found[name].items()
            ],
            axis="root mean square distance, 95 % interval",
        )
        for name, title in DRIFTS.items()
    ]
    rows: list[Cells] = [
        [
            parameters.titles[scale],
            *(
                cell
                for one in (found[name][scale] for name in DRIFTS)
                for cell in (number(one.mean, 3), interval(one.ci_low, one.ci_high, 3))
            ),
        ]
        for scale in scales
    ]
    columns = ["Strength", *(name for title in DRIFTS.values() for name in (f"In {title}", f"95 %, {title}"))]
    return [
        elements.paragraph(
            "Root mean square distance from the unguided clip of the same prompt and seed, in pixels and in the "
            "generator's latents, with 95 % intervals by prompt. A distance as large as between different seeds shows "
            "that guidance makes different clips instead of improving them.",
            note=True,
        ),
        elements.charts(pictures),
        elements.table(Table("Distance from the unguided clip", columns, rows)),
    ]
