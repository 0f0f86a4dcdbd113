"""Ways of training beside the default: all weights, low precision, averages, 8-bit state, compiling, other losses."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from toy_training import Toy, largest_difference, train
from vr_pipeline.engine import loop
from vr_pipeline.engine.config import LoRAParameters
from vr_pipeline.engine.optimisation import AveragedWeights
from vr_pipeline.errors import InputError
from vr_pipeline.generators.policy import FullWeights
from vr_pipeline.training import preference_trainer
from vr_pipeline.training.preference_trainer import Validation, train_on_pairs

FULL: dict[str, object] = {"method": "full", "learning_rate": 1e-4}


# -- all weights ----------------------------------------------------------------------------------------------------


def test_all_weights_are_trained_against_an_untouched_copy(toy: Toy) -> None:
    generator = toy.generator()
    before = {name: value.clone() for name, value in generator.denoiser.state_dict().items()}
    policy, log = train(toy, generator, **FULL)
    assert isinstance(policy, FullWeights)
    assert log["loss"].iloc[0] == torch.tensor(2.0).log().item()
    assert log["loss"].iloc[-1] < log["loss"].iloc[0]
    parameters = dict(generator.denoiser.named_parameters())
    assert all(not torch.equal(parameters[name], before[name]) for name in parameters)
    with generator.reference():
        reference = generator.denoiser.state_dict()
    assert all(torch.equal(reference[name], value) for name, value in before.items())
    assert all(torch.equal(policy.tensors[name], value) for name, value in generator.denoiser.state_dict().items())
    # Another training starts from the original again.
    assert train(toy, generator, **FULL)[0].identity == policy.identity
    generator.load_policy(None)
    assert all(torch.equal(generator.denoiser.state_dict()[name], value) for name, value in before.items())


def test_losses_without_a_reference_keep_no_copy(toy: Toy) -> None:
    generator = toy.generator()
    train(toy, generator, loss="supervised", steps=1, **FULL)
    assert len(generator.networks()) == 1
    train(toy, generator, steps=1, **FULL)
    assert len(generator.networks()) == 2


@pytest.mark.parametrize("changes", [{"micro_batch_size": 1}, {"gradient_checkpointing": True}], ids=str)
def test_gradients_of_all_weights_in_parts_and_by_checkpointing_are_the_same(
    toy: Toy, changes: dict[str, object]
) -> None:
    whole, log = train(toy, **FULL)
    other, again = train(toy, **FULL, **changes)
    # The optimiser divides by the gradient's size, so that rounding of the smallest ones shows in the weights.
    assert largest_difference(whole, other) < 2e-5
    np.testing.assert_allclose(again["loss"], log["loss"], rtol=1e-5)
    np.testing.assert_allclose(again["gradient_norm"], log["gradient_norm"], rtol=1e-4)


class Killed(BaseException):
    """What a kill looks like from inside."""


@pytest.mark.parametrize(
    "changes", [{**FULL}, {"ema_decay": 0.5}, {"optimizer": "adamw_8bit", **FULL}], ids=["full", "average", "8bit"]
)
def test_a_killed_training_goes_on_to_the_identical_result(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object]
) -> None:
    if "optimizer" in changes:
        pytest.importorskip("bitsandbytes")
    expected, log = train(toy, **changes)
    file = tmp_path / "training.safetensors"
    parameters = toy.parameters(checkpoint_every=2, **changes)
    log_row = loop.log_row

    def killing(step: int, *rest: object) -> dict[str, float]:
        if step == 5:
            raise Killed
        return log_row(step, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(loop, "log_row", killing)
        with pytest.raises(Killed):
            train_on_pairs(toy.generator(), toy.data, parameters, checkpoint=file)
    generator = toy.generator()
    resumed = train_on_pairs(generator, toy.data, parameters, checkpoint=file)
    assert generator.policy().identity == expected.identity
    assert resumed.equals(log)


def test_a_training_killed_while_a_checkpoint_is_judged_judges_it_again(toy: Toy, tmp_path: Path) -> None:
    asked: list[int] = []

    def judge(step: int) -> float:
        asked.append(step)
        if len(asked) == 2:
            raise Killed
        return float(step)

    def run() -> pd.DataFrame:
        return train_on_pairs(
            toy.generator(),
            toy.data,
            toy.parameters(checkpoint_every=2),
            checkpoint=tmp_path / "training.safetensors",
            validation=Validation(judge),
        )

    with pytest.raises(Killed):
        run()
    assert run()["validation_reward"].dropna().tolist() == [2.0, 4.0, 6.0]
    assert asked == [2, 4, 4, 6]


# -- precision, optimiser, average, compiling -----------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, FULL, {"gradient_checkpointing": True}], ids=["lora", "full", "checkpointing"])
def test_bfloat16_starts_at_log_two_and_stays_near_float32(toy: Toy, changes: dict[str, object]) -> None:
    precise, log = train(toy, **changes)
    rough = replace(toy, settings=toy.settings.model_copy(update={"dtype": "bfloat16"}))
    generator = rough.generator()
    policy, other = train(rough, generator, **changes)
    assert other["loss"].iloc[0] == torch.tensor(2.0).log().item()
    np.testing.assert_allclose(other["loss"], log["loss"], atol=0.02)
    np.testing.assert_allclose(other["winner_error"], log["winner_error"], rtol=0.05)
    assert all(value.dtype == torch.float32 for value in generator.denoiser.parameters() if value.requires_grad)
    kept_as = torch.bfloat16 if isinstance(policy, FullWeights) else torch.float32
    assert {value.dtype for value in policy.tensors.values()} == {kept_as}
    assert policy.tensors.keys() == precise.tensors.keys()


def test_float16_is_rejected(toy: Toy) -> None:
    rough = replace(toy, settings=toy.settings.model_copy(update={"dtype": "float16"}))
    with pytest.raises(InputError, match="float16"):
        train(rough)


@pytest.mark.parametrize("changes", [{}, FULL], ids=["lora", "full"])
def test_the_average_is_the_formula_and_is_the_policy(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object]
) -> None:
    weights: list[np.ndarray] = []
    update = AveragedWeights.update

    def spy(self: AveragedWeights, step: int) -> None:
        weights.append(np.concatenate([value.detach().numpy().ravel().copy() for value in self.weights]))
        update(self, step)

    monkeypatch.setattr(AveragedWeights, "update", spy)
    generator = toy.generator()
    trained = preference_trainer.prepare_weights(toy.generator(), toy.parameters(**changes), preference_trainer.Group())
    average = np.concatenate([value.detach().numpy().ravel() for value in trained]).astype(np.float64)
    averaged, log = train(toy, generator, ema_decay=0.3, **changes)
    for step, now in enumerate(weights, start=1):
        share = min(0.3, (1 + step) / (10 + step))
        average = share * average + (1 - share) * now
    policy = [value for _, value in sorted(generator.denoiser.named_parameters()) if value.requires_grad]
    got = np.concatenate([value.detach().numpy().ravel() for value in policy])
    np.testing.assert_allclose(got, average, atol=1e-6)
    plain, unaveraged = train(toy, **changes)
    assert averaged.identity != plain.identity
    # Averaging looks on; it does not change where the training goes.
    assert log.equals(unaveraged)


def test_what_is_judged_is_the_average(toy: Toy) -> None:
    generator = toy.generator()
    seen: list[str] = []

    def judge(step: int) -> float:
        seen.append(generator.policy().identity)
        return -float(step)

    log = train_on_pairs(
        generator,
        toy.data,
        toy.parameters(ema_decay=0.5, checkpoint_every=3),
        validation=Validation(judge),
    )
    assert log["loss"].equals(train(toy)[1]["loss"])
    assert generator.policy().identity == seen[0]
    # Without judgement the average after the last step is the policy.
    assert train(toy, ema_decay=0.5)[0].identity == seen[1]


def test_eight_bit_state_trains_nearly_alike(toy: Toy) -> None:
    pytest.importorskip("bitsandbytes")
    precise, log = train(toy, method="full", learning_rate=1e-3)
    rough, other = train(toy, method="full", learning_rate=1e-3, optimizer="adamw_8bit")
    np.testing.assert_allclose(other["loss"], log["loss"], atol=1e-3)
    assert 0 < largest_difference(precise, rough) < 5e-3


def test_eight_bit_state_without_its_package_says_what_to_install(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes.optim", None)
    with pytest.raises(InputError, match=r"needs the package bitsandbytes.*\[gpu\]"):
        train(toy, optimizer="adamw_8bit")


@pytest.mark.parametrize(
    "changes",
    [{"lora": LoRAParameters(rank=2, alpha=4.0, target_modules=["to_q"])}, FULL],
    ids=["lora", "full"],
)
def test_compiled_blocks_train_alike(
    toy: Toy, changes: dict[str, object], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # All of torch.compile but the writing of kernels, which takes most of its time: graphs are traced, taken apart for
    # the backward pass, and traced again where the adapter is switched off.
    compile_module = torch.nn.Module.compile
    compiled_modules: list[torch.nn.Module] = []

    def traced(module: torch.nn.Module) -> None:
        compiled_modules.append(module)
        compile_module(module, backend="aot_eager")

    monkeypatch.setattr(torch.nn.Module, "compile", traced)
    policy, log = train(toy, steps=2, **changes)
    assert compiled_modules == []
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    try:
        with caplog.at_level(logging.WARNING, logger="torch._dynamo"):
            compiled, other = train(toy, steps=2, compile="blocks", **changes)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2
        assert {type(module).__name__ for module in compiled_modules} == {"CogVideoXBlock"}
        # A function that is traced too often runs uncompiled from then on, and torch only warns of it.
        assert "limit" not in caplog.text
    finally:
        torch._dynamo.reset()
    assert largest_difference(policy, compiled) < 2e-5
    np.testing.assert_allclose(other["loss"], log["loss"], rtol=1e-5)
