"""Parse conversations of a judge: prompt, responses, and the label in the answer.

The training data of UnifiedReward (Wang et al. 2025, arXiv 2503.05236) and LLaVA-Critic (Xiong et al. 2024, arXiv
2410.02712) are conversations: the user's turn has the task in prose, then named fields such as ``Text Caption: [a red
fox]``; the other turn has the answer, perhaps with reasons.
"""

import re
from typing import Final, Literal, NamedTuple

from pydantic import Field

from vr_pipeline.config import Parameters

Answer = Literal["first", "second", "tie"]

MEDIA_PLACE: Final = re.compile(r"<(image|video)>")
"""Placeholder of an image, a frame or a clip in a user's turn."""


class ConversationPatterns(Parameters):
    """Wording of a source's conversations: names of fields, and regular expressions of answers."""

    prompt: tuple[str, ...] = Field(description="Names of the field with the prompt or question.")
    response: tuple[str, ...] = Field(description="Names of the field with a scored response.")
    response_a: tuple[str, ...] = Field(description="Names of the field with the first response of two.")
    response_b: tuple[str, ...] = Field(description="Names of the field with the second response of two.")
    first: tuple[str, ...] = Field(description="Patterns of answers for the first.")
    second: tuple[str, ...] = Field(description="Patterns of answers for the second.")
    tie: tuple[str, ...] = Field(description="Patterns of answers for a tie.")
    score: tuple[str, ...] = Field(description="Patterns whose group is the overall score.")
    dimensions: tuple[str, ...] = Field((), description="Names of lines with the score of a dimension.")


_NUMBER: Final = r"(-?\d+(?:\.\d+)?)"
_ENDS: Final = r"(?![\d.]*\d)(?:\s*/\s*\d+)?"

UNIFIED_REWARD: Final = ConversationPatterns(
    prompt=("Text Caption", "Text Prompt", "Question"),
    response=("Response",),
    response_a=("Response 1",),
    response_b=("Response 2",),
    first=(r"\b(?:image|video|response|answer) 1 is (?:\w+ )?better\b",),
    second=(r"\b(?:image|video|response|answer) 2 is (?:\w+ )?better\b",),
    tie=(r"\bequally (?:good|bad)\b", r"\bare equal\b"),
    score=(rf"\bfinal score\s*:\s*\[?{_NUMBER}{_ENDS}",),
    dimensions=(
        "visual quality",
        "temporal consistency",
        "dynamic degree",
        "text-to-video alignment",
        "factual consistency",
        "Alignment Score (1-5)",
        "Coherence Score (1-5)",
        "Style Score (1-5)",
        "Physics Score (1-5)",
    ),
)
"""The wording of UnifiedReward's data; the dimensions are those of VideoFeedback and of its version 2.0."""

LLAVA_CRITIC: Final = ConversationPatterns(
    prompt=("Question", "Input question"),
    response=("Response", "The LMM response", "LMM response", "Answer"),
    response_a=("The first response", "Response 1", "Answer 1"),
    response_b=("The second response", "Response 2", "Answer 2"),
    first=(
        r"\b(?:the )?(?:first|former) (?:response|answer)[^.\n]{0,40}\bis (?:\w+ )?better\b",
        r"\b(?:response|answer) 1 is (?:\w+ )?better\b",
    ),
    second=(
        r"\b(?:the )?(?:second|latter) (?:response|answer)[^.\n]{0,40}\bis (?:\w+ )?better\b",
        r"\b(?:response|answer) 2 is (?:\w+ )?better\b",
    ),
    tie=(r"\b(?:both|two) (?:responses|answers)[^.\n]{0,40}\bequal", r"\bequally (?:good|bad)\b"),
    score=(rf"\b(?:final )?(?:score|rating)\s*:\s*\[?{_NUMBER}{_ENDS}", rf"^\s*{_NUMBER}{_ENDS}\s*$"),
)
"""The wording of LLaVA-Critic's data."""

_START: Final = "your task is provided as follows"


class Said(NamedTuple):
    """The fields of a user's turn; missing responses are empty."""

    prompt: str
    response: str
    response_a: str
    response_b: str


def fields_of(turn: str, patterns: ConversationPatterns) -> Said:
    """Return prompt and responses of a user's turn.

    Fields follow their names, perhaps in brackets, up to the next field or the end. Only text after the last
    introduction of the task is searched, since its prose can mention names of fields.

    Raises:
        ValueError: the prompt, or one response of two, is missing.
    """
    place = turn.lower().rfind(_START)
    text = turn[place + len(_START) :] if place >= 0 else turn
    # Longest names first, so that 'Response 1' does not match 'Response'.
    named = [(name, kind) for kind in Said._fields for name in getattr(patterns, kind)]
    names = "|".join(re.escape(name) for name, _ in sorted(named, key=lambda one: -len(one[0])))
    kinds = {name.lower(): kind for name, kind in named}
    # A field starts a line, or follows the introduction or a closing bracket.
    found = list(re.finditer(rf"(?:^|(?<=[\n\].:]))[ \t:.]*({names})[ \t]*:", text, flags=re.IGNORECASE))
    values: dict[str, str] = {}
    ends = [match.start() for match in found[1:]] + [len(text)]
    for match, end in zip(found, ends, strict=True):
        values.setdefault(kinds[match.group(1).lower()], _bare(text[match.end() : end]))
    if not values.get("prompt"):
        raise ValueError(f"the question has no field {' or '.join(patterns.prompt)}")
    for there, missing in (("response_a", "response_b"), ("response_b", "response_a")):
        if there in values and missing not in values:
            raise ValueError(
                f"the question has only one of two responses, no {' or '.join(getattr(patterns, missing))}"
            )
    return Said(*(values.get(kind, "") for kind in Said._fields))


def _bare(text: str) -> str:
    stripped = MEDIA_PLACE.sub("", text).strip()
    end = stripped.rfind("]")
    # Some sources end the turn with the responder's name after the bracket.
    return stripped[1:end].strip() if stripped[:1] == "[" and end > 0 else stripped


def preference_of(answer: str, patterns: ConversationPatterns) -> Answer | None:
    """Return the preference in an answer, or None. Raises :class:`ValueError` if it has two different ones."""
    kinds: tuple[Answer, ...] = ("first", "second", "tie")
    found = {kind for kind in kinds for one in getattr(patterns, kind) if re.search(one, answer, re.IGNORECASE)}
    if len(found) > 1:
        raise ValueError(f"the answer has both {' and '.join(sorted(found))}")
    return found.pop() if found else None


def scores_of(answer: str, patterns: ConversationPatterns) -> dict[str, str]:
    """Return the numbers of an answer as text by dimension, with '' for the overall score.

    Raises:
        ValueError: one of them has several values.
    """
    sources = [(name, rf"^[ \t]*{re.escape(name)}[ \t]*:[ \t]*{_NUMBER}{_ENDS}[ \t]*$") for name in patterns.dimensions]
    sources += [("", pattern) for pattern in patterns.score]
    scores: dict[str, str] = {}
    for name, pattern in sources:
        values = {match.group(1) for match in re.finditer(pattern, answer, re.IGNORECASE | re.MULTILINE)}
        if len(values) > 1:
            raise ValueError(f"the answer has several values for '{name or 'the score'}': {', '.join(sorted(values))}")
        if values and name not in scores:
            scores[name] = values.pop()
    return scores
