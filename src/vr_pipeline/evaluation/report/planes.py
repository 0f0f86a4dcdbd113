"""Charts with two axes: curves, points, and a matrix of values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import escape

from vr_pipeline.evaluation.report.charts import (
    Canvas,
    Chart,
    FloatArray,
    legend,
    nice_ticks,
    px,
    shape,
    shorten,
    tick_label,
)

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 320.0, 194.0, 50.0, 310.0, 8.0, 160.0
_LARGEST_POINTS = 160


@dataclass(frozen=True)
class Line:
    """A curve with an optional band between ``low`` and ``high``."""

    series: int
    x: FloatArray
    y: FloatArray
    name: str
    low: FloatArray | None = None
    high: FloatArray | None = None
    dashed: bool = False


@dataclass(frozen=True)
class Point:
    """A point with an optional vertical whisker and an optional ring."""

    series: int
    x: float
    y: float
    tip: str = ""
    low: float = math.nan
    high: float = math.nan
    ringed: bool = False


class _Plane:
    """Axes with ticks in both directions."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], axis: str, *, upright: str = "") -> None:
        self.canvas = Canvas()
        self._x, self._y = x, y
        across, up = nice_ticks(*x, 4), nice_ticks(*y, 4)
        for tick in up:
            if y[0] <= tick <= y[1]:
                self.canvas.line(_LEFT, self.up(tick), _RIGHT, self.up(tick), "grid")
                self.canvas.text(_LEFT - 6, self.up(tick) + 4, tick_label(tick, up), "tick", "end")
        for tick in across:
            if x[0] <= tick <= x[1]:
                self.canvas.text(self.across(tick), _BOTTOM + 15, tick_label(tick, across), "tick", "middle")
        self.canvas.text((_LEFT + _RIGHT) / 2, _BOTTOM + 28, axis, "tick", "middle")
        if upright:
            self.canvas.parts.append(
                f'<text class="tick" transform="translate(11 {px((_TOP + _BOTTOM) / 2)}) rotate(-90)" '
                f'text-anchor="middle">{escape(upright)}</text>'
            )

    def across(self, values: Any) -> Any:
        low, high = self._x
        return _LEFT + (values - low) / max(high - low, 1e-9) * (_RIGHT - _LEFT)

    def up(self, values: Any) -> Any:
        low, high = self._y
        return _BOTTOM - (np.clip(values, low, high) - low) / (high - low) * (_BOTTOM - _TOP)

    def chart(self, title: str, description: str, note: str) -> Chart:
        return Chart(title, self.canvas.svg(_WIDTH, _HEIGHT, title, description), note)


def lines_chart(
    title: str,
    lines: Sequence[Line],
    *,
    description: str,
    note: str,
    axis: str = "step",
    reference: float | None = None,
    from_zero: bool = False,
) -> Chart:
    """Draw curves; those over steps are smoothed, with the raw values faintly behind.

    Args:
        title: its heading.
        lines: curves with their bands.
        description: for screen readers.
        note: the sentence under it.
        axis: label of the horizontal axis; only curves over steps are smoothed.
        reference: position of a horizontal line.
        from_zero: start the vertical axis at 0.
    """
    smoothed = axis == "step"
    curves = [(line, *_thin(line.x, line.y, smoothed)) for line in lines if np.isfinite(line.y).any()]
    ends: list[float] = [*([0.0] if from_zero else []), *([] if reference is None else [reference])]
    for line, _, raw, smooth in curves:
        # The axis covers most steps, so that an early spike does not flatten the rest.
        ends += [*smooth[np.isfinite(smooth)], *np.nanquantile(raw, [0.02, 0.98])]
        for band in (line.low, line.high):
            if band is not None:
                ends += list(np.nanquantile(_thin(line.x, band, smoothed)[2], [0.0, 1.0]))
    first = min((float(line.x[0]) for line, *_ in curves), default=0.0)
    last = max((float(line.x[-1]) for line, *_ in curves), default=1.0)
    plane = _Plane((first, last), _rounded(ends or [0.0, 1.0]), axis)
    canvas = plane.canvas
    if reference is not None:
        canvas.line(_LEFT, plane.up(reference), _RIGHT, plane.up(reference), "axis")
    for line, x, raw, smooth in curves:
        if line.low is not None and line.high is not None:
            low_band, high_band = (plane.up(_thin(line.x, band, smoothed)[2]) for band in (line.low, line.high))
            canvas.area(plane.across(x), low_band, high_band, f"band s{line.series}")
        elif len(raw) > 8 and smoothed:
            canvas.path(plane.across(x), plane.up(raw), f"raw s{line.series}")
        kind = f"curve s{line.series}{' dashed' if line.dashed else ''}"
        canvas.path(plane.across(x), plane.up(smooth), kind)
    return plane.chart(title, description, note)


def points_chart(
    title: str,
    points: Sequence[Point],
    *,
    axes: tuple[str, str],
    description: str,
    note: str = "",
    limits: tuple[float, float] | None = None,
    diagonal: bool = False,
    series: Sequence[tuple[int, str]] = (),
) -> Chart:
    """Draw points in the plane, with lines at 0.

    Args:
        title: its heading.
        points: points; those that are not finite are skipped.
        axes: labels of the horizontal and the vertical axis.
        description: for screen readers.
        note: the sentence under it.
        limits: of both axes; by default from the points.
        diagonal: draw the diagonal, which needs limits.
        series: for the legend; empty for none.
    """
    shown = [point for point in points if math.isfinite(point.x) and math.isfinite(point.y)]
    across = limits or _rounded([0.0, *(point.x for point in shown)])
    ends = [end for point in shown for end in (point.y, point.low, point.high) if math.isfinite(end)]
    plane = _Plane(across, limits or _rounded([0.0, *ends]), axes[0], upright=axes[1])
    canvas = plane.canvas
    if diagonal:
        low, high = across
        canvas.line(plane.across(low), plane.up(low), plane.across(high), plane.up(high), "axis")
    else:
        canvas.line(plane.across(0.0), _TOP, plane.across(0.0), _BOTTOM, "axis")
        canvas.line(_LEFT, plane.up(0.0), _RIGHT, plane.up(0.0), "axis")
    for point in shown:
        x, y = plane.across(point.x), plane.up(point.y)
        canvas.parts.append(f'<g class="s{point.series}"><title>{escape(point.tip)}</title>')
        if math.isfinite(point.low) and math.isfinite(point.high):
            canvas.line(x, plane.up(point.low), x, plane.up(point.high), "whisker")
        if point.ringed:
            canvas.parts.append(f'<circle class="ring" cx="{px(x)}" cy="{px(y)}" r="6.5"/>')
        canvas.parts.append(f"{shape(point.series, x, y, 3.2)}</g>")
    chart = plane.chart(title, description, note)
    return Chart(chart.title, chart.svg, note, legend(series) if series else chart.legend)


def matrix_chart(title: str, values: FloatArray, names: Sequence[str], *, description: str, note: str = "") -> Chart:
    """Draw a symmetric matrix of correlations [names, names], one colour per sign; NaN cells are empty."""
    cell, left = 14.0, min(150.0, 6.9 * max(map(len, names), default=0) + 10)
    canvas = Canvas()
    for i, name in enumerate(names):
        canvas.text(left - 6, cell * i + 11, shorten(name, 20), "tick", "end")
        for j, other in enumerate(names[: i + 1]):
            value = float(values[i, j])
            if math.isfinite(value):
                canvas.parts.append(
                    f'<rect class="s{2 if value >= 0 else 6}" fill="currentColor" x="{px(left + cell * j)}" '
                    f'y="{px(cell * i)}" width="{px(cell - 1)}" height="{px(cell - 1)}" '
                    f'opacity="{abs(value):.2f}"><title>{escape(f"{name}, {other}: {value:.2f}")}</title></rect>'
                )
    return Chart(title, canvas.svg(left + cell * len(names) + 4, cell * len(names) + 2, title, description), note)


def _rounded(ends: Sequence[float]) -> tuple[float, float]:
    """Return limits on ticks that cover the values."""
    low, high = min(ends), max(ends)
    ticks = nice_ticks(low, high, 4)
    return min(low, ticks[0]), max(high, ticks[-1])


def _thin(x: FloatArray, y: FloatArray, smoothed: bool) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return at most :data:`_LARGEST_POINTS` means of equal parts, and their running mean over a fifteenth."""
    edges = np.linspace(0, len(x), min(len(x), _LARGEST_POINTS) + 1).round().astype(int)
    stretch = np.repeat(np.arange(len(edges) - 1), np.diff(edges))
    points = pd.DataFrame({"x": x, "y": np.where(np.isfinite(y), y, np.nan)}).groupby(stretch).mean()
    reach = len(points) // 30 if smoothed else 0
    points["smooth"] = points["y"].rolling(2 * reach + 1, center=True, min_periods=1).mean()
    places, raw, smooth = points.dropna().to_numpy().T
    return places, raw, smooth
