"""Words and what they contribute."""

from __future__ import annotations

import pytest

from vr_pipeline.prompts.segments import script_of
from vr_pipeline.prompts.words import content_words, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It's a well-known CAT!", ("it's", "a", "well-known", "cat")),
        ("猫が走る ok", ("猫", "が", "走", "る", "ok")),
        ("고양이가 달린다", ("고양이가", "달린다")),
        ("a_b -- 3.5", ("a", "b", "3", "5")),
        ("", ()),
    ],
)
def test_words(text: str, expected: tuple[str, ...]) -> None:
    assert words(text) == expected


def test_content_is_divided() -> None:
    content = content_words("A beautiful red ball is rolling slowly over the king's ring, cinematic 4k video, 2023")
    assert content.things == ("ball", "king's", "ring")
    assert content.attributes == ("red", "slowly")
    assert content.actions == ("rolling",)
    assert content.count == 6


def test_other_languages_count_as_content() -> None:
    assert content_words("eine Katze läuft").count == 3
    assert content_words("猫が走る").count == 4


@pytest.mark.parametrize(
    ("letter", "script"), [("é", "LATIN"), ("ж", "CYRILLIC"), ("猫", "CJK"), ("ら", "HIRAGANA"), ("ع", "ARABIC")]
)
def test_script(letter: str, script: str) -> None:
    assert script_of(letter) == script
