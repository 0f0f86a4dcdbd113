"""Every way of training once, on every family: low-rank or full, bfloat16, recomputed activations, accumulation."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiny_judges import FAMILY_BUILDERS
from vr_pipeline.checklist import Checklist, checklist_from_mapping
from vr_pipeline.engine import loop
from vr_pipeline.engine.config import LoopParameters
from vr_pipeline.engine.groups import Group
from vr_pipeline.errors import PipelineError
from vr_pipeline.judges.training import task as training
from vr_pipeline.judges.training.config import JudgeTrainingParameters
from vr_pipeline.judges.training.examples import JudgeExample
from vr_pipeline.judges.training.task import JudgeTask, train_judge

BASE = {
    "threads": 1,
    "steps": 2,
    "batch_size": 4,
    "learning_rate": 1e-2,
    "warmup_steps": 0,
    "checkpoint_every": 2,
    "validation_share": 0.3,
    "schedule": "constant",
}
LORA = {"rank": 2, "alpha": 4, "target_modules": ["q_proj", "v_proj"]}


@pytest.fixture(scope="module")
def checklist() -> Checklist:
    questions = [{"id": "bright", "text": "is it bright ?"}, {"id": "as_said", "text": 'is it " [[prompt]] " ?'}]
    sub = {"name": "light", "questions": questions}
    return checklist_from_mapping(
        {"name": "light", "modality": "video", "dimensions": [{"name": "light", "sub_dimensions": [sub]}]}
    )


@pytest.fixture(scope="module")
def examples() -> list[JudgeExample]:
    """Clips of two lengths and images, bright or dark."""
    random = np.random.default_rng(0)
    made = []
    for number in range(16):
        bright = number % 2 == 0
        frames = random.integers(0, 60, ((3, 5, 1)[number % 3], 24, 24, 3)) + (170 if bright else 20)
        labels = {"bright": bright, "as_said": number % 4 < 2}
        made.append(JudgeExample(f"clip{number}", frames.astype(np.uint8), "red ball", labels, frames_per_second=4.0))
    return made


@pytest.fixture
def start(tokenizer: Any, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Settings that start from a family's tiny model."""

    def make(name: str, **more: Any) -> dict[str, Any]:
        folder = tmp_path / name
        if not folder.exists():
            folder.mkdir()
            FAMILY_BUILDERS[name](tokenizer).save(folder)
        return {"family": name, "path": str(folder), "device": "cpu", **more}

    return make


def parameters(start: dict[str, Any], **changes: Any) -> JudgeTrainingParameters:
    return JudgeTrainingParameters.model_validate(BASE | {"start": start} | changes)


def state(family: Any) -> dict[str, np.ndarray]:
    return {name: value.float().numpy().copy() for name, value in family.model.state_dict().items()}


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("name", FAMILY_BUILDERS)
def test_recomputed_activations_give_the_same_gradients(
    name: str, lora: Any, start: Any, checklist: Checklist, examples: list[JudgeExample], monkeypatch: Any
) -> None:
    calls: list[int] = []
    real = training.start_family

    def counted(*arguments: Any) -> Any:
        family = real(*arguments)
        layer = family.language_model.layers[0].input_layernorm
        layer.register_forward_hook(lambda *_: calls.append(1) if layer.training else None)
        return family

    monkeypatch.setattr(training, "start_family", counted)
    options = {"lora": lora, "steps": 1, "checkpoint_every": 1}
    plain = train_judge(examples, checklist, parameters(start(name), **options))
    once = len(calls)
    recomputed = train_judge(examples, checklist, parameters(start(name), gradient_checkpointing=True, **options))
    assert len(calls) == once + 2 * once
    first, second = plain.log.iloc[0], recomputed.log.iloc[0]
    assert second["loss"] == pytest.approx(first["loss"], rel=1e-5)
    assert second["gradient_norm"] == pytest.approx(first["gradient_norm"], rel=1e-4)
    assert first["gradient_norm"] > 0


@pytest.mark.parametrize(
    ("name", "lora"), [("qwen2_vl", None), ("qwen2_vl", LORA), ("qwen3_vl", LORA), ("qwen3_5", LORA)], ids=str
)
def test_bfloat16(
    name: str, lora: Any, start: Any, checklist: Checklist, examples: list[JudgeExample], monkeypatch: Any
) -> None:
    import torch

    seen: set[Any] = set()
    real = JudgeTask._loss

    def watched(self: Any, batch: Any) -> Any:
        trained = {weight.dtype for weight in self.family.model.parameters() if weight.requires_grad}
        frozen = {weight.dtype for weight in self.family.model.parameters() if not weight.requires_grad}
        seen.add((frozenset(trained), frozenset(frozen), torch.is_autocast_enabled("cpu")))
        return real(self, batch)

    monkeypatch.setattr(JudgeTask, "_loss", watched)
    # Steps this small change nothing in weights of 8 bits of mantissa: they must be kept in float32 while training.
    options = {"lora": lora, "learning_rate": 1e-4, "steps": 3, "gradient_checkpointing": True}
    whole = train_judge(examples, checklist, parameters(start(name), **options))
    half = train_judge(examples, checklist, parameters(start(name, dtype="bfloat16"), **options))
    assert (frozenset({torch.float32}), frozenset({torch.bfloat16} if lora else ()), False) in seen
    assert {weight.dtype for weight in half.family.model.parameters()} == {torch.bfloat16}
    for step in range(3):
        assert half.log["loss"][step] == pytest.approx(whole.log["loss"][step], rel=0.05)
    assert half.summary["median_outside_mass"] == pytest.approx(whole.summary["median_outside_mass"], abs=0.05)


def test_accumulated_passes_make_the_step_of_one_large_pass(
    start: Any, checklist: Checklist, examples: list[JudgeExample]
) -> None:
    # All questions at equal weights, so that the mean of means is the mean.
    options = {"questions_per_clip": 2, "steps": 1, "checkpoint_every": 1}
    once = train_judge(examples, checklist, parameters(start("internvl"), batch_size=6, **options))
    twice = train_judge(examples, checklist, parameters(start("internvl"), batch_size=6, micro_batch_size=3, **options))
    for column in ("loss", "gradient_norm"):
        assert twice.log[column][0] == pytest.approx(once.log[column][0], rel=1e-4)


def test_low_rank_training_goes_on_after_a_kill(
    start: Any, checklist: Checklist, examples: list[JudgeExample], tmp_path: Path, monkeypatch: Any
) -> None:
    options = parameters(start("smolvlm"), lora=LORA | {"dropout": 0.1}, steps=4)
    kept = options.model_copy(update={"checkpoint_folder": str(tmp_path / "state")})
    whole = train_judge(examples, checklist, options)
    real = loop.learning_rate

    def killed(step: int, given: LoopParameters) -> float:
        if step == 4:
            raise KeyboardInterrupt
        return real(step, given)

    monkeypatch.setattr(loop, "learning_rate", killed)
    with pytest.raises(KeyboardInterrupt):
        train_judge(examples, checklist, kept)
    steps: list[int] = []
    monkeypatch.setattr(loop, "learning_rate", lambda step, given: steps.append(step) or real(step, given))
    resumed = train_judge(examples, checklist, kept)
    assert steps == [3, 4]
    first, second = state(whole.family), state(resumed.family)
    assert all(np.array_equal(first[key], second[key]) for key in first)


def test_the_best_checkpoint_is_kept(
    start: Any, checklist: Checklist, examples: list[JudgeExample], monkeypatch: Any
) -> None:
    values = iter([0.4, 0.9, 0.6])
    kept: list[dict[str, np.ndarray]] = []
    real = JudgeTask.validate

    def validate(self: Any, step: int, group: Group) -> float:
        assert not math.isnan(real(self, step, group))
        kept.append(state(self.family))
        return next(values)

    monkeypatch.setattr(JudgeTask, "validate", validate)
    trained = train_judge(examples, checklist, parameters(start("internvl"), steps=3, checkpoint_every=1))
    after = state(trained.family)
    assert all(np.array_equal(after[key], kept[1][key]) for key in after)
    assert not all(np.array_equal(after[key], kept[2][key]) for key in after)


@pytest.mark.parametrize("where", ["answers", "gradients"])
def test_a_training_that_diverges_stops_before_it_spoils_the_weights(
    where: str, start: Any, checklist: Checklist, examples: list[JudgeExample], monkeypatch: Any
) -> None:
    make_step, seen = JudgeTask.step, []

    def overflow(self: Any, step: int, group: Group) -> Any:
        loss, statistics = make_step(self, step, group)
        weights = self.weights()
        seen.append((weights, [weight.detach().clone() for weight in weights]))
        if where == "answers":
            return loss * np.nan, statistics
        weights[0].grad[...] = np.inf
        return loss, statistics

    monkeypatch.setattr(JudgeTask, "step", overflow)
    with pytest.raises(PipelineError, match=r"is not finite at step 1 of train judge.*No weight has been changed"):
        train_judge(examples, checklist, parameters(start("qwen2_vl")))
    ((weights, before),) = seen
    assert all((weight == old).all() for weight, old in zip(weights, before, strict=True))
