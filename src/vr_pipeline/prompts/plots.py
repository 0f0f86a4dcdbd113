"""The plot of a filtering run."""

from __future__ import annotations

import textwrap
from typing import Any

from vr_pipeline.drawing import Axes, Figure, new_figure

STEP_NAMES = {
    "read": "read",
    "clean": "clean",
    "rouge": "same words\n(Rouge-L)",
    "semantic": "same meaning\n(cosine)",
    "language_model": "language model",
    "diversity": "diversity",
    "split": "leak between\nsplits",
}
BEFORE, AFTER, RULE_COLOURS = "#b0b7c3", "#2b6cb0", ("#c05621", "#dd8a4f", "#b83280", "#805ad5", "#319795", "#718096")


def plot_report(report: dict[str, Any], *, examples: int = 12) -> Figure:
    """Plot prompts dropped by step, nearest similarities before and after, and examples of each reason.

    Args:
        report: of :func:`vr_pipeline.prompts.report.filter_report`.
        examples: largest number of examples, from all reasons.
    """
    shown = _spread(report["examples"], examples)
    table_height = 0.5 + 0.42 * max(len(shown), 1)
    figure = new_figure(figsize=(13, 5.2 + table_height), layout="constrained")
    grid = figure.add_gridspec(2, 3, height_ratios=[5.0, table_height], width_ratios=[1.5, 1, 1])
    _plot_steps(figure.add_subplot(grid[0, 0]), report)
    _plot_similarity(
        figure.add_subplot(grid[0, 1]),
        report["nearest_similarity"]["rouge_l"],
        "Rouge-L F1 with the nearest prompt",
        report["parameters"]["rouge"]["threshold"],
    )
    _plot_similarity(
        figure.add_subplot(grid[0, 2]),
        report["nearest_similarity"]["cosine"],
        "cosine with the nearest prompt",
        report["parameters"]["semantic"]["threshold"],
    )
    _show_examples(figure.add_subplot(grid[1, :]), shown)
    figure.suptitle(f"Prompt filtering: {report['kept']:,} of {report['read']:,} prompts kept", fontsize=14)
    return figure


def _plot_steps(axes: Axes, report: dict[str, Any]) -> None:
    from matplotlib.ticker import MaxNLocator

    rules = sorted({rule for step in report["steps"] for rule in step["rules"]})
    colours = {rule: RULE_COLOURS[position % len(RULE_COLOURS)] for position, rule in enumerate(rules)}
    positions = range(len(report["steps"]))
    largest = max([step["dropped"] for step in report["steps"]] + [1])
    for position, step in zip(positions, report["steps"], strict=True):
        left = 0
        for rule, count in sorted(step["rules"].items(), key=lambda item: -item[1]):
            axes.barh(position, count, left=left, color=colours[rule], edgecolor="white", linewidth=0.5)
            if count > 0.3 * largest:
                axes.text(left + count / 2, position, rule, ha="center", va="center", color="white", fontsize=7.5)
            left += count
        axes.text(left + 0.01 * largest, position, f" {step['dropped']:,} of {step['in']:,}", va="center", fontsize=8.5)
    axes.set_yticks(list(positions), [STEP_NAMES[step["step"]] for step in report["steps"]])
    axes.set_ylim(len(report["steps"]) - 0.4, -0.6)
    axes.set_xlim(0, largest * 1.3)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("prompts dropped")
    axes.set_title("Dropped by step and rule", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)


def _plot_similarity(axes: Axes, similarity: dict[str, Any], label: str, threshold: float) -> None:
    axes.set_title(label, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    if not similarity:
        axes.text(0.5, 0.5, "step is off", ha="center", va="center", transform=axes.transAxes, color="#718096")
        axes.set_xticks([])
        axes.set_yticks([])
        return
    for when, colour, filled in (("before", BEFORE, True), ("after", AFTER, False)):
        histogram = similarity[when]
        total = max(histogram["n"], 1)
        axes.stairs(
            [count / total for count in histogram["counts"]],
            histogram["edges"],
            color=colour,
            fill=filled,
            linewidth=1.6,
            label=f"{when}, {histogram['n']:,} sampled",
        )
    if threshold < 1:
        axes.axvline(threshold, color="#c05621", linestyle="--", linewidth=1.2, label=f"threshold {threshold:g}")
    axes.set_xlim(0, 1)
    axes.set_xlabel("similarity")
    axes.set_ylabel("share of prompts")
    axes.set_ylim(0, axes.get_ylim()[1] * 1.25)
    axes.legend(fontsize=8, loc="upper left", framealpha=1, edgecolor="white")


def _spread(examples: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Return examples up to this number, first one per reason, then a second, in the order of the steps."""
    turns: dict[tuple[str, str], int] = {}
    ranked = []
    for position, example in enumerate(examples):
        kind = (example["step"], example["rule"])
        turns[kind] = turns.get(kind, -1) + 1
        ranked.append((turns[kind], position))
    chosen = sorted(position for _, position in sorted(ranked)[:count])
    return [examples[position] for position in chosen]


def _show_examples(axes: Axes, examples: list[dict[str, Any]]) -> None:
    from matplotlib.transforms import Bbox

    axes.axis("off")
    axes.set_title("Examples of dropped prompts", fontsize=11, loc="left")
    if not examples:
        axes.text(0, 0.5, "no prompt was dropped", transform=axes.transAxes, color="#718096")
        return
    cells = [
        [
            _fitted(f"{example['step']}: {example['rule']}", 24),
            _fitted(example["prompt"], 64),
            _fitted(example["reason"], 36),
            _fitted(example["nearest_prompt"] or "", 58),
        ]
        for example in examples
    ]
    table = axes.table(
        cells,
        colLabels=["step: rule", "prompt", "reason", "nearest kept prompt"],
        colWidths=[0.15, 0.34, 0.2, 0.31],
        cellLoc="left",
        colLoc="left",
        bbox=Bbox.unit(),
    )
    table.auto_set_font_size(False)
    table.set_fontsize(7.5)
    for (row, _), cell in table.get_celld().items():
        cell.set_edgecolor("#e2e8f0")
        cell.PAD = 0.03
        if row == 0:
            cell.set_text_props(weight="bold")


def _fitted(text: str, width: int) -> str:
    """Return at most two lines, with escaped dollar signs, which would start mathematics."""
    plain = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    lines = textwrap.wrap(plain, width) or [""]
    if len(lines) > 2:
        lines = [
            lines[0],
            textwrap.shorten(" ".join(lines[1:]), width, placeholder=" ...") or lines[1][: width - 4] + " ...",
        ]
    return "\n".join(lines).replace("$", r"\$")
