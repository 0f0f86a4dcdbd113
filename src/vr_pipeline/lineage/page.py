"""The chain behind a result as one self-contained HTML page."""

from typing import Any

from vr_pipeline.lineage.chain import Content, Execution, executions, names
from vr_pipeline.terminal import visible

_WIDTH, _HEIGHT, _GAP, _MARGIN = 600, 84, 34, 20
_BEND = 46
"""Bend of a link to the right, per box that it passes."""
_LETTERS = 72
"""Characters per line of a box."""


def render_page(title: str, ends: list[Execution]) -> str:
    """Return the page: the graph of executions, then their inputs and outputs.

    Boxes are in one column, makers first; arrows to the next box are straight, others bend around the boxes between.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    ordered = executions(ends)
    row = {execution.key: number for number, execution in enumerate(ordered)}
    links = [
        (row[maker.key], row[execution.key], ", ".join(content.dataset or content.path for content in contents))
        for execution in ordered
        for maker, contents in execution.makers().values()
    ]
    widest = max((end - start - 1 for start, end, _ in links), default=0)
    loader = PackageLoader("vr_pipeline.lineage")
    template = Environment(loader=loader, undefined=StrictUndefined, autoescape=True).get_template("chain.html.j2")
    page = template.render(
        title=title,
        width=2 * _MARGIN + _WIDTH + (_MARGIN + widest * _BEND if widest else 0),
        height=2 * _MARGIN + len(ordered) * (_HEIGHT + _GAP) - _GAP,
        left=_MARGIN,
        box_width=_WIDTH,
        box_height=_HEIGHT,
        boxes=[_box(execution, number) for number, execution in enumerate(ordered)],
        links=[(_link(start, end), data) for start, end, data in links],
    )
    return visible(page) + "\n"


def _top(row: int) -> int:
    return _MARGIN + row * (_HEIGHT + _GAP)


def _link(start: int, end: int) -> str:
    """Return the line from the box in row ``start`` to the one in row ``end``."""
    if end == start + 1:
        return f"M{_MARGIN + _WIDTH // 2},{_top(start) + _HEIGHT} V{_top(end)}"
    side = _MARGIN + _WIDTH
    # Longer arrows end higher, so that arrows into one box do not overlap.
    leaves, arrives = _top(start) + _HEIGHT * 2 // 3, _top(end) + max(8, _HEIGHT // 2 - 7 * (end - start - 2))
    bend = side + _MARGIN + (end - start - 1) * _BEND * 4 // 3
    return f"M{side},{leaves} C{bend},{leaves} {bend},{arrives} {side},{arrives}"


def _box(execution: Execution, row: int) -> dict[str, Any]:
    read = [("read", content, f"{maker.stage}, run {maker.run.short}") for content, maker in execution.inputs.items()]
    supplied = [("read", content, "no run") for content in execution.raw]
    return {
        "execution": execution,
        "top": _top(row),
        "wrote": _line("wrote", execution.outputs),
        "supplied": _line("supplied", execution.raw),
        "names": names(execution.outputs),
        "rows": [*read, *supplied, *(("wrote", content, "") for content in execution.outputs)],
    }


def _line(word: str, contents: list[Content]) -> str:
    """Return a line with as many names as fit into a box."""
    shown: list[str] = []
    for content in contents:
        name = content.dataset or content.path
        if len(", ".join([*shown, name])) > _LETTERS - len(word):
            return f"{word}: {', '.join(shown)}{', ' if shown else ''}{len(contents) - len(shown)} more"
        shown.append(name)
    return f"{word}: {', '.join(shown)}" if shown else ""
