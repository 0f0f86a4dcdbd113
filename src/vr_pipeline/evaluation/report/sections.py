"""The parts of the page: each function turns results into tables, charts and sentences, without any HTML of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from vr_pipeline.errors import InputError
from vr_pipeline.evaluation.report import charts, tables
from vr_pipeline.evaluation.report.charts import Line, Mark, Row
from vr_pipeline.evaluation.report.findings import (
    Comparison,
    Interval,
    interval_words,
    log_ends,
    percent,
    plain,
    policy_name,
    question_bias,
)
from vr_pipeline.evaluation.report.tables import NOTHING, Cell, Column, Table
from vr_pipeline.generators.policy import ORIGINAL
from vr_pipeline.statistics.clustered import interval

if TYPE_CHECKING:
    from vr_pipeline.checklist.schema import Checklist
    from vr_pipeline.rewards.checklist.weights import RewardWeights

SOURCES = {"judge": "Judge", "oracle": "Oracle"}

_HEALTH = {
    "loss": (
        "Loss",
        "Should start at ln 2 (0.693), where policy and reference are equal, and sink slowly; a drop to almost 0 means "
        "that the pairs are learned by heart.",
    ),
    "implicit_accuracy": (
        "Implicit accuracy",
        "Share of training pairs on which the policy prefers the winner more than the reference does. Should climb "
        "well above one half; a curve that stays there learns nothing from the pairs.",
    ),
    "change": (
        "Error against the reference",
        "Solid: winners; dashed: losers. Winners should sink below 0 or stay near it while losers rise; if both rise, "
        "the policy is only leaving what it knew.",
    ),
    "logit": (
        "Term inside the sigmoid",
        "Median and 10 to 90 % band. Should drift above 0 and widen gently; tens of units mean saturation.",
    ),
    "saturation": (
        "Saturation",
        "Share of the gradient that the sigmoid takes away. Should begin at one half and rise without reaching 1, from "
        "where pairs teach nothing more.",
    ),
    "gradient_norm": ("Gradient norm", "Should stay of one size; spikes that grow announce divergence."),
    "learning_rate": ("Learning rate", "Should rise over the warm-up, then fall in a line to 0."),
}

_STEPS = {
    "read": "read",
    "clean": "cleaning rules",
    "rouge": "same words (Rouge-L)",
    "semantic": "same meaning (embedding)",
    "language_model": "language model",
    "diversity": "diversity",
    "split": "leak between splits",
}


@dataclass(frozen=True)
class Chart:
    """A chart with its heading, its legend and the sentence under it."""

    title: str
    svg: Markup
    note: str = ""
    legend: Markup = NOTHING


def sources_of(metrics: Mapping[str, Any]) -> list[str]:
    """Judge, and oracle where there is one."""
    found = {source for record in metrics["policies"].values() for source in record}
    return [source for source in SOURCES if source in found]


def policies_of(metrics: Mapping[str, Any]) -> list[str]:
    """The original first, then the others by name; JSON files may have sorted them otherwise."""
    return sorted(metrics["policies"], key=lambda name: (name != ORIGINAL, name))


def rewards_charts(metrics: Mapping[str, Any], dimensions: Sequence[str]) -> list[Chart]:
    """Mean reward of every policy by dimension, one chart a source, with 95 % intervals."""
    policies = policies_of(metrics)
    made = []
    for source in sources_of(metrics):
        rows = []
        for dimension in dimensions:
            marks = []
            for series, policy in enumerate(policies):
                record = metrics["policies"][policy][source]["dimensions"][dimension]
                mean, se = _float(record["mean"]), _float(record["se"])
                tip = f"{policy_name(policy)}, {dimension}: {plain(mean, 3)} ± {plain(se, 3)}"
                marks.append(Mark(series, mean, *interval(mean, se, int(metrics["clips"]["prompts"])), tip))
            rows.append(Row(dimension, marks))
        description = "; ".join(
            f"{row.label}: "
            + ", ".join(f"{policy_name(p)} {plain(m.value)}" for p, m in zip(policies, row.marks, strict=True))
            for row in rows
        )
        title = f"{SOURCES[source]}: reward by dimension"
        made.append(
            Chart(
                title,
                charts.intervals_chart(
                    rows, title=title, description=description, axis="mean reward, 95 % interval of each", bars=True
                ),
                legend=charts.legend([(i, policy_name(name)) for i, name in enumerate(policies)]),
            )
        )
    return made


def rewards_table(metrics: Mapping[str, Any], dimensions: Sequence[str], source: str) -> Table:
    """Policies by dimension and total, mean with standard error (the layout of the paper's Table 4)."""
    rows = []
    for policy in policies_of(metrics):
        record = metrics["policies"][policy][source]
        cells = [tables.words(policy_name(policy))]
        cells += [
            tables.number(_float(entry["mean"]), 3, spread=_float(entry["se"]))
            for entry in (*(record["dimensions"][name] for name in dimensions), record["total"])
        ]
        rows.append(cells)
    return Table(
        f"{SOURCES[source]}: mean reward ± standard error (prompts as clusters), as in Table 4 of the paper",
        [Column("Policy", number=False), *(Column(name) for name in dimensions), Column("Total")],
        rows,
    )


def gain_charts(
    against_original: Mapping[str, Mapping[str, Comparison]], policies: Sequence[str], dimensions: Sequence[str]
) -> list[Chart]:
    """Gain over the original in total and by dimension, one chart a source."""
    trained = [name for name in policies if name in against_original]
    made = []
    for source in (name for name in SOURCES if any(name in entry for entry in against_original.values())):
        rows = []
        for label in ("total", *dimensions):
            marks = []
            for policy in trained:
                comparison = against_original[policy][source]
                gain = comparison.total if label == "total" else comparison.dimensions[label]
                tip = f"{policy_name(policy)}, {label}: {interval_words(gain)}"
                marks.append(Mark(policies.index(policy), gain.mean, gain.low, gain.high, tip))
            rows.append(Row(label, marks))
        title = f"{SOURCES[source]}: gain over the original"
        description = "; ".join(mark.tip for row in rows for mark in row.marks)
        made.append(
            Chart(
                title,
                charts.intervals_chart(
                    rows, title=title, description=description, axis="gain, 95 % interval; dimensions: together"
                ),
                legend=charts.legend([(policies.index(name), policy_name(name)) for name in trained]),
            )
        )
    return made


def gains_table(
    metrics: Mapping[str, Any],
    against_original: Mapping[str, Mapping[str, Comparison]],
    between: Mapping[str, Comparison],
) -> Table:
    """Gains in total reward with intervals, in the reward's units and in deviations of the original's clips."""
    entries = [
        (f"{policy_name(policy)} − Original", source, Interval.of(record), against_original[policy][source].effect)
        for policy, sources in sorted(metrics["gain"].items())
        for source, record in sorted(sources.items())
    ]
    entries += [("MPO − DPO", source, entry.total, entry.effect) for source, entry in sorted(between.items())]
    says = {"above": "higher", "below": "lower", "unclear": "no difference shown", "unknown": "no interval"}
    # Only the oracle's word is coloured: the judge's gain is what training asked for.
    colours = {"above": "good", "below": "warning"}
    return Table(
        "Differences of total reward, averaged over prompts, each with its 95 % interval (Student's t over prompts)",
        [
            Column("Compared", number=False),
            Column("By", number=False),
            Column("Difference"),
            Column("95 % interval"),
            Column("In standard deviations"),
            Column("Reading", number=False),
        ],
        [
            [
                tables.words(label),
                tables.words(SOURCES[source]),
                tables.number(gain.mean, 3, sign=True),
                tables.interval(gain.low, gain.high, 3, sign=True),
                tables.number(effect, 2, sign=True),
                Cell(says[gain.verdict()], emphasis=colours.get(gain.verdict(), "") if source == "oracle" else ""),
            ]
            for label, source, gain, effect in entries
        ],
    )


def win_rates(metrics: Mapping[str, Any]) -> tuple[Chart, Table]:
    """How often a policy's clip beats the original's of the same prompt and seed."""
    policies = policies_of(metrics)
    rows, cells = [], []
    for policy, sources in sorted(metrics["win_rate"].items()):
        for source in (name for name in SOURCES if name in sources):
            rate = Interval.of(sources[source], "rate")
            name = f"{policy_name(policy)}, {source}"
            tip = f"{name}: {percent(rate.mean)} ({percent(rate.low)} to {percent(rate.high)})"
            rows.append(Row(name, [Mark(policies.index(policy), rate.mean, rate.low, rate.high, tip)]))
            cells.append(
                [
                    tables.words(policy_name(policy)),
                    tables.words(SOURCES[source]),
                    tables.share(rate.mean),
                    tables.share_interval(rate.low, rate.high),
                    # Metrics of an earlier version have no counts.
                    *(tables.number(sources[source].get(key), 0) for key in ("wins", "ties", "losses")),
                ]
            )
    chart = Chart(
        "Win rate against the original",
        charts.intervals_chart(
            rows,
            title="Win rate against the original",
            description="; ".join(mark.tip for row in rows for mark in row.marks),
            axis="share of clips won, 95 % interval; line at one half",
            reference=0.5,
            limits=(0.0, 1.0),
        ),
    )
    table = Table(
        "Win rate against the original: same prompt, same seed; a tie (equal rewards) counts half; intervals take "
        "prompts as clusters",
        [
            Column("Policy", number=False),
            Column("By", number=False),
            Column("Win rate"),
            Column("95 % interval"),
            Column("Won"),
            Column("Tied"),
            Column("Lost"),
        ],
        cells,
    )
    return chart, table


def weights_section(weights: RewardWeights, checklist: Checklist) -> tuple[Chart, Table]:
    """Weights of the questions with their intervals, grouped by dimension."""
    assert weights.ci_low is not None
    assert weights.ci_high is not None
    assert weights.removed is not None
    place = {name: i for i, name in enumerate(weights.question_ids)}
    reasons = {str(removal["question_id"]): str(removal.get("reason", "")) for removal in weights.removals}
    no_interval = weights.statistics.get("no_interval", {})
    rows, cells = [], []
    for question in checklist.questions:
        i = place.get(question.question_id)
        if i is None:
            continue
        removed = bool(weights.removed[i])
        value, low, high = (float(array[i]) for array in (weights.weights, weights.ci_low, weights.ci_high))
        series = 3 + checklist.dimensions.index(question.dimension)
        tip = f"{question.question_id}: {plain(value, 3)} ({plain(low, 3)} to {plain(high, 3)})"
        rows.append(Row(question.question_id, [Mark(series, value, low, high, "removed" if removed else tip)], removed))
        status = f"removed: {reasons.get(question.question_id, 'no weight')}" if removed else "kept"
        if question.question_id in no_interval:
            status += f"; no interval: {no_interval[question.question_id]}"
        cells.append(
            [
                tables.words(question.question_id),
                tables.words(question.text),
                tables.words(question.dimension),
                tables.number(value, 3),
                tables.interval(low, high, 3),
                tables.words(status),
            ]
        )
    kept = len(weights.kept)
    title = f"Weights: {kept} of {len(weights.question_ids)} questions kept"
    chart = Chart(
        title,
        charts.intervals_chart(
            rows,
            title=title,
            description="The table below holds the same numbers.",
            axis="weight (log odds), 95 % interval",
        ),
        legend=charts.legend([(3 + i, name) for i, name in enumerate(checklist.dimensions)]),
    )
    table = Table(
        "Weights of the checklist's questions",
        [
            Column("Question", number=False),
            Column("Text", number=False),
            Column("Dimension", number=False),
            Column("Weight"),
            Column("95 % interval"),
            Column("Status", number=False),
        ],
        cells,
    )
    return chart, table


def pairs_tables(pair_selection: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[Table]:
    """Pairs by strategy as in Table 5 of the paper, also at matched numbers, and the fates of the candidates.

    Raises:
        InputError: the report of pair_selection lacks the strategies.
    """
    strategies = pair_selection.get("strategies") or metrics.get("pairs")
    if not strategies:
        raise InputError(
            "the report of pair selection names no strategy",
            remedy="run pair_selection again",
            field="pair_selection_report.strategies",
        )
    entries = [(name, "as selected", strategies[name]) for name in sorted(strategies)]
    entries += [
        (name, "at the same number of pairs", record)
        for name, record in sorted((pair_selection.get("matched") or {}).items())
    ]
    made = [
        Table(
            "Training pairs: does the winner dominate the loser in every dimension? (as in Table 5 of the paper)",
            [
                Column("Strategy", number=False),
                Column("Pairs taken", number=False),
                Column("Pairs"),
                Column("Dominating"),
                Column("Not dominating"),
                Column("Not dominating, share"),
            ],
            [
                [
                    tables.words(policy_name(name)),
                    tables.words(what),
                    tables.count(record["n"]),
                    tables.count(record["dominating"]),
                    tables.count(record["not_dominating"]),
                    tables.share(record["not_dominating"] / record["n"] if record["n"] else None),
                ]
                for name, what, record in entries
            ],
        )
    ]
    fates = {name: record["fates"] for name, record in sorted(strategies.items()) if record.get("fates")}
    names = {
        "candidates": "Candidates",
        "tied": "Equal totals",
        "rejected_by_rule": "Dropped: by the rule",
        "below_margin": "Dropped: below the margin",
        "over_cap": "Dropped: over the cap",
        "over_number": "Dropped: over the matched number",
        "selected": "Selected",
    }
    if fates:
        made.append(
            Table(
                "What became of every candidate pair",
                [Column("Strategy", number=False), *(Column(text) for text in names.values())],
                [
                    [tables.words(policy_name(name)), *(tables.count(record.get(key, 0)) for key in names)]
                    for name, record in fates.items()
                ],
            )
        )
    gaps = {name: record for name, record in sorted((pair_selection.get("mean_gap") or {}).items()) if record}
    if gaps:
        dimensions = list(dict.fromkeys(name for record in gaps.values() for name in record))
        made.append(
            Table(
                "Mean gap of winner over loser by dimension (judge's reward)",
                [Column("Strategy", number=False), *(Column(name) for name in dimensions)],
                [
                    [
                        tables.words(policy_name(name)),
                        *(tables.number(_float(record.get(key)), 3, sign=True) for key in dimensions),
                    ]
                    for name, record in gaps.items()
                ],
            )
        )
    return made


def refused_pairs(pairs: pd.DataFrame, dimensions: Sequence[str]) -> tuple[Table, pd.DataFrame]:
    """Which dimension fails in the pairs that go by total reward but do not dominate.

    Args:
        pairs: preference pairs of the strategy dpo, with dominates and dim_<name>_gap.

    Returns:
        how often each dimension fails, and the failing pairs with their worst dimension, those that show another
        dimension first, then by margin.
    """
    failing = pairs[~pairs["dominates"].astype(bool)].reset_index(drop=True)
    columns = [f"dim_{name}_gap" for name in dimensions]
    missing = [name for name in columns if name not in failing.columns]
    if missing:
        raise InputError(
            f"the preference pairs have no column '{missing[0]}'",
            remedy="run pair_selection again after a change of the checklist",
            field=missing[0],
        )
    gaps = failing[columns].to_numpy(dtype=np.float64).reshape(len(failing), len(columns))
    below = gaps < -1e-9
    table = Table(
        f"Dimensions in which the winner by total reward is worse ({len(failing):,} of {len(pairs):,} pairs of DPO)",
        [Column("Dimension", number=False), Column("Pairs that fail here"), Column("Share"), Column("Mean gap there")],
        [
            [
                tables.words(name),
                tables.count(int(below[:, i].sum())),
                tables.share(float(below[:, i].mean()) if len(failing) else None),
                tables.number(float(gaps[below[:, i], i].mean()) if below[:, i].any() else None, 3, sign=True),
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


def training_section(
    logs: Mapping[str, pd.DataFrame], policies: Sequence[str], validations: Mapping[str, pd.DataFrame] | None = None
) -> tuple[list[Chart], Table, Markup]:
    """Curves of training with what each should look like, and the means of the first and last tenth.

    Args:
        logs: table of steps by policy.
        policies: in the order of their colours.
        validations: judged checkpoints by policy; without rows where none were judged.
    """
    series = {name: policies.index(name) if name in policies else 1 + i for i, name in enumerate(logs)}
    logs = {name: logs[name] for name in sorted(logs, key=lambda name: (series[name], name))}
    made = _validation_chart(validations or {}, series)
    for key, (title, note) in _HEALTH.items():
        lines: list[Line] = []
        for name, log in logs.items():
            lines += _lines(log, key, series[name], policy_name(name))
        if not lines:
            continue
        if key == "loss" and not any("logit_p50" in log for log in logs.values()):
            note = "Should sink and level off."
        ends = "; ".join(
            f"{line.name} from {plain(float(line.y[0]), 4)} to {plain(float(line.y[-1]), 4)}" for line in lines
        )
        made.append(
            Chart(
                title,
                charts.lines_chart(
                    lines,
                    title=title,
                    description=ends,
                    reference={"change": 0.0, "logit": 0.0, "implicit_accuracy": 0.5}.get(key),
                    from_zero=key in ("gradient_norm", "learning_rate"),
                ),
                note=note,
            )
        )
    ends_by_log = {name: log_ends(log) for name, log in logs.items()}
    quantities = list(dict.fromkeys(key for ends in ends_by_log.values() for key in ends))
    table = Table(
        "Training: mean of the first tenth of the steps → mean of the last tenth",
        [Column("Quantity", number=False), *(Column(policy_name(name)) for name in logs)],
        [
            [
                tables.words(key.replace("_", " ")),
                *(
                    Cell(f"{_short(ends[key][0])} → {_short(ends[key][1])}", tables.sort_key(ends[key][1]))
                    if key in ends
                    else Cell("–")
                    for ends in ends_by_log.values()
                ),
            ]
            for key in quantities
        ],
    )
    return made, table, charts.legend([(series[name], policy_name(name)) for name in logs])


def _validation_chart(validations: Mapping[str, pd.DataFrame], series: Mapping[str, int]) -> list[Chart]:
    judged = {
        name: validations[name]
        for name in sorted(series, key=lambda name: series[name])
        if name in validations and len(validations[name])
    }
    if not judged:
        return []
    lines = []
    for name, table in judged.items():
        x, y, se = (table[column].to_numpy(dtype=np.float64) for column in ("step", "reward", "se"))
        # A single prompt tells nothing of the error.
        band = (y - se, y + se) if np.isfinite(se).all() else (None, None)
        lines.append(Line(series[name], x, y, policy_name(name), *band))
    description = "; ".join(
        f"{policy_name(name)}: "
        + ", ".join(
            f"{plain(float(reward))} after step {step}"
            for step, reward in zip(table["step"], table["reward"], strict=True)
        )
        for name, table in judged.items()
    )
    title = "Validation reward"
    note = (
        "Mean reward by the judge on the validation prompts, from the same seeds at every checkpoint, with its "
        "standard error; step 0 is the original. Should rise and level off; one that falls while the loss still sinks "
        "shows pairs learned by heart. The highest checkpoint is the policy."
    )
    return [Chart(title, charts.lines_chart(lines, title=title, description=description), note=note)]


def _lines(log: pd.DataFrame, key: str, series: int, name: str) -> list[Line]:
    def column(label: str) -> np.ndarray | None:
        if label not in log or not np.isfinite(pd.to_numeric(log[label], errors="coerce")).any():
            return None
        return pd.to_numeric(log[label], errors="coerce").to_numpy(dtype=np.float64)

    x = log["step"].to_numpy(dtype=np.float64)
    if key == "change":
        parts = [(column("winner_change"), "winners", False), (column("loser_change"), "losers", True)]
        return [Line(series, x, y, f"{name}, {what}", dashed=dashed) for y, what, dashed in parts if y is not None]
    if key == "logit":
        middle = column("logit_p50")
        if middle is None:
            return []
        return [Line(series, x, middle, name, column("logit_p10"), column("logit_p90"))]
    values = column(key)
    return [] if values is None else [Line(series, x, values, name)]


def disagreement_table(
    agreement: Mapping[str, Any],
    checklist: Checklist,
    bias: pd.DataFrame,
    policies: Sequence[str],
) -> Table:
    """Questions with the share of equal answers of judge and oracle, and how much oftener the judge says yes."""
    questions = {question.question_id: question for question in checklist.questions}
    shown = sorted((agreement.get("questions") or {}).items(), key=lambda item: (item[1], item[0]))
    biased = [name for name in policies if name in bias.columns] if len(bias) else []
    rows = []
    for name, value in shown:
        question = questions.get(name)
        cells = [
            tables.words(name),
            tables.words(question.text if question else ""),
            tables.words(question.dimension if question else ""),
            tables.share(value, charts.share_bar(value)),
        ]
        for policy in biased:
            excess = float(bias.loc[name, policy]) if name in bias.index else math.nan
            cells.append(tables.number(100 * excess, 1, sign=True))
        rows.append(cells)
    return Table(
        "Answers of judge and oracle on the evaluation's clips, least agreement first",
        [
            Column("Question", number=False),
            Column("Text", number=False),
            Column("Dimension", number=False),
            Column("Same answer"),
            *(Column(f"Judge's extra yes, {policy_name(policy)} (points)") for policy in biased),
        ],
        rows,
    )


def prompt_filter_tables(report: Mapping[str, Any]) -> list[Table]:
    """Prompts in and out of every step, with the rules that dropped them, and the splits.

    Raises:
        InputError: the report has steps without counts.
    """
    rows = []
    for step in report.get("steps") or []:
        for key in ("step", "in", "out"):
            if key not in step:
                raise InputError(
                    f"a step of the prompt filter's report has no '{key}'",
                    remedy="run prompt_filtering again",
                    field=f"prompt_filter_report.steps.{key}",
                )
        rules = ", ".join(f"{rule} {number:,}" for rule, number in sorted((step.get("rules") or {}).items()))
        rows.append(
            [
                tables.words(_STEPS.get(step["step"], str(step["step"]))),
                tables.count(step["in"]),
                tables.count(step["out"]),
                tables.count(step.get("dropped", step["in"] - step["out"])),
                tables.words(rules or "–"),
            ]
        )
    made = []
    if rows:
        made.append(
            Table(
                "Prompts in and out of every step of the filter",
                [
                    Column("Step", number=False),
                    Column("In"),
                    Column("Out"),
                    Column("Dropped"),
                    Column("Rules", number=False),
                ],
                rows,
            )
        )
    splits = report.get("splits") or {}
    if splits:
        made.append(
            Table(
                "Prompts that passed, by split",
                [Column("Split", number=False), Column("Prompts")],
                [[tables.words(str(name)), tables.count(number)] for name, number in splits.items()],
            )
        )
    return made


def bias_of(
    judge_answers: pd.DataFrame | None,
    oracle_answers: pd.DataFrame | None,
    index: pd.DataFrame,
    policies: Sequence[str],
) -> pd.DataFrame:
    """As :func:`question_bias`, empty where answers were not given."""
    if judge_answers is None or oracle_answers is None or oracle_answers.empty:
        return pd.DataFrame()
    return question_bias(judge_answers, oracle_answers, index, policies)


def _short(value: float) -> str:
    """About four significant digits."""
    if value and abs(value) < 1e-3:
        return f"{value:.2e}".replace("-", "−")
    return plain(value, 4 if abs(value) < 1 else 3)


def _float(value: Any) -> float:
    return math.nan if value is None else float(value)
