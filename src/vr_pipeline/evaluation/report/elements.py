"""Building blocks of a section: tables, charts, clips and sentences as HTML, with all text escaped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from markupsafe import Markup

from vr_pipeline.evaluation.report.wording import percent, plain, signed

if TYPE_CHECKING:
    from jinja2 import Environment

    from vr_pipeline.evaluation.report.charts import Chart


@dataclass(frozen=True)
class Cell:
    """Text of a cell (escaped by the template), the value it sorts by, and HTML after the text."""

    text: str
    sort: str = ""
    after: Markup = field(default_factory=Markup)
    emphasis: str = ""


Cells = list[Cell | str]


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows.

    Args:
        columns: headings.
        words: headings of text columns besides the first; other columns are numbers, aligned right.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Cells]
    words: Sequence[str] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row has {len(row)} cells for {len(self.columns)} columns: {self.caption}")

    @property
    def numeric(self) -> list[bool]:
        """Whether each column has numbers."""
        return [place > 0 and name not in self.words for place, name in enumerate(self.columns)]

    @property
    def cells(self) -> list[list[Cell]]:
        """The rows, with texts as cells."""
        return [[Cell(cell) if isinstance(cell, str) else cell for cell in row] for row in self.rows]


@dataclass(frozen=True)
class Finding:
    """One statement."""

    text: str
    tone: Literal["plain", "good", "warning"] = "plain"


@dataclass(frozen=True)
class EmbeddedClip:
    """A clip as a data URL.

    Attributes:
        url: the whole clip.
        kind: 'video', or 'image' for a clip of one frame.
        width, height: in pixels, as encoded.
        seconds: duration.
    """

    url: str
    kind: str
    width: int
    height: int
    seconds: float


@dataclass(frozen=True)
class ShownClip:
    """A clip with its heading and facts."""

    heading: str
    label: str = ""
    clip: EmbeddedClip | None = None
    facts: Sequence[tuple[str, str]] = field(default_factory=list)
    problem: str = ""


@dataclass(frozen=True)
class ClipSet:
    """Clips shown side by side."""

    heading: str
    note: str
    clips: Sequence[ShownClip]
    table: Table


def number(value: float | None, digits: int = 2, *, sign: bool = False, spread: float | None = None) -> Cell:
    """Show a number, perhaps with a standard error after it."""
    text = (signed if sign else plain)(value, digits)
    if spread is not None and math.isfinite(spread):
        text += f" ± {plain(spread, digits)}"
    return Cell(text, sort_key(value))


def interval(low: float | None, high: float | None, digits: int = 2, *, sign: bool = False) -> Cell:
    """Show an interval; it sorts by its lower end."""
    show = signed if sign else plain
    return _ends(low, high, f"{show(low, digits)} to {show(high, digits)}")


def with_interval(
    value: float | None, low: float | None, high: float | None, digits: int = 2, *, sign: bool = True
) -> Cell:
    """Show a value and its interval, if there is one, in one cell, which sorts by the value."""
    shown, ends = number(value, digits, sign=sign), interval(low, high, digits, sign=sign)
    return Cell(f"{shown.text} ({ends.text})", shown.sort) if ends.sort else shown


def share(value: float | None, *after: Markup) -> Cell:
    """Show a share as a percentage."""
    return Cell(percent(value), sort_key(value), *after)


def share_interval(low: float | None, high: float | None) -> Cell:
    """Show an interval of a share in percent; it sorts by its lower end."""
    return _ends(low, high, f"{percent(low)} to {percent(high)}")


def _ends(low: float | None, high: float | None, text: str) -> Cell:
    return Cell(text, sort_key(low)) if sort_key(low) and sort_key(high) else Cell("–")


def count(value: int) -> Cell:
    """Show a whole number."""
    return Cell(f"{int(value):,}", str(int(value)))


def counted_rows(numbers: Mapping[str, int]) -> list[Cells]:
    """Return the rows of a table of names and whole numbers."""
    return [[name, count(number)] for name, number in numbers.items()]


def sort_key(value: float | None) -> str:
    """Return the value a cell sorts by; empty without a value."""
    # Nine digits, so that rounding does not change the page.
    return "" if value is None or not math.isfinite(value) else f"{float(value):.9g}"


def paragraph(text: str, *, note: bool = False) -> Markup:
    """Write a paragraph; a note is smaller."""
    return Markup('<p class="note">{}</p>' if note else "<p>{}</p>").format(text)


def heading(text: str) -> Markup:
    """Write a heading within a section."""
    return Markup("<h3>{}</h3>").format(text)


def table(content: Table) -> Markup:
    """Write a table that sorts by a click on a heading."""
    return _macro("data_table", content)


def folded(summary: str, content: Table) -> Markup:
    """Write a table that opens by a click."""
    return Markup("<details><summary>{}</summary>{}</details>").format(summary, table(content))


def chart(content: Chart) -> Markup:
    """Write a chart on its own."""
    return _macro("chart_figure", content)


def charts(contents: Sequence[Chart], *, small: bool = False) -> Markup:
    """Write charts side by side."""
    return _macro("chart_row", contents, small)


def clip_sets(contents: Sequence[ClipSet]) -> Markup:
    """Write sets of clips, one below the other."""
    return _macro("clip_sets", contents)


def findings(contents: Sequence[Finding]) -> Markup:
    """List statements; warnings are marked."""
    return _macro("finding_list", contents)


@cache
def environment() -> Environment:
    """Return the templates of the page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("vr_pipeline.evaluation.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _macro(name: str, *arguments: Any) -> Markup:
    macros: Any = environment().get_template("elements.html.j2").module
    return Markup(getattr(macros, name)(*arguments))
