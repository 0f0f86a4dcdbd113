"""What a judge is trained and tested on: clips with known answers, in three parts."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash
from vr_pipeline.video.read import Frames, read_frames


@dataclass(frozen=True)
class StoredFrames:
    """Frames that are read from a file whenever they are needed, for more clips than the memory holds."""

    path: Path
    num_frames: int | None
    frames_per_second: float | None

    def read(self) -> Frames:
        """Read uint8 [frames, height, width, 3]. Raises :class:`vr_pipeline.video.read.VideoReadError`."""
        return read_frames(self.path, num_frames=self.num_frames, fps=self.frames_per_second)


@dataclass(frozen=True, eq=False)
class JudgeExample:
    """One clip under one prompt with known answers.

    Attributes:
        video_id: the clip; all examples of one clip fall on the same side of the validation split.
        frames: uint8 [frames, height, width, 3], or where they are read from.
        prompt: what ``[[prompt]]`` stands for.
        labels: question_id -> yes.
        caption: a text the clip can be described by, or empty.
        frames_per_second: of ``frames``, where known.
        split: 'train', 'validation' (chooses the checkpoint) or 'test' (reported only); empty lets
            :func:`is_held_out` choose between train and validation.
        source: where the clip comes from; the report has a part a source.
        content: hash of the clip's file, where known; an interrupted training does not resume with other clips.
    """

    video_id: str
    frames: Frames | StoredFrames
    prompt: str
    labels: Mapping[str, bool]
    caption: str = ""
    frames_per_second: float | None = None
    split: str = ""
    source: str = ""
    content: str = ""

    def read(self) -> Frames:
        """Return the frames themselves."""
        return self.frames.read() if isinstance(self.frames, StoredFrames) else self.frames


class Parts:
    """Examples by what they are for; clips of split 'test' are reported on only.

    Attributes:
        training: what the judge learns from.
        validation: what chooses the checkpoint.
        held_out: what the report is about: the test split, or validation where there is none.
        held_out_chose_the_checkpoint: the report is about the validation clips.

    Raises:
        InputError: nothing is left for training or for validation.
    """

    def __init__(self, examples: Sequence[JudgeExample], validation_share: float) -> None:
        parts: dict[str, list[JudgeExample]] = {"train": [], "validation": [], "test": []}
        for example in examples:
            split = example.split
            if split not in ("validation", "test"):
                split = "validation" if is_held_out(example.video_id, validation_share) else "train"
            parts[split].append(example)
        self.training, self.validation, test = parts.values()
        if not self.training or not self.validation:
            raise InputError(
                f"{len(self.training)} annotated clips for training and {len(self.validation)} for validation",
                remedy="Annotate more clips or change validation_share",
                field="judge_training.validation_share",
            )
        self.held_out = test or self.validation
        self.held_out_chose_the_checkpoint = not test


def check_labels(examples: Sequence[JudgeExample], checklist: Checklist) -> None:
    """Check that every label answers a question of the checklist.

    Raises:
        InputError: one does not.
    """
    known = set(checklist.question_ids)
    for example in examples:
        for question in example.labels:
            if question not in known:
                raise InputError(
                    f"annotation of video '{example.video_id}' names the unknown question '{question}'",
                    remedy="Correct the annotation or use the checklist it was made with",
                    field="question_id",
                )


def is_held_out(video_id: str, share: float) -> bool:
    """Return whether a clip belongs to the validation part: a property of the clip alone, not of order or seed."""
    return int(content_hash("judge validation", video_id, length=12), 16) < share * 16**12


def count_answers(examples: Sequence[JudgeExample]) -> Counter[tuple[str, bool]]:
    """Count how often each (question, answer) occurs."""
    return Counter((question, bool(answer)) for example in examples for question, answer in example.labels.items())


def balance_weights(counts: Mapping[tuple[str, bool], int]) -> dict[tuple[str, bool], float]:
    """Weigh (question, answer) by 0.5 / share of that answer, so that yes and no weigh the same in each question.

    Together the answers of a question weigh as much as they are many. A question with one kind of answer only gets
    weight 1 for it.

    Args:
        counts: (question, answer) -> how often it occurs, or is asked; at least once.
    """
    weights: dict[tuple[str, bool], float] = {}
    for question, answer in counts:
        share = counts[question, answer] / (counts.get((question, True), 0) + counts.get((question, False), 0))
        weights[question, answer] = 0.5 / share if share < 1 else 1.0
    return weights


def labels_matrix(examples: Sequence[JudgeExample], question_ids: Sequence[str]) -> NDArray[np.float64]:
    """Return labels as [examples, questions]: 1 yes, 0 no, NaN where not annotated."""
    return np.array(
        [
            [float(example.labels[question]) if question in example.labels else math.nan for question in question_ids]
            for example in examples
        ]
    )
