"""Faults that a judge is given on purpose, to see what a faulty judge does to rewards and policies.

A bias has a name: another answer also counts as yes, as if the judge took flicker for motion. Errors turn answers
around. Both change the answers that a judge gave, so that any judge can have them.
"""

from typing import NamedTuple

import numpy as np

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash
from vr_pipeline.judges.config import NOT, FaultParameters
from vr_pipeline.judges.contract import Probabilities

FIELD = "checklist_inference.faults.bias"


class _Signal(NamedTuple):
    """Places in the checklist of a biased question and of its wrong signal, and whether its no is the signal."""

    question: int
    signal: int
    negated: bool


class Faults:
    """A judge's faults, on the questions of a checklist.

    Args:
        parameters: bias and rate of errors.
        checklist: the questions.

    Raises:
        InputError: the bias names a question that the checklist lacks.
    """

    def __init__(self, parameters: FaultParameters, checklist: Checklist) -> None:
        self.parameters, self.questions = parameters, list(checklist.question_ids)
        self.signals = [
            _Signal(self._place(question), self._place(signal.removeprefix(NOT)), signal.startswith(NOT))
            for question, signal in parameters.bias.items()
        ]

    def _place(self, question: str) -> int:
        if question not in self.questions:
            raise InputError(
                f"the checklist has no question '{question}'",
                remedy=f"name one of its questions: {', '.join(self.questions)}",
                field=FIELD,
            )
        return self.questions.index(question)

    @property
    def identity(self) -> str:
        """What stored answers depend on."""
        return content_hash("faults of the judge", self.parameters.model_dump_json())

    def change(self, p_yes: Probabilities, video_id: str) -> Probabilities:
        """Return the answers of the faulty judge.

        Biases see what the judge answered; errors come after them. An error depends on the seed, the clip and the
        question alone.

        Args:
            p_yes: probabilities of yes about a clip, [questions].
            video_id: the clip.
        """
        changed = np.array(p_yes, dtype=np.float64)
        for question, signal, negated in self.signals:
            seen = 1.0 - p_yes[signal] if negated else p_yes[signal]
            changed[question] = max(changed[question], seen)
        wrong = self._errors(video_id)
        changed[wrong] = 1.0 - changed[wrong]
        return changed

    def _errors(self, video_id: str) -> np.ndarray:
        if not self.parameters.error_rate:
            return np.zeros(len(self.questions), dtype=bool)
        seed = self.parameters.seed
        drawn = [int(content_hash("error", seed, video_id, question), 16) / 2.0**64 for question in self.questions]
        return np.array(drawn) < self.parameters.error_rate


def faults_of(parameters: FaultParameters | None, checklist: Checklist) -> Faults | None:
    """Return a judge's faults; None if it has none."""
    if parameters is None or not (parameters.bias or parameters.error_rate):
        return None
    return Faults(parameters, checklist)
