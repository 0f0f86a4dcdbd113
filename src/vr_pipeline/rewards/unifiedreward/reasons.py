"""Reasons that a model writes before its answer: kept as text, never parsed for the score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from vr_pipeline.rewards.unifiedreward.forms import Reasons
from vr_pipeline.rewards.unifiedreward.points import NoAnswerError
from vr_pipeline.rewards.unifiedreward.rendering import Tokens
from vr_pipeline.vlm.families.base import Family
from vr_pipeline.vlm.media import Piece, Visual

if TYPE_CHECKING:
    import torch


def write_reasons(
    family: Family, visuals: Mapping[str, Visual], question: Sequence[Piece], asked: Reasons, end: str
) -> tuple[str, Tokens]:
    """Generate reasons greedily, up to the place of the answer.

    Args:
        family: the model.
        visuals: by key.
        question: the pieces before the reasons.
        asked: their ending text and largest length.
        end: end of the model's turn.

    Returns:
        the reasons as text without the ending text, and their tokens with it.

    Raises:
        NoAnswerError: the model stops before the answer, or the reasons are too long.
    """
    import torch

    pieces = [visuals[piece] if isinstance(piece, str) else piece for piece in question]
    clip = family.joined(pieces)
    ends = ending_ids(family, end)
    with torch.inference_mode(), _without_settings_of_the_folder(family):
        embeddings, _ = family.embed_prefixes([clip])
        positions = torch.from_numpy(np.array(clip.positions[:, None])).to(embeddings.device)
        written = family.model.generate(
            inputs_embeds=embeddings,
            attention_mask=torch.ones(embeddings.shape[:2], dtype=torch.long, device=embeddings.device),
            # Explicit: transformers computes wrong positions after long clips; see the family qwen2_vl.
            position_ids=family.position_ids(positions),
            do_sample=False,
            num_beams=1,
            max_new_tokens=asked.max_tokens,
            stopping_criteria=[partial(_is_there, family, asked.until)],
            # Reasons must not contain the placeholder of frames.
            suppress_tokens=list(family.placeholder_ids),
            eos_token_id=ends,
            pad_token_id=ends[0],
        )
    return up_to_answer(family, tuple(written[0].tolist()), asked, end)


@contextmanager
def _without_settings_of_the_folder(family: Family) -> Iterator[None]:
    """Ignore the generation settings of the model's folder, such as penalties."""
    from transformers import GenerationConfig

    kept = family.model.generation_config
    family.model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        family.model.generation_config = kept


def _is_there(family: Family, until: str, token_ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:
    """Return whether the last tokens contain a text, [1]; ``stop_strings`` does not work with all tokenizers."""
    import torch

    # A token is at least a part of a letter.
    tail = token_ids[0, -4 * len(until) :].tolist()
    return torch.tensor([until in family.tokenizer.decode(tail)], device=token_ids.device)


def ending_ids(family: Family, end: str) -> list[int]:
    """Return the tokens that end the model's turn: those of the template and of the model's folder."""
    named = family.model.generation_config.eos_token_id
    known = [] if named is None else [named] if isinstance(named, int) else list(named)
    return list(dict.fromkeys([*family.text_ids(end)[-1:], *known]))


def up_to_answer(family: Family, written: Tokens, asked: Reasons, end: str) -> tuple[str, Tokens]:
    """Return the reasons in the generated tokens, and the tokens up to the answer.

    A token that reaches beyond that place is tokenised again up to it.

    Raises:
        NoAnswerError: there is no answer.
    """
    ends = set(ending_ids(family, end))
    for count in range(1, len(written) + 1):
        if written[count - 1] in ends:
            raise NoAnswerError(
                f"the model stopped after {count} tokens without '{asked.until}', which precedes the answer",
                remedy="Check that the template fits the checkpoint; the clip or pair is dropped",
                field="template",
            )
        text = family.tokenizer.decode(list(written[:count]))
        if (place := text.find(asked.until)) < 0:
            continue
        reasons, whole = text[:place], text[: place + len(asked.until)]
        if len(whole) == len(text):
            return reasons, written[:count]
        kept = family.tokenizer.decode(list(written[: count - 1]))
        return reasons, (*written[: count - 1], *family.text_ids(whole[len(kept) :]))
    raise NoAnswerError(
        f"the model wrote {len(written)} tokens of reasons without an answer ('{asked.until}')",
        remedy="Raise 'max_tokens' of the template's reasons; the clip or pair is dropped",
        field="template",
    )
