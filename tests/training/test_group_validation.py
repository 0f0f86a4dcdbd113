"""Processes that train together share the clips of a checkpoint, and find what one process finds."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from group_validation import CHECKLIST, QUESTIONS, Judged, train_twice, validation_of
from toy_training import Toy
from two_processes import in_two_processes
from vr_pipeline.datasets.policy import PolicyDataset
from vr_pipeline.judges.training.config import TinyJudgeParameters
from vr_pipeline.judges.training.tiny import create_tiny_judge, words_of
from vr_pipeline.vlm.config import JudgeParameters

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def given(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Toy, JudgeParameters]:
    folder = tmp_path_factory.mktemp("group")
    words = words_of([*(question["text"] for question in QUESTIONS), *toy.conditions])
    create_tiny_judge(TinyJudgeParameters(initial_std=0.4, layers=1), words, seed=1).save(folder / "judge")
    judge = JudgeParameters(family="qwen2_vl", path=str(folder / "judge"), device="cpu", threads=1)
    small = replace(toy, settings=toy.settings.model_copy(update={"batch_size": 1}))
    (folder / "given.pickle").write_bytes(pickle.dumps((small, judge)))
    return folder, small, judge


@pytest.fixture(scope="module")
def launched(given: tuple[Path, Toy, JudgeParameters]) -> list[tuple[Judged, Judged]]:
    """What both processes hold after the training, and after the same one again."""
    return list(zip(*in_two_processes(train_twice, str(given[0])), strict=True))


@pytest.fixture(scope="module")
def group(launched: list[tuple[Judged, Judged]]) -> tuple[Judged, Judged]:
    return launched[0]


def test_two_processes_make_every_clip_and_every_answer_once(group: tuple[Judged, Judged]) -> None:
    assert len(CHECKLIST.questions) == 2
    # The original and the checkpoints of steps 3 and 6, three clips each: two here, one there.
    assert [(process.sampled, process.answered) for process in group] == [(6, 6), (3, 3)]
    main, other = group
    pd.testing.assert_frame_equal(main.log, other.log)
    assert list(main.table["step"]) == [0, 3, 6]
    assert main.log["validation_reward"].dropna().tolist() == main.table["reward"].iloc[1:].tolist()


def test_what_two_processes_judged_one_process_judges_alike_bit_for_bit(
    given: tuple[Path, Toy, JudgeParameters], group: tuple[Judged, Judged]
) -> None:
    folder, toy, judge = given
    shared, alone = folder / "validation", folder / "alone"
    validation = validation_of(toy, judge, alone, toy.parameters(checkpoint_every=3))
    generator = toy.generator()
    judging = validation(generator)
    rewards = [validation.baseline()]
    for place in sorted(
        shared.glob("trainings/*.weights/*"),
        key=lambda one: PolicyDataset(path=str(one)).load().provenance["training"]["step"],
    ):
        generator.load_policy(PolicyDataset(path=str(place)).load())
        rewards.append(judging(len(rewards)))
    np.testing.assert_array_equal(rewards, group[0].table["reward"])
    files = {path.relative_to(shared) for path in shared.glob("clips/**/*") if path.suffix in {".mp4", ".zst"}}
    assert len(files) == 3 * (3 + 1), "three clips of each checkpoint, and their answers in a pack"
    for name in files:
        assert (alone / name).read_bytes() == (shared / name).read_bytes()


def test_a_training_that_judged_everything_before_judges_nothing_again(launched: list[tuple[Judged, Judged]]) -> None:
    first, again = launched
    assert [(process.sampled, process.answered) for process in again] == [(0, 0), (0, 0)]
    pd.testing.assert_frame_equal(again[0].table, first[0].table)
