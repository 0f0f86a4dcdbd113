"""The checklist reward: a judge answers questions about a clip, linear weights make rewards of the answers."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import Field

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.config import Parameters
from vr_pipeline.errors import InputError
from vr_pipeline.judges.alignment import Alignment, alignment_identity, load_alignment
from vr_pipeline.judges.answers import answer_table, ask, check_outside_mass, valid_answers
from vr_pipeline.judges.config import AlignmentParameters, ChecklistInferenceParameters
from vr_pipeline.rewards.checklist.tables import check_checklist, reward_table
from vr_pipeline.rewards.checklist.weights import RewardWeights
from vr_pipeline.rewards.contract import Outcome, RewardModel
from vr_pipeline.video.sampled import SampledClip, Sampling
from vr_pipeline.vlm.config import JudgeParameters
from vr_pipeline.vlm.loading import judge_identity

if TYPE_CHECKING:
    from vr_pipeline.judges.contract import Judge

Loaded = tuple["Judge", Alignment | None]

JUDGE_FOLDER = "VR_PIPELINE_JUDGE"
"""Environment variable that names the folder of a packaged reward's judge where it lies elsewhere."""


class ChecklistRewardSettings(Parameters):
    """A checklist reward in files."""

    checklist: str = Field(description="Questions: YAML, VisionReward's list, or JSON of a packaged reward.")
    weights: str | None = Field(None, description="Weights of weight_regression; null weighs all questions the same.")
    judge: JudgeParameters | None = Field(None, description="The judge; null takes answers only.")
    judge_identity: str = Field("", description="Identity that the judge must have; empty takes any.")
    alignment: AlignmentParameters | None = Field(None, description="Another source of the alignment score.")


class ChecklistReward(RewardModel):
    """Rewards from a judge's answers to a checklist.

    Args:
        checklist: the questions.
        weights: the linear reward; without it clips can be measured only.
        judge: who answers; without it answers can be weighed only.
        judging: how it is asked.
        expected_judge: identity that the judge must have, for a reward that was packaged with it.
    """

    Settings = ChecklistRewardSettings
    kind = "answers"

    def __init__(
        self,
        checklist: Checklist,
        weights: RewardWeights | None = None,
        judge: JudgeParameters | None = None,
        judging: ChecklistInferenceParameters | None = None,
        expected_judge: str = "",
    ) -> None:
        if weights is not None:
            check_checklist(weights, checklist)
        self.checklist, self._weights, self._judge, self.expected_judge = checklist, weights, judge, expected_judge
        self.judging = judging or ChecklistInferenceParameters()
        self.clips_per_item, self.reader_threads = self.judging.clips_per_item, self.judging.reader_threads
        self.dimensions = tuple(checklist.dimensions)

    @classmethod
    def from_settings(cls, settings: ChecklistRewardSettings, folder: Path) -> ChecklistReward:
        """See :meth:`~vr_pipeline.rewards.contract.RewardModel.from_settings`."""
        from vr_pipeline.checklist import load_checklist
        from vr_pipeline.rewards.checklist.weights import equal_weights, read_weights

        source = folder / settings.checklist
        packaged = source.suffix == ".json"
        checklist = Checklist.model_validate_json(source.read_bytes()) if packaged else load_checklist(source)
        weights = equal_weights(checklist) if settings.weights is None else read_weights(folder / settings.weights)
        judging = ChecklistInferenceParameters(alignment=settings.alignment)
        return cls(checklist, weights, settings.judge, judging, settings.judge_identity)

    @property
    def weights(self) -> RewardWeights:
        """The linear reward. Raises :class:`InputError` where there is none."""
        if self._weights is None:
            raise InputError("the reward has no weights", remedy="Give them", field="weights")
        return self._weights

    @property
    def has_judge(self) -> bool:
        """Whether it can answer the questions about a clip itself."""
        return self._judge is not None

    @property
    def judge(self) -> JudgeParameters:
        """Who answers. Raises :class:`InputError` where there is none."""
        if self._judge is None:
            raise InputError(
                "the reward has no judge, so that it cannot answer the questions about a clip itself",
                remedy="Give the answers, or the judge's configuration",
                field="judge",
            )
        return self._judge

    @property
    def measured_by(self) -> tuple[str, ...]:
        """See :class:`~vr_pipeline.rewards.contract.RewardModel`."""
        alignment = alignment_identity(self.judging.alignment)
        # The last word names the columns that are stored: groups of an older form are judged again.
        return (judge_identity(self.judge), self.checklist.hash, *alignment, "with sampling")

    @property
    def depends_on(self) -> tuple[str, ...]:
        """See :class:`~vr_pipeline.rewards.contract.RewardModel`."""
        weights = json.dumps(self.weights.to_json(), sort_keys=True)
        alignment = alignment_identity(self.judging.alignment)
        return (judge_identity(self.judge), self.checklist.hash, weights, *alignment)

    @property
    def recorded(self) -> Mapping[str, str]:
        """See :class:`~vr_pipeline.rewards.contract.RewardModel`."""
        return {"judge": judge_identity(self.judge), "checklist": self.checklist.hash}

    def load(self) -> Loaded:
        """Load the judge and the source of the alignment score.

        Raises:
            InputError: the judge is not there, or is another than the reward was packaged with.
        """
        from vr_pipeline.judges import load_judge

        parameters = self.judge
        if self.expected_judge:
            parameters = _same_judge(parameters, self.expected_judge)
        return load_judge(parameters), load_alignment(self.judging.alignment, self.checklist)

    def sampling(self, loaded: Loaded) -> Sampling:
        """Sample as the judge does."""
        judge, _ = loaded
        return Sampling(judge.num_frames, judge.frames_per_second)

    def look(self, loaded: Loaded, clips: Sequence[SampledClip]) -> list[Outcome]:
        """Ask every question about clips."""
        judge, alignment = loaded
        sampling = str(self.sampling(loaded))
        answers = ask(judge, alignment, clips, [question.text for question in self.checklist.questions])
        return [
            answer
            if isinstance(answer, Exception)
            else pd.DataFrame(
                {
                    "question_id": list(self.checklist.question_ids),
                    "p_yes": np.asarray(answer[0], dtype=np.float64),
                    "outside_mass": np.asarray(answer[1], dtype=np.float64),
                    "frames_judged": len(clip.frames),
                    "sampling": sampling,
                }
            )
            for clip, answer in zip(clips, answers, strict=True)
        ]

    def unmeasured(self, loaded: Loaded) -> dict[str, Any]:
        """Give no question."""
        nothing = {"question_id": "", "p_yes": np.nan, "outside_mass": np.nan, "frames_judged": 0}
        return nothing | {"sampling": str(self.sampling(loaded))}

    def valid(self, table: pd.DataFrame) -> pd.DataFrame:
        """Set stored answers aside that are no probabilities."""
        return valid_answers(table)

    def arrange(self, table: pd.DataFrame, index: pd.DataFrame) -> pd.DataFrame:
        """Return schema ``ChecklistAnswers``, gates applied."""
        return answer_table(table, index, self.checklist)

    def check(self, measured: pd.DataFrame) -> None:
        """Stop a run whose judge does not answer with yes or no."""
        check_outside_mass(measured, self.judging.max_median_outside_mass)

    def rewards(self, measured: pd.DataFrame, index: pd.DataFrame) -> pd.DataFrame:
        """Weigh the answers; see :func:`~vr_pipeline.rewards.checklist.tables.reward_table`."""
        return reward_table(measured, index, self.checklist, self.weights)


def _same_judge(parameters: JudgeParameters, expected: str) -> JudgeParameters:
    """Find the judge that a reward was packaged with: in the folder it names, or in that of the environment.

    Raises:
        InputError: it is not there, or another model is.
    """
    elsewhere = os.environ.get(JUDGE_FOLDER)
    found = parameters.model_copy(update={"path": elsewhere}) if elsewhere else parameters
    place = Path(found.path).expanduser()
    if not place.is_dir() and found.revision is None:
        raise InputError(
            f"the judge of this reward model is not here: it is the {parameters.family} that was in "
            f"'{parameters.path}' (identity {expected}), and its weights are not part of the package",
            remedy=f"Start in the project's folder, or name the judge's folder in {JUDGE_FOLDER}",
            file=place,
        )
    identity = judge_identity(found)
    if identity != expected:
        raise InputError(
            f"this is another judge ({identity}) than the reward model was packaged with ({expected}): its weights or "
            "settings differ",
            remedy=f"Name the folder of the same judge in {JUDGE_FOLDER}, or package the reward model again",
            file=place,
        )
    return found
