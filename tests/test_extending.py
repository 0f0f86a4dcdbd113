"""Every "To add ..." of docs/extending.md is a diff; each is applied to a copy of the sources and used."""

from __future__ import annotations

import re
from pathlib import Path

from documented_change import ROOT


def test_every_section_with_a_diff_has_its_test() -> None:
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## (To add .*)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    tests = Path(__file__).read_text(encoding="utf-8")
    for heading, body in sections:
        assert "```diff" in body, heading
        assert f'apply_documented("{heading}"' in tests, heading
