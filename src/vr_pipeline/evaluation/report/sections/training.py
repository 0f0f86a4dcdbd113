"""The health of every training: its curves with what each should look like, and remarks where something went wrong."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from markupsafe import Markup

from vr_pipeline.evaluation.report import charts, elements
from vr_pipeline.evaluation.report.charts import Chart, Line
from vr_pipeline.evaluation.report.elements import Cell, Finding, Table, sort_key
from vr_pipeline.evaluation.report.wording import percent, plain, signed
from vr_pipeline.generators.policy import ORIGINAL

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
    "held_out_accuracy": (
        "Held-out accuracy",
        "The same on pairs of prompts that are not trained on. One half is chance; a curve that falls while the "
        "accuracy on the training pairs rises shows pairs learned by heart.",
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
_REFERENCES = {"change": 0.0, "logit": 0.0, "implicit_accuracy": 0.5, "held_out_accuracy": 0.5}


def make(titles: Mapping[str, str], *tables: pd.DataFrame) -> list[Markup]:
    """Show remarks, curves, and the means of the first and last tenth.

    Args:
        titles: of the policies.
        tables: the training log of every recipe, then the judged checkpoints of every recipe, without rows where none
            were judged.
    """
    trained = [name for name in titles if name != ORIGINAL]
    logs = dict(zip(trained, tables[: len(trained)], strict=True))
    validations = dict(zip(trained, tables[len(trained) :], strict=True))
    remarks = [*validation_remarks(titles, validations), *training_remarks(titles, logs, validations)]
    return [
        elements.findings(remarks)
        if remarks
        else elements.paragraph("Nothing in the ends of the curves calls for a remark."),
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
            note = "Should sink and level off."
        ends = "; ".join(
            f"{line.name} from {plain(float(line.y[0]), 4)} to {plain(float(line.y[-1]), 4)}" for line in lines
        )
        zero = key in ("gradient_norm", "learning_rate")
        reference = _REFERENCES.get(key)
        made.append(charts.lines_chart(title, lines, description=ends, note=note, reference=reference, from_zero=zero))
    return made


def validation_charts(titles: Mapping[str, str], validations: Mapping[str, pd.DataFrame]) -> list[Chart]:
    """Draw the reward of the judged checkpoints; no chart where none were judged."""
    lines, descriptions = [], []
    for series, (name, title) in enumerate(titles.items()):
        table = validations.get(name)
        if table is None or not len(table):
            continue
        x, y, se = (table[column].to_numpy(dtype=np.float64) for column in ("step", "reward", "se"))
        # A single prompt tells nothing of the error.
        band = (y - se, y + se) if np.isfinite(se).all() else (None, None)
        lines.append(Line(series, x, y, title, *band))
        points = zip(table["step"], table["reward"], strict=True)
        text = ", ".join(f"{plain(float(reward))} after step {step}" for step, reward in points)
        descriptions.append(f"{title}: {text}")
    if not lines:
        return []
    note = (
        "Mean reward by the judge on the validation prompts, from the same seeds at every checkpoint, with its "
        "standard error; step 0 is the original. Should rise and level off; one that falls while the loss still sinks "
        "shows pairs learned by heart. The highest checkpoint is the policy."
    )
    return [charts.lines_chart("Validation reward", lines, description="; ".join(descriptions), note=note)]


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
    """Return the means of the first and of the last tenth of the steps, for every column but the step."""
    numbers, tenth = log.drop(columns="step").apply(pd.to_numeric, errors="coerce"), max(1, len(log) // 10)
    ends = pd.DataFrame({"first": numbers.head(tenth).mean(), "last": numbers.tail(tenth).mean()})
    return {str(name): (float(first), float(last)) for name, first, last in ends.dropna().itertuples()}


def validation_remarks(titles: Mapping[str, str], validations: Mapping[str, pd.DataFrame]) -> list[Finding]:
    """Say which checkpoint became the policy, and whether any was better than the original by the judge."""
    remarks = []
    for policy, table in validations.items():
        chosen, original = table[table["chosen"].astype(bool)], table[table["step"] == 0]
        if chosen.empty or original.empty:
            continue
        step, reward, before = int(chosen["step"].iloc[0]), float(chosen["reward"].iloc[0]), original["reward"].iloc[0]
        text = (
            f"{titles[policy]} is the checkpoint after step {step} of {int(table['step'].max())}, with the "
            f"highest validation reward: {plain(reward)}, the original {plain(float(before))}. The highest of several "
            "is rather too high; the figures above are from other prompts."
        )
        if table.loc[~table["chosen"].astype(bool), "gap_low"].isna().any():
            text += " There are too few validation prompts to tell how far the checkpoints differ on others."
        # The interval of the lead holds 0: on other prompts the order might be the other way round.
        alike = table[(table["step"] > 0) & (table["gap_low"] <= 0) & (table["gap_high"] >= 0)]["step"].astype(int)
        if len(alike):
            text += (
                " On these validation prompts it cannot be told from "
                f"{'that' if len(alike) == 1 else 'those'} after step {', '.join(map(str, alike))} (95 % intervals of "
                "the difference on the same prompts hold 0); more validation prompts would tell."
            )
        if reward > before:
            remarks.append(Finding(text))
        else:
            remarks.append(Finding(f"{text} No checkpoint was above the original: training did not help.", "warning"))
    return remarks


def training_remarks(
    titles: Mapping[str, str], logs: Mapping[str, pd.DataFrame], validations: Mapping[str, pd.DataFrame]
) -> list[Finding]:
    """Say what the ends of the training curves show, where it is worth a sentence."""
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
                    f"{name} went wrong from step {int(last['trouble_step'])} on and was ended after step "
                    f"{int(last['step'])}. Its weights are those {kept_weights}.",
                    "warning",
                )
            )
            continue
        if "loser_change" in ends and ends.get("winner_change", 0.0) > 0:
            texts.append(
                f"{name} models even the winners worse than the reference at the end "
                f"({signed(ends['winner_change'], 4)}; losers {signed(ends['loser_change'], 4)}). The pairs push it "
                "away from the losers more than towards the winners; a smaller learning rate or a larger beta holds it "
                "back."
            )
        if ends.get("implicit_accuracy", 1.0) < 0.55:
            texts.append(
                f"{name} orders only {percent(ends['implicit_accuracy'])} of its own training pairs rightly at the "
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
    """Return the step of the checkpoint that became the policy, where training continued after it."""
    if validation is None or not len(log) or not validation["chosen"].astype(bool).any():
        return None
    step = int(validation.loc[validation["chosen"].astype(bool), "step"].iloc[0])
    return step if step < int(log["step"].max()) else None


def _short(value: float) -> str:
    """Write about four significant digits."""
    if value and abs(value) < 1e-3:
        return f"{value:.2e}".replace("-", "−")
    return plain(value, 4 if abs(value) < 1 else 3)
