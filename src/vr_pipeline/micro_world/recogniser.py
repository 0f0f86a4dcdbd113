"""Recognition of what clips of the micro-world show; answers about a prompt follow by comparison."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from vr_pipeline.micro_world.preferences import UTILITY
from vr_pipeline.micro_world.world import ATTRIBUTES, Scene, answers, parse_prompt
from vr_pipeline.storage.tensors import write_tensors

Floats = npt.NDArray[np.float64]

FREE_QUESTIONS = tuple(
    question
    for question in answers(Scene("red", "ball", "left", "black"))
    if question.removesuffix("_matches") not in ATTRIBUTES
)
"""The questions whose answer does not depend on the prompt."""


class Recogniser(ABC):
    """Recognises the attributes that a prompt can name, and answers the questions without a prompt."""

    num_frames: ClassVar[int | None] = None
    """Frames that a clip must have; None for any number."""

    @property
    def weights(self) -> Mapping[str, float]:
        """The hidden utility of a yes to each question."""
        return UTILITY

    @abstractmethod
    def recognise(self, clips: npt.NDArray[np.uint8]) -> dict[str, Floats]:
        """Return class probabilities by attribute and question, independent of the prompt, [clips, classes].

        Args:
            clips: uint8 [clips, frames, height, width, 3].
        """

    @abstractmethod
    def arrays(self) -> dict[str, npt.NDArray]:
        """Return all arrays that determine its answers, by name."""

    def probabilities(
        self, clips: npt.NDArray[np.uint8], prompts: Sequence[str], question_ids: Sequence[str]
    ) -> Floats:
        """Return the probability of yes for every clip and question, [clips, questions].

        Args:
            clips: uint8 [clips, frames, height, width, 3].
            prompts: the prompt each clip is judged against.
        """
        return answer_from(self.recognise(clips), prompts, question_ids)

    def save(self, path: Path) -> None:
        """Write the arrays to one safetensors file."""
        write_tensors(path, self.arrays())

    @classmethod
    @abstractmethod
    def load(cls, path: Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: the file is damaged, or has other content.
        """


def answer_from(recognised: Mapping[str, Floats], prompts: Sequence[str], question_ids: Sequence[str]) -> Floats:
    """Return the probability of yes, given the result of :meth:`Recogniser.recognise`, [clips, questions].

    Args:
        recognised: class probabilities by attribute and question, [clips, classes].
        prompts: the prompt each clip is judged against.
    """
    named = [dict(zip(ATTRIBUTES, parse_prompt(prompt), strict=True)) for prompt in prompts]
    columns = []
    for question in question_ids:
        attribute = question.removesuffix("_matches")
        if attribute in ATTRIBUTES:
            wanted = [ATTRIBUTES[attribute].index(names[attribute]) for names in named]
            columns.append(recognised[attribute][np.arange(len(prompts)), wanted])
        else:
            columns.append(recognised[question][:, 1])
    return np.stack(columns, axis=1)
