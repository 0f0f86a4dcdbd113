"""Cleaning rules one by one, and their order."""

from __future__ import annotations

from typing import Any

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from vr_pipeline.prompts import rules as all_rules
from vr_pipeline.prompts.cleaning import clean_prompts
from vr_pipeline.prompts.config import DEFAULT_RULES, CleaningParameters
from vr_pipeline.prompts.rules import RULES, Drop, Prompt


def apply(rule: str, text: str, *, unsafe: float = float("nan"), **limits: Any) -> str | Drop:
    return RULES[rule](Prompt(text, unsafe), CleaningParameters(**limits))


def clean(text: str) -> str:
    mending = ["normalise_unicode", "remove_control_characters", "remove_web_addresses", "remove_generator_flags"]
    rules = (*mending, "collapse_white_space", "drop_exact_duplicates")
    return clean_prompts([Prompt(text)], CleaningParameters(rules=rules))[0].text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat runs -ar 16:9", "a cat runs"),
        ("a cat runs -motion 3 -gs 12", "a cat runs"),
        ("a cat runs --seed 5, in the rain", "a cat runs, in the rain"),
        ("a cat -camera zoom in -fps 24 runs", "a cat runs"),
        ("a cat — a big one — runs", "a cat — a big one — runs"),
        ("a cat runs —ar 9:16", "a cat runs"),
        ("a cat runs -neg blurry, low quality, extra legs", "a cat runs"),
        ("a cat runs -neg blurry, low quality -ar 16:9", "a cat runs"),
        ("a cat --no dogs, birds --v 5.2", "a cat"),
        ("a cat -camera pan left zoom out", "a cat"),
        ("a well-known slow-motion x-ray scene", "a well-known slow-motion x-ray scene"),
        ("a no-name cat, no dogs", "a no-name cat, no dogs"),
        ("temperature of -5 degrees", "temperature of -5 degrees"),
        ("https://cdn.site.com/a.png?x=1 a cat", "a cat"),
        ("a cat from www.cats.org, running", "a cat from running"),
        ("a cat <@123456789012345678> runs", "a cat runs"),
        ("i.e. a cat at 3.5 metres", "i.e. a cat at 3.5 metres"),
        ("a  cat ,, runs ,", "a cat, runs"),
        ("\ufb01ne \uff23\uff21\uff34", "fine CAT"),
        ("a\u200bcat\x07 runs\nfast", "acat runs fast"),
        ("a\u2028cat\u2029runs\u00a0fast\ud800", "a cat runs fast"),
        ("\u0645\u06cc\u200c\u0631\u0648\u062f", "\u0645\u06cc\u200c\u0631\u0648\u062f"),
    ],
)
def test_mending(text: str, expected: str) -> None:
    assert clean(text) == expected


@pytest.mark.parametrize(
    ("rule", "text", "limits", "reason"),
    [
        ("drop_empty", "  ", {}, "empty"),
        ("drop_length", "a cat", {"min_words": 3}, "2 words, fewer than 3"),
        ("drop_length", "a b c d", {"min_words": 0, "max_words": 3}, "4 words, more than 3"),
        ("drop_symbol_soup", "#@! a ((())) $$$", {}, "symbols"),
        ("drop_symbol_soup", "look " + "ha" * 30, {}, "60 characters"),
        ("drop_repeated_words", "walk walk walk walk home", {}, "'walk' 4 times"),
        ("drop_repeated_words", "a b a b a b a b", {}, "25% distinct"),
        ("drop_poor_content", "a video of the best quality 4k", {}, "0 content words"),
        ("drop_poor_content", "red dark beautiful moody", {}, "0 words for objects or actions"),
        ("drop_other_scripts", "кошка бежит fast", {"scripts": ["LATIN"]}, "LATIN"),
        ("drop_unsafe", "a Bloody scene", {"unsafe_words": ["bloody"]}, "'bloody'"),
    ],
)
def test_drops_with_the_figure_that_decided(rule: str, text: str, limits: dict[str, Any], reason: str) -> None:
    result = apply(rule, text, **limits)
    assert isinstance(result, Drop)
    assert reason in result.reason


@pytest.mark.parametrize(
    ("rule", "text", "limits"),
    [
        ("drop_length", "一只猫在跑", {}),
        ("drop_symbol_soup", "नमस्ते दुनिया में बिल्ली", {}),
        ("drop_symbol_soup", "", {}),
        ("drop_repeated_words", "very very very big cat", {}),
        ("drop_poor_content", "red ball moves right on black", {}),
        ("drop_poor_content", "eine Katze läuft", {}),
        ("drop_other_scripts", "café à la crème", {"scripts": ["LATIN"]}),
        ("drop_other_scripts", "123", {"scripts": ["LATIN"]}),
        ("drop_other_scripts", "кошка", {}),
        ("drop_unsafe", "a bloodless scene", {"unsafe_words": ["blood", "less scene"]}),
        ("drop_unsafe", "a scene", {}),
    ],
)
def test_keeps(rule: str, text: str, limits: dict[str, Any]) -> None:
    assert apply(rule, text, **limits) == text


def test_unsafe_probability_of_the_input() -> None:
    assert isinstance(apply("drop_unsafe", "a scene", unsafe=0.6, max_unsafe_probability=0.5), Drop)
    assert apply("drop_unsafe", "a scene", unsafe=0.5, max_unsafe_probability=0.5) == "a scene"


class Tongues:
    """Takes a prompt's first word for its language, and the second for how sure that is."""

    def classify(self, text: str) -> tuple[str, float]:
        language, probability = text.split()[:2]
        return language, float(probability)


def test_only_prompts_surely_of_another_language_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(all_rules, "_language_identifier", Tongues)
    limits: dict[str, Any] = {"languages": ["en", "fr"], "min_language_words": 4, "min_language_probability": 0.9}
    result = apply("drop_other_languages", "de 0.9 der Hund", **limits)
    assert isinstance(result, Drop)
    assert result.reason == "the language is 'de' with probability 0.90"
    for text in ("de 0.89 der Hund", "de 1 Hund", "fr 1 le chien"):
        assert apply("drop_other_languages", text, **limits) == text
    assert apply("drop_other_languages", "no language is asked for") == "no language is asked for"


def test_language_rule() -> None:
    pytest.importorskip("py3langid")
    german = "der Hund läuft mit dem Ball durch den Garten hinter dem Haus"
    english = "the dog runs with the ball through the garden behind the house"
    result = apply("drop_other_languages", german, languages=["en"])
    assert isinstance(result, Drop)
    assert "'de'" in result.reason
    assert apply("drop_other_languages", english, languages=["en"]) == english
    assert apply("drop_other_languages", german, languages=["en", "de"]) == german
    assert apply("drop_other_languages", "der Hund läuft", languages=["en"]) == "der Hund läuft"


def test_duplicates_name_the_first_and_ignore_case_space_and_form() -> None:
    texts = ["A cat runs fast", "a dog sits outdoors", "a  CAT runs fast", "\uff41 cat runs fast -ar 1:1"]
    outcomes = clean_prompts([Prompt(text) for text in texts], CleaningParameters())
    assert [outcome.kept for outcome in outcomes] == [True, True, False, False]
    assert [outcome.nearest for outcome in outcomes[2:]] == [0, 0]
    assert outcomes[3].changed_by == ("normalise_unicode", "remove_generator_flags", "collapse_white_space")


def test_the_order_is_configuration() -> None:
    text = "-ar 16:9"
    late = (*[name for name in DEFAULT_RULES if name != "drop_length"][:-1], "drop_length", "drop_exact_duplicates")
    early = ("drop_length", *[name for name in DEFAULT_RULES if name != "drop_length"])
    assert clean_prompts([Prompt(text)], CleaningParameters(rules=late))[0].rule == "drop_empty"
    assert clean_prompts([Prompt("a cat -ar 16:9")], CleaningParameters(rules=early, min_words=6))[0].kept is False
    assert clean_prompts([Prompt("a cat -ar 16:9")], CleaningParameters(rules=early, min_words=6))[0].changed_by == ()


@pytest.mark.parametrize(
    "rules",
    [["no_such_rule", "drop_exact_duplicates"], ["drop_exact_duplicates", "drop_length"], [], ["drop_length"] * 2],
)
def test_bad_rule_lists_are_rejected(rules: list[str]) -> None:
    with pytest.raises(ValidationError, match="rule"):
        CleaningParameters(rules=tuple(rules))


@given(st.lists(st.text(max_size=40), max_size=8))
def test_any_text_gets_an_outcome_and_cleaning_again_changes_nothing(texts: list[str]) -> None:
    outcomes = clean_prompts([Prompt(text) for text in texts], CleaningParameters(min_content_words=0, min_words=0))
    assert len(outcomes) == len(texts)
    kept = [outcome.text for outcome in outcomes if outcome.kept]
    again = clean_prompts([Prompt(text) for text in kept], CleaningParameters(min_content_words=0, min_words=0))
    for before, outcome in zip(kept, again, strict=True):
        assert not regex.search(r"\p{C}", before.replace("\u200c", "").replace("\u200d", ""))
        if outcome.kept:
            assert outcome.text == before
