"""What stands behind a clip: texts and special tokens, first those that see the clip only, then the prompt's.

The order is that of VideoReward (Liu et al. 2025, section 4.2): introduction, rubric and token of every dimension that
does not see the prompt; the prompt; rubric and token of every other dimension; the end. Attention is causal, so what
stands before the prompt does not depend on it.

Special tokens have no number in the vocabulary: their embeddings are rows of their own, so that no text can become one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from vr_pipeline.checklist.schema import PROMPT_PLACEHOLDER
from vr_pipeline.errors import InputError
from vr_pipeline.rewards.videoreward.settings import NetworkSettings
from vr_pipeline.vlm.families.base import Family, PreparedClip

KNOWN_PROMPTS = 4096
"""Prompts whose tokens are kept."""


@dataclass(frozen=True)
class Part:
    """Tokens in a row, special ones among them.

    Attributes:
        token_ids: numbers in the vocabulary; any number where a special token stands.
        places: where special tokens stand.
        dimensions: the dimension of each, as its number.
    """

    token_ids: tuple[int, ...] = ()
    places: tuple[int, ...] = ()
    dimensions: tuple[int, ...] = ()

    def __add__(self, other: Part) -> Part:
        """Return both in a row."""
        shifted = tuple(place + len(self.token_ids) for place in other.places)
        return Part(self.token_ids + other.token_ids, self.places + shifted, self.dimensions + other.dimensions)


class TextLayout:
    """Makes the parts behind a clip for a family's tokenizer."""

    def __init__(self, family: Family, settings: NetworkSettings) -> None:
        self.family, self.settings = family, settings
        self._stand_in = next(number for number in range(8) if number not in family.placeholder_ids)
        self._late = tuple(number for number, one in enumerate(settings.dimensions) if one.sees_prompt)
        self.early, self._opening = self._early()
        """What stands before the prompt, and the text that stands there without a token behind it."""
        self.late_dimensions = self._late if settings.pooling == "special" else ()
        self.late = lru_cache(maxsize=KNOWN_PROMPTS)(self._make_late)

    def _early(self) -> tuple[Part, str]:
        """Return what stands before the prompt, and the text that is left for what follows.

        Texts between two tokens are tokenised in one piece, as a tokenizer with special tokens does.
        """
        part, text = Part(), self.settings.introduction
        for number, dimension in enumerate(self.settings.dimensions):
            if dimension.sees_prompt:
                continue
            text += dimension.rubric
            if self.settings.pooling == "special":
                part += self._text(text) + self._token(number)
                text = ""
        return part, text

    def _token(self, dimension: int) -> Part:
        return Part((self._stand_in,), (0,), (dimension,))

    def _text(self, text: str) -> Part:
        token_ids = tuple(self.family.text_ids(text))
        if set(token_ids) & set(self.family.placeholder_ids):
            raise InputError(
                f"the text '{text[:80]}' holds the token in whose place a clip's frames go",
                remedy="Take it out of the introduction, the rubrics and 'end'",
                field="network",
            )
        return Part(token_ids)

    def _make_late(self, prompt: str) -> Part:
        """Return what stands from the prompt to the last token, or to the end where there are no tokens.

        Raises:
            InputError: the tokenizer makes a control token of the prompt however it is written.
        """
        settings = self.settings
        special = settings.pooling == "special"
        rubrics = [settings.dimensions[number].rubric for number in self._late]
        before, _, after = settings.prompt_text.partition(PROMPT_PLACEHOLDER)
        if special and not rubrics:
            return Part()  # No dimension sees it.
        after += rubrics[0] if special else "".join(rubrics) + settings.end
        part = Part(tuple(self.family.user_text_ids(prompt, before=self._opening + before, after=after)))
        for at, number in enumerate(self.late_dimensions):
            part += (self._text(rubrics[at]) if at else Part()) + self._token(number)
        return part


def extended(clip: PreparedClip, part: Part) -> PreparedClip:
    """Return a clip whose prefix continues with a part."""
    count = len(part.token_ids)
    positions = np.broadcast_to(np.arange(count) + clip.next_position, (clip.positions.shape[0], count))
    return replace(
        clip,
        token_ids=np.append(clip.token_ids, np.array(part.token_ids, clip.token_ids.dtype)),
        positions=np.concatenate([clip.positions, positions.astype(clip.positions.dtype)], axis=1),
        next_position=clip.next_position + count,
    )
