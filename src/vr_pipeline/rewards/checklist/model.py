"""The checklist reward: a judge answers questions about a clip, and linear weights turn answers into rewards."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field

from vr_pipeline import judges
from vr_pipeline.checklist import load_checklist
from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.config import Parameters
from vr_pipeline.errors import InputError
from vr_pipeline.judges.alignment import Alignment, alignment_identity, load_alignment
from vr_pipeline.judges.answers import answer_table, ask, check_outside_mass, valid_answers
from vr_pipeline.judges.config import AlignmentParameters, ChecklistInferenceParameters
from vr_pipeline.judges.contract import Judge, Probabilities
from vr_pipeline.judges.faults import faults_of
from vr_pipeline.rewards.checklist.tables import check_checklist, reward_table
from vr_pipeline.rewards.checklist.weights import RewardWeights, equal_weights, read_weights
from vr_pipeline.rewards.contract import Outcome, RewardModel
from vr_pipeline.schemas.parts import TableParts
from vr_pipeline.video.sampled import SampledClip, Sampling
from vr_pipeline.vlm.config import JudgeParameters
from vr_pipeline.vlm.loading import judge_identity

Loaded = tuple["Judge", Alignment | None]

GROUPS_IN_A_PART = 256
"""Groups of clips whose answers are in memory together."""

JUDGE_FOLDER = "VR_PIPELINE_JUDGE"
"""Environment variable with the judge's folder of a packaged reward."""


class ChecklistRewardSettings(Parameters):
    """Files of a checklist reward."""

    checklist: str = Field(description="Questions: YAML, VisionReward's list, or JSON of a packaged reward.")
    weights: str | None = Field(None, description="Weights of weight_regression; null for equal weights.")
    judge: JudgeParameters | None = Field(None, description="The judge; null to score given answers only.")
    judge_identity: str = Field("", description="Required identity of the judge; empty for any.")
    alignment: AlignmentParameters | None = Field(
        None, description="Source of the alignment score, instead of the judge."
    )


class ChecklistReward(RewardModel):
    """Rewards from a judge's answers to a checklist.

    Args:
        checklist: the questions.
        weights: the linear reward; without it, clips can only be measured.
        judge: the judge; without it, only given answers can be scored.
        judging: how it is asked.
        expected_judge: required identity of the judge, for a packaged reward.
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
        self._faults = faults_of(self.judging.faults, checklist)
        self.clips_per_item, self.reader_threads = self.judging.clips_per_item, self.judging.reader_threads
        self.dimensions = tuple(checklist.dimensions)

    @classmethod
    def from_settings(cls, settings: ChecklistRewardSettings, folder: Path) -> ChecklistReward:
        source = folder / settings.checklist
        packaged = source.suffix == ".json"
        checklist = Checklist.model_validate_json(source.read_bytes()) if packaged else load_checklist(source)
        weights = equal_weights(checklist) if settings.weights is None else read_weights(folder / settings.weights)
        judging = ChecklistInferenceParameters(alignment=settings.alignment)
        return cls(checklist, weights, settings.judge, judging, settings.judge_identity)

    @property
    def weights(self) -> RewardWeights:
        """The linear reward. Raises :class:`InputError` if there is none."""
        if self._weights is None:
            raise InputError("the reward has no weights", remedy="Set its weights", field="weights")
        return self._weights

    @property
    def has_judge(self) -> bool:
        """Whether it can measure clips."""
        return self._judge is not None

    @property
    def judge(self) -> JudgeParameters:
        """The judge. Raises :class:`InputError` if there is none."""
        if self._judge is None:
            raise InputError(
                "the reward has no judge to answer the questions about a clip",
                remedy="Set the judge, or give the answers",
                field="judge",
            )
        return self._judge

    @property
    def measured_by(self) -> tuple[str, ...]:
        # The last string is the version of the stored columns.
        return (judge_identity(self.judge), self.checklist.hash, *self._answered_by, "with sampling")

    @property
    def depends_on(self) -> tuple[str, ...]:
        weights = json.dumps(self.weights.to_json(), sort_keys=True)
        return (judge_identity(self.judge), self.checklist.hash, weights, *self._answered_by)

    @property
    def _answered_by(self) -> tuple[str, ...]:
        """What answers depend on besides judge and checklist."""
        faults = () if self._faults is None else (self._faults.identity,)
        return (*alignment_identity(self.judging.alignment), *faults)

    @property
    def recorded(self) -> Mapping[str, str]:
        return {"judge": judge_identity(self.judge), "checklist": self.checklist.hash}

    def load(self) -> Loaded:
        """Load the judge and the source of the alignment score.

        Raises:
            InputError: the judge is missing, or not the one of the packaged reward.
        """
        parameters = self.judge
        if self.expected_judge:
            parameters = _same_judge(parameters, self.expected_judge)
        return judges.load_judge(parameters), load_alignment(self.judging.alignment, self.checklist)

    def sampling(self, loaded: Loaded) -> Sampling:
        """Sample as the judge does."""
        judge, _ = loaded
        return Sampling(judge.num_frames, judge.frames_per_second)

    def look(self, loaded: Loaded, clips: Sequence[SampledClip]) -> list[Outcome]:
        """Ask all questions about clips."""
        judge, alignment = loaded
        sampling = str(self.sampling(loaded))
        answers = ask(judge, alignment, clips, [question.text for question in self.checklist.questions])
        return [
            answer
            if isinstance(answer, Exception)
            else pd.DataFrame(
                {
                    "question_id": list(self.checklist.question_ids),
                    "p_yes": self._said(np.asarray(answer[0], dtype=np.float64), clip.video_id),
                    "outside_mass": np.asarray(answer[1], dtype=np.float64),
                    "frames_judged": len(clip.frames),
                    "sampling": sampling,
                }
            )
            for clip, answer in zip(clips, answers, strict=True)
        ]

    def _said(self, p_yes: Probabilities, video_id: str) -> Probabilities:
        return p_yes if self._faults is None else self._faults.change(p_yes, video_id)

    def unmeasured(self, loaded: Loaded) -> dict[str, Any]:
        """Return the row of a failed clip."""
        nothing = {"question_id": "", "p_yes": np.nan, "outside_mass": np.nan, "frames_judged": 0}
        return nothing | {"sampling": str(self.sampling(loaded))}

    def valid(self, table: pd.DataFrame) -> pd.DataFrame:
        """Mark stored answers that are not probabilities."""
        return valid_answers(table)

    def collect_parts(self, stored: Any, index: pd.DataFrame) -> TableParts:
        """Bring stored answers into a table that need not fit in memory; otherwise as :meth:`collect`.

        Each part has all answers about its clips. What :meth:`collect` raises is raised after the last part.
        """
        return TableParts(lambda: self._collect_parts(stored, index))

    def _collect_parts(self, stored: Any, index: pd.DataFrame) -> Iterator[pd.DataFrame]:
        place, behind = pd.Index(index["video_id"]), len(index)
        usable, starts = self.grouped(index)
        of_group = place.get_indexer(pd.Index(usable["video_id"]))
        names = usable["video_id"].tolist()
        first = {
            self.key_of(names[start:end]): int(of_group[start:end].min())
            for start, end in pairwise([*starts, len(names)])
        }
        keys = sorted(stored.keys, key=lambda key: first.get(key, behind))
        nothing = pd.DataFrame({"video_id": [], "error": []}, dtype=str)
        held, failed = pd.DataFrame(), [nothing]
        outside: list[pd.DataFrame] = []
        questions = pd.CategoricalDtype(self.checklist.question_ids)
        for start in range(0, len(keys), GROUPS_IN_A_PART):
            rest = keys[start + GROUPS_IN_A_PART :][:1]
            table = self.valid(stored.load_joined(keys[start : start + GROUPS_IN_A_PART]))
            table = pd.concat([held, table], ignore_index=True)
            at = place.get_indexer(pd.Index(table["video_id"]))
            # Where the clips of a prompt do not follow each other in the index, later ones wait for their turn.
            ready = at < (first.get(rest[0], behind) if rest else behind)
            held, table, at = table[~ready], table[ready], at[ready]
            failed.append(table.loc[table["error"] != "", ["video_id", "error"]])
            of_clips = index.iloc[np.unique(at[at >= 0])]
            part = self.arrange(table[table["error"] == ""].drop(columns="error"), of_clips)
            outside.append(part[["question_id", "outside_mass"]].astype({"question_id": questions}))
            if len(part):
                yield part
        self.report_failed(pd.concat(failed), sum(map(len, outside)), len(index))
        if outside:
            self.check(pd.concat(outside, ignore_index=True))

    def arrange(self, table: pd.DataFrame, index: pd.DataFrame) -> pd.DataFrame:
        """Return schema ``ChecklistAnswers``, gates applied."""
        return answer_table(table, index, self.checklist)

    def check(self, measured: pd.DataFrame) -> None:
        """Raise an error if the judge does not answer yes or no."""
        check_outside_mass(measured, self.judging.max_median_outside_mass)

    def rewards(self, measured: pd.DataFrame | TableParts, index: pd.DataFrame) -> pd.DataFrame:
        """Apply the weights; see :func:`~vr_pipeline.rewards.checklist.tables.reward_table`."""
        return reward_table(measured, index, self.checklist, self.weights)


def _same_judge(parameters: JudgeParameters, expected: str) -> JudgeParameters:
    """Return the judge of a packaged reward, in its folder or in the one of the environment variable.

    Raises:
        InputError: it is missing, or another model.
    """
    elsewhere = os.environ.get(JUDGE_FOLDER)
    found = parameters.model_copy(update={"path": elsewhere}) if elsewhere and not parameters.served else parameters
    place = Path(found.path).expanduser()
    if not place.is_dir() and found.revision is None and not found.served:
        raise InputError(
            f"the judge of this reward model is missing: the package does not include its weights; it needs the "
            f"{parameters.family} from '{parameters.path}' (identity {expected})",
            remedy=f"Start in the project folder, or set {JUDGE_FOLDER} to the judge's folder",
            file=place,
        )
    identity = judge_identity(found)
    if identity != expected:
        raise InputError(
            f"the weights or settings of this judge ({identity}) differ from those packaged ({expected})",
            remedy=f"Set {JUDGE_FOLDER} to the folder of the same judge, or package the reward model again",
            file=place,
        )
    return found
