"""Charts as inline SVG: colours come from the page's style sheet, so that they follow light and dark mode.

Every chart has a title and a description for screen readers; all text is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from markupsafe import Markup, escape

FloatArray = npt.NDArray[np.float64]

_CHARACTER = 6.9  # mean width of a character of the largest text; names are shortened where they would not fit
_LARGEST_POINTS = 160


@dataclass(frozen=True)
class Mark:
    """A value with its interval; ``series`` is the number of the colour and of the shape."""

    series: int
    value: float
    low: float = math.nan
    high: float = math.nan
    tip: str = ""


@dataclass(frozen=True)
class Row:
    """A label and the marks on its line or lines."""

    label: str
    marks: Sequence[Mark]
    faint: bool = False


@dataclass(frozen=True)
class Line:
    """A curve; the band lies between ``low`` and ``high`` where they are given."""

    series: int
    x: FloatArray
    y: FloatArray
    name: str
    low: FloatArray | None = None
    high: FloatArray | None = None
    dashed: bool = False


@dataclass(frozen=True)
class Chart:
    """A chart with its heading, its legend and the sentence under it."""

    title: str
    svg: Markup
    note: str = ""
    legend: Markup = field(default_factory=Markup)


@dataclass
class _Canvas:
    parts: list[str] = field(default_factory=list)

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        self.parts.append(f'<line class="{kind}" x1="{_c(x1)}" y1="{_c(y1)}" x2="{_c(x2)}" y2="{_c(y2)}"/>')

    def text(self, x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> None:
        self.parts.append(
            f'<text class="{kind}" x="{_c(x)}" y="{_c(y)}" text-anchor="{anchor}">{escape(content)}</text>'
        )

    def path(self, x: FloatArray, y: FloatArray, kind: str) -> None:
        points = " ".join(f"{_c(a)},{_c(b)}" for a, b in zip(x, y, strict=True))
        self.parts.append(f'<polyline class="{kind}" points="{points}"/>')

    def area(self, x: FloatArray, low: FloatArray, high: FloatArray, kind: str) -> None:
        points = [f"{_c(a)},{_c(b)}" for a, b in zip(x, high, strict=True)]
        points += [f"{_c(a)},{_c(b)}" for a, b in zip(x[::-1], low[::-1], strict=True)]
        self.parts.append(f'<polygon class="{kind}" points="{" ".join(points)}"/>')

    def svg(self, width: float, height: float, title: str, description: str) -> Markup:
        return Markup(
            f'<svg viewBox="0 0 {_c(width)} {_c(height)}" role="img" aria-label="{escape(title + ". " + description)}" '
            f'style="max-width:{_c(width * 1.25)}px">{"".join(self.parts)}</svg>'
        )


def intervals_chart(
    title: str,
    rows: Sequence[Row],
    *,
    axis: str,
    series: Sequence[tuple[int, str]] = (),
    description: str | None = None,
    reference: float = 0.0,
    bars: bool = False,
    limits: tuple[float, float] | None = None,
) -> Chart:
    """Draw values with whiskers, a row a name, several marks of a row below each other.

    Args:
        title: its heading.
        rows: from top to bottom.
        axis: label of the horizontal axis.
        series: for the legend, which is left out without them.
        description: what screen readers say; the tips of the marks if there is none.
        reference: where a vertical line is drawn, and where bars begin.
        bars: draw bars from the reference, not marks only.
        limits: of the axis; else as the values need.
    """
    width, step, gap, top = 400.0, 14.0, 9.0, 8.0
    longest = max((len(row.label) for row in rows), default=0)
    left = min(170.0, longest * _CHARACTER + 14)
    right = width - 14
    ends = [
        end for row in rows for mark in row.marks for end in (mark.value, mark.low, mark.high) if math.isfinite(end)
    ]
    low, high = limits or (min([*ends, reference]), max([*ends, reference]))
    ticks = nice_ticks(low, high, 5)
    if limits is None:
        low, high = min(low, ticks[0]), max(high, ticks[-1])
    scale = (right - left) / (high - low)

    def x(value: float) -> float:
        return left + (min(max(value, low), high) - low) * scale

    height = top + sum(max(1, len(row.marks)) * step + gap for row in rows)
    canvas = _Canvas()
    for tick in ticks:
        if low <= tick <= high:
            canvas.line(x(tick), top, x(tick), height, "grid")
            canvas.text(x(tick), height + 14, tick_label(tick, ticks), "tick", "middle")
    canvas.line(x(reference), top - 4, x(reference), height, "axis")
    y = top
    for row in rows:
        block = max(1, len(row.marks)) * step
        label = _shorten(row.label, int((left - 12) / _CHARACTER))
        canvas.text(left - 8, y + block / 2 + 4 + gap / 2, label, "faint" if row.faint else "label", "end")
        for i, mark in enumerate(row.marks):
            centre = y + gap / 2 + step * (i + 0.5)
            _draw_mark(canvas, mark, x, centre, reference, bars, row.faint)
        y += block + gap
    canvas.text(width / 2, height + 31, axis, "tick", "middle")
    if description is None:
        description = "; ".join(mark.tip for row in rows for mark in row.marks)
    svg = canvas.svg(width, height + 36, title, description)
    return Chart(title, svg, legend=legend(series) if series else Markup())


def _draw_mark(
    canvas: _Canvas, mark: Mark, x: Callable[[float], float], centre: float, reference: float, bars: bool, faint: bool
) -> None:
    if not math.isfinite(mark.value):
        canvas.text(x(reference) + 4, centre + 4, "no value", "faint")
        return
    kind = "faint-mark" if faint else f"s{mark.series}"
    canvas.parts.append(f'<g class="{kind}">')
    if mark.tip:
        canvas.parts.append(f"<title>{escape(mark.tip)}</title>")
    if bars:
        start, end = sorted((x(reference), x(mark.value)))
        canvas.parts.append(
            f'<rect class="bar" x="{_c(start)}" y="{_c(centre - 5)}" width="{_c(max(end - start, 0.5))}" height="10"/>'
        )
    if math.isfinite(mark.low) and math.isfinite(mark.high):
        low, high = x(mark.low), x(mark.high)
        kind = "whisker over" if bars else "whisker"
        canvas.line(low, centre, high, centre, kind)
        for end in (low, high):
            canvas.line(end, centre - 3, end, centre + 3, kind)
    if not bars:
        canvas.parts.append(shape(mark.series, x(mark.value), centre))
    canvas.parts.append("</g>")


def shape(series: int, x: float, y: float, size: float = 4.0) -> str:
    """Return the shape of a series, so that colour is not all that tells series apart."""
    if series % 3 == 0:
        return f'<circle class="shape" cx="{_c(x)}" cy="{_c(y)}" r="{_c(size)}"/>'
    if series % 3 == 1:
        return (
            f'<rect class="shape" x="{_c(x - size)}" y="{_c(y - size)}" width="{_c(2 * size)}" '
            f'height="{_c(2 * size)}"/>'
        )
    points = f"{_c(x)},{_c(y - size * 1.2)} {_c(x + size * 1.1)},{_c(y + size)} {_c(x - size * 1.1)},{_c(y + size)}"
    return f'<polygon class="shape" points="{points}"/>'


def legend(names: Sequence[tuple[int, str]]) -> Markup:
    """List the series with their shapes."""
    items = "".join(
        f'<li><svg class="key s{series}" viewBox="0 0 12 12" aria-hidden="true">{shape(series, 6, 6)}</svg>'
        f"{escape(name)}</li>"
        for series, name in names
    )
    return Markup(f'<ul class="legend">{items}</ul>')


def lines_chart(
    title: str,
    lines: Sequence[Line],
    *,
    description: str,
    note: str,
    reference: float | None = None,
    from_zero: bool = False,
) -> Chart:
    """Draw curves over steps, smoothed, with the unsmoothed values faintly behind.

    Args:
        title: its heading.
        lines: curves with their bands.
        description: what screen readers say.
        note: the sentence under it.
        reference: a horizontal line is drawn there.
        from_zero: let the vertical axis begin at 0.
    """
    width, height, left, right, top, bottom = 320.0, 194.0, 50.0, 310.0, 8.0, 160.0
    curves = [(line, *_thin(line.x, line.y)) for line in lines if np.isfinite(line.y).any()]
    ends: list[float] = [*([0.0] if from_zero else []), *([] if reference is None else [reference])]
    for line, _, raw, smooth in curves:
        # One early spike must not flatten the rest: the axis covers what most steps need.
        ends += [*smooth[np.isfinite(smooth)], *np.nanquantile(raw, [0.02, 0.98])]
        for band in (line.low, line.high):
            if band is not None:
                ends += list(np.nanquantile(_thin(line.x, band)[2], [0.0, 1.0]))
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    ticks = nice_ticks(low, high, 4)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    first = min((float(line.x[0]) for line, *_ in curves), default=0.0)
    last = max((float(line.x[-1]) for line, *_ in curves), default=1.0)

    def across(values: Any) -> Any:
        return left + (values - first) / max(last - first, 1e-9) * (right - left)

    def up(values: Any) -> Any:
        return bottom - (np.clip(values, low, high) - low) / (high - low) * (bottom - top)

    canvas = _Canvas()
    for tick in ticks:
        y = up(tick)
        canvas.line(left, y, right, y, "grid")
        canvas.text(left - 6, y + 4, tick_label(tick, ticks), "tick", "end")
    if reference is not None:
        y = up(reference)
        canvas.line(left, y, right, y, "axis")
    for tick in (t for t in nice_ticks(first, last, 4) if first <= t <= last):
        canvas.text(across(tick), bottom + 15, f"{tick:,.0f}", "tick", "middle")
    canvas.text((left + right) / 2, bottom + 28, "step", "tick", "middle")
    for line, x, raw, smooth in curves:
        if line.low is not None and line.high is not None:
            low_band, high_band = (up(_thin(line.x, band)[2]) for band in (line.low, line.high))
            canvas.area(across(x), low_band, high_band, f"band s{line.series}")
        elif len(raw) > 8:
            canvas.path(across(x), up(raw), f"raw s{line.series}")
        kind = f"curve s{line.series}{' dashed' if line.dashed else ''}"
        canvas.path(across(x), up(smooth), kind)
    return Chart(title, canvas.svg(width, height, title, description), note)


def share_bar(share: float) -> Markup:
    """Draw a share of 0 to 1 as a bar, for a table's cell."""
    width = 100 * min(max(share, 0.0), 1.0)
    return Markup(f'<span class="share " aria-hidden="true"><span style="width:{_c(width)}%"></span></span>')


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """Return about so many round values that cover a range, in steps of 1, 2, 2.5 or 5 times a power of ten."""
    least = max(1e-6, 1e-6 * max(abs(low), abs(high)))
    if high - low < least:  # one value, or a difference that no label could show
        low, high = (low + high - least) / 2, (low + high + least) / 2
    raw = (high - low) / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [k * step for k in range(first, last + 1)]


def tick_label(value: float, ticks: Sequence[float]) -> str:
    """Write a tick's value with as many digits as its step needs."""
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    digits = 0
    while digits < 8 and abs(round(step, digits) - step) > step * 1e-3:
        digits += 1
    text = f"{value:,.{digits}f}"
    return "0" if float(text.replace(",", "")) == 0 else text.replace("-", "−")


def _thin(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return some hundred points (means of equal stretches), and their running mean over a fifteenth of the steps."""
    edges = np.linspace(0, len(x), min(len(x), _LARGEST_POINTS) + 1).round().astype(int)
    stretch = np.repeat(np.arange(len(edges) - 1), np.diff(edges))
    points = pd.DataFrame({"x": x, "y": np.where(np.isfinite(y), y, np.nan)}).groupby(stretch).mean()
    reach = len(points) // 30
    points["smooth"] = points["y"].rolling(2 * reach + 1, center=True, min_periods=1).mean()
    places, raw, smooth = points.dropna().to_numpy().T
    return places, raw, smooth


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: max(1, length - 1)] + "…"


def _c(value: float) -> str:
    """Write a coordinate with at most one digit after the point: a tenth of a pixel is enough."""
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text
