"""A model that answers questions about clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash, sample_seed
from vr_pipeline.rewards.training.clips import shown_frames
from vr_pipeline.understanding.config import CandidateParameters
from vr_pipeline.understanding.dialogue import DialogueParameters, question_pieces, stops
from vr_pipeline.understanding.generation import Generated, Sampled, generate
from vr_pipeline.understanding.media import QuestionMedia
from vr_pipeline.video.clip import VideoReadError
from vr_pipeline.video.sampled import Sampling
from vr_pipeline.vlm.config import JudgeParameters
from vr_pipeline.vlm.families.base import Family, PreparedClip
from vr_pipeline.vlm.loading import judge_identity, load_family
from vr_pipeline.work import ItemFailure

Question = Mapping[str, Any]
"""A row of the index of questions."""


@dataclass(frozen=True)
class Answerer:
    """A model with its dialogue.

    Attributes:
        family: the model.
        dialogue: the text around a question.
        sampling: which frames it gets.
    """

    family: Family
    dialogue: DialogueParameters
    sampling: Sampling

    @classmethod
    def load(cls, model: JudgeParameters, dialogue: DialogueParameters) -> Answerer:
        """Load the model. Raises :class:`InputError` if its folder is incomplete."""
        family = load_family(model)
        return cls(family, dialogue, shown_frames(family, model))

    def request(self, question: Question, media: QuestionMedia) -> PreparedClip:
        """Return a question as input of the model.

        Raises:
            VideoReadError: its files cannot be read.
            InputError: the model does not accept it.
        """
        clip = media.read(str(question["question_id"]), self.sampling)
        try:
            visual = self.family.visual(clip.frames, clip.frames_per_second)
        except ValueError as error:
            raise InputError(
                f"question '{question['question_id']}': {error}", remedy="Give a clip of another size", field="files"
            ) from error
        pieces = question_pieces(self.family, self.dialogue, "clip", str(question["prompt"]))
        return self.family.joined([visual if piece == "clip" else piece for piece in pieces])  # type: ignore[misc]

    def requests(
        self, questions: Sequence[Question], media: QuestionMedia
    ) -> list[tuple[Question, PreparedClip] | ItemFailure]:
        """Return questions as input of the model, or a failure with its reason."""
        found: list[tuple[Question, PreparedClip] | ItemFailure] = []
        for question in questions:
            try:
                found.append((question, self.request(question, media)))
            except (VideoReadError, InputError) as error:
                found.append(ItemFailure(str(error)))
        return found

    def drawn(
        self, asked: Sequence[tuple[Question, PreparedClip]], count: int, seed: int, parameters: CandidateParameters
    ) -> list[list[tuple[str, bool]]]:
        """Draw responses, each with a seed from its question and number.

        Returns:
            per question its responses, and whether the model ended them.
        """
        seeds = [
            sample_seed(seed, f"response {question['question_id']}", number)
            for question, _ in asked
            for number in range(count)
        ]
        repeated = [request for _, request in asked for _ in range(count)]
        how = Sampled(seeds, parameters.temperature, parameters.top_p)
        generated = self.answer(repeated, parameters.max_new_tokens, how) if repeated else []
        texts = [(self.text(one), one.finished) for one in generated]
        return [texts[at * count : (at + 1) * count] for at in range(len(asked))]

    def answer(
        self, requests: Sequence[PreparedClip], max_new_tokens: int, sampled: Sampled | None = None
    ) -> list[Generated]:
        """Answer requests; see :func:`~vr_pipeline.understanding.generation.generate`."""
        ends = stops(self.family, self.dialogue)
        return generate(self.family, requests, stops=ends, max_new_tokens=max_new_tokens, sampled=sampled)

    def text(self, generated: Generated) -> str:
        """Return a response as text."""
        return str(self.family.tokenizer.decode(generated.token_ids, skip_special_tokens=True)).strip()


def answerer_identity(model: JudgeParameters, dialogue: DialogueParameters) -> str:
    """Hash of everything but the question that determines answers."""
    return content_hash("answerer", judge_identity(model), dialogue.model_dump_json())


def question_identity(question: Question) -> str:
    """Hash of the text and files of a question."""
    return content_hash("question", *(str(question[name]) for name in ("question_id", "sha256", "prompt")))
