"""What every judge does, whatever model is inside."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vr_pipeline.checklist.schema import PROMPT_PLACEHOLDER
from vr_pipeline.errors import InputError
from vr_pipeline.video.read import Frames, sample_indices

Probabilities = NDArray[np.float64]


class Judge(Protocol):
    """Clips and questions in, probabilities out. Nothing is parsed from generated text.

    The probability of yes is taken over all spellings of yes and no that the tokenizer has:
    p_yes = P(yes) / (P(yes) + P(no)); what the model puts on other tokens is reported as outside_mass, because a judge
    that does not answer with yes or no has not understood the question, which must not count as "no".
    """

    identity: str
    """Content hash of the weights and of every setting that the answers depend on."""

    num_frames: int | None
    """Frames that are taken from a clip, evenly spread; None for all (or as ``frames_per_second`` says)."""

    frames_per_second: float | None
    """Rate at which frames are taken from a clip; None for every frame."""

    def answer(
        self,
        clips: Sequence[Frames],
        questions: Sequence[str],
        prompts: Sequence[str] | None = None,
        *,
        frames_per_second: Sequence[float] | None = None,
    ) -> tuple[Probabilities, Probabilities]:
        """Answer all questions about all clips.

        Args:
            clips: uint8 arrays [frames, height, width, 3], of any lengths and sizes; an image is one frame.
            questions: texts; ``[[prompt]]`` in them stands for the clip's prompt.
            prompts: one text per clip; may be omitted when no question holds the placeholder.
            frames_per_second: rate of the given frames, one per clip, for models that take time into account.

        Returns:
            p_yes and outside_mass, float64 arrays [clips, questions].

        Raises:
            NoNumbersError: the model's numbers are not finite.
        """
        ...


class NoNumbersError(InputError):
    """A judge gave no finite numbers, which must count as no answer."""

    of_clip = True
    """Asking again would give the same, so that the clip is set aside; see ``RewardModel.measure_group``."""


def prompts_and_rates(
    clips: Sequence[Frames], questions: Sequence[str], prompts: Sequence[str] | None, rates: Sequence[float] | None
) -> tuple[Sequence[str], Sequence[float | None]]:
    """Return a prompt and a frame rate for each clip, as :meth:`Judge.answer` got them.

    Raises:
        InputError: a question holds ``[[prompt]]`` and no prompts are given.
        ValueError: the numbers of clips, prompts and rates differ.
    """
    if prompts is None:
        if any(PROMPT_PLACEHOLDER in question for question in questions):
            raise InputError("a question asks about the prompt", remedy="Give the prompt of each clip")
        prompts = [""] * len(clips)
    known: Sequence[float | None] = rates if rates is not None else [None] * len(clips)
    if len(prompts) != len(clips) or len(known) != len(clips):
        raise ValueError(f"{len(clips)} clips, {len(prompts)} prompts, {len(known)} frame rates")
    return prompts, known


def shown_frames(frames: Frames, num_frames: int | None) -> Frames:
    """Return a clip's frames, at most ``num_frames``, evenly spread.

    Raises:
        ValueError: the clip is not uint8 [frames, height, width, 3], or has no frames.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not len(frames):
        raise ValueError(f"a clip must be uint8 [frames, height, width, 3], got {frames.dtype} {list(frames.shape)}")
    if num_frames is not None and len(frames) > num_frames:
        frames = frames[sample_indices(len(frames), 0.0, num_frames=num_frames)]
    return frames


def check_answers(p_yes: Probabilities, outside: Probabilities, questions: Sequence[str]) -> None:
    """See that probabilities of one or more clips are numbers from 0 to 1; NaN is none.

    Args:
        p_yes, outside: [questions] or [clips, questions].
        questions: their texts.

    Raises:
        NoNumbersError: one is not.
    """
    for values in (p_yes, outside):
        right = (values >= 0) & (values <= 1)
        if not right.all():
            place = np.argwhere(~right)[0]
            raise NoNumbersError(
                f"the judge gave no probability ({values[tuple(place)]}) when asked '{questions[place[-1]]}'",
                remedy="Set the judge's dtype to bfloat16 or float32, since large numbers overflow in float16; if they "
                "are in use, fetch its weights again",
                field="judge.dtype",
            )
