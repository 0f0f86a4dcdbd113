"""The chain behind a result as one HTML page that needs nothing else."""

from __future__ import annotations

from html import escape

from vr_pipeline.lineage.chain import Execution, executions, names

_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 236, 66, 56, 26, 20

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #1c2430;
  background: #fff; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.graph { overflow-x: auto; border: 1px solid #d5dae1; border-radius: 8px; }
svg a { text-decoration: none; }
rect { fill: #eef3fa; stroke: #5b7aa5; } rect.changed { fill: #fdf3e0; stroke: #b07a1c; }
path { fill: none; stroke: #8a96a6; stroke-width: 1.5; } text { fill: #1c2430; font-size: 13px; }
text.stage { font-weight: 600; font-size: 14px; } text.small { fill: #4d5866; font-size: 12px; }
table { border-collapse: collapse; width: 100%; font-size: 0.87rem; } caption { text-align: left; padding: 0.3rem 0; }
th, td { text-align: left; padding: 0.2rem 0.8rem 0.2rem 0; border-bottom: 1px solid #e3e7ec; vertical-align: top; }
code { font-size: 0.85rem; overflow-wrap: anywhere; }
@media (prefers-color-scheme: dark) {
  body { background: #12161c; color: #e4e8ee; } .graph { border-color: #39424e; } th, td { border-color: #2b333d; }
  rect { fill: #1d2a3b; stroke: #7d9cc8; } rect.changed { fill: #3a2f18; stroke: #d9a650; }
  text { fill: #e4e8ee; } text.small { fill: #b4bdc9; } path { stroke: #7c8896; } a { color: #8ab4f8; }
}
"""


def render_page(title: str, ends: list[Execution]) -> str:
    """The page: the graph of executions, then what each read and wrote.

    Args:
        title: what the chain is about.
        ends: see :func:`vr_pipeline.lineage.chain.trace`.
    """
    ordered = executions(ends)
    tables = "\n".join(_details(execution, number) for number, execution in enumerate(ordered))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
        "<p>Each box is a stage as one run executed it; a link leads from what made data to what read it. "
        "A star after the commit, and another colour, mean that files differed from the commit; "
        "the difference is kept with the run.</p>\n"
        f'<div class="graph">{_drawing(ordered)}</div>\n{tables}\n</body>\n</html>\n'
    )


def _columns(ordered: list[Execution]) -> dict[tuple[str, str], int]:
    """Each execution one step right of the last of its makers."""
    column: dict[tuple[str, str], int] = {}
    for execution in ordered:
        column[execution.key] = 1 + max((column[maker.key] for maker in execution.inputs.values()), default=-1)
    return column


def _drawing(ordered: list[Execution]) -> str:
    column = _columns(ordered)
    rows: dict[int, int] = {}
    place: dict[tuple[str, str], tuple[int, int]] = {}
    for execution in ordered:
        x = column[execution.key]
        # Neighbouring columns are shifted, so that links that skip one pass between its boxes.
        y = rows.get(x, 0) * (_HEIGHT + _GAP_Y) + (x % 3) * (_HEIGHT + _GAP_Y) // 2
        rows[x] = rows.get(x, 0) + 1
        place[execution.key] = (_MARGIN + x * (_WIDTH + _GAP_X), _MARGIN + y)
    width = max((x for x, _ in place.values()), default=0) + _WIDTH + _MARGIN
    height = max((y for _, y in place.values()), default=0) + _HEIGHT + _MARGIN + _GAP_Y
    links, boxes = [], []
    for number, execution in enumerate(ordered):
        x, y = place[execution.key]
        for maker, contents in execution.makers().values():
            from_x, from_y = place[maker.key]
            start, end = (from_x + _WIDTH, from_y + _HEIGHT // 2), (x, y + _HEIGHT // 2)
            bend = (end[0] - start[0]) // 2
            curve = f"M{start[0]},{start[1]} C{start[0] + bend},{start[1]} {end[0] - bend},{end[1]} {end[0]},{end[1]}"
            listed = escape(", ".join(content.dataset or content.path for content in contents))
            links.append(f'<path d="{curve}"><title>{listed}</title></path>')
        run = execution.run
        kind = ' class="changed"' if run.commit.endswith("*") else ""
        boxes.append(
            f'<a href="#execution-{number}"><rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="7"{kind}/>'
            f'<text class="stage" x="{x + 12}" y="{y + 22}">{escape(execution.stage)}</text>'
            f'<text x="{x + 12}" y="{y + 40}">run {run.short}</text>'
            f'<text class="small" x="{x + 12}" y="{y + 57}">{run.started:%Y-%m-%d %H:%M}, commit {escape(run.commit)}'
            "</text></a>"
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'style="width: 100%; min-width: {width * 3 // 4}px; max-width: {width}px" '
        f'aria-label="Graph of {len(ordered)} executions">{"".join(links)}{"".join(boxes)}</svg>'
    )


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
        "<table><thead><tr><th></th><th>dataset</th><th>path</th><th>DVC hash</th><th>made by</th></tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )
