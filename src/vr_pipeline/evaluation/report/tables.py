"""Tables of the page, ready for a template: cells that show text and sort by a value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from vr_pipeline.evaluation.report.findings import percent, plain, signed

NOTHING = Markup("")


@dataclass(frozen=True)
class Cell:
    """Text of a cell (escaped by the template), the value it sorts by, and what stands after the text."""

    text: str
    sort: str = ""
    after: Markup = NOTHING
    emphasis: str = ""


@dataclass(frozen=True)
class Column:
    """A heading; numbers stand right."""

    name: str
    number: bool = True


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row has {len(row)} cells for {len(self.columns)} columns: {self.caption}")


def words(text: str) -> Cell:
    """A cell that sorts as text."""
    return Cell(text)


def number(value: float | None, digits: int = 2, *, sign: bool = False, spread: float | None = None) -> Cell:
    """A number, perhaps with a standard error after it."""
    text = (signed if sign else plain)(value, digits)
    if spread is not None and math.isfinite(spread):
        text += f" ± {plain(spread, digits)}"
    return Cell(text, sort_key(value))


def interval(low: float | None, high: float | None, digits: int = 2, *, sign: bool = False) -> Cell:
    """An interval; sorts by its lower end."""
    show = signed if sign else plain
    if sort_key(low) == "" or sort_key(high) == "":
        return Cell("–")
    return Cell(f"{show(low, digits)} to {show(high, digits)}", sort_key(low))


def share(value: float | None, after: Markup = NOTHING) -> Cell:
    """A share as a percentage."""
    return Cell(percent(value), sort_key(value), after)


def share_interval(low: float | None, high: float | None) -> Cell:
    """An interval of a share in percent; sorts by its lower end."""
    if sort_key(low) == "" or sort_key(high) == "":
        return Cell("–")
    return Cell(f"{percent(low)} to {percent(high)}", sort_key(low))


def count(value: int) -> Cell:
    """A whole number."""
    return Cell(f"{int(value):,}", str(int(value)))


def sort_key(value: float | None) -> str:
    """The value a cell sorts by; empty where there is none."""
    # Nine digits: float noise from another order of rows must not change the page.
    return "" if value is None or not math.isfinite(value) else f"{float(value):.9g}"
