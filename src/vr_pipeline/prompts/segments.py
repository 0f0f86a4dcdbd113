"""Words of prompts in any script, for comparisons.

A word is a run of letters, marks and digits. In scripts without spaces between words, the pieces are single Han
characters, and pairs of neighbouring characters of kana, Thai, Lao, Khmer, Burmese and related scripts, whose single
characters are only sounds. A character is a grapheme cluster (Unicode Standard Annex 29), so marks stay with their
letter. An emoji is also a piece.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Final

import regex

_ASCII = re.compile(r"[a-z0-9]+")
LETTERS: Final = r"\p{L}\p{M}\p{N}\u200c\u200d"
"""Letters, marks, digits and the joiners within words."""
HAN: Final = r"\p{Script=Han}"
KANA: Final = r"\p{Script=Hiragana}\p{Script=Katakana}\u30fc"
SYLLABLES: Final = (
    r"\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}"
    r"\p{Script=Tai_Tham}\p{Script=Tai_Le}\p{Script=New_Tai_Lue}\p{Script=Tai_Viet}\p{Script=Javanese}"
    r"\p{Script=Balinese}"
)
_SPACELESS = regex.compile(f"[{HAN}{KANA}{SYLLABLES}]")
_RUN = regex.compile(r"[\p{L}\p{M}\p{N}]+")
_PIECE = regex.compile(
    rf"(?P<han>[{HAN}])|(?P<syllables>(?:(?=[{KANA}{SYLLABLES}])\X)+)|(?P<emoji>\p{{Extended_Pictographic}})"
    rf"|(?P<word>(?:(?![{HAN}{KANA}{SYLLABLES}])[\p{{L}}\p{{M}}\p{{N}}])+)"
)
_UNSEEN = regex.compile(r"[\p{Cf}--\u200b]|[\ufe00-\ufe0f]", regex.VERSION1)
_OPTIONAL = regex.compile(
    r"[\u0591-\u05bd\u05bf-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06ed\u0640]"
)
"""Vowel points of Hebrew and Arabic and the stroke that stretches words, which most writers omit."""


def folded(text: str) -> str:
    """Return the text in one Unicode form and case, without invisible and optional characters."""
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return _OPTIONAL.sub("", _UNSEEN.sub("", text))


def runs(text: str) -> list[str]:
    """Return folded runs of letters, marks and digits in any script."""
    text = folded(text)
    return _ASCII.findall(text) if text.isascii() else _RUN.findall(text)


def segments(text: str) -> list[str]:
    """Return the pieces of a text for comparisons; for ASCII, those of the rouge-score package."""
    text = folded(text)
    if text.isascii():
        return _ASCII.findall(text)
    pieces: list[str] = []
    for match in _PIECE.finditer(text):
        if match.lastgroup == "syllables":
            clusters = regex.findall(r"\X", match.group())
            pieces += [a + b for a, b in itertools.pairwise(clusters)] or clusters
        else:
            pieces.append(match.group())
    return pieces


def spaceless(text: str) -> bool:
    """Return whether any character belongs to a script without spaces."""
    return not text.isascii() and _SPACELESS.search(text) is not None


def script_of(letter: str) -> str:
    """Return the script at the start of a letter's Unicode name, such as LATIN, CYRILLIC, ARABIC, CJK or HANGUL."""
    return unicodedata.name(letter, "UNKNOWN").split(" ", 1)[0].split("-", 1)[0]


def scripts(text: str) -> Counter[str]:
    """Count the pieces of a text by script, without digits and emoji."""
    if text.isascii():
        count = sum(not piece.isdigit() for piece in _ASCII.findall(text.lower()))
        return Counter({"LATIN": count} if count else {})
    letters = (next((character for character in piece if character.isalpha()), "") for piece in segments(text))
    return Counter(script_of(letter) for letter in letters if letter)


def is_covered(text: str, known: Sequence[str]) -> bool:
    """Return whether 90 % of the pieces with letters are in known scripts (LATIN up to U+024F), and few are emoji.

    Latin letters beyond, such as those of Vietnamese with two marks, are rare in models of western languages.
    """
    if not known or text.isascii():
        return not known or "LATIN" in known
    found = segments(text)
    pieces = [letters for letters in ([one for one in piece if one.isalpha()] for piece in found) if letters]
    emoji = sum(not any(map(str.isalnum, piece)) for piece in found)
    strange = sum(
        script_of(piece[0]) not in known or (script_of(piece[0]) == "LATIN" and max(piece) > "\u024f")
        for piece in pieces
    )
    return 10 * strange <= len(pieces) and 2 * emoji <= len(pieces)


def main_script(text: str) -> str:
    """Return the most frequent script of the pieces, by alphabet among equals; 'NONE' without letters."""
    return min(scripts(text).items(), key=lambda item: (-item[1], item[0]), default=("NONE", 0))[0]
