"""Trainings of judges that the processes of a group run; a module of its own, for started processes to import."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import tiny_judges
from vr_pipeline.checklist import Checklist, checklist_from_mapping
from vr_pipeline.engine import loop
from vr_pipeline.engine.config import LoopParameters
from vr_pipeline.errors import InputError
from vr_pipeline.judges.training.config import JudgeTrainingParameters
from vr_pipeline.judges.training.drawing import Drawing, Pass
from vr_pipeline.judges.training.examples import JudgeExample
from vr_pipeline.judges.training.task import train_judge

OPTIONS: dict[str, dict[str, Any]] = {
    # Captions, which only some clips have, and balanced weights: the means of passes are not means of clips.
    "full": {"questions_per_clip": None, "caption_weight": 0.5, "ema_decay": 0.9, "weight_decay": 0.1},
    # Some clips have one label only: others fill up the answers of a step.
    "drawn": {"questions_per_clip": 2, "matrix_learning_rate": 1e-3},
    "lora": {"lora": {"rank": 2, "alpha": 4, "dropout": 0.2, "target_modules": ["q_proj", "v_proj"]}},
}
"""Trainings by name."""

KILLED = "killed"
"""Another one, killed in step 3 and started again."""


@dataclass
class JudgeResult:
    """What a training left in one process."""

    weights: dict[str, np.ndarray]
    log: pd.DataFrame
    report: pd.DataFrame
    told: list[int]
    steps: list[int]
    """That were made, not taken from a checkpoint."""
    answers: list[int]
    """Of each pass that this process computed."""


class Killed(BaseException):
    """What a kill looks like from inside."""


def checklist() -> Checklist:
    """Two questions, one with the prompt."""
    questions = [{"id": "bright", "text": "is it red ?"}, {"id": "as_said", "text": 'is it " [[prompt]] " ?'}]
    sub = {"name": "light", "questions": questions}
    return checklist_from_mapping(
        {"name": "light", "modality": "video", "dimensions": [{"name": "light", "sub_dimensions": [sub]}]}
    )


def examples() -> list[JudgeExample]:
    """Clips and images; an odd number is held out, and some have one label only."""
    random = np.random.default_rng(0)
    made = []
    for number in range(17):
        bright = number % 3 == 0
        frames = random.integers(0, 60, ((3, 5, 1)[number % 3], 24, 24, 3)) + (170 if bright else 20)
        labels = {"bright": bright} | ({"as_said": number % 4 < 2} if number % 5 else {})
        split = "validation" if number < 5 else ""
        caption = "a blue ring" if number % 2 else ""
        made.append(JudgeExample(f"clip{number}", frames.astype(np.uint8), "ball", labels, caption, 4.0, split))
    return made


def train(folder: str, name: str, *, checkpoints: Path | None = None, killed_in: int | None = None) -> JudgeResult:
    """One training from the model in a folder."""
    real, steps = loop.learning_rate, []
    draw, answers = Drawing.of_pass, []

    def watched_draw(drawing: Drawing, number: int) -> Pass:
        drawn = draw(drawing, number)
        answers.append(sum(map(len, drawn.questions)))
        return drawn

    def watched(step: int, parameters: LoopParameters) -> float:
        if step == killed_in:
            raise Killed
        steps.append(step)
        return real(step, parameters)

    start = {"family": "qwen2_vl", "path": f"{folder}/model", "device": "cpu"}
    common = {"start": start, "steps": 4, "batch_size": 4, "micro_batch_size": 2, "learning_rate": 1e-3}
    common |= {"warmup_steps": 0, "checkpoint_every": 2, "validation_share": 0.01, "threads": 1}
    parameters = JudgeTrainingParameters.model_validate(
        common | OPTIONS[name] | {"checkpoint_folder": str(checkpoints) if checkpoints else None}
    )
    told: list[int] = []
    loop.learning_rate, Drawing.of_pass = watched, watched_draw
    try:
        trained = train_judge(
            examples(),
            checklist(),
            parameters,
            observe=lambda row: told.append(int(row["step"])),
        )
    finally:
        loop.learning_rate, Drawing.of_pass = real, draw
    weights = {key: value.numpy().copy() for key, value in trained.family.model.state_dict().items()}
    return JudgeResult(weights, trained.log, trained.report, told, steps, answers)


def train_with_a_kill(folder: str, checkpoints: Path) -> JudgeResult:
    """A training that is stopped in step 3 and resumes from step 2."""
    with contextlib.suppress(Killed):
        train(folder, "full", checkpoints=checkpoints, killed_in=3)
    return train(folder, "full", checkpoints=checkpoints)


def rejected(folder: str) -> str:
    """What is said where the passes cannot be shared."""
    OPTIONS["odd"] = {"batch_size": 6}
    try:
        train(folder, "odd")
    except InputError as error:
        return str(error)
    return ""


def run_all(folder: str) -> dict[str, Any]:
    """All trainings, one after the other, in this process of a group."""
    results: dict[str, Any] = {name: train(folder, name) for name in list(OPTIONS)}
    results[KILLED] = train_with_a_kill(folder, Path(folder) / "checkpoints")
    results["rejected"] = rejected(folder)
    return results


def write_model(folder: Path) -> None:
    """The tiny model that all trainings start from."""
    (folder / "model").mkdir()
    tiny_judges.qwen2_vl(tiny_judges.build_tokenizer()).save(folder / "model")
