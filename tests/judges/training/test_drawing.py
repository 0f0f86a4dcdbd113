"""A step has as many answers as the settings say, whatever number of questions clips have and whoever computes it."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest

from vr_pipeline.judges.training.config import JudgeTrainingParameters
from vr_pipeline.judges.training.drawing import Drawing
from vr_pipeline.judges.training.examples import JudgeExample

QUESTIONS = [f"q{number}" for number in range(9)]


def examples(fewest: int, most: int) -> list[JudgeExample]:
    """Clips of which each has some of the questions answered."""
    random, frames = np.random.default_rng(0), np.zeros((1, 1, 1, 3), np.uint8)
    labels = [random.permutation(QUESTIONS)[: random.integers(fewest, most + 1)] for _ in range(50)]
    return [
        JudgeExample(str(at), frames, "", {str(name): bool(random.random() < 0.3) for name in sorted(names)})
        for at, names in enumerate(labels)
    ]


def drawing(made: list[JudgeExample], **options: Any) -> Drawing:
    return Drawing(made, QUESTIONS, JudgeTrainingParameters.model_validate({"tiny": {}, "seed": 3} | options))


@pytest.mark.parametrize(("clips_per_pass", "processes"), [(None, 1), (4, 1), (4, 2), (1, 1), (1, 4), (1, 16)])
@pytest.mark.parametrize("labels", [(9, 9), (1, 9), (1, 2)], ids=["all-questions", "some", "fewer-than-drawn"])
def test_a_step_has_exactly_its_answers(labels: tuple[int, int], clips_per_pass: int | None, processes: int) -> None:
    made = examples(*labels)
    options = {"batch_size": 16, "questions_per_clip": 4, "micro_batch_size": clips_per_pass}
    parameters = drawing(made, **options).parameters
    parameters.check_processes(processes)
    assert parameters.answers_per_step == 64
    # Each process draws the passes that are its own, as the training does.
    found = [drawing(made, **options) for _ in range(processes)]
    for step in range(5):
        answers = 0
        for rank, one in enumerate(found):
            for number in range(rank, parameters.passes, processes):
                drawn = one.of_pass(step * parameters.passes + number)
                asked = [len(questions) for questions in drawn.questions]
                assert sum(asked) == parameters.answers_per_pass
                assert max(asked) <= 4
                answers += sum(asked)
        assert answers == 64


def test_clips_take_turns_and_their_questions_are_their_own() -> None:
    made = examples(1, 6)
    one = drawing(made, batch_size=8, questions_per_clip=3, micro_batch_size=2)
    drawn = [one.of_pass(number) for number in range(60)]
    order = [at for each in drawn for at in each.examples]
    assert sorted(order[:50]) == list(range(50))
    assert sorted(order[50:100]) == list(range(50))
    for each in drawn:
        for at, questions in zip(each.examples, each.questions, strict=True):
            assert questions
            assert len(set(questions)) == len(questions)
            assert set(questions) <= set(made[at].labels)


def test_clips_that_have_all_questions_come_as_many_as_the_batch_says() -> None:
    """As the shipped judge was trained: a pass is the next clips of a permutation."""
    made = examples(9, 9)
    order = np.random.default_rng(3)
    expected = np.concatenate([order.permutation(50) for _ in range(4)]).reshape(-1, 8)
    for drawn in (None, 3):
        one = drawing(made, batch_size=8, questions_per_clip=drawn)
        found = [each.examples for each in map(one.of_pass, range(len(expected)))]
        assert found == expected.tolist()
    assert drawing(made, batch_size=8).parameters.answers_per_step is None
    assert list(islice(one._all_batches(), 3)) == expected[:3].tolist()
