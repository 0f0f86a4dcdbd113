"""Health of every training: curves with their expected course, and remarks about problems."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from markupsafe import Markup

from vr_pipeline.evaluation.report import charts, elements, planes
from vr_pipeline.evaluation.report.charts import Chart
from vr_pipeline.evaluation.report.elements import Cell, Finding, Table, sort_key
from vr_pipeline.evaluation.report.planes import Line
from vr_pipeline.evaluation.report.wording import percent, plain, signed
from vr_pipeline.generators.policy import ORIGINAL
from vr_pipeline.training.inputs import HOLD_OUT

_HEALTH = {
    "loss": (
        "Loss",
        "Should start at ln 2 (0.693), where policy and reference are equal, and fall slowly; a drop to almost 0 means "
        "that the pairs are memorised.",
    ),
    "implicit_accuracy": (
        "Implicit accuracy",
        "Share of training pairs on which the policy prefers the winner more than the reference does. Should rise well "
        "above one half; a curve that stays there shows that nothing is learned from the pairs.",
    ),
    "held_out_accuracy": (
        "Held-out accuracy",
        "The same on pairs of prompts that are not trained on. One half is chance; a curve that falls while the "
        "accuracy on the training pairs rises shows overfitting.",
    ),
    "change": (
        "Error against the reference",
        "Solid: winners; dashed: losers. Winners should fall below 0 or stay near it while losers rise; if both rise, "
        "the policy only moves away from the reference.",
    ),
    "logit": (
        "Term inside the sigmoid",
        "Median and 10 to 90 % band. Should rise slowly above 0 and widen slowly; tens of units mean saturation.",
    ),
    "saturation": (
        "Saturation",
        "Share of the gradient that the sigmoid removes. Should start at one half and rise without reaching 1, "
        "where nothing more is learned from the pairs.",
    ),
    "gradient_norm": ("Gradient norm", "Should stay at about the same size; growing spikes indicate divergence."),
    "learning_rate": ("Learning rate", "Should rise over the warm-up, then fall linearly to 0."),
}
_REFERENCES = {"change": 0.0, "logit": 0.0, "implicit_accuracy": 0.5, "held_out_accuracy": 0.5}


def make(titles: Mapping[str, str], *tables: pd.DataFrame) -> list[Markup]:
    """Show remarks, curves, and the means of the first and last tenth.

    Args:
        titles: of the policies.
        tables: the training log of every recipe, then the judged checkpoints of every recipe, which may be empty.
    """
    trained = [name for name in titles if name != ORIGINAL]
    logs = dict(zip(trained, tables[: len(trained)], strict=True))
    validations = dict(zip(trained, tables[len(trained) :], strict=True))
    remarks = [*validation_remarks(titles, validations), *training_remarks(titles, logs, validations)]
    return [
        elements.findings(remarks) if remarks else elements.paragraph("The ends of the curves show no problem."),
        charts.legend([(series, title) for series, (name, title) in enumerate(titles.items()) if name in logs]),
        elements.charts([*validation_charts(titles, validations), *_health_charts(titles, logs)], small=True),
        elements.table(_ends_table(titles, logs)),
    ]


def _health_charts(titles: Mapping[str, str], logs: Mapping[str, pd.DataFrame]) -> list[Chart]:
    made = []
    for key, (title, note) in _HEALTH.items():
        lines = [
            line
            for series, (name, text) in enumerate(titles.items())
            if name in logs
            for line in _lines(logs[name], key, series, text)
        ]
        if not lines:
            continue
        if key == "loss" and not any("logit_p50" in log for log in logs.values()):
            note = "Should fall and level off."
        ends = "; ".join(
            f"{line.name} from {plain(float(line.y[0]), 4)} to {plain(float(line.y[-1]), 4)}" for line in lines
        )
        zero = key in ("gradient_norm", "learning_rate")
        reference = _REFERENCES.get(key)
        made.append(planes.lines_chart(title, lines, description=ends, note=note, reference=reference, from_zero=zero))
    return made


def validation_charts(titles: Mapping[str, str], validations: Mapping[str, pd.DataFrame]) -> list[Chart]:
    """Draw the rewards of judged checkpoints, by the judge and by each hold-out."""
    judge = (
        "Mean reward by the judge on the validation prompts, from the same seeds at every checkpoint, with its "
        "standard error; step 0 is the original. Should rise and level off; a curve that falls while the loss still "
        "falls shows overfitting. The highest checkpoint is the policy."
    )
    made = _checkpoint_chart(titles, validations, "Validation reward", "reward", "se", judge)
    columns = dict.fromkeys(str(name) for table in validations.values() for name in table)
    for column in columns:
        if column.startswith(HOLD_OUT) and f"{column}_se" in columns:
            name = column.removeprefix(HOLD_OUT)
            note = (
                f"The same clips by {name}, which the training did not use. Where this curve falls while the judge's "
                "rises, the policy over-optimises the judge."
            )
            title = f"Validation reward by {name}"
            made += _checkpoint_chart(titles, validations, title, column, f"{column}_se", note)
    return made


def _checkpoint_chart(
    titles: Mapping[str, str], validations: Mapping[str, pd.DataFrame], heading: str, mean: str, error: str, note: str
) -> list[Chart]:
    lines, descriptions = [], []
    for series, (name, title) in enumerate(titles.items()):
        table = validations.get(name)
        if table is None or mean not in table or not len(table := table.dropna(subset=mean)):
            continue
        x, y, se = (table[column].to_numpy(dtype=np.float64) for column in ("step", mean, error))
        # A single prompt gives no standard error.
        band = (y - se, y + se) if np.isfinite(se).all() else (None, None)
        lines.append(Line(series, x, y, title, *band))
        points = zip(table["step"], table[mean], strict=True)
        text = ", ".join(f"{plain(float(reward))} after step {step}" for step, reward in points)
        descriptions.append(f"{title}: {text}")
    if not lines:
        return []
    return [planes.lines_chart(heading, lines, description="; ".join(descriptions), note=note)]


def _lines(log: pd.DataFrame, key: str, series: int, name: str) -> list[Line]:
    def column(label: str) -> npt.NDArray[np.float64] | None:
        if label not in log or not np.isfinite(pd.to_numeric(log[label], errors="coerce")).any():
            return None
        return pd.to_numeric(log[label], errors="coerce").to_numpy(dtype=np.float64)

    x = log["step"].to_numpy(dtype=np.float64)
    if key == "change":
        parts = [(column("winner_change"), "winners", False), (column("loser_change"), "losers", True)]
        return [Line(series, x, y, f"{name}, {what}", dashed=dashed) for y, what, dashed in parts if y is not None]
    values = column("logit_p50" if key == "logit" else key)
    band = (column("logit_p10"), column("logit_p90")) if key == "logit" else (None, None)
    if values is None:
        return []
    if key == "held_out_accuracy":  # measured at some steps only
        measured = np.isfinite(values)
        x, values = x[measured], values[measured]
    return [Line(series, x, values, name, *band)]


def _ends_table(titles: Mapping[str, str], logs: Mapping[str, pd.DataFrame]) -> Table:
    ends_by_log = {titles[name]: log_ends(log) for name, log in logs.items()}
    quantities = list(dict.fromkeys(key for ends in ends_by_log.values() for key in ends))

    def cell(ends: tuple[float, float] | None) -> Cell:
        return Cell("–") if ends is None else Cell(f"{_short(ends[0])} → {_short(ends[1])}", sort_key(ends[1]))

    return Table(
        "Training: mean of the first tenth of the steps → mean of the last tenth",
        ["Quantity", *ends_by_log],
        [[key.replace("_", " "), *(cell(ends.get(key)) for ends in ends_by_log.values())] for key in quantities],
    )


def log_ends(log: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Return the means of the first and last tenth of the steps, for every column except the step."""
    numbers, tenth = log.drop(columns="step").apply(pd.to_numeric, errors="coerce"), max(1, len(log) // 10)
    ends = pd.DataFrame({"first": numbers.head(tenth).mean(), "last": numbers.tail(tenth).mean()})
    return {str(name): (float(first), float(last)) for name, first, last in ends.dropna().itertuples()}


def validation_remarks(titles: Mapping[str, str], validations: Mapping[str, pd.DataFrame]) -> list[Finding]:
    """Report which checkpoint became the policy, and whether it was better than the original by the judge."""
    remarks = []
    for policy, table in validations.items():
        chosen, original = table[table["chosen"].astype(bool)], table[table["step"] == 0]
        if chosen.empty or original.empty:
            continue
        step, reward, before = int(chosen["step"].iloc[0]), float(chosen["reward"].iloc[0]), original["reward"].iloc[0]
        highest = "the highest validation reward"
        if reward < table.loc[table["step"] > 0, "reward"].max():
            highest += " that alarm and bound allow"
        text = (
            f"{titles[policy]} is the checkpoint after step {step} of {int(table['step'].max())}, with {highest}: "
            f"{plain(reward)}, the original {plain(float(before))}. The highest of several is biased upwards; the "
            "figures above are from other prompts."
        )
        if table.loc[~table["chosen"].astype(bool), "gap_low"].isna().any():
            text += " There are too few validation prompts to show how far the checkpoints differ on others."
        # The interval of the lead includes 0: the order may differ on other prompts.
        alike = table[(table["step"] > 0) & (table["gap_low"] <= 0) & (table["gap_high"] >= 0)]["step"].astype(int)
        if len(alike):
            text += (
                " On these validation prompts it cannot be distinguished from "
                f"{'that' if len(alike) == 1 else 'those'} after step {', '.join(map(str, alike))} (95 % intervals of "
                "the difference on the same prompts include 0); more validation prompts would narrow them."
            )
        if not step:
            text = f"{titles[policy]} is the original: no checkpoint was chosen."
            remarks.append(Finding(text, "warning"))
        elif reward > before:
            remarks.append(Finding(text))
        else:
            remarks.append(Finding(f"{text} No checkpoint was above the original: training did not help.", "warning"))
        remarks += [*_rejected(titles[policy], table), *_alarms(titles[policy], table)]
    return remarks


def _rejected(title: str, table: pd.DataFrame) -> list[Finding]:
    """Return which checkpoints the bound rejected, and in which dimensions they are below the original."""
    if "below" not in table or not (table["below"] != "").any():
        return []
    out = table[table["below"] != ""]
    named = "; ".join(f"step {step}: {names}" for step, names in zip(out["step"], out["below"], strict=True))
    text = f"{title}: checkpoints with a dimension below the original were rejected ({named})."
    return [Finding(text, "warning")]


def _alarms(title: str, table: pd.DataFrame) -> list[Finding]:
    """Return the alarms for reward hacking, or that none was possible."""
    if "alarm" in table:
        raised = table[table["alarm"] != ""]
        return [
            Finding(f"Alarm for reward hacking, {title}, checkpoint after step {step}: {text}.", "warning")
            for step, text in zip(raised["step"], raised["alarm"], strict=True)
        ]
    if any(str(name).startswith(HOLD_OUT) for name in table):
        return [
            Finding(f"{title} has no alarm for reward hacking: there are too few validation prompts, or it is off.")
        ]
    return []


def training_remarks(
    titles: Mapping[str, str], logs: Mapping[str, pd.DataFrame], validations: Mapping[str, pd.DataFrame]
) -> list[Finding]:
    """Report problems at the ends of the training curves."""
    remarks = []
    for policy, log in logs.items():
        name = titles[policy]
        ends = {key: last for key, (_, last) in log_ends(log).items()}
        kept = _kept_step(log, validations.get(policy))
        earlier = f" The policy is an earlier checkpoint, after step {kept}." if kept is not None else ""
        texts = []
        if "kept_step" in log and log["kept_step"].notna().any():
            last = log.iloc[-1]
            kept_weights = f"after step {int(last['kept_step'])}" if last["kept_step"] else "of the original"
            remarks.append(
                Finding(
                    f"The training of {name} failed from step {int(last['trouble_step'])} on and was stopped after "
                    f"step {int(last['step'])}. Its weights are those {kept_weights}.",
                    "warning",
                )
            )
            continue
        if "loser_change" in ends and ends.get("winner_change", 0.0) > 0:
            texts.append(
                f"{name} models even the winners worse than the reference at the end "
                f"({signed(ends['winner_change'], 4)}; losers {signed(ends['loser_change'], 4)}). The pairs push it "
                "away from the losers more than towards the winners; a smaller learning rate or a larger beta reduces "
                "this."
            )
        if ends.get("implicit_accuracy", 1.0) < 0.55:
            texts.append(
                f"{name} orders only {percent(ends['implicit_accuracy'])} of its own training pairs correctly at the "
                "end, hardly more than chance."
            )
        if ends.get("saturation", 0.0) > 0.9:
            texts.append(
                f"{name}'s loss is saturated ({percent(ends['saturation'])} of the gradient is lost at the end): lower "
                "beta or the number of steps."
            )
        remarks += [Finding(f"{text}{earlier}", "warning") for text in texts]
    return remarks


def _kept_step(log: pd.DataFrame, validation: pd.DataFrame | None) -> int | None:
    """Return the step of the chosen checkpoint if training continued after it."""
    if validation is None or not len(log) or not validation["chosen"].astype(bool).any():
        return None
    step = int(validation.loc[validation["chosen"].astype(bool), "step"].iloc[0])
    return step if step < int(log["step"].max()) else None


def _short(value: float) -> str:
    """Write about four significant digits."""
    if value and abs(value) < 1e-3:
        return f"{value:.2e}".replace("-", "−")
    return plain(value, 4 if abs(value) < 1 else 3)
