"""Words of a prompt and their role in a scene.

Function words and quality tags are short, fixed lists. All other words are content, so that unknown nouns and other
languages are not mistaken for words without content.
"""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass
from typing import Final

import regex

from vr_pipeline.prompts.segments import HAN, KANA, LETTERS, SYLLABLES, spaceless

_WORD = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*")
_ANY_WORD = regex.compile(rf"[{LETTERS}]+(?:['’\-][{LETTERS}]+)*")
_PART = regex.compile(
    rf"(?P<character>[{HAN}{KANA}])|(?P<syllables>(?:(?=[{SYLLABLES}])\X){{1,3}})|(?:(?![{HAN}{KANA}{SYLLABLES}]).)+"
)
"""In scripts without spaces, each Han character or kana is a word, and every three characters of the others."""

FUNCTION_WORDS: Final = frozenset(
    """
    a about above across after again against all almost along already also although always am among an and another
    any anyone anything are around as at away be because been before behind being below beneath beside between
    beyond both but by can could did do does doing done down during each either else etc even ever every few for
    from further get gets getting give gives go goes got had has have having he her here hers herself him himself
    his how i if in inside into is it its itself just let like lot lots make makes making many may me might mine
    more most much must my myself near neither never no nor not nothing now of off often on once one only onto or
    other others our ours out outside over own per please quite rather really same see seen several shall she should
    show showing shows since so some somebody someone something still such than that the their theirs them
    themselves then there these they thing things this those though through throughout till to together too toward
    towards under until up upon us very via want wants was we well were what when where whether which while who whom
    whose why will with within without would yet you your yours yourself
    """.split()  # noqa: SIM905
)
"""English words with grammatical meaning only."""

MEDIUM_WORDS: Final = frozenset(
    """
    4k 8k 16k 32k hd uhd fhd hdr hdri fps 24fps 30fps 60fps 1080p 2160p 720p 480p 3d 2d cgi vfx octane unreal engine
    ue5 blender render rendering rendered raytracing photorealistic photorealism photoreal photo photography
    photograph realistic realism hyperrealistic hyperrealism hyper-realistic hyperreal ultra-realistic
    ultrarealistic ultra hyper super cinematic cinematography cinema film movie video clip footage scene shot image
    picture animation animated anime cartoon style styled quality best high highly detailed detail details detailing
    intricate masterpiece resolution definition professional realtime aesthetic artstation trending award-winning
    epic stunning beautiful amazing awesome perfect nice good great cool
    """.split()  # noqa: SIM905
)
"""Words on the medium and its quality that are not part of a scene."""

ATTRIBUTE_WORDS: Final = frozenset(
    """
    red green blue yellow orange purple violet pink brown black white grey gray golden gold silver colorful
    colourful dark bright light pale big small large little tiny huge giant tall short long wide narrow thin thick
    fat slim old young new ancient modern futuristic vintage retro hot cold warm wet dry soft hard smooth rough
    sharp clean dirty happy sad angry calm scary creepy cute pretty ugly handsome gorgeous magical mystical
    mysterious fantasy surreal dramatic moody slow fast quick quiet loud rich poor strong weak left right
    """.split()  # noqa: SIM905
)
"""Common words that describe. Longer adjectives are recognised by their ending."""

_ATTRIBUTE_ENDINGS: Final = ("ful", "ous", "ish", "less", "ly", "ic", "able", "ible", "esque")
_ACTION_ENDING: Final = "ing"
_NOUNS_IN_ING: Final = frozenset(
    ["king", "ring", "wing", "thing", "string", "spring", "being", "building", "ceiling", "morning", "evening"]
)


@functools.lru_cache(maxsize=64)
def words(text: str) -> tuple[str, ...]:
    """Return words in lower case; scripts without spaces are cut by ``_PART``.

    Several rules use the same prompt one after the other, hence the small cache.
    """
    lowered = text.lower()
    if lowered.isascii():
        return tuple(_WORD.findall(lowered))
    found: list[str] = []
    for word in _ANY_WORD.findall(lowered):
        found += [part.group() for part in _PART.finditer(word)] if spaceless(word) else [word]
    return tuple(found)


def length_in_words(text: str) -> int:
    """Return the approximate number of words, with two Han characters or kana as one, rounded up."""
    found = words(text)
    characters = (
        0 if text.isascii() else sum(_PART.fullmatch(word)["character"] is not None for word in found if len(word) == 1)
    )
    return len(found) - characters + math.ceil(characters / 2)


@dataclass(frozen=True)
class Content:
    """Distinct content words of a prompt by role, in order of appearance.

    The division is a heuristic by word lists and English endings: ``things`` are all others, including verbs that do
    not end in -ing.
    """

    things: tuple[str, ...]
    attributes: tuple[str, ...]
    actions: tuple[str, ...]

    @property
    def count(self) -> int:
        """Number of distinct content words."""
        return len(self.things) + len(self.attributes) + len(self.actions)


def content_words(text: str) -> Content:
    """Divide the content words of a text into things, attributes and actions."""
    things: dict[str, None] = {}
    attributes: dict[str, None] = {}
    actions: dict[str, None] = {}
    for word in words(text):
        if word in FUNCTION_WORDS or word in MEDIUM_WORDS or not any(character.isalpha() for character in word):
            continue
        if len(word) == 1 and word.isascii():
            continue
        if word in ATTRIBUTE_WORDS or (len(word) > 5 and word.endswith(_ATTRIBUTE_ENDINGS)):
            attributes[word] = None
        elif len(word) > 4 and word.endswith(_ACTION_ENDING) and word not in _NOUNS_IN_ING:
            actions[word] = None
        else:
            things[word] = None
    return Content(tuple(things), tuple(attributes), tuple(actions))
