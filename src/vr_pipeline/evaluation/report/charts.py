"""Charts as inline SVG, coloured by the page's style sheet for light and dark mode.

Every chart has a title and a description for screen readers; all text is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape

FloatArray = npt.NDArray[np.float64]

_CHARACTER = 6.9  # mean width of a character of the largest text; names are shortened where they would not fit


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
class Chart:
    """A chart with its heading, its legend and the sentence under it."""

    title: str
    svg: Markup
    note: str = ""
    legend: Markup = field(default_factory=Markup)


@dataclass
class Canvas:
    """The drawing, in user units of the SVG."""

    parts: list[str] = field(default_factory=list)

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        """Draw a straight line."""
        self.parts.append(f'<line class="{kind}" x1="{px(x1)}" y1="{px(y1)}" x2="{px(x2)}" y2="{px(y2)}"/>')

    def text(self, x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> None:
        """Write a text."""
        self.parts.append(
            f'<text class="{kind}" x="{px(x)}" y="{px(y)}" text-anchor="{anchor}">{escape(content)}</text>'
        )

    def path(self, x: FloatArray, y: FloatArray, kind: str) -> None:
        """Draw a polyline."""
        points = " ".join(f"{px(a)},{px(b)}" for a, b in zip(x, y, strict=True))
        self.parts.append(f'<polyline class="{kind}" points="{points}"/>')

    def area(self, x: FloatArray, low: FloatArray, high: FloatArray, kind: str) -> None:
        """Fill the area between two curves."""
        points = [f"{px(a)},{px(b)}" for a, b in zip(x, high, strict=True)]
        points += [f"{px(a)},{px(b)}" for a, b in zip(x[::-1], low[::-1], strict=True)]
        self.parts.append(f'<polygon class="{kind}" points="{" ".join(points)}"/>')

    def svg(self, width: float, height: float, title: str, description: str) -> Markup:
        """Return the drawing with its title and description for screen readers."""
        return Markup(
            f'<svg viewBox="0 0 {px(width)} {px(height)}" role="img" aria-label="{escape(title + ". " + description)}" '
            f'style="max-width:{px(width * 1.25)}px">{"".join(self.parts)}</svg>'
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
    """Draw values with whiskers, one row per name, several marks of a row below each other.

    Args:
        title: its heading.
        rows: from top to bottom.
        axis: label of the horizontal axis.
        series: for the legend; empty for none.
        description: for screen readers; by default the tips of the marks.
        reference: position of the vertical line, and start of bars.
        bars: draw bars from the reference instead of marks.
        limits: of the axis; by default from the values.
    """
    width, step, gap, top = 400.0, 14.0, 9.0, 8.0
    longest = max((len(row.label) for row in rows), default=0)
    left = min(228.0, max(46.0, longest * _CHARACTER + 14))
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
    canvas = Canvas()
    for tick in ticks:
        if low <= tick <= high:
            canvas.line(x(tick), top, x(tick), height, "grid")
            canvas.text(x(tick), height + 14, tick_label(tick, ticks), "tick", "middle")
    canvas.line(x(reference), top - 4, x(reference), height, "axis")
    y = top
    for row in rows:
        block = max(1, len(row.marks)) * step
        label = shorten(row.label, int((left - 12) / _CHARACTER))
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
    canvas: Canvas, mark: Mark, x: Callable[[float], float], centre: float, reference: float, bars: bool, faint: bool
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
            f'<rect class="bar" x="{px(start)}" y="{px(centre - 5)}" width="{px(max(end - start, 0.5))}" height="10"/>'
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
    """Return the shape of a series, which distinguishes series besides colour."""
    if series % 3 == 0:
        return f'<circle class="shape" cx="{px(x)}" cy="{px(y)}" r="{px(size)}"/>'
    if series % 3 == 1:
        return (
            f'<rect class="shape" x="{px(x - size)}" y="{px(y - size)}" width="{px(2 * size)}" '
            f'height="{px(2 * size)}"/>'
        )
    points = f"{px(x)},{px(y - size * 1.2)} {px(x + size * 1.1)},{px(y + size)} {px(x - size * 1.1)},{px(y + size)}"
    return f'<polygon class="shape" points="{points}"/>'


def legend(names: Sequence[tuple[int, str]]) -> Markup:
    """List the series with their shapes."""
    items = "".join(
        f'<li><svg class="key s{series}" viewBox="0 0 12 12" aria-hidden="true">{shape(series, 6, 6)}</svg>'
        f"{escape(name)}</li>"
        for series, name in names
    )
    return Markup(f'<ul class="legend">{items}</ul>')


def share_bar(share: float) -> Markup:
    """Draw a share of 0 to 1 as a bar, for a table's cell."""
    width = 100 * min(max(share, 0.0), 1.0)
    return Markup(f'<span class="share " aria-hidden="true"><span style="width:{px(width)}%"></span></span>')


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """Return about ``count`` round values that cover a range, in steps of 1, 2, 2.5 or 5 times a power of ten."""
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


def shorten(text: str, length: int) -> str:
    """Shorten a text to ``length`` characters."""
    return text if len(text) <= length else text[: max(1, length - 1)] + "…"


def px(value: float) -> str:
    """Return a coordinate as text with at most one decimal."""
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text
