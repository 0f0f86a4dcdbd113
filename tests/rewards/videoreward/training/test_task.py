"""The training of a VideoReward: what it learns, what stays as it is, and that a kill leaves no trace."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import tiny_rewards
from tiny_rewards import tables, train, weights
from vr_pipeline.engine import loop
from vr_pipeline.engine.config import LoopParameters
from vr_pipeline.engine.groups import Group
from vr_pipeline.errors import InputError
from vr_pipeline.rewards.training.clips import TrainingClips, shown_frames
from vr_pipeline.rewards.training.parameters import for_samples
from vr_pipeline.rewards.videoreward.network import load_network
from vr_pipeline.rewards.videoreward.settings import read_artifact
from vr_pipeline.rewards.videoreward.training.labels import label_pairs
from vr_pipeline.rewards.videoreward.training.start import start_network
from vr_pipeline.rewards.videoreward.training.task import PreferenceRewardTask
from vr_pipeline.schemas import PreferenceRewardReliability, PreferenceRewardReport, TrainingLog
from vr_pipeline.video.clip import VideoReadError
from vr_pipeline.video.sampled import SampledClip, Sampling


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return tiny_rewards.write_model(tmp_path_factory.mktemp("tiny") / "model")


def make_task(start: dict[str, Any], **changes: Any) -> PreferenceRewardTask:
    settings = tiny_rewards.parameters(start, **changes)
    preferences, index = tables()
    network = start_network(settings)
    clips = TrainingClips(
        tiny_rewards.read,
        network.family.prepare,
        shown_frames(network.family, settings.start),
        memory_mb=100,
        threads=1,
    )
    pairs = label_pairs(preferences, index, network.settings.dimensions, settings)
    return PreferenceRewardTask(network, pairs, clips, settings)


def gradients(task: PreferenceRewardTask) -> tuple[float, list[torch.Tensor]]:
    trained = task.weights()
    loss, _ = task.step(1, Group())
    found = [torch.zeros_like(weight) if weight.grad is None else weight.grad.clone() for weight in trained]
    for weight in trained:
        weight.grad = None
    return float(loss), found


def test_it_learns_sixteen_pairs_by_heart_and_is_the_same_from_its_folder(
    start: dict[str, Any], tmp_path: Path
) -> None:
    preferences, index = tables()
    held = {"held_out": {"validation_share": 0.3, "test_share": 0.3, "bootstrap_samples": 20}}
    trained = train(
        start,
        given=(preferences, index),
        **held,
        loss="bt",
        steps=60,
        batch_size=16,
        learning_rate=3e-3,
        warmup_steps=5,
        checkpoint_every=20,
    )
    assert trained.log["accuracy"].iloc[-5:].mean() > 0.98
    assert trained.log["loss"].iloc[-1] < 0.1 < 0.5 < trained.log["loss"].iloc[0]
    for schema, table in (
        (PreferenceRewardReport, trained.report),
        (PreferenceRewardReliability, trained.reliability),
        (TrainingLog, trained.log),
    ):
        schema.validate(table)
    assert trained.report["dimension"].tolist() == ["visual", "text", "total"]
    counts = trained.summary["pairs"]
    assert sum(counts[split]["pairs"] for split in counts) == len(preferences) == 36
    # Brightness is learned for prompts that were never seen.
    report = trained.report.set_index("dimension")
    assert report.loc["visual", "accuracy_without_ties"] > 0.8
    trained.save(tmp_path)
    artifact = read_artifact(tmp_path)
    assert artifact.calibration == trained.calibration
    assert artifact.calibration.seen.frames_per_second == (2.0, pytest.approx(8 / 3))
    again = load_network(tmp_path, device="cpu")
    clips = [again.family.prepare(tiny_rewards.frames_of(f"red ball/{level}"), 2.0) for level in (0, 3)]
    with torch.no_grad():
        found = again.scores(clips, ["red ball"] * 2)
        expected = trained.network.scores(clips, ["red ball"] * 2)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert bool((found[1] > found[0]).all())


def test_same_weights_twice_and_after_a_kill(
    start: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"learn_theta": True, "lora": {"rank": 2, "alpha": 4, "dropout": 0.2}, "language": "lora", "patience": 9}
    kept = options | {"checkpoint_folder": str(tmp_path)}
    whole, real = train(start, **options), loop.learning_rate

    def killed(step: int, given: LoopParameters) -> float:
        if step == 4:
            raise KeyboardInterrupt
        return real(step, given)

    monkeypatch.setattr(loop, "learning_rate", killed)
    with pytest.raises(KeyboardInterrupt):
        train(start, **kept)
    steps: list[int] = []
    monkeypatch.setattr(loop, "learning_rate", lambda step, given: steps.append(step) or real(step, given))
    resumed = train(start, **kept)
    assert steps == [3, 4, 5, 6]
    for name in ("log", "report", "reliability"):
        pd.testing.assert_frame_equal(getattr(resumed, name), getattr(whole, name))
    first, second = weights(whole), weights(resumed)
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert resumed.calibration == whole.calibration
    # Another label is another training.
    steps.clear()
    preferences, index = tables()
    train(start, **kept)
    assert steps == []
    turned = preferences.assign(preference_visual=preferences["preference_visual"].map({"a": "b", "b": "a"}))
    train(start, given=(turned, index), **kept)
    assert steps[0] == 1


def test_the_order_of_rows_and_which_clip_is_first_change_nothing(start: dict[str, Any]) -> None:
    preferences, index = tables()
    mirror = {"a": "b", "b": "a", "tie": "tie"}
    turned = preferences.assign(
        video_id_a=preferences["video_id_b"],
        video_id_b=preferences["video_id_a"],
        grade_a_visual=preferences["grade_b_visual"],
        grade_b_visual=preferences["grade_a_visual"],
        **{name: preferences[name].map(mirror) for name in preferences.columns if name.startswith("preference")},
    )
    first = weights(train(start, given=(preferences, index), steps=2))
    second = weights(train(start, given=(turned.iloc[::-1], index.iloc[::-1]), steps=2))
    assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("loss", ["bt", "btt", "regression"])
def test_gradients_of_a_step_are_those_of_the_mean_over_labels_that_are_there(loss: str, start: dict[str, Any]) -> None:
    network = {
        **tiny_rewards.NETWORK,
        "dimensions": tiny_rewards.NETWORK["dimensions"][: 1 if loss == "regression" else 2],
    }
    options = {"loss": loss, "theta": 3.0, "batch_size": 8, "network": network}
    whole, parts = make_task(start, **options), make_task(start, **options, micro_batch_size=2)
    (value, found), (value_in_parts, found_in_parts) = gradients(whole), gradients(parts)
    # The same by hand: pair by pair, each clip on its own, labels from the table.
    total, count = torch.zeros(()), 0
    sign = {"a": 1.0, "b": -1.0, "tie": 0.0}
    preferences = tables()[0].set_index("pair_id")
    for row in whole._batch(1):
        said = preferences.loc[whole.pairs.table["pair_id"][row]]
        scores = [
            whole.network.scores(whole.clips.prepared([said[f"video_id_{end}"]]), [said["prompt"]], one_pass=True)[0]
            for end in "ab"
        ]
        for at, name in enumerate(whole.network.settings.names):
            label = said[f"preference_{name}"]
            d = scores[0][at] - scores[1][at]
            if loss == "regression":
                for end, score in zip("ab", scores, strict=True):
                    total, count = total + (score[at] - (said[f"grade_{end}_{name}"] - 3)) ** 2, count + 1
            elif isinstance(label, str) and (loss == "btt" or label != "tie"):
                if label == "tie":
                    p = 8 * torch.sigmoid(d - math.log(3)) * torch.sigmoid(-d - math.log(3))
                else:
                    p = torch.sigmoid(sign[label] * d - (math.log(3) if loss == "btt" else 0))
                total, count = total - p.log(), count + 1
    (total / count).backward()
    assert value == pytest.approx(float(total / count), rel=1e-5)
    assert value_in_parts == pytest.approx(value, rel=1e-5)
    for weight, gradient, other in zip(whole.weights(), found, found_in_parts, strict=True):
        expected = torch.zeros_like(weight) if weight.grad is None else weight.grad
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(other, gradient, rtol=1e-3, atol=1e-6)
    assert max(float(gradient.abs().max()) for gradient in found) > 1e-3


@pytest.mark.parametrize(
    ("changes", "moved"),
    [
        ({"vision": "frozen", "language": "frozen"}, ()),
        ({"vision": "full", "language": "frozen"}, ("model.visual.",)),
        (
            {"vision": "frozen", "language": "lora", "lora": {"rank": 2, "alpha": 4, "target_modules": ["q_proj"]}},
            ("self_attn.q_proj.weight",),
        ),
        ({"vision": "frozen", "language": "full"}, ("model.language_model.",)),
    ],
    ids=["tokens-and-head", "vision", "lora", "language"],
)
def test_frozen_parts_stay_equal_in_every_bit(
    changes: dict[str, Any], moved: tuple[str, ...], start: dict[str, Any]
) -> None:
    before = start_network(tiny_rewards.parameters(start))
    trained = train(start, steps=2, **changes)
    first = {name: value.numpy() for name, value in before.family.model.state_dict().items()}
    second = {name: value.numpy() for name, value in trained.network.family.model.state_dict().items()}
    assert first.keys() == second.keys()
    changed = {name for name in first if not np.array_equal(first[name], second[name])}
    if moved:
        assert changed
        assert all(any(part in name for part in moved) for name in changed)
        assert not any("visual" in name for name in changed) or moved == ("model.visual.",)
    else:
        assert changed == set()
    for name, weight in trained.network.own_weights.items():
        assert not torch.equal(weight, before.own_weights[name]), name
        assert not weight.requires_grad


def test_each_part_moves_at_its_own_rate(start: dict[str, Any]) -> None:
    rates = {"learning_rate": 1e-4, "token_learning_rate": 1e-2, "head_learning_rate": 1e-3}
    before = start_network(tiny_rewards.parameters(start))
    trained = train(start, steps=1, weight_decay=0.0, **rates)
    # The first step of AdamW is as long as its rate, wherever there is a gradient.
    for name, rate in (("token_rows", 1e-2), ("head.weight", 1e-3)):
        step = (trained.network.own_weights[name] - before.own_weights[name]).abs()
        assert float(step.max()) == pytest.approx(rate, rel=1e-2)
    name = "model.language_model.layers.0.self_attn.v_proj.weight"
    step = trained.network.family.model.state_dict()[name] - before.family.model.state_dict()[name]
    assert float(step.abs().max()) == pytest.approx(1e-4, rel=1e-2)


def test_a_trained_width_of_ties_is_reported_and_stays_above_one(start: dict[str, Any]) -> None:
    fixed = train(start, steps=3, theta=4.0)
    assert fixed.log["theta"].tolist() == [4.0] * 3
    # At this rate a plain number would be far below 1 after three steps.
    learned = train(start, steps=12, theta=1.2, learn_theta=True, theta_learning_rate=1.0)
    assert learned.log["theta"].iloc[0] == pytest.approx(1.2)
    assert (learned.log["theta"] > 1.0).all()
    assert learned.log["theta"].nunique() == 12
    assert learned.summary["theta"] > 1.0
    assert "theta" not in train(start, steps=1, loss="bt", learn_theta=True).log


def test_checkpointing_of_activations_changes_nothing_but_rounding(start: dict[str, Any]) -> None:
    plain, kept = make_task(start), make_task(start, gradient_checkpointing=True)
    (value, found), (other_value, other) = gradients(plain), gradients(kept)
    assert kept.network.family.model.is_gradient_checkpointing
    assert other_value == pytest.approx(value, rel=1e-6)
    for first, second in zip(found, other, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-7)


def test_reduced_precision_trains_float32_weights_and_leaves_the_models_own(start: dict[str, Any]) -> None:
    reduced = {**start, "dtype": "bfloat16"}
    task = make_task(reduced, language="lora", lora={"rank": 2, "alpha": 4})
    assert {weight.dtype for weight in task.weights()} == {torch.float32}
    _, found = gradients(task)
    assert max(float(gradient.abs().max()) for gradient in found) > 0
    trained = train(reduced, steps=2, language="lora", lora={"rank": 2, "alpha": 4})
    assert {weight.dtype for weight in trained.network.family.model.parameters()} == {torch.bfloat16}
    assert np.isfinite(trained.log["loss"]).all()


def test_training_goes_on_from_a_reward(start: dict[str, Any], tmp_path: Path) -> None:
    first = train(start, steps=4)
    (tmp_path / "first").mkdir()
    first.save(tmp_path / "first")
    block = {"path": str(tmp_path / "first"), "device": "cpu"}
    second = train(start, steps=1, learning_rate=1e-9, **{"start": None, "network": None, "start_reward": block})
    for name, weight in weights(first).items():
        np.testing.assert_allclose(weights(second)[name], weight, atol=1e-6)
    assert second.provenance["start"] != first.provenance["start"]


def test_epochs_and_shares_become_steps(start: dict[str, Any]) -> None:
    settings = for_samples(tiny_rewards.parameters(start, epochs=2, warmup_share=0.05, batch_size=8), 100)
    assert (settings.steps, settings.warmup_steps) == (25, 1)
    task = make_task(start, epochs=2)
    rows = [row for step in range(1, task.parameters.steps + 1) for row in task._batch(step)]
    assert all(rows.count(row) in (2, 3) for row in task.rows)
    # Each epoch has its own order, and a later step can be asked for first.
    assert make_task(start)._batch(5) == task._batch(5)
    assert task._batch(1) != sorted(task._batch(1))


def test_clips_that_cannot_be_read_are_set_aside_and_counted(
    start: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    broken = "red ball/3"

    def reading(video_id: str, sampling: Sampling) -> SampledClip:
        if video_id == broken:
            raise VideoReadError("it ends in the middle", remedy="Give it again", file=video_id)
        return tiny_rewards.read(video_id, sampling)

    trained = train(start, reading=reading, steps=1)
    assert trained.summary["left_out"]["pairs"] == 2
    assert "ends in the middle" in trained.summary["left_out"]["examples"][0]["reason"]
    assert "2 of 36 pairs are ignored" in caplog.text

    def nothing(video_id: str, sampling: Sampling) -> SampledClip:
        raise VideoReadError("it ends in the middle", remedy="Give it again", file=video_id)

    with pytest.raises(InputError, match="none of the 36 pairs has two readable clips"):
        train(start, reading=nothing, steps=1)


def test_passes_that_cannot_be_shared_are_rejected(start: dict[str, Any]) -> None:
    settings = tiny_rewards.parameters(start, batch_size=12, micro_batch_size=4)
    settings.check_processes(3)
    with pytest.raises(InputError, match="2 processes cannot share the 3 passes of a step evenly"):
        settings.check_processes(2)
    with pytest.raises(ValueError, match="not a multiple of micro_batch_size"):
        tiny_rewards.parameters(start, batch_size=10, micro_batch_size=4)
    with pytest.raises(ValueError, match="either 'start'"):
        tiny_rewards.parameters(start, start_reward={"path": "x"})
