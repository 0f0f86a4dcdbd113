"""Results of runs as a short table for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vr_pipeline.evaluation.report.comparison import SOURCES, Interval
from vr_pipeline.evaluation.report.wording import percent, signed
from vr_pipeline.terminal import aligned

WIDTH = 100
"""Largest number of columns of a line."""

_HEADINGS = ("policy", "by", "gain", "95 % interval", "wins", "pairs", "confirmed")
_SHARED = ("gain", "gain_by_dimension", "win_rate", "agreement", "pairs", "clips", "reward")


@dataclass(frozen=True)
class Result:
    """The result of an evaluation.

    Args:
        title: the run, or the file of its metrics.
        metrics: in the layout of evaluation_metrics.json.
        facts: about the run: identifier, pipelines, environment, start, seconds.
    """

    title: str
    metrics: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return facts and figures."""
        return {**self.facts, **{key: self.metrics[key] for key in _SHARED if key in self.metrics}}


def table_lines(results: Sequence[Result]) -> list[str]:
    """Return the lines of all results, none longer than :data:`WIDTH`."""
    lines: list[str] = []
    for result in results:
        lines += [*textwrap.wrap(result.title, WIDTH), *_gains(result.metrics), *_people(result.metrics), ""]
    if any("*," in line or line.endswith("*") for line in lines):
        lines.append("* The 95 % interval, joint for all dimensions and policies, excludes 0.")
    return lines


def _gains(metrics: Mapping[str, Any]) -> Iterator[str]:
    rows = [_HEADINGS, *(cells for cells, _ in _rows(metrics))]
    if len(rows) == 1:
        yield "  No reward or oracle measured the clips of this run."
        return
    below = [()] + [notes for _, notes in _rows(metrics)]
    indent = " " * (max(len(cells[0]) for cells in rows) + 4)
    for line, notes in zip(aligned(rows, left={0, 1}), below, strict=True):
        yield f"  {line}"
        if notes:
            # Keep a dimension and its value on one line.
            joined = ", ".join(one.replace(" ", "\0") for one in notes)
            for note in textwrap.wrap(joined, WIDTH, initial_indent=indent, subsequent_indent=indent):
                yield note.replace("\0", " ")


def _rows(metrics: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """Yield the cells of each policy and source, and its gains by dimension."""
    for policy, gains in metrics["gain"].items():
        for place, source in enumerate(name for name in SOURCES if name in gains):
            gain = Interval.of(gains[source])
            ends = "none" if gain.verdict() == "unknown" else f"{signed(gain.low)} to {signed(gain.high)}"
            rate = metrics["win_rate"][policy][source]["rate"]
            cells = (policy, source, signed(gain.mean), ends, percent(rate), *_pairs(metrics["pairs"].get(policy)))
            if place:
                cells = ("", *cells[1:-2], "", "")
            dimensions = metrics.get("gain_by_dimension", {}).get(policy, {}).get(source, {})
            yield cells, [f"{name} {_marked(Interval.of(record))}" for name, record in dimensions.items()]


def _pairs(record: Mapping[str, Any] | None) -> tuple[str, str]:
    """Return the number of pairs, and the share of them that the auditor confirms."""
    if not record:
        return "", ""
    return str(record["n"]), percent(record["confirmed"]["rate"]) if "confirmed" in record else ""


def _marked(gain: Interval) -> str:
    return signed(gain.mean) + ("*" if gain.verdict() in ("above", "below") else "")


def _people(metrics: Mapping[str, Any]) -> Iterator[str]:
    if agreement := metrics.get("agreement"):
        yield (
            f"  held-out preferences: diff {percent(agreement['diff'])}, tau {percent(agreement['tau'])} "
            f"({agreement['n']:,} pairs, {agreement['n_ties']:,} ties)"
        )
