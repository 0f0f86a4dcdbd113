"""Draw docs/images/pipeline.svg: the stages of mpo_dpo with the inputs and outputs of each, from the pipelines.

Run from anywhere: ``python docs/draw_pipeline.py``.
"""

from __future__ import annotations

import importlib
import inspect
import textwrap
from html import escape
from pathlib import Path

TARGET = Path(__file__).resolve().parent / "images" / "pipeline.svg"
RESULTS = ("evaluation_metrics", "evaluation_report")
"""What the last stage makes for people."""

WIDTH, BOX, MARGIN, HEIGHT, GAP = 760, 500, 16, 74, 46
"""Pixels: the picture, a stage in it, and what lies between, which grows with more than two lines of text."""
LETTERS, LINES = 68, 2
"""Letters of a line in a box, and lines."""
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1c2430; } .stage { font-weight: 600; font-size: 15px; }
.small { fill: #4d5866; } rect { fill: #eef3fa; stroke: #5b7aa5; } .given { fill: #fdf3e0; stroke: #b07a1c; }
.ground { fill: #fff; stroke: none; }
path { stroke: #5b6878; stroke-width: 1.5; fill: none; } polygon { fill: #5b6878; }
@media (prefers-color-scheme: dark) {
  text { fill: #e4e8ee; } .small { fill: #b4bdc9; } rect { fill: #1d2a3b; stroke: #7d9cc8; }
  .given { fill: #3a2f18; stroke: #d9a650; } .ground { fill: #12161c; }
  path { stroke: #9aa6b4; } polygon { fill: #9aa6b4; }
}
"""


def stages() -> list[tuple[str, str, list[str], list[str]]]:
    """Return name, purpose, supplied inputs and outputs for later stages or people, in order of execution."""
    from vr_pipeline.pipeline_registry import register_pipelines

    pipelines = register_pipelines()
    order = list(dict.fromkeys(node.namespace for node in pipelines["mpo_dpo"].nodes))
    made = {name: pipelines[name].all_outputs() for name in order}
    read = {name: pipelines[name].all_inputs() for name in order}
    # A stage comes after those that make what it reads.
    order = sorted(order, key=lambda name: sum(_feeds(made, read, other, name) for other in order))
    found = []
    for position, name in enumerate(order):
        purpose = inspect.getdoc(importlib.import_module(f"vr_pipeline.pipelines.{name}")) or ""
        purpose = purpose.splitlines()[0].rstrip(".")
        supplied = {data for data in read[name] - set().union(*made.values()) if not data.startswith("param")}
        later = set().union(*(read[other] for other in order[position + 1 :]), RESULTS)
        found.append((name, purpose, sorted(supplied), sorted(made[name] & later)))
    return found


def _feeds(made: dict[str, set[str]], read: dict[str, set[str]], first: str, then: str) -> bool:
    """Whether a stage needs another, directly or through those between."""
    return first != then and any(
        made[first] & read[other] and (other == then or _feeds(made, read, other, then))
        for other in made
        if other != first
    )


def draw() -> str:
    """Return the picture as SVG, which follows the reader's light or dark mode."""
    parts, top = [], MARGIN
    for name, purpose, supplied, handed_on in stages():
        lines = textwrap.wrap(purpose, LETTERS)
        assert len(lines) <= LINES, purpose
        parts.append(f'<rect x="{MARGIN}" y="{top}" width="{BOX}" height="{HEIGHT}" rx="8"/>')
        parts.append(f'<text class="stage" x="{MARGIN + 14}" y="{top + 24}">{escape(name)}</text>')
        parts += [
            f'<text class="small" x="{MARGIN + 14}" y="{top + 44 + 18 * row}">{escape(line)}</text>'
            for row, line in enumerate(lines)
        ]
        left, height = MARGIN + BOX + 40, 22
        first = top + (HEIGHT - height * len(supplied) - 4 * (len(supplied) - 1)) // 2
        for row, data in enumerate(supplied):
            y = first + row * (height + 4)
            parts.append(
                f'<rect class="given" x="{left}" y="{y}" width="{WIDTH - left - MARGIN}" height="{height}" rx="11"/>'
                f'<text x="{left + 12}" y="{y + 15}">{escape(data)}</text>'
                f'<path d="M{left},{y + 11} H{MARGIN + BOX + 3}" marker-end="url(#arrow)"/>'
            )
        bottom, middle = top + HEIGHT, MARGIN + 40
        shown = textwrap.wrap(", ".join(handed_on), LETTERS - 4)
        gap = GAP + 16 * max(0, len(shown) - 2)
        parts.append(f'<path d="M{middle},{bottom} V{bottom + gap - 2}" marker-end="url(#arrow)"/>')
        offset = gap // 2 + 4 - 8 * (len(shown) - 1)
        parts += [
            f'<text class="small" x="{middle + 14}" y="{bottom + offset + 16 * row}">{escape(line)}</text>'
            for row, line in enumerate(shown)
        ]
        top = bottom + gap
    arrow = (
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        'markerUnits="userSpaceOnUse" orient="auto"><polygon points="0,0 8,4 0,8"/></marker></defs>'
    )
    # A page may be dark where the system is light: the picture has a ground of its own.
    ground = f'<rect class="ground" width="{WIDTH}" height="{top}" rx="8"/>'
    inside = "\n".join([ground, *parts])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}" '
        f'role="img" aria-label="The stages of mpo_dpo">\n<style>{STYLE}</style>\n{arrow}\n{inside}\n</svg>\n'
    )


if __name__ == "__main__":
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(draw(), encoding="utf-8", newline="\n")
    print(TARGET)
