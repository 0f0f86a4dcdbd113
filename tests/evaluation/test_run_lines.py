"""Commit and run beside the report page: the page stays the same, its copies tell."""

from __future__ import annotations

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from report_inputs import render_report, report_inputs
from vr_pipeline.evaluation.report.run_lines import RUN_FILE, placeholder, run_document, table_hash, with_run

LINES = {"Commit": "fedcba9 <1>", "MLflow run": "r1", "Environment": ""}


def test_the_page_knows_no_run_and_its_copy_does():
    page = render_report(report_inputs(prompts=2, samples=1, steps=5))
    assert RUN_FILE in page
    assert "fedcba9" not in page
    copy = with_run(page, LINES)
    assert "<dt>Commit</dt><dd>fedcba9 &lt;1&gt;</dd>" in copy
    assert RUN_FILE not in copy
    # Nothing else is changed, and a copy is not stamped twice.
    start, end = page.index("<!-- run -->"), page.index("<!-- /run -->") + len("<!-- /run -->")
    assert copy.startswith(page[:start])
    assert copy.endswith(page[end:])
    assert with_run(copy, {"Commit": "other"}) == copy


@given(st.dictionaries(st.text(min_size=1), st.text(), max_size=4))
def test_lines_are_text_and_the_copy_stays_ascii(lines):
    copy = with_run(f"<footer>{placeholder()}</footer>", lines)
    assert copy.isascii()
    assert copy.count("<dt>") == sum(1 for value in lines.values() if value)
    assert "<script" not in copy.lower().replace("&lt;script", "")
    assert run_document(lines).count("<dd>") == sum(1 for value in lines.values() if value)


def test_hashes_tell_tables_apart():
    table = pd.DataFrame({"a": [1, 2], "b": ["x", None]})
    assert table_hash(table) == table_hash(table[["b", "a"]].set_axis([5, 6], axis=0)) == table_hash(table.iloc[::-1])
    for other in (
        pd.concat([table, table]),
        table.assign(a=[2, 1]),
        table.assign(a=[1, 3]),
        table.rename(columns={"a": "c"}),
        table.assign(b=["x", "y"]),
    ):
        assert table_hash(other) != table_hash(table)
