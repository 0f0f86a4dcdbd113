"""The trainer on a toy problem: what it must not depend on, that it learns, and that it stops where it should."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open

from toy_training import Toy, largest_difference, relative_difference, train
from vr_pipeline.engine import loop
from vr_pipeline.engine.order import EpochOrder
from vr_pipeline.engine.state import TrainingState, save_checkpoint
from vr_pipeline.engine.watch import Diagnosis
from vr_pipeline.errors import InputError, PipelineError
from vr_pipeline.generators.policy import Adapter
from vr_pipeline.training import preference_trainer
from vr_pipeline.training.pairs import TrainingPair
from vr_pipeline.training.preference_trainer import Validation, train_on_pairs, training_identity


def test_the_first_loss_is_exactly_log_two_and_two_runs_are_identical(toy: Toy) -> None:
    first, log = train(toy)
    second, other = train(toy)
    assert log["loss"].iloc[0] == torch.tensor(2.0).log().item()
    assert log["loss"].iloc[1] != log["loss"].iloc[0]
    assert log["step"].tolist() == [1, 2, 3, 4, 5, 6]
    assert first.identity == second.identity
    assert log.equals(other)
    assert train(toy, seed=1)[0].identity != first.identity


def test_the_order_of_the_pairs_given_is_irrelevant(toy: Toy) -> None:
    adapter, log = train(toy)
    generator = toy.generator()
    shuffled = [toy.pairs[at] for at in (3, 0, 5, 1, 4, 2)]
    other = train_on_pairs(generator, replace(toy.data, pairs=shuffled), toy.parameters())
    assert generator.policy().identity == adapter.identity
    assert other.equals(log)


def test_an_epoch_holds_every_pair_once_and_epochs_differ(toy: Toy) -> None:
    names = [pair.pair_id for pair in toy.pairs]
    order = EpochOrder(names, names, seed=0)
    orders = [[name for name, _ in order.of_step(epoch, 6)] for epoch in range(1, 6)]
    assert all(sorted(epoch) == sorted(names) for epoch in orders)
    assert len({tuple(epoch) for epoch in orders}) > 1


def test_training_learns_to_tell_winners_from_losers(toy: Toy) -> None:
    # The term on winners keeps the untrained network from the easy way out, which is to model losers worse.
    _, log = train(toy, steps=40, batch_size=6, beta=5.0, learning_rate=5e-3, supervised_weight=1.0)
    start, end = log.iloc[:5], log.iloc[-10:]
    preference_loss = log["loss"] - log["winner_error"]
    assert preference_loss.iloc[0] == pytest.approx(math.log(2), rel=1e-6)
    assert preference_loss.iloc[-10:].mean() < 0.8 * math.log(2)
    assert end["implicit_accuracy"].mean() > 0.8
    # The margin grows, and not only because losers get worse.
    assert end["logit_p50"].mean() > start["logit_p50"].mean() + 0.2
    assert end["winner_change"].mean() < 0
    assert (log["gradient_norm"] > 0).all()


def test_supervised_training_lowers_the_winners_error(toy: Toy) -> None:
    _, log = train(toy, steps=40, loss="supervised")
    assert log["winner_error"].iloc[-10:].mean() < 0.9 * log["winner_error"].iloc[:10].mean()


@pytest.mark.parametrize("loss", ["flow_dpo", "mapo"])
def test_other_losses_train(toy: Toy, loss: str) -> None:
    adapter, log = train(toy, steps=3, loss=loss, beta=0.5, supervised_weight=0.1)
    assert np.isfinite(log["loss"]).all()
    assert any(bool(value.any()) for name, value in adapter.tensors.items() if "lora_B" in name)


def test_a_step_may_hold_more_pairs_than_there_are(toy: Toy) -> None:
    order = EpochOrder(toy.pairs, [pair.pair_id for pair in toy.pairs], seed=0)
    seen = [(pair.pair_id, epoch) for pair, epoch in (order[position] for position in range(16))]
    # Whole epochs one after the other, then part of a third; a pair that comes again has other noise.
    assert [epoch for _, epoch in seen] == [0] * 6 + [1] * 6 + [2] * 4
    assert len(set(seen)) == 16
    whole, log = train(toy, steps=2, batch_size=16)
    parts, other = train(toy, steps=2, batch_size=16, micro_batch_size=5)
    assert relative_difference(whole, parts) < 1e-4
    np.testing.assert_allclose(other["loss"], log["loss"], rtol=1e-5)


def test_gradients_are_clipped_to_the_norm_and_the_log_has_what_it_was(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    after: list[float] = []
    step = torch.optim.AdamW.step

    def spy(self: torch.optim.AdamW) -> None:
        gradients = [weight.grad for group in self.param_groups for weight in group["params"]]
        after.append(float(torch.stack([gradient.double().norm() for gradient in gradients]).norm()))
        step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    _, free = train(toy, max_gradient_norm=1e6)
    np.testing.assert_allclose(after, free["gradient_norm"], rtol=1e-5)
    limit = float(free["gradient_norm"].iloc[0]) / 2
    after.clear()
    _, held = train(toy, max_gradient_norm=limit)
    assert held["gradient_norm"].iloc[0] == free["gradient_norm"].iloc[0]
    np.testing.assert_allclose(after, np.minimum(held["gradient_norm"], limit), rtol=1e-4)


def test_gradient_checkpointing_changes_nothing(toy: Toy) -> None:
    whole, log = train(toy)
    again, other = train(toy, gradient_checkpointing=True)
    assert largest_difference(whole, again) < 1e-6
    np.testing.assert_allclose(other["loss"], log["loss"], rtol=1e-6)


class Killed(BaseException):
    """What a kill looks like from inside."""


@pytest.mark.parametrize("killed_after", [2, 3, 5])
def test_a_killed_training_goes_on_to_the_identical_result(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_after: int, caplog: pytest.LogCaptureFixture
) -> None:
    expected, log = train(toy)
    file = tmp_path / "state" / "training.safetensors"
    parameters = toy.parameters(checkpoint_every=2)
    log_row = loop.log_row

    def killing(step: int, *rest: object) -> dict[str, float]:
        if step > killed_after:
            raise Killed
        return log_row(step, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(loop, "log_row", killing)
        with pytest.raises(Killed):
            train_on_pairs(toy.generator(), toy.data, parameters, checkpoint=file)
    assert file.is_file()
    generator = toy.generator()
    with caplog.at_level(logging.INFO):
        resumed = train_on_pairs(generator, toy.data, parameters, checkpoint=file)
    assert f"resumes after step {killed_after // 2 * 2} of 6" in caplog.text
    assert generator.policy().identity == expected.identity
    assert resumed.equals(log)
    # Until the policy is saved it is in the file: killed now and started again, not a step is made.
    with monkeypatch.context() as patch, caplog.at_level(logging.INFO):
        patch.setattr(loop, "log_row", None)
        again = toy.generator()
        rows = train_on_pairs(again, toy.data, parameters, checkpoint=file)
    assert "was finished before" in caplog.text
    assert again.policy().identity == expected.identity
    assert rows.equals(log)
    with safe_open(file, framework="numpy") as result:
        assert len(result.keys()) == len(expected.tensors), "what only the training needs is not kept"
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    # Where that is asked for it is done again, and what it makes is the same.
    with monkeypatch.context() as patch:
        steps: list[int] = []
        patch.setattr(loop, "log_row", lambda step, *rest: steps.append(step) or log_row(step, *rest))
        arguments = (toy.generator(), toy.data, parameters)
        before = file.read_bytes()
        assert train_on_pairs(*arguments, checkpoint=file, retrain=True).equals(log)
    assert steps == [1, 2, 3, 4, 5, 6]
    assert file.read_bytes() == before, "the same training leaves the same bytes"


def test_a_checkpoint_of_another_training_is_not_used(toy: Toy, tmp_path: Path) -> None:
    file = tmp_path / "training.safetensors"
    generator = toy.generator()
    other = toy.parameters(seed=3)
    weights = generator.add_adapter(rank=2, alpha=4.0, targets=None, seed=0)
    optimizer = torch.optim.AdamW(weights)
    save_checkpoint(
        file,
        TrainingState(weights, [optimizer], step=4),
        identity=training_identity(generator, toy.data, other),
    )
    log = train_on_pairs(generator, toy.data, toy.parameters(), checkpoint=file)
    assert len(log) == 6


def test_a_damaged_checkpoint_is_named(toy: Toy, tmp_path: Path) -> None:
    file = tmp_path / "training.safetensors"
    file.write_bytes(b"no checkpoint at all")
    with pytest.raises(InputError, match=r"training\.safetensors: the checkpoint of a training is damaged"):
        train_on_pairs(toy.generator(), toy.data, toy.parameters(), checkpoint=file)


def test_a_training_can_follow_another_on_the_same_generator(toy: Toy) -> None:
    generator = toy.generator()
    first, _ = train(toy, generator)
    second, _ = train(toy, generator)
    assert first.identity == second.identity


def test_a_loss_that_is_not_finite_stops_with_the_step_and_what_to_do(toy: Toy) -> None:
    generator = toy.generator()
    network = generator.denoiser
    calls = []

    def overflow(_: object, __: object, made: tuple[torch.Tensor]) -> tuple[torch.Tensor] | None:
        calls.append(1)
        # The policy and the reference each compute once a step; the reference of step 2 overflows for one clip.
        return (made[0].index_fill(0, torch.tensor([1]), float("inf")),) if len(calls) == 4 else None

    hook = network.register_forward_hook(overflow)
    with pytest.raises(
        PipelineError, match=r"loss is not finite at step 2 .*the pair 'pair \d'.*learning rate"
    ) as raised:
        train_on_pairs(generator, toy.data, toy.parameters())
    hook.remove()
    assert "winner_change" in str(raised.value)
    assert "winner_error" not in str(raised.value)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("average", [None, 0.9])
def test_weights_that_the_last_step_makes_infinite_reach_no_checkpoint_and_no_policy(
    average: float | None, toy: Toy, tmp_path: Path
) -> None:
    file = tmp_path / "training.safetensors"
    generator = toy.generator()
    settings = toy.parameters(steps=1, warmup_steps=1, learning_rate=3e38, ema_decay=average, checkpoint_every=1)
    with pytest.raises(PipelineError, match=r"(Weights are|is) not finite (after|at) step"):
        train_on_pairs(generator, toy.data, settings, checkpoint=file)
    assert not file.exists()


def worse_from(first: int) -> Callable[..., Diagnosis]:
    """A diagnosis that finds trouble after a step, and none before."""

    def diagnose(rows: list[dict[str, float]], _: object) -> Diagnosis:
        step = rows[-1]["step"]
        return Diagnosis(False, "it went wrong", "Lower it") if step >= first else Diagnosis(step < first - 2)

    return diagnose


@pytest.mark.parametrize("average", [None, 0.9])
def test_a_training_that_goes_wrong_ends_with_weights_from_before(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, average: float | None
) -> None:
    settings = {"steps": 12, "ema_decay": average, "safeguard": {"window": 2}}
    until = {step: train(toy, **settings | {"steps": step, "schedule": "constant"})[0].identity for step in (4, 6)}
    monkeypatch.setattr(preference_trainer, "diagnose", worse_from(10))
    policy, log = train(toy, **settings, schedule="constant")
    # Of steps 3 to 6, 7 and 8 nothing ill is seen, 8 is doubtful: the weights after 4 are the last that were healthy.
    assert len(log) == 10
    assert policy.identity == until[4]
    assert log.iloc[-1][["trouble_step", "kept_step"]].tolist() == [7, 4]
    assert log["kept_step"].isna().sum() == 9
    assert "failed from step 7 on: it went wrong. Stopped after step 10. The weights of step 4 are kept" in caplog.text
    assert "Lower it" in caplog.text
    # A kill in between changes nothing, and the result is taken up like any other.
    file, log_row = tmp_path / "training.safetensors", loop.log_row
    parameters = toy.parameters(**settings, schedule="constant", checkpoint_every=3)

    def killing(step: int, *rest: object) -> dict[str, float]:
        if step > 9:
            raise Killed
        return log_row(step, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(loop, "log_row", killing)
        with pytest.raises(Killed):
            train_on_pairs(toy.generator(), toy.data, parameters, checkpoint=file)
    for _ in range(2):
        generator = toy.generator()
        assert train_on_pairs(generator, toy.data, parameters, checkpoint=file).equals(log)
        assert generator.policy().identity == until[4]


def test_a_training_that_is_ill_from_its_start_leaves_the_original(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(preference_trainer, "diagnose", worse_from(2))
    policy, log = train(toy, safeguard={"window": 2})
    assert log["kept_step"].iloc[-1] == 0
    assert "The original is kept" in caplog.text
    assert not any(bool(value.any()) for name, value in policy.tensors.items() if "lora_B" in name)
    with pytest.raises(PipelineError, match="failed from step 1 on: it went wrong, detected after step 2"):
        train(toy, safeguard={"window": 2, "on_trouble": "error"})
    caplog.clear()
    _, log = train(toy, safeguard={"window": 2, "on_trouble": "warn"})
    assert len(log) == 6
    assert caplog.text.count("it went wrong") == 1
    assert "kept_step" not in log
    # Nobody looks where every rule is switched off by a window longer than the training.
    assert len(train(toy, safeguard={"window": 7})[1]) == 6


@pytest.mark.parametrize(
    ("rewards", "original", "kept"),
    [
        ({3: 1.0, 4: 2.0, 6: 0.5, 9: 0.1}, 0.2, 4),
        ({3: 3.0, 4: 2.0, 6: 0.5, 9: 0.1}, 0.2, 3),
        ({3: 3.0, 4: 2.0, 6: 5.0, 9: 0.1}, 0.2, 6),
        ({3: 3.0, 4: 2.0, 6: 0.5, 9: 0.1}, 3.0, 0),
        ({3: 1.0, 4: 2.0, 6: 0.5, 9: 0.1}, None, 4),
    ],
)
def test_the_weights_that_are_kept_were_never_judged_worse_than_the_original(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, rewards: dict[int, float], original: float | None, kept: int
) -> None:
    monkeypatch.setattr(preference_trainer, "diagnose", worse_from(10))
    seen: dict[int, str] = {}
    generator = toy.generator()

    def judge(step: int) -> float:
        seen[step] = generator.policy().identity
        return rewards[step]

    parameters = toy.parameters(steps=12, checkpoint_every=3, safeguard={"window": 2})
    log = train_on_pairs(generator, toy.data, parameters, validation=Validation(judge, baseline=lambda: original))
    assert list(seen) == [3, 6, 9, 4], "the healthy weights are judged too"
    assert log["kept_step"].iloc[-1] == kept
    assert log["validation_reward"].dropna().to_dict() == {step - 1: reward for step, reward in sorted(rewards.items())}
    if kept:
        assert generator.policy().identity == seen[kept]
    else:
        assert not any(bool(value.any()) for name, value in generator.policy().tensors.items() if "lora_B" in name)


def test_a_learning_rate_that_wrecks_the_model_is_stopped(toy: Toy) -> None:
    settings = {"steps": 20, "learning_rate": 0.3, "beta": 1.0}
    # The toy is untrained: its error is that of predicting nothing, and cannot rise to several times as much.
    _, wrecked = train(toy, **settings, safeguard={"on_trouble": "warn"})
    assert wrecked["winner_change_share"].iloc[-5:].mean() > 0.4
    _, log = train(toy, **settings, safeguard={"max_winner_change": 0.4})
    assert len(log) < 20
    kept = int(log["kept_step"].iloc[-1])
    assert kept < log["trouble_step"].iloc[-1] <= len(log)


def test_no_pairs_and_missing_latents_or_texts_are_named(toy: Toy) -> None:
    generator = toy.generator()
    with pytest.raises(InputError, match="no preference pairs"):
        train_on_pairs(generator, replace(toy.data, pairs=[]), toy.parameters())
    unknown = [TrainingPair("x", toy.pairs[0].prompt_id, "w0", "elsewhere")]
    with pytest.raises(InputError, match=r"1 of 2 have no latents, for instance 'elsewhere'"):
        train_on_pairs(generator, replace(toy.data, pairs=unknown), toy.parameters())
    unheard = [TrainingPair("x", "unheard", "w0", "l0")]
    with pytest.raises(InputError, match=r"1 of 1 have no text condition, for instance 'unheard'"):
        train_on_pairs(generator, replace(toy.data, pairs=unheard), toy.parameters())


def test_targets_that_match_no_layer_are_named(toy: Toy) -> None:
    with pytest.raises((InputError, ValueError), match="target"):
        toy.generator().add_adapter(rank=2, alpha=2.0, targets=["no_such_layer"], seed=0)


def test_the_log_says_what_the_schema_of_training_logs_wants(toy: Toy) -> None:
    from vr_pipeline.schemas import TrainingLog

    _, log = train(toy, steps=2)
    TrainingLog.validate(log)
    assert {
        "loss",
        "implicit_accuracy",
        "winner_change",
        "loser_change",
        "winner_error",
        "loser_error",
        "logit_p10",
        "logit_p50",
        "logit_p90",
        "saturation",
        "gradient_norm",
        "learning_rate",
    } <= set(log.columns)


def test_the_policy_is_the_checkpoint_of_the_highest_validation_reward(toy: Toy, tmp_path: Path) -> None:
    rewards = {2: 0.5, 4: 2.0, 6: 1.0}
    seen: dict[int, str] = {}

    told: dict[int, dict[str, float]] = {}

    def run(validate: object, file: Path | None = None) -> tuple[Adapter, pd.DataFrame]:
        generator = toy.generator()
        told.clear()

        def judge(step: int) -> float | None:
            seen[step] = generator.policy().identity
            return validate(step)  # type: ignore[operator, no-any-return]

        log = train_on_pairs(
            generator,
            toy.data,
            toy.parameters(checkpoint_every=2),
            checkpoint=file,
            validation=Validation(judge),
            observe=lambda row: told.setdefault(int(row["step"]), {}).update(row),
        )
        return generator.policy(), log

    best, log = run(rewards.__getitem__)
    # Whoever looked on has the whole log.
    assert pd.DataFrame(told.values()).equals(log)
    assert best.identity == seen[4] != seen[6]
    assert log["validation_reward"].dropna().to_dict() == {1: 0.5, 3: 2.0, 5: 1.0}
    assert run(lambda step: 1.0)[0].identity == seen[2]
    assert run(lambda step: None)[0].identity == seen[6] == train(toy)[0].identity

    def killing(step: int) -> float:
        if step == 6:
            raise Killed
        return rewards[step]

    file = tmp_path / "training.safetensors"
    with pytest.raises(Killed):
        run(killing, file)
    assert told[4]["validation_reward"] == 2.0
    again, resumed = run(rewards.__getitem__, file)
    assert again.identity == best.identity
    assert resumed.equals(log)
    assert pd.DataFrame(told.values()).equals(log)
    # Finished, it is judged no more, and is the policy that it was.
    again, taken_up = run(None, file)
    assert again.identity == best.identity
    assert taken_up.equals(log)
    assert pd.DataFrame(told.values()).equals(log)
