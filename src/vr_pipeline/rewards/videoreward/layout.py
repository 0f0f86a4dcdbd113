"""Texts and special tokens after a clip: first of dimensions that see the clip only, then of those with the prompt.

The order is that of VideoReward (Liu et al. 2025, section 4.2): introduction, rubric and token of every dimension that
does not see the prompt; the prompt; rubric and token of every other dimension; the end. Attention is causal, so scores
before the prompt do not depend on it. Special tokens are not in the vocabulary, so that no text can become one.
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
"""Prompts whose tokens are cached."""


@dataclass(frozen=True)
class Part:
    """Consecutive tokens, including special ones.

    Attributes:
        token_ids: numbers in the vocabulary; any number for special tokens.
        places: positions of special tokens.
        dimensions: index of the dimension of each special token.
    """

    token_ids: tuple[int, ...] = ()
    places: tuple[int, ...] = ()
    dimensions: tuple[int, ...] = ()

    def __add__(self, other: Part) -> Part:
        """Return the concatenation."""
        shifted = tuple(place + len(self.token_ids) for place in other.places)
        return Part(self.token_ids + other.token_ids, self.places + shifted, self.dimensions + other.dimensions)


class TextLayout:
    """Makes the parts after a clip with a family's tokenizer."""

    def __init__(self, family: Family, settings: NetworkSettings) -> None:
        self.family, self.settings = family, settings
        self._stand_in = next(number for number in range(8) if number not in family.placeholder_ids)
        self._late = tuple(number for number, one in enumerate(settings.dimensions) if one.sees_prompt)
        self.early, self._opening = self._early()
        """The part before the prompt, and its last text without a token."""
        self.late_dimensions = self._late if settings.pooling == "special" else ()
        self.late = lru_cache(maxsize=KNOWN_PROMPTS)(self._make_late)

    def _early(self) -> tuple[Part, str]:
        """Return the part before the prompt, and its remaining text.

        Text between two special tokens is tokenised as one, as by a tokenizer with special tokens.
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
                f"the text '{text[:80]}' contains the placeholder token of frames",
                remedy="Remove it from the introduction, the rubrics and 'end'",
                field="network",
            )
        return Part(token_ids)

    def _make_late(self, prompt: str) -> Part:
        """Return the part from the prompt to the last special token, or to the end without special tokens.

        Raises:
            InputError: the tokenizer cannot avoid a control token in the prompt.
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
    """Return a clip with a part appended to its prefix."""
    count = len(part.token_ids)
    positions = np.broadcast_to(np.arange(count) + clip.next_position, (clip.positions.shape[0], count))
    return replace(
        clip,
        token_ids=np.append(clip.token_ids, np.array(part.token_ids, clip.token_ids.dtype)),
        positions=np.concatenate([clip.positions, positions.astype(clip.positions.dtype)], axis=1),
        next_position=clip.next_position + count,
    )
