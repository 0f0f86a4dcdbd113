"""Foreign text in Markdown is shown as it is."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vr_pipeline.storage.markdown import as_code, as_text

markdown = pytest.importorskip("markdown")

ATTACKS = [
    "<script>alert(1)</script>",
    "[click](javascript:alert(1))",
    "![x](https://a.example/p.png)",
    "a | b | c",
    "`code`",
    "# heading",
    "- item",
    "1. item",
    "<https://a.example>",
    "https://a.example/x",
    "**bold** &amp; ~~gone~~",
    "a\n\n<b>line</b>",
    "\\<b>",
    "[x]: https://a.example",
]


@pytest.mark.parametrize("text", ATTACKS)
def test_text_makes_no_markup(text: str) -> None:
    page = markdown.markdown(
        f"| a | b |\n|---|---|\n| {as_text(text)} | end |\n\n{as_text(text)}", extensions=["tables"]
    )
    tags = set(re.findall(r"<(\w+)", page))
    assert tags == {"table", "thead", "tbody", "tr", "th", "td", "p"}, page
    cells = re.findall(r"<td>(.*?)</td>", page)
    shown = " ".join(text.split())
    assert [html.unescape(cell) for cell in cells] == [shown, "end"]
    assert html.unescape(re.findall(r"<p>(.*?)</p>", page)[-1]) == shown


@given(st.text("`|a <", min_size=1, max_size=12))
def test_code_stays_code(text: str) -> None:
    page = markdown.markdown(f"x {as_code('a' + text)} y")
    assert set(re.findall(r"<(\w+)", page)) == {"p", "code"}
    assert page.endswith("y</p>")
