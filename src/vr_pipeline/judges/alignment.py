"""How well a picture shows its prompt: one number from 0 to 1 for the checklist's question on alignment.

By default it is the judge's own probability of yes to that question (as VQAScore, Lin et al. 2024: the probability of
"yes" to "does the picture show the text?"), and nothing here is needed. A configuration can name another source:
another judge, a table of scores that were computed elsewhere, or a scorer of one's own.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vr_pipeline import judges
from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash
from vr_pipeline.judges.config import AlignmentParameters
from vr_pipeline.judges.contract import Judge
from vr_pipeline.storage.scores import read_scores
from vr_pipeline.video.read import Frames
from vr_pipeline.vlm.loading import judge_identity


class AlignmentScorer(Protocol):
    """What gives alignment scores."""

    @property
    def identity(self) -> str:
        """Content hash of everything that the scores depend on."""
        ...

    def score(self, clips: Sequence[Frames], prompts: Sequence[str], names: Sequence[str]) -> Sequence[float]:
        """Score clips from 0 (does not show its prompt) to 1.

        Args:
            clips: uint8 arrays [frames, height, width, 3]; an image is one frame.
            prompts: one per clip.
            names: video_id of each clip, or the file's name where it has none.
        """
        ...


@dataclass(frozen=True, eq=False)
class JudgeAlignment:
    """The probability that a judge gives to yes."""

    judge: Judge
    question: str

    @property
    def identity(self) -> str:
        return content_hash("alignment by judge", self.judge.identity, self.question)

    def score(
        self,
        clips: Sequence[Frames],
        prompts: Sequence[str],
        names: Sequence[str],
        *,
        frames_per_second: Sequence[float] | None = None,
    ) -> Sequence[float]:
        """See :class:`AlignmentScorer`; as a judge it can be given the rates of the frames."""
        p_yes, _ = self.judge.answer(clips, [self.question], prompts, frames_per_second=frames_per_second)
        return [float(value) for value in p_yes[:, 0]]


@dataclass(frozen=True, eq=False)
class TableAlignment:
    """Scores that were computed elsewhere."""

    scores: Mapping[str, float]
    source: str

    @property
    def identity(self) -> str:
        return content_hash("alignment by table", *(f"{name}={self.scores[name]!r}" for name in sorted(self.scores)))

    def score(self, clips: Sequence[Frames], prompts: Sequence[str], names: Sequence[str]) -> Sequence[float]:
        missing = [name for name in names if name not in self.scores]
        if missing:
            raise InputError(
                f"{len(missing)} clips have no alignment score, for example '{missing[0]}'",
                remedy="Add them to the table",
                file=self.source,
                field="video_id",
            )
        return [self.scores[name] for name in names]


@dataclass(frozen=True, eq=False)
class Alignment:
    """A source of scores and the question whose probability they replace."""

    column: int
    scorer: AlignmentScorer

    def replace(
        self,
        p_yes: NDArray[np.float64],
        outside: NDArray[np.float64],
        clips: Sequence[Frames],
        prompts: Sequence[str],
        names: Sequence[str],
        rates: Sequence[float] | None = None,
    ) -> None:
        """Put scores in the place of the judge's probability, [clips, questions], with nothing outside yes and no.

        Raises:
            InputError: a score is missing or not from 0 to 1.
        """
        timing = {"frames_per_second": rates} if isinstance(self.scorer, JudgeAlignment) else {}
        given = self.scorer.score(clips, prompts, names, **timing)
        try:
            scores = np.asarray(given, dtype=np.float64)
        except (TypeError, ValueError):
            scores = np.full(len(clips), np.nan)
        if scores.shape != (len(clips),):
            problem = f"scores of shape {list(scores.shape)} for {len(clips)} clips"
        elif (wrong := ~((scores >= 0) & (scores <= 1))).any():
            problem = f"the score {scores[wrong][0]} for '{names[int(wrong.argmax())]}'"
        else:
            p_yes[:, self.column], outside[:, self.column] = scores, 0.0
            return
        raise InputError(
            f"the alignment scorer gave {problem}",
            remedy="Give one score from 0 to 1 per clip: rescale it there",
            field="checklist_inference.alignment",
        )


def load_alignment(parameters: AlignmentParameters | None, checklist: Checklist) -> Alignment | None:
    """Load the source that a configuration names; None leaves the judge's own probability in place.

    Raises:
        InputError: the checklist has no such question of feature 'probability', or the source cannot be read.
    """
    if parameters is None:
        return None
    question = checklist.question(parameters.question)
    if question.feature != "probability":
        raise InputError(
            f"question '{question.question_id}' enters the reward by its yes or no, not by a score",
            remedy="Give it 'feature: probability' in the checklist, or name another question",
            field="checklist_inference.alignment.question",
        )
    scorer: AlignmentScorer
    if parameters.judge is not None:
        scorer = JudgeAlignment(judges.load_judge(parameters.judge), question.text)
    elif parameters.table is not None:
        scorer = _from_table(parameters.table)
    else:
        scorer = _from_code(str(parameters.scorer), parameters.options)
    return Alignment(checklist.question_ids.index(question.question_id), scorer)


def alignment_identity(parameters: AlignmentParameters | None) -> tuple[str, ...]:
    """Return what scores depend on, without loading a model; nothing for the judge's own probability.

    Raises:
        InputError: the table cannot be read, or the folder of the other judge does not exist.
    """
    if parameters is None:
        return ()
    if parameters.judge is not None:
        # The last word: the judge is given how fast the frames come.
        return (parameters.question, judge_identity(parameters.judge), "with rates")
    if parameters.table is not None:
        return (parameters.question, _from_table(parameters.table).identity)
    return (parameters.question, _from_code(str(parameters.scorer), parameters.options).identity)


def _from_table(path: str) -> TableAlignment:
    scores = read_scores(Path(path), low=0.0, high=1.0)
    return TableAlignment({name: score for (name,), score in scores.items()}, path)


def _from_code(name: str, options: Mapping[str, Any]) -> AlignmentScorer:
    module, _, attribute = name.partition(":")
    try:
        make = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"the alignment scorer '{name}' cannot be imported ({error})",
            remedy="Write 'package.module:name' of something that can be imported here",
            field="checklist_inference.alignment.scorer",
        ) from error
    scorer: AlignmentScorer = make(**options)
    return scorer
