"""Cleaning rules that correct a prompt or drop it with a reason.

A rule is a function from a :class:`Prompt` and the limits to the new text or :class:`Drop`. The configuration
``cleaning.rules`` lists functions of this module in their order.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Final

import regex
from pydantic import Field, model_validator

from vr_pipeline.config import Parameters
from vr_pipeline.errors import InputError
from vr_pipeline.prompts.segments import HAN, KANA, LETTERS, SYLLABLES, folded, script_of, spaceless
from vr_pipeline.prompts.words import content_words, length_in_words, words


@dataclass(frozen=True)
class Prompt:
    """A prompt during cleaning.

    Args:
        text: current text.
        unsafe_probability: probability of unsafe content in the input, NaN if unknown.
        image: its first frame; empty for none.
    """

    text: str
    unsafe_probability: float = float("nan")
    image: str = ""


@dataclass(frozen=True)
class Drop:
    """A rule's decision to drop a prompt.

    Args:
        reason: a clause with the deciding figure.
        nearest: position of the earlier prompt that it repeats, if any.
    """

    reason: str
    nearest: int | None = None


class Limits(Parameters):
    """The limits of the rules."""

    min_words: int = Field(default=3, ge=0, description="smallest number of words of a prompt")
    max_words: int = Field(default=200, ge=1, description="largest number of words of a prompt")
    max_symbol_share: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="largest share of characters without white space that are not letters, digits or marks",
    )
    min_distinct_word_share: float = Field(
        default=0.4, ge=0, le=1, description="smallest share of distinct words among all words of a prompt"
    )
    max_word_run: int = Field(default=3, ge=1, description="longest direct repetition of a word (words)")
    max_word_length: int = Field(default=40, ge=5, description="longest word of a script with spaces (characters)")
    min_content_words: int = Field(
        default=3, ge=0, description="smallest number of distinct words without function words and quality tags"
    )
    min_scene_words: int = Field(
        default=1,
        ge=0,
        description="smallest number of distinct words for objects or actions",
    )
    scripts: tuple[str, ...] = Field(
        default=(),
        description="allowed Unicode scripts, such as LATIN or CJK; empty turns the rule off",
    )
    min_script_share: float = Field(default=0.8, ge=0, le=1, description="smallest share of letters of allowed scripts")
    languages: tuple[str, ...] = Field(
        default=(),
        description="ISO 639-1 codes of allowed languages (needs the extra 'languages'); empty turns the rule off",
    )
    min_language_words: int = Field(
        default=6, ge=1, description="the language of shorter prompts is not checked (words)"
    )
    min_language_probability: float = Field(
        default=0.8, ge=0, le=1, description="smallest probability of another language to drop a prompt"
    )
    unsafe_words: tuple[str, ...] = Field(
        default=(), description="words or phrases, in any case, that drop a prompt; empty turns the rule off"
    )
    max_unsafe_probability: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="largest probability of unsafe content, if the input has one (VidProM); 1 turns the rule off",
    )

    @model_validator(mode="after")
    def _ordered_lengths(self) -> Limits:
        if self.min_words > self.max_words:
            raise ValueError(f"min_words {self.min_words} is above max_words {self.max_words}")
        return self


Rule = Callable[[Prompt, Limits], "str | Drop"]
RULES: Final[dict[str, Rule]] = {}
"""Rules by name: those on single prompts, and ``drop_exact_duplicates``."""
EXACT_DUPLICATES: Final = "drop_exact_duplicates"

_SPACELESS = f"[{HAN}{KANA}{SYLLABLES}]"
_URL = regex.compile(
    rf"(?:https?://|ftp://|www\.)(?:(?!{_SPACELESS})\S)+"
    rf"|\b(?:[a-z0-9-]+\.)+(?:com|org|net|io|gg|co|ai|app|tv|me|ly|be)/(?:(?!{_SPACELESS})\S)*"
    r"|<@?[!&#]?\d{6,}>",
    regex.IGNORECASE,
)
_DASH = r"(?:(?<=\s)|^)(?:--?|—|–)"
_OPTIONS = (
    "ar|aspect|motion|camera|gs|fps|seed|s|stylize|style|niji|v|version|q|quality|c|chaos|cfg|steps|w|h|iw|sref|cref"
    "|upscale|weird|stop|tile|uplight|image|img|i|size|duration|sampler|video|loop"
)
_VALUES = (
    r"zoom\s+(?:in|out)|pan\s+(?:left|right|up|down)|tilt\s+(?:up|down)"
    r"|rotate\s+(?:cw|ccw|(?:anti-?|counter-?)?clockwise)"
    r"|[\d.]+\s*[:x/]\s*[\d.]+|[\d.]+%?|raw|in|out|left|right|up|down|cw|ccw"
)
_FLAG = re.compile(
    rf"{_DASH}(?:{_OPTIONS})(?:[\s:=]+(?:{_VALUES})(?=\s|,|$))*(?=\s|,|\.|$)",
    re.IGNORECASE,
)
# A negative prompt ends at the next option or the end.
_NEGATIVE = re.compile(
    rf"(?:{_DASH}(?:negative_?prompt|negative|neg)|(?:(?<=\s)|^)--no)\b"
    r"[\s:=]*(?:(?!\s(?:--?|—|–)[a-z]).)*",
    re.IGNORECASE | re.DOTALL,
)
_CONTROL = regex.compile(r"[\p{C}--[\u200c\u200d]]", regex.VERSION1)
_LETTER = regex.compile(f"[{LETTERS}]")
_LEFTOVER = re.compile(r"\s+([,.;:!?])")
_REPEATED_COMMAS = re.compile(r"(?:\s*[,;]\s*){2,}")


def rule(function: Rule) -> Rule:
    """Register a function for the configuration under its name."""
    RULES[function.__name__] = function
    return function


@rule
def normalise_unicode(prompt: Prompt, _: Limits) -> str:
    """Normalise characters that look the same (NFKC), such as full-width letters, ligatures and composed accents."""
    return unicodedata.normalize("NFKC", prompt.text)


@rule
def remove_control_characters(prompt: Prompt, _: Limits) -> str:
    """Remove control and invisible format characters and lone surrogates; line breaks and tabs become spaces.

    The joiners of scripts and emoji (U+200C, U+200D) have meaning and are kept.
    """
    if prompt.text.isprintable():
        return prompt.text
    return _CONTROL.sub("", re.sub(r"\s", " ", prompt.text))


@rule
def remove_web_addresses(prompt: Prompt, _: Limits) -> str:
    """Remove web addresses (mostly of reference pictures) and chat mentions by number."""
    return _URL.sub(" ", prompt.text)


@rule
def remove_generator_flags(prompt: Prompt, _: Limits) -> str:
    """Remove options of hosted generators: ``-ar 16:9``, ``--seed 5``, ``-camera zoom in``; ``-neg`` with its list.

    An option is white space, a dash and a known name, so that hyphens and dashes of sentences are kept.
    """
    if not any(dash in prompt.text for dash in "-—–"):
        return prompt.text
    return _FLAG.sub(" ", _NEGATIVE.sub(" ", prompt.text))


@rule
def collapse_white_space(prompt: Prompt, _: Limits) -> str:
    """Use single spaces, without spaces before punctuation and at the ends or commas left by removals."""
    text = " ".join(prompt.text.split())
    text = _LEFTOVER.sub(r"\1", _REPEATED_COMMAS.sub(", ", text))
    return text.strip(" ,;")


@rule
def drop_empty(prompt: Prompt, _: Limits) -> str | Drop:
    """Drop empty prompts."""
    return prompt.text if prompt.text.strip() else Drop("the text is empty")


@rule
def drop_length(prompt: Prompt, limits: Limits) -> str | Drop:
    """Drop prompts with too few or too many words."""
    count = len(words(prompt.text))
    if count < limits.min_words:
        return Drop(f"{count} words, fewer than {limits.min_words}")
    count = length_in_words(prompt.text)
    if count > limits.max_words:
        return Drop(f"{count} words, more than {limits.max_words}")
    return prompt.text


@rule
def drop_symbol_soup(prompt: Prompt, limits: Limits) -> str | Drop:
    """Drop prompts with too many symbols or too long words."""
    visible = prompt.text.replace(" ", "")
    symbols = len(visible) - sum(map(str.isalnum, visible))
    if symbols and not visible.isascii():
        symbols = len(_LETTER.sub("", visible))
    if visible and symbols / len(visible) > limits.max_symbol_share:
        return Drop(f"{symbols / len(visible):.0%} symbols, more than {limits.max_symbol_share:.0%}")
    longest = max(map(len, words(prompt.text)), default=0)
    if longest > limits.max_word_length:
        return Drop(f"a word of {longest} characters, more than {limits.max_word_length}")
    return prompt.text


@rule
def drop_repeated_words(prompt: Prompt, limits: Limits) -> str | Drop:
    """Drop prompts with few distinct words or a directly repeated word."""
    found = words(prompt.text)
    if not found:
        return prompt.text
    word, run = max(((word, sum(1 for _ in group)) for word, group in groupby(found)), key=lambda item: item[1])
    if run > limits.max_word_run:
        return Drop(f"'{word}' {run} times in succession, more than {limits.max_word_run}")
    # Single characters recur in any text, but pairs of neighbours only by repetition.
    units: Sequence[object] = list(pairwise(found)) or found if spaceless(prompt.text) else found
    share = len(set(units)) / len(units)
    if share < limits.min_distinct_word_share:
        return Drop(f"{share:.0%} distinct words, fewer than {limits.min_distinct_word_share:.0%}")
    return prompt.text


@rule
def drop_poor_content(prompt: Prompt, limits: Limits) -> str | Drop:
    """Drop prompts with few objects, attributes and actions besides function words and quality tags."""
    content = content_words(prompt.text)
    if content.count < limits.min_content_words:
        return Drop(f"{content.count} content words, fewer than {limits.min_content_words}")
    scene = len(content.things) + len(content.actions)
    if scene < limits.min_scene_words:
        return Drop(f"{scene} words for objects or actions, fewer than {limits.min_scene_words}")
    return prompt.text


@rule
def drop_other_scripts(prompt: Prompt, limits: Limits) -> str | Drop:
    """Drop prompts mostly in other scripts than ``scripts``; off if these are empty."""
    if not limits.scripts:
        return prompt.text
    letters = [character for character in prompt.text if character.isalpha()]
    scripts = Counter(map(_cached_script, letters))
    share = sum(scripts[name] for name in limits.scripts) / len(letters) if letters else 1.0
    if share < limits.min_script_share:
        return Drop(f"{share:.0%} of the letters are {' or '.join(limits.scripts)}")
    return prompt.text


@rule
def drop_other_languages(prompt: Prompt, limits: Limits) -> str | Drop:
    """Drop prompts very probably in other languages than ``languages``; off if these are empty."""
    if not limits.languages or len(words(prompt.text)) < limits.min_language_words:
        return prompt.text
    language, probability = _language_identifier().classify(prompt.text)
    if language not in limits.languages and probability >= limits.min_language_probability:
        return Drop(f"the language is '{language}' with probability {probability:.2f}")
    return prompt.text


@rule
def drop_unsafe(prompt: Prompt, limits: Limits) -> str | Drop:
    """Drop prompts with a listed word or phrase, or probably unsafe by the input. Off by default."""
    if prompt.unsafe_probability > limits.max_unsafe_probability:
        return Drop(
            f"probability of unsafe content {prompt.unsafe_probability:.2f}, above {limits.max_unsafe_probability}"
        )
    if limits.unsafe_words:
        match = _phrases(limits.unsafe_words).search(folded(prompt.text))
        if match:
            return Drop(f"has the word or phrase '{match.group().lower()}'")
    return prompt.text


@rule
def drop_exact_duplicates(prompt: Prompt, _: Limits) -> str | Drop:
    """Drop prompts equal to an earlier one except for case, white space and Unicode form.

    ``clean_prompts``, which knows the earlier prompts, decides at this rule's place in the order.
    """
    return prompt.text


@functools.lru_cache(maxsize=4096)
def _cached_script(letter: str) -> str:
    return script_of(letter)


@functools.lru_cache(maxsize=8)
def _phrases(unsafe_words: tuple[str, ...]) -> regex.Pattern[str]:
    """Match whole words and phrases, and in scripts without spaces at any place."""
    phrases = sorted({folded(phrase) for phrase in unsafe_words}, key=lambda phrase: (-len(phrase), phrase))
    part = rf"[[{LETTERS}_]--{_SPACELESS}]"
    bounded = [
        ("" if spaceless(phrase[:1]) else f"(?<!{part})")
        + regex.escape(phrase)
        + ("" if spaceless(phrase[-1:]) else f"(?!{part})")
        for phrase in phrases
    ]
    return regex.compile("|".join(bounded), regex.VERSION1)


@functools.lru_cache(maxsize=1)
def _language_identifier() -> _LanguageIdentifier:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise InputError(
            "the rule drop_other_languages needs the package py3langid",
            remedy="install the extra 'languages', or leave cleaning.languages empty",
            field="cleaning.languages",
        ) from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


class _LanguageIdentifier:
    """The used part of py3langid's class, for type checkers."""

    def classify(self, text: str) -> tuple[str, float]:
        raise NotImplementedError
