"""The judge over vision-language models: a clip is read once, all its questions are asked behind it.

Cost: one pass over the prefix and one over the question tokens, whatever the number of questions; nothing is
generated. Where the prompt stands before the clip, it is read once for all clips of a prompt that are asked about
together. Clips of one length share a batch. Memory is bounded by ``clip_batch`` and ``question_chunk_size``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from vr_pipeline.checklist.schema import PROMPT_PLACEHOLDER
from vr_pipeline.errors import InputError
from vr_pipeline.judges.contract import Probabilities, check_answers, prompts_and_rates, shown_frames
from vr_pipeline.runtime.memory import free_memory
from vr_pipeline.video.read import Frames
from vr_pipeline.vlm.config import JudgeParameters
from vr_pipeline.vlm.families.base import Family, PreparedClip
from vr_pipeline.vlm.packing import Segment
from vr_pipeline.vlm.prefix import (
    CachedPrefix,
    Lead,
    PrefixOutOfMemory,
    StatesOfPrefixes,
    is_out_of_memory,
    packed_logits,
    read_lead,
)

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


class VisionLanguageJudge:
    """A judge over any :class:`~vr_pipeline.vlm.families.base.Family`; see :class:`~.contract.Judge`."""

    def __init__(self, family: Family, parameters: JudgeParameters, identity: str) -> None:
        self.family, self.parameters, self.identity = family, parameters, identity
        settings = family.settings
        self.num_frames = parameters.num_frames or settings.num_frames
        # A count in the configuration replaces the model folder's rate, and the other way round.
        self.frames_per_second = parameters.frames_per_second or (
            None if parameters.num_frames else settings.frames_per_second
        )
        self.world = settings.world
        self.yes_ids, self.no_ids = answer_token_ids(family)
        self._question_ids = lru_cache(maxsize=65536)(self._encode_question)
        # What fits into memory as far as is known; lowered where it ran out, for all that is asked later.
        self._chunk, self._clips = parameters.question_chunk_size, parameters.clip_batch

    def answer(
        self,
        clips: Sequence[Frames],
        questions: Sequence[str],
        prompts: Sequence[str] | None = None,
        *,
        frames_per_second: Sequence[float] | None = None,
    ) -> tuple[Probabilities, Probabilities]:
        """See :meth:`vr_pipeline.judges.contract.Judge.answer`.

        Raises:
            InputError: a question or the text before the clip holds ``[[prompt]]`` and no prompts are given.
            NoNumbersError: the model's numbers are not finite, for example because they overflow in float16.
            ValueError: the numbers of clips, prompts and rates differ, or a clip is not uint8 [frames, h, w, 3].
        """
        import torch

        texts = [self.family.settings.before_clip, *questions]
        prompts, rates = prompts_and_rates(clips, texts, prompts, frames_per_second)
        p_yes, outside = np.empty((2, len(clips), len(questions)))
        if not len(clips) or not len(questions):
            return p_yes, outside
        with torch.inference_mode():
            order = self._by_length(clips, prompts)
            for start_ids, places in groupby(order, key=lambda at: self.family.lead_ids(prompts[at])):
                together = list(places)
                lead = read_lead(self.family, start_ids) if start_ids else None
                for start in range(0, len(together), self.parameters.clip_batch):
                    batch = together[start : start + self.parameters.clip_batch]
                    prepared = [self.prepare(clips[at], rates[at], prompts[at]) for at in batch]
                    segments = [self._segments(questions, prompts[at]) for at in batch]
                    p_yes[batch], outside[batch] = self._answer_batch(prepared, segments, lead)
        check_answers(p_yes, outside, questions)
        return p_yes, outside

    def _by_length(self, clips: Sequence[Frames], prompts: Sequence[str]) -> list[int]:
        """Return the numbers of the clips: those that begin with one text together, then those of one length.

        A batch is padded to its longest clip and its longest questions. The frames decide how long a clip is, and the
        prompt how long its questions are.
        """
        first: dict[tuple[int, ...], int] = {}
        of_text = [first.setdefault(self.family.lead_ids(prompt), at) for at, prompt in enumerate(prompts)]

        def length(at: int) -> tuple[int, ...]:
            count, *size = clips[at].shape[:3]
            shown = min(count, self.num_frames or count)
            return of_text[at], shown * int(np.prod(size)), shown, *size, len(prompts[at])

        return sorted(range(len(clips)), key=length)

    def _segments(self, questions: Sequence[str], prompt: str) -> list[Segment]:
        return [self.question_segment(question.replace(PROMPT_PLACEHOLDER, prompt)) for question in questions]

    def _answer_batch(
        self, clips: Sequence[PreparedClip], segments: Sequence[Sequence[Segment]], lead: Lead | None
    ) -> tuple[Probabilities, Probabilities]:
        """Return p_yes and outside masses of one batch; memory that runs out halves the chunk, then the batch.

        Where the clips alone are too much, the batch is halved at once.
        """
        p_yes, outside = np.empty((2, len(clips), len(segments[0])))
        start = 0
        fitted = self._chunk, self._clips
        while start < len(clips):
            chunk, size = min(self._chunk, len(segments[0])), min(self._clips, len(clips) - start)
            rows = slice(start, start + size)
            try:
                logits = self._read_chunks(clips[rows], segments[rows], chunk, lead)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                fewer_questions = chunk > 1 and not isinstance(error, PrefixOutOfMemory)
                if not fewer_questions and size == 1:
                    # One clip that is too large says nothing about the others: they are asked as before.
                    self._chunk, self._clips = fitted
                    raise InputError(
                        f"memory runs out on one clip of {len(clips[start].token_ids)} tokens and one question",
                        remedy="Take fewer frames (num_frames) or smaller ones (max_pixels), or a quantised model",
                        field="judge",
                    ) from error
                free_memory(anyway=True)
                if fewer_questions:
                    self._chunk = chunk = chunk // 2
                else:
                    self._clips = size = size // 2
                logger.warning("Memory ran out: now asking %d questions at a time about %d clips.", chunk, size)
                continue
            p_yes[rows], outside[rows] = self._probabilities(logits)
            start += len(clips[rows])
            fitted = self._chunk, self._clips
        return p_yes, outside

    def prepare(self, frames: Frames, rate: float | None = None, prompt: str = "") -> PreparedClip:
        """Prepare a clip's frames, thinned to the judge's number, ready for the model.

        Args:
            frames: uint8 [frames, height, width, 3].
            rate: their frames per second, if known.
            prompt: the clip's text, for templates in which it stands before the clip.
        """
        clip = self.family.prepare(shown_frames(frames, self.num_frames), rate)
        lead = self.family.lead_ids(prompt)
        return self.family.behind(lead, clip) if lead else clip

    def question_segment(self, question: str) -> Segment:
        """Return a question's tokens; the answer is read after the last."""
        token_ids = self._question_ids(question)
        return Segment(token_ids, (len(token_ids) - 1,))

    def _encode_question(self, question: str) -> tuple[int, ...]:
        settings = self.family.settings
        return tuple(
            self.family.user_text_ids(question, before=settings.before_question, after=settings.after_question)
        )

    def _read_chunks(
        self, clips: Sequence[PreparedClip], segments: Sequence[Sequence[Segment]], chunk: int, lead: Lead | None = None
    ) -> torch.Tensor:
        """Logits [clips, questions, vocabulary] of the answers' first tokens."""
        import torch

        count = len(segments[0])
        chosen = self.parameters.prefix
        packed = (chosen == "packed" or (chosen == "auto" and chunk >= count)) and not self.family.recurrent
        read: Callable[[Sequence[Sequence[Segment]]], torch.Tensor] = (
            partial(packed_logits, self.family, clips, lead=lead) if packed else self._cached_prefix(clips, lead).logits
        )
        parts = [
            read([row[start : start + chunk] for row in segments]).reshape(len(clips), -1, self._vocabulary)
            for start in range(0, count, chunk)
        ]
        return torch.cat(parts, dim=1)

    def _cached_prefix(self, clips: Sequence[PreparedClip], lead: Lead | None) -> CachedPrefix | StatesOfPrefixes:
        try:
            return (StatesOfPrefixes if self.family.recurrent else CachedPrefix)(self.family, clips, lead)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise PrefixOutOfMemory from error

    @property
    def _vocabulary(self) -> int:
        return int(self.family.model.get_output_embeddings().weight.shape[0])

    def _probabilities(self, logits: torch.Tensor) -> tuple[Any, Any]:
        import torch

        log_probabilities = torch.log_softmax(logits.double(), dim=-1)
        yes = torch.logsumexp(log_probabilities[..., self.yes_ids], dim=-1)
        no = torch.logsumexp(log_probabilities[..., self.no_ids], dim=-1)
        p_yes = torch.sigmoid(yes - no)
        # An overflow to minus infinity would pass as a sure answer.
        numbers = torch.isfinite(logits[..., [*self.yes_ids, *self.no_ids]]).all(dim=-1)
        p_yes = torch.where(numbers, p_yes, torch.nan)
        outside = (1 - yes.exp() - no.exp()).clamp(0, 1)
        return p_yes.cpu().numpy(), outside.cpu().numpy()


def answer_token_ids(family: Family) -> tuple[list[int], list[int]]:
    """Return tokens that spell yes and no in the family's tokenizer: in any case, with or without white space around.

    Raises:
        InputError: the tokenizer has no single token for one of them.
    """
    found: dict[str, set[int]] = {"yes": set(), "no": set()}
    unknown = getattr(family.tokenizer, "unk_token_id", None)
    for word, ids in found.items():
        # Tokenizers that put all into lower case first have no token of their own for "Yes".
        for spelling in (word, word.capitalize(), word.upper()):
            tokens = family.text_ids(spelling)
            if len(tokens) == 1 and tokens[0] != unknown:
                ids.add(tokens[0])
    for token, number in family.tokenizer.get_vocab().items():
        # Tokens are written with marks for white space; decoding tells what they stand for, but is slow for all.
        if len(token) < 12 and token.lower().endswith(("yes", "no")):
            text = family.tokenizer.decode([number]).strip().lower()
            if text in found:
                found[text].add(number)
    for word, ids in found.items():
        if not ids:
            raise InputError(
                f"the judge's tokenizer has no single token for '{word}'", remedy="Use another model as judge"
            )
    if found["yes"] & found["no"]:
        raise InputError("the judge's tokenizer spells yes and no alike", remedy="Use another model as judge")
    return sorted(found["yes"]), sorted(found["no"])
