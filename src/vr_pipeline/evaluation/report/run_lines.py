"""Commit and run in the footer of the report page, stored separately.

The page depends on the data only, so that DVC and a second run can compare its bytes. Commit and run are in a small
document next to it, which the page embeds, and in MLflow's copy of the page.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from vr_pipeline.terminal import one_line

RUN_FILE: Final = "evaluation_report_run.html"
"""Name of the document next to the page."""

_BEGIN, _END = "<!-- run -->", "<!-- /run -->"

_STYLE = """
:root { color-scheme: light dark; }
body { margin: 0; font: .85rem/1.55 system-ui, sans-serif; color: #56606b; background: transparent; }
dl { margin: 0; }
dl div { display: flex; flex-wrap: wrap; gap: 0 .75rem; }
dt { min-width: 11rem; }
dd { margin: 0; overflow-wrap: anywhere; font-family: ui-monospace, Menlo, Consolas, monospace; }
@media (prefers-color-scheme: dark) { body { color: #a5b0ba; background: #14181c; } }
"""


def _rows(lines: Mapping[str, str]) -> str:
    return "\n".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(one_line(value))}</dd></div>"
        for name, value in lines.items()
        if value
    )


def placeholder() -> Markup:
    """Return the element that embeds the run's document in a page."""
    missing = (
        f"Commit and MLflow run are in {RUN_FILE}, in the folder where this page was written, and in MLflow's copy of "
        "the page."
    )
    # Without the document, an object shows its content, and the console stays silent.
    return Markup(
        f'{_BEGIN}<object class="run" data="{RUN_FILE}" type="text/html" aria-label="Commit and run">'
        f"<p>{missing}</p></object>{_END}"
    )


def run_document(lines: Mapping[str, str]) -> str:
    """Return the document next to the page."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Commit and run</title>'
        f"<style>{_STYLE}</style></head>\n<body><dl>\n{_rows(lines)}\n</dl></body></html>\n"
    )


def with_run(page: str, lines: Mapping[str, str]) -> str:
    """Return the page with the run's lines in it; unchanged if it has no element for them."""
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        return page
    rows = _rows(lines).encode("ascii", "xmlcharrefreplace").decode("ascii")
    return f"{before}<dl>\n{rows}\n</dl>{after}"


def table_hash(table: pd.DataFrame) -> str:
    """Return the hash of a table's content, 16 hexadecimal digits, independent of the order of rows and columns."""
    names = sorted(table.columns, key=str)
    plain = table[names].astype({name: str for name in names if table[name].dtype == object})
    rows = np.sort(pd.util.hash_pandas_object(plain, index=False).to_numpy())
    return hashlib.sha256("\0".join(map(str, names)).encode() + b"\0\0" + rows.tobytes()).hexdigest()[:16]
