"""The training of a UnifiedReward: what it learns, what a step computes, and that a kill leaves no trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import tiny_unified_training as tiny
from plain_likelihood import plain_log_likelihoods
from tiny_unified_training import tables, train, weights
from tiny_unifiedreward import toy_template
from vr_pipeline.engine import loop
from vr_pipeline.engine.config import LoopParameters
from vr_pipeline.engine.groups import Group
from vr_pipeline.errors import InputError
from vr_pipeline.rewards.training.clips import TrainingClips
from vr_pipeline.rewards.training.parameters import for_samples
from vr_pipeline.rewards.unifiedreward.training.asking import alike, all_visuals, clip_maker
from vr_pipeline.rewards.unifiedreward.training.items import MIRRORED
from vr_pipeline.rewards.unifiedreward.training.labelled import label_items
from vr_pipeline.rewards.unifiedreward.training.reading import Read, read_items
from vr_pipeline.rewards.unifiedreward.training.start import Start
from vr_pipeline.rewards.unifiedreward.training.task import UnifiedRewardTask, train_unified_reward
from vr_pipeline.schemas import TrainingLog, UnifiedRewardReport


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return tiny.write_model(tmp_path_factory.mktemp("tiny") / "model")


def make_task(start: dict[str, Any], **changes: Any) -> UnifiedRewardTask:
    settings = tiny.parameters(start, **changes)
    items, index = tables()
    begin = Start.of(settings)
    family = begin.load(settings)
    clips = TrainingClips(
        tiny.read, clip_maker(family, begin.template), begin.sampling(family), memory_mb=100, threads=1
    )
    return UnifiedRewardTask(
        family, begin.template, label_items(items, index, begin.template, settings), clips, settings
    )


def gradients(task: UnifiedRewardTask, step: int = 1) -> tuple[float, list[torch.Tensor], dict[str, torch.Tensor]]:
    trained = task.weights()
    loss, statistics = task.step(step, Group())
    found = [torch.zeros_like(weight) if weight.grad is None else weight.grad.clone() for weight in trained]
    for weight in trained:
        weight.grad = None
    return float(loss), found, dict(statistics)


def written_answer(task: UnifiedRewardTask, row: int, turned: bool) -> str:
    """The right answer of an item as the template writes it."""
    item = task.items.table.iloc[row]
    if item["form"] == "point":
        return str(int(float(item["answer"])))
    answer = MIRRORED[item["answer"]] if turned else item["answer"]
    return str(getattr(task.template.pair(item["task"]).answers, answer))


def test_a_step_is_the_mean_of_whole_answers_by_the_plain_model(start: dict[str, Any]) -> None:
    options = {"batch_size": 8}
    whole, parts = make_task(start, **options), make_task(start, **options, micro_batch_size=2)
    (value, found, told), (in_parts, found_in_parts, told_in_parts) = gradients(whole), gradients(parts)
    # By hand: item by item, the sum over the answer's tokens, from one forward of the transformers class each.
    family, losses, decided = whole.family, [], []
    for shown in whole._batch(1):
        names = whole.requests.clips(shown.row)
        ready = dict(zip(names, whole.clips.prepared(names), strict=True))
        asked = whole.requests.to_learn(shown.row, ready, turned=shown.turned)
        answer = asked.request.answers[asked.right]
        text = written_answer(whole, shown.row, shown.turned)
        assert tuple(family.text_ids(text))[-len(answer) + 1 :] == answer[:-1]
        (logs,) = plain_log_likelihoods(
            family, all_visuals(ready), type(asked.request)(asked.request.pieces, (answer,)), dict.fromkeys(names, 4.0)
        )
        losses.append(-logs.sum())
        item = whole.items.table.iloc[shown.row]
        if item["form"] == "pair" and item["answer"] != "tie":
            decided.append((MIRRORED[item["answer"]] if shown.turned else item["answer"]) == "first")
    expected = torch.stack(losses).mean()
    expected.backward()
    assert value == pytest.approx(float(expected.detach()), rel=1e-5)
    assert in_parts == pytest.approx(value, rel=1e-5)
    for weight, gradient, other in zip(whole.weights(), found, found_in_parts, strict=True):
        by_hand = torch.zeros_like(weight) if weight.grad is None else weight.grad
        torch.testing.assert_close(gradient, by_hand, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(other, gradient, rtol=1e-3, atol=1e-5)
    assert max(float(gradient.abs().max()) for gradient in found) > 1e-2
    assert {name: float(number) for name, number in told.items()} == pytest.approx(
        {name: float(number) for name, number in told_in_parts.items()}, rel=1e-5
    )
    assert float(told["first_is_better"]) == pytest.approx(np.mean(decided))


def test_it_learns_its_items_by_heart_and_is_the_same_from_its_folder(start: dict[str, Any], tmp_path: Path) -> None:
    import vr_pipeline as vr

    trained = train(
        start,
        given=tables(tiny.PROMPTS[:6]),
        held_out={"validation_share": 0.2, "test_share": 0.3, "bootstrap_samples": 20},
        steps=60,
        batch_size=24,
        learning_rate=4e-3,
        warmup_steps=5,
        checkpoint_every=30,
        source_weights={"described": 0.5},
    )
    assert trained.log["loss"].iloc[-5:].mean() < 0.5 < 4 < trained.log["loss"].iloc[0]
    assert trained.log["pair_accuracy"].iloc[-5:].mean() > 0.9
    UnifiedRewardReport.validate(trained.report)
    TrainingLog.validate(trained.log)
    kinds = set(zip(trained.report["task"], trained.report["form"], strict=True))
    assert len(kinds) == 4
    figures = trained.summary["by_task"]["video_generation_pair"]
    assert figures["always_tie"] is not None
    assert 0 < trained.summary["first_is_better"] < 1
    trained.save(tmp_path)
    reward = vr.load_reward_model({"type": "unifiedreward", "path": str(tmp_path), "device": "cpu"})
    frames = [tiny.frames_of(f"red ball/{level}") for level in (0, 3)]
    scores = reward.score(frames, ["red ball"] * 2, 4.0)
    # Brighter is better in both lines.
    assert scores["dim_look"][1] > scores["dim_look"][0] + 3
    said = vr.load_ranker(tmp_path).compare(frames[:1], frames[1:], ["red ball"], 4.0)
    assert said["better"][0] == "b"


def test_same_weights_twice_and_after_a_kill(
    start: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"lora": {"rank": 2, "alpha": 4, "dropout": 0.2}, "language": "lora", "patience": 9}
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
    items, index = tables()
    # The order of rows changes nothing.
    resumed = train(start, given=(items.iloc[::-1], index.iloc[::-1]), **kept)
    assert steps == [3, 4, 5, 6]
    for name in ("log", "report"):
        pd.testing.assert_frame_equal(getattr(resumed, name), getattr(whole, name))
    first, second = weights(whole), weights(resumed)
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert resumed.artifact.model_dump() == whole.artifact.model_dump()
    # Another label is another training.
    steps.clear()
    train(start, **kept)
    assert steps == []
    tied = (items["form"] == "pair") & (items["task"] == "video_generation")
    train(start, given=(items.assign(answer=items["answer"].where(~tied, "tie")), index), **kept)
    assert steps[0] == 1


@pytest.mark.parametrize(
    ("changes", "moved"),
    [
        ({"vision": "full", "language": "frozen"}, ("model.visual.",)),
        ({"vision": "frozen", "language": "lora", "lora": {"rank": 2, "alpha": 4}}, ("_proj.weight",)),
        ({"vision": "frozen", "language": "full"}, ("model.language_model.", "lm_head.")),
    ],
    ids=["vision", "lora", "language"],
)
def test_frozen_parts_stay_equal_in_every_bit(
    changes: dict[str, Any], moved: tuple[str, ...], start: dict[str, Any]
) -> None:
    settings = tiny.parameters(start)
    before = Start.of(settings).load(settings).model.state_dict()
    after = weights(train(start, steps=1, checkpoint_every=0, **changes))
    changed = {name for name in after if not np.array_equal(before[name].numpy(), after[name])}
    assert changed
    assert all(any(part in name for part in moved) for name in changed)
    assert all(any(part in name for name in changed) for part in moved)


def test_held_out_items_are_read_in_both_orders_as_the_plain_model_says(start: dict[str, Any]) -> None:
    task = make_task(start)
    rows = np.concatenate(
        [task.items.rows("train", task=one, form=form)[:2] for one, form in task.items.kinds("train")]
    )
    read = Read.of(read_items(task.family, task.requests, task.clips, rows.tolist(), batch=3))
    again = task.read(rows, Group())
    np.testing.assert_allclose(again.right, read.right, atol=1e-5)
    for at, row in enumerate(rows.tolist()):
        names = task.requests.clips(row)
        ready = dict(zip(names, task.clips.prepared(names), strict=True))

        def sums(asked: Any, ready: Any = ready, names: Any = names) -> np.ndarray:
            rates = dict.fromkeys(names, 4.0)
            logs = plain_log_likelihoods(task.family, all_visuals(ready), asked.request, rates)
            return np.array([float(one.detach().double().sum()) for one in logs])

        if task.requests.is_pair(row):
            one, other = (np.exp(sums(task.requests.pair(row, ready, turned=turned))) for turned in (False, True))
            first, second = one / one.sum(), other / other.sum()
            np.testing.assert_allclose(read.probabilities[at, 0, : len(first)], first, atol=1e-5)
            np.testing.assert_allclose(read.probabilities[at, 1, :2], second[:2][::-1], atol=1e-5)
            mean = (first[:2] + second[:2][::-1]) / 2
            assert read.lead[at] == pytest.approx(mean[0] - mean[1], abs=1e-5)
            assert read.position_bias[at] == pytest.approx((first[0] - second[1]) / 2, abs=1e-5)
        else:
            logs = sums(task.requests.point(row, ready))
            shares = np.exp(logs) / np.exp(logs).sum()
            assert read.score[at] == pytest.approx(float(shares @ task.requests.values(row)), abs=1e-4)
            assert read.mass[at] == pytest.approx(np.exp(logs).sum(), abs=1e-5)
            assert task.requests.values(row)[task.items.table["right"][row]] == float(task.items.table["answer"][row])


def test_requests_are_padded_to_their_like() -> None:
    assert alike([10, 100, 11, 20, 21, 60, 10]) == [[0, 6, 2, 3], [4], [5, 1]]
    assert alike([]) == []


def test_training_goes_on_from_a_reward(start: dict[str, Any], tmp_path: Path) -> None:
    train(start, steps=1, checkpoint_every=0).save(tmp_path)
    items, index = tables()
    settings = tiny.parameters(
        start,
        start=None,
        template=None,
        start_reward={"path": str(tmp_path), "device": "cpu"},
        steps=1,
        checkpoint_every=0,
        held_out={"validation_share": 0.2, "test_share": 0.0, "bootstrap_samples": 0},
    )
    trained = train_unified_reward(items, index, tiny.read, settings)
    assert trained.artifact.template.identity == toy_template().identity
    assert trained.summary["report_is_on_validation"]
    assert trained.artifact.provenance["start"] == Start.of(settings).identity


def test_settings_that_contradict_each_other_are_rejected(start: dict[str, Any]) -> None:
    for changes, message in (
        ({"template": None}, "give 'template' with 'start' only"),
        ({"start": None, "template": None}, "give either 'start'"),
        ({"micro_batch_size": 3}, "not a multiple of micro_batch_size"),
        ({"source_weights": {"made": -1.0}}, "finite numbers of 0 or more"),
    ):
        with pytest.raises(ValueError, match=message):
            tiny.parameters(start, **changes)
    assert for_samples(tiny.parameters(start, epochs=2, warmup_share=0.1), 80.0).steps == 40
    with pytest.raises(InputError, match="no training item has a weight"):
        train(start, source_weights={"made": 0.0, "rated": 0.0, "described": 0.0})
