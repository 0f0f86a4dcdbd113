"""The summary at the end of a run: durations, results, and where to find them."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline

from vr_pipeline.hooks.records import NodeRecord, NodeRecordHook
from vr_pipeline.project.places import shown, stored_at
from vr_pipeline.runtime.memory import peak_memory
from vr_pipeline.terminal import echo, one_line

if TYPE_CHECKING:
    from vr_pipeline.hooks.mlflow_tracking import MlflowHook

METRICS, REPORT, WEIGHTS = "evaluation_metrics", "evaluation_report", "reward_weights"
_ORDER = {"judge": 0, "oracle": 1, "auditor": 2}
"""Of the lines; the file of the metrics is sorted by name."""


class RunSummaryHook:
    """Prints the summary of a successful run."""

    def __init__(self, nodes: NodeRecordHook, mlflow: MlflowHook) -> None:
        self._nodes, self._mlflow = nodes, mlflow

    @hook_impl(trylast=True)
    def after_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        names = ", ".join(run_params.get("pipeline_names") or ["__default__"])
        seconds = perf_counter() - self._nodes.started
        width = shutil.get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else None
        lines = [
            "",
            f"Finished {names} in {duration(seconds)}, peak memory {peak_memory() / 2**30:.2f} GiB.",
            *node_lines(self._nodes.records.values(), width=width),
        ]
        outputs = pipeline.all_outputs()
        if METRICS in outputs:
            lines += ["", *figure_lines(catalog.load(METRICS))]
        if WEIGHTS in outputs:
            lines += weight_lines(catalog.load(WEIGHTS))
        if REPORT in outputs and (report := stored_at(catalog, REPORT)) is not None:
            lines += ["", f"Report: {shown(report, Path(run_params['project_path']))}"]
        if self._mlflow.page:
            lines += ["", f"Runs: {self._mlflow.page}"]
        if self._mlflow.troubles:
            lines += ["", "The record of this run:", *(f"  {one_line(trouble)}" for trouble in self._mlflow.troubles)]
        echo("\n".join(lines))


def node_lines(records: Iterable[NodeRecord], *, width: int | None = None) -> list[str]:
    """Return a table of nodes: seconds including loading and saving, and outputs.

    Args:
        width: of the terminal; longer rows are split over lines. None: unlimited.
    """
    rows = [
        (record.name, f"{record.seconds:.1f}", [f"{name}: {size}" for name, size in record.sizes.items()])
        for record in records
    ]
    if not rows:
        return []
    rows = [("node", "seconds", ["wrote"]), *rows]
    widest = max(len(name) for name, _, _ in rows)
    figures = max(len(seconds) for _, seconds, _ in rows)
    lines = []
    for name, seconds, wrote in rows:
        line = f"  {name:<{widest}}  {seconds:>{figures}}  {'; '.join(wrote)}".rstrip()
        if width is None or len(line) <= width:
            lines.append(line)
            continue
        name_width = min(widest, width - figures - 4)
        lines.append(f"  {name:<{name_width}}  {seconds:>{figures}}")
        lines += [f"      {each}" for each in wrote]
    return lines


def figure_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Return the main figures of evaluation_metrics: gains over the original with 95 % intervals by prompt."""
    lines = []
    for policy, scorers in metrics.get("gain", {}).items():
        for scorer, gain in sorted(scorers.items(), key=lambda item: _ORDER.get(item[0], len(_ORDER))):
            ends = f"[{_figure(gain['ci_low'], '+.3f')}, {_figure(gain['ci_high'], '+.3f')}]"
            if "no_interval" in gain:
                ends = f"(no interval: {gain['no_interval']})"
            lines.append(f"  {policy} against original, {scorer} reward: {_figure(gain['mean'], '+.3f')}  {ends}")
    if agreement := metrics.get("agreement"):
        lines.append(
            f"  preference accuracy: tau {_figure(agreement['tau'], '.3f')}, diff {_figure(agreement['diff'], '.3f')} "
            f"({agreement['n']} pairs, {agreement['n_ties']} ties)"
        )
    for strategy, pairs in metrics.get("pairs", {}).items():
        lines.append(f"  {strategy} pairs: {pairs['n']}, of which {pairs['dominating']} dominate in every dimension")
    return ["Held-out prompts (mean gain, 95 % interval by prompt):", *lines] if lines else []


def weight_lines(weights: Mapping[str, Any]) -> list[str]:
    """Return the warnings of reward_weights: penalty, separation, missing intervals."""
    warnings = weights.get("statistics", {}).get("warnings", [])
    return ["", "Weights:", *(f"  {warning}" for warning in warnings)] if warnings else []


def _figure(value: float | None, form: str) -> str:
    """Format a number; with few preferences there may be none, for instance if all held-out ones are ties."""
    return "-" if value is None or math.isnan(value) else f"{value:{form}}"


def duration(seconds: float) -> str:
    """Format seconds, for instance '2 min 5 s'."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
