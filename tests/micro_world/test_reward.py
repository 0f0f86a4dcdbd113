"""Oracle and auditor as rewards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vr_pipeline.checklist import checklist_from_mapping, load_checklist
from vr_pipeline.errors import InputError
from vr_pipeline.micro_world.auditor import Auditor, AuditorReward
from vr_pipeline.micro_world.recogniser import Recogniser
from vr_pipeline.micro_world.reward import OracleReward, RecogniserReward
from vr_pipeline.schemas import EvaluationRewards, OracleAnswers
from vr_pipeline.video.write import write_video

ROOT = Path(__file__).resolve().parents[2]
CHECKLIST = checklist_from_mapping(
    {
        "name": "tiny",
        "modality": "video",
        "dimensions": [
            {
                "name": "first",
                "sub_dimensions": [
                    {"name": name, "questions": [{"id": name, "text": f"is it {name}"}]} for name in ("a", "c")
                ],
            },
            {"name": "second", "sub_dimensions": [{"name": "b", "questions": [{"id": "b", "text": "is it b"}]}]},
        ],
    }
)


class Knowing(Recogniser):
    """A recogniser whose probabilities are written in a clip's first pixel."""

    weights = {"a": 1.0, "b": 2.0, "c": 4.0}  # noqa: RUF012

    def arrays(self) -> dict[str, np.ndarray]:
        return {}

    def recognise(self, clips: np.ndarray) -> dict[str, np.ndarray]:
        raise NotImplementedError

    @classmethod
    def load(cls, path: Path) -> Knowing:
        raise NotImplementedError

    def probabilities(self, clips: np.ndarray, prompts: list[str], question_ids: list[str]) -> np.ndarray:
        assert len(clips) == len(prompts)
        assert clips.shape[2:4] == (16, 16), "clips are looked at in the size in which they were made"
        return clips[:, 0, 0, 0, : len(question_ids)] / 100.0


@pytest.mark.parametrize("together", [1, 2, 100])
def test_the_oracle_answers_and_rewards_every_clip_that_was_made(tmp_path: Path, together: int) -> None:
    table = pd.DataFrame(
        {
            "video_id": ["20", "40", "60", "80"],
            "prompt_id": ["p", "p", "q", "q"],
            "prompt": ["text", "text", "other", "other"],
            "sample_index": [0, 1, 0, 1],
            "path": ["20.mp4", "40.mp4", "60.mp4", "80.mp4"],
            "sha256": "x",
            "policy": ["original", "mpo", "mpo", "mpo"],
            "status": ["ok", "failed", "ok", "ok"],
        }
    )
    for video, frames in (("20", 4), ("60", 4), ("80", 8)):
        clip = np.broadcast_to(np.array([int(video), 50, 100], np.uint8), (frames, 16, 16, 3))
        write_video(tmp_path / f"{video}.mp4", np.ascontiguousarray(clip), fps=8, enlarge=4)
    model = OracleReward(Knowing(), CHECKLIST)
    model.clips_per_item = together
    answers = model.measured({path: tmp_path / path for path in table["path"]}, table)
    rewarded = model.rewards(answers, table)
    OracleAnswers.validate(answers)
    EvaluationRewards.validate(rewarded)
    # In order of the checklist the questions are a, c, b: probabilities are clip / 100, 0.5 and 1.
    assert CHECKLIST.question_ids == ["a", "c", "b"]
    assert answers["video_id"].tolist() == ["20"] * 3 + ["60"] * 3 + ["80"] * 3
    assert answers["p_yes"].tolist() == pytest.approx([0.2, 0.5, 1.0, 0.6, 0.5, 1.0, 0.8, 0.5, 1.0])
    assert rewarded["dim_first"].tolist() == pytest.approx([0.2 + 0.5 * 4, 0.6 + 0.5 * 4, 0.8 + 0.5 * 4])
    assert rewarded["dim_second"].tolist() == pytest.approx([2.0] * 3)
    assert rewarded["total"].tolist() == pytest.approx([4.2, 4.6, 4.8])
    assert rewarded["policy"].tolist() == ["original", "mpo", "mpo"]
    # One clip alone, from its file or from memory, has the reward that it has in the table.
    alone = model.score([tmp_path / "60.mp4", np.full((4, 16, 16, 3), (60, 50, 100), np.uint8)], ["other"] * 2)
    pd.testing.assert_frame_equal(alone, rewarded.iloc[[1, 1]][list(alone)].reset_index(drop=True))


@pytest.mark.parametrize("kind", [OracleReward, AuditorReward])
def test_clips_of_another_size_are_rejected(kind: type[RecogniserReward]) -> None:
    with pytest.raises(InputError, match="this one has 24 x 20"):
        kind(Knowing(), CHECKLIST).score([np.zeros((2, 20, 24, 3), np.uint8)], ["text"])


def test_the_auditor_rejects_clips_of_another_length() -> None:
    checklist = load_checklist(ROOT / "conf/base/checklist.yml")
    model = AuditorReward(Auditor.load(ROOT / "data/06_models/micro_world/auditor.safetensors"), checklist)
    with pytest.raises(InputError, match="16 x 16 and 5 frames"):
        model.score([np.zeros((5, 16, 16, 3), np.uint8)], ["red ball moves left on black"])
