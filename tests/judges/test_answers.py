"""What a judge is shown of clips, and what becomes of its answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vr_pipeline.checklist import checklist_from_mapping
from vr_pipeline.judges.answers import valid_answers
from vr_pipeline.rewards.checklist.model import ChecklistReward
from vr_pipeline.video.write import write_video
from vr_pipeline.work import ItemFailure


def answer_clips(
    judge: Any, videos: dict[str, Path], clips: list[dict[str, str]], questions: str
) -> pd.DataFrame | ItemFailure:
    """Ask "is it a" and so on about clips, two of which are read at a time."""
    asked = [{"id": letter, "text": f"is it {letter}"} for letter in questions]
    checklist = checklist_from_mapping(
        {
            "name": "letters",
            "modality": "video",
            "dimensions": [{"name": "all", "sub_dimensions": [{"name": "all", "questions": asked}]}],
        }
    )
    model = ChecklistReward(checklist)
    model.reader_threads = 2
    return model.measure_group((judge, None), videos, clips)


class Watching:
    """Says yes with the share of the clip that it saw, and rejects clips of more than eight frames."""

    identity = "watching"

    def __init__(self, num_frames: int | None, frames_per_second: float | None) -> None:
        self.num_frames, self.frames_per_second = num_frames, frames_per_second
        self.rates: dict[int, float] = {}

    def answer(
        self,
        clips: Sequence[np.ndarray],
        questions: Sequence[str],
        prompts: Sequence[str],
        *,
        frames_per_second: Sequence[float],
    ) -> tuple[np.ndarray, np.ndarray]:
        if any(len(clip) > 8 for clip in clips):
            raise ValueError("too long")
        self.rates |= {int(prompt): rate for prompt, rate in zip(prompts, frames_per_second, strict=True)}
        p_yes = np.array([[len(clip) / 100 + at / 1000 for at in range(len(questions))] for clip in clips])
        return p_yes, np.zeros_like(p_yes)


@pytest.fixture
def videos(tmp_path: Path) -> dict[str, Path]:
    """Clips of 8 frames a second, by their number of frames."""
    for frames in (4, 8, 16):
        write_video(tmp_path / f"{frames}.mp4", np.zeros((frames, 16, 16, 3), np.uint8), fps=8)
    return {f"{frames}.mp4": tmp_path / f"{frames}.mp4" for frames in (4, 8, 16)}


def clip(frames: int, video_id: str = "") -> dict[str, str]:
    return {"video_id": video_id or f"v{frames}", "prompt": str(frames), "path": f"{frames}.mp4"}


@pytest.mark.parametrize(
    ("num_frames", "frames_per_second", "seen"),
    [
        (4, None, {4: (4, 8.0), 8: (4, 4.0), 16: (4, 2.0)}),
        (None, 2.0, {4: (1, 2.0), 8: (2, 2.0), 16: (4, 2.0)}),
        (8, None, {4: (4, 8.0), 8: (8, 8.0), 16: (8, 4.0)}),
    ],
)
def test_the_judge_is_told_the_rate_of_the_frames_that_it_sees(
    videos: dict[str, Path],
    num_frames: int | None,
    frames_per_second: float | None,
    seen: dict[int, tuple[int, float]],
) -> None:
    judge = Watching(num_frames, frames_per_second)
    clips = [clip(frames) for frames in seen]
    table = answer_clips(judge, videos, clips, "ab")
    assert isinstance(table, pd.DataFrame)
    assert judge.rates == pytest.approx({frames: rate for frames, (_, rate) in seen.items()})
    assert table["video_id"].tolist() == ["v4", "v4", "v8", "v8", "v16", "v16"]
    assert table["question_id"].tolist() == ["a", "b"] * 3
    counts = [count for count, _ in seen.values() for _ in "ab"]
    assert table["frames_judged"].tolist() == counts
    assert table["p_yes"].tolist() == pytest.approx([count / 100 + at % 2 / 1000 for at, count in enumerate(counts)])


def test_one_clip_that_the_judge_cannot_take_leaves_the_others_alone(videos: dict[str, Path]) -> None:
    clips = [clip(4), clip(16), clip(32, "gone"), clip(8)]
    table = answer_clips(Watching(None, None), videos, clips, "a")
    assert isinstance(table, pd.DataFrame)
    assert table["video_id"].tolist() == ["v4", "v8", "v16", "gone"]
    assert table["p_yes"].tolist() == pytest.approx([0.04, 0.08, np.nan, np.nan], nan_ok=True)
    assert table["error"].tolist()[:3] == ["", "", "too long"]
    assert "clip 'gone' is not in the folder of clips" in table["error"][3]
    assert table["frames_judged"].tolist() == [4, 8, 0, 0]


class Overflowing(Watching):
    """Has no numbers about clips of eight frames, in the batch with others and alone."""

    def answer(self, clips, questions, prompts, *, frames_per_second):  # type: ignore[no-untyped-def]
        p_yes, outside = super().answer(clips, questions, prompts, frames_per_second=frames_per_second)
        p_yes[[len(clip) == 8 for clip in clips]] = np.nan
        return p_yes, outside


def test_clips_about_which_the_judge_has_no_numbers_are_left_out(videos: dict[str, Path]) -> None:
    judge: Any = Overflowing(None, None)
    table = answer_clips(judge, videos, [clip(4), clip(8)], "ab")
    assert isinstance(table, pd.DataFrame)
    assert table["video_id"].tolist() == ["v4", "v4", "v8"]
    assert "no probability (nan) when asked 'is it a'" in table["error"].iloc[2]
    # Also where nothing else is in the group: judging again would give the same.
    alone = answer_clips(judge, videos, [clip(8)], "a")
    assert isinstance(alone, pd.DataFrame)
    assert alone["question_id"].tolist() == [""]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1.5])
def test_stored_answers_that_are_no_probabilities_leave_their_clip_out(videos: dict[str, Path], value: float) -> None:
    judge: Any = Watching(None, None)
    stored = answer_clips(judge, videos, [clip(4), clip(8)], "ab")
    assert isinstance(stored, pd.DataFrame)
    stored.loc[1, "p_yes"] = value
    table = valid_answers(stored)
    assert table["video_id"].tolist() == ["v8", "v8", "v4"]
    assert f"the stored answer to question 'b' is no probability ({value}" in table["error"].iloc[2]
