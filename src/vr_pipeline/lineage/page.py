"""The chain behind a result as one HTML page that needs nothing else."""

from __future__ import annotations

from html import escape

from vr_pipeline.lineage.chain import Execution, executions, names
from vr_pipeline.terminal import visible

_WIDTH, _HEIGHT, _GAP, _MARGIN = 600, 84, 34, 20
_BEND = 46
"""How far right a link bends for each box that it passes."""
_LETTERS = 72
"""Letters of a line in a box."""

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #1c2430;
  background: #fff; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.graph { overflow-x: auto; border: 1px solid #d5dae1; border-radius: 8px; }
svg a { text-decoration: none; }
rect { fill: #eef3fa; stroke: #5b7aa5; } rect.changed { fill: #fdf3e0; stroke: #b07a1c; }
path { fill: none; stroke: #8a96a6; stroke-width: 1.5; } polygon { fill: #8a96a6; } path:hover { stroke: #c2571a;
  stroke-width: 4; } text { fill: #1c2430; font-size: 13px; }
text.stage { font-weight: 600; font-size: 14px; } text.small { fill: #4d5866; font-size: 12px; }
.listing { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: 0.87rem; }
th, td { text-align: left; padding: 0.2rem 0.8rem 0.2rem 0; border-bottom: 1px solid #e3e7ec; vertical-align: top; }
code { font-size: 0.85rem; white-space: nowrap; }
@media (prefers-color-scheme: dark) {
  body { background: #12161c; color: #e4e8ee; } .graph { border-color: #39424e; } th, td { border-color: #2b333d; }
  rect { fill: #1d2a3b; stroke: #7d9cc8; } rect.changed { fill: #3a2f18; stroke: #d9a650; }
  text { fill: #e4e8ee; } text.small { fill: #b4bdc9; } path { stroke: #7c8896; } polygon { fill: #7c8896; }
  a { color: #8ab4f8; }
}
"""


def render_page(title: str, ends: list[Execution]) -> str:
    """Return the page: the graph of executions, then what each read and wrote."""
    ordered = executions(ends)
    tables = "\n".join(_details(execution, number) for number, execution in enumerate(ordered))
    return visible(
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
        "<p>Each box is a stage as one run executed it; an arrow leads from what made data to what read it, and names "
        "the data where the pointer rests on it. "
        "A star after the commit, and another colour, mean that files differed from the commit; "
        "the difference is kept with the run.</p>\n"
        f'<div class="graph">{_drawing(ordered)}</div>\n{tables}\n</body>\n</html>\n'
    )


def _drawing(ordered: list[Execution]) -> str:
    """Boxes one below the other, makers first; an arrow to the next is straight, others bend around those between."""
    row = {execution.key: number for number, execution in enumerate(ordered)}
    links, boxes, widest = [], [], 0
    for execution in ordered:
        for maker, contents in execution.makers().values():
            start, end = row[maker.key], row[execution.key]
            widest = max(widest, end - start - 1)
            listed = escape(", ".join(content.dataset or content.path for content in contents))
            curve = _link(start, end)
            links.append(f'<path d="{curve}" marker-end="url(#arrow)"><title>{listed}</title></path>')
        boxes.append(_box(execution, row[execution.key]))
    width = 2 * _MARGIN + _WIDTH + (_MARGIN + widest * _BEND if widest else 0)
    height = 2 * _MARGIN + len(ordered) * (_HEIGHT + _GAP) - _GAP
    arrow = (
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" '
        'markerUnits="userSpaceOnUse" orient="auto"><polygon points="0,0 8,4 0,8"/></marker></defs>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'style="width: 100%; min-width: {width * 2 // 3}px; max-width: {width}px" '
        f'aria-label="Graph of {len(ordered)} executions">{arrow}{"".join(boxes)}{"".join(links)}</svg>'
    )


def _top(row: int) -> int:
    return _MARGIN + row * (_HEIGHT + _GAP)


def _link(start: int, end: int) -> str:
    """Return the line from the box in row ``start`` to the one in row ``end``."""
    if end == start + 1:
        return f"M{_MARGIN + _WIDTH // 2},{_top(start) + _HEIGHT} V{_top(end)}"
    side = _MARGIN + _WIDTH
    # Those that come from afar arrive higher, so that arrows into one box do not cover each other.
    leaves, arrives = _top(start) + _HEIGHT * 2 // 3, _top(end) + max(8, _HEIGHT // 2 - 7 * (end - start - 2))
    bend = side + _MARGIN + (end - start - 1) * _BEND * 4 // 3
    return f"M{side},{leaves} C{bend},{leaves} {bend},{arrives} {side},{arrives}"


def _box(execution: Execution, row: int) -> str:
    run, left, top = execution.run, _MARGIN, _top(row)
    kind = ' class="changed"' if run.commit.endswith("*") else ""
    made = _line("wrote", [content.dataset or content.path for content in execution.outputs])
    supplied = _line("supplied", [content.dataset or content.path for content in execution.raw])
    return (
        f'<a href="#execution-{row}"><rect x="{left}" y="{top}" width="{_WIDTH}" height="{_HEIGHT}" rx="7"{kind}/>'
        f'<text class="stage" x="{left + 12}" y="{top + 22}">{escape(execution.stage)}</text>'
        f'<text text-anchor="end" x="{left + _WIDTH - 12}" y="{top + 22}">run {run.short}, '
        f"{run.started:%Y-%m-%d %H:%M}, commit {escape(run.commit)}</text>"
        f'<text class="small" x="{left + 12}" y="{top + 46}">{escape(made)}</text>'
        f'<text class="small" x="{left + 12}" y="{top + 66}">{escape(supplied)}</text></a>'
    )


def _line(word: str, listed: list[str]) -> str:
    """Return a line of names that fits into a box; of many only those that do."""
    shown: list[str] = []
    for name in listed:
        if len(", ".join([*shown, name])) > _LETTERS - len(word):
            return f"{word}: {', '.join(shown)}{', ' if shown else ''}{len(listed) - len(shown)} more"
        shown.append(name)
    return f"{word}: {', '.join(shown)}" if shown else ""


def _details(execution: Execution, number: int) -> str:
    run = execution.run
    rows = [
        ("read", content.dataset, content.path, content.md5, f"{maker.stage}, run {maker.run.short}")
        for content, maker in execution.inputs.items()
    ]
    rows += [("read", content.dataset, content.path, content.md5, "no run") for content in execution.raw]
    rows += [("wrote", content.dataset, content.path, content.md5, "") for content in execution.outputs]
    body = "".join(
        f"<tr><td>{kind}</td><td>{escape(dataset)}</td><td><code>{escape(path)}</code></td>"
        f"<td><code>{escape(md5)}</code></td><td>{escape(origin)}</td></tr>"
        for kind, dataset, path, md5, origin in rows
    )
    taken = names(execution.outputs)
    return (
        f'<h2 id="execution-{number}">{escape(execution.stage)}, run {run.short}</h2>\n'
        f"<p>{escape(run.name)}, {run.status.lower()}, {run.started:%Y-%m-%d %H:%M} UTC, commit {escape(run.commit)}, "
        f"{escape(run.tags.get('cpu', ''))}, GPU {escape(run.tags.get('gpu', ''))}. Wrote {escape(taken)}.</p>\n"
        f'<div class="listing" role="region" tabindex="0" aria-label="Data of {escape(execution.stage)}">'
        "<table><thead><tr><th></th><th>dataset</th><th>path</th><th>DVC hash</th><th>made by</th></tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )
