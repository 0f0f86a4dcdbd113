"""DPO of a tiny vision-language model: what a step computes, what is learned and saved, what a kill leaves."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import tiny_vlm
from plain_likelihood import plain_inputs, plain_log_likelihoods
from vr_pipeline.engine import loop
from vr_pipeline.engine.config import LoopParameters
from vr_pipeline.engine.groups import Group
from vr_pipeline.errors import InputError
from vr_pipeline.schemas import ResponsePairs, TrainingLog
from vr_pipeline.understanding.answering import Answerer
from vr_pipeline.understanding.media import QuestionMedia
from vr_pipeline.understanding.policy import RECORD, TrainedAdapter, trained_model
from vr_pipeline.understanding.task import ResponseTask, pairs_by_side, train_vlm
from vr_pipeline.vlm.loading import load_family


class World:
    """The tiny model, its clips, questions and pairs."""

    def __init__(self, folder: Path) -> None:
        self.model = tiny_vlm.write_model(folder / "model")
        self.media = tiny_vlm.write_clips(folder / "clips")
        self.index = tiny_vlm.index(self.media, tiny_vlm.parameters(self.model))
        self.pairs = ResponsePairs.validate(tiny_vlm.pairs(self.index))

    def train(self, **changes: Any) -> Any:
        given = tiny_vlm.parameters(self.model, training=changes)
        return train_vlm(self.pairs, self.index, self.media, given)

    def task(self, **changes: Any) -> ResponseTask:
        given = tiny_vlm.parameters(self.model, training=changes)
        torch.manual_seed(0)
        answerer = Answerer.load(given.model, given.dialogue)
        media = QuestionMedia(self.media, self.index)
        return ResponseTask(answerer, pairs_by_side(self.pairs, self.index), media, given.training)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("vlm"))


def disturb(task: ResponseTask) -> None:
    """Give the trained weights other values, so that policy and reference differ."""
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in task.weights():
            weight.add_(0.1 * torch.randn(weight.shape, generator=random))


def test_a_step_is_the_formula_over_plain_forwards(world: World) -> None:
    task = world.task(beta=0.3, batch_size=4, micro_batch_size=2)
    weights = task.weights()
    task.read_reference(Group())
    disturb(task)
    loss, said = task.step(1, Group())
    found = [weight.grad.clone() for weight in weights]
    for weight in weights:
        weight.grad = None
    rows = task._batch(1)
    assert len(set(rows)) == 4
    names = [str(task.table["question_id"].iloc[row]) for row in rows]
    visuals = dict(zip(names, task.clips.prepared(names), strict=True))
    task.family.model.eval()
    losses, right = [], 0
    for row in rows:
        chosen, rejected = (one.sum() for one in plain_log_likelihoods(task.family, visuals, task.requests[row]))
        reference = task.reference[row]
        margin = 0.3 * ((chosen - reference[0]) - (rejected - reference[1]))
        losses.append(-torch.log(torch.sigmoid(margin)))
        right += bool(margin > 0)
    expected = torch.stack(losses).mean()
    expected.backward()
    assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert float(said["accuracy"]) == right / 4
    assert max(float(weight.grad.abs().max()) for weight in weights) > 1e-4
    for weight, other in zip(weights, found, strict=True):
        torch.testing.assert_close(other, weight.grad, rtol=1e-4, atol=1e-6)


def test_trl_gives_the_same_loss_and_gradients(world: World, tmp_path: Path) -> None:
    """Against trl's DPOTrainer, which is fed the same tokens, pixels and positions by a collator of its own."""
    trl = pytest.importorskip("trl")
    from datasets import Dataset
    from peft import LoraConfig, set_peft_model_state_dict

    task = world.task(beta=0.2, batch_size=1)
    weights = task.weights()
    task.read_reference(Group())
    disturb(task)
    loss, _ = task.step(1, Group())
    ours = {
        f"base_model.model.{name}": weight.grad
        for name, weight in task.family.model.named_parameters()
        if weight.grad is not None
    }
    (row,) = task._batch(1)
    name = str(task.table["question_id"].iloc[row])
    visuals = dict(zip([name], task.clips.prepared([name]), strict=True))
    request = task.requests[row]
    family = load_family(tiny_vlm.parameters(world.model).model)

    def collate(_: list[Any]) -> dict[str, torch.Tensor]:
        sides = [plain_inputs(family, visuals, request, answer, {}) for answer in request.answers]
        length = max(side["input_ids"].shape[1] for side in sides)

        def stacked(key: str, axis: int = 0) -> torch.Tensor:
            padded = [torch.nn.functional.pad(side[key], (0, length - side[key].shape[-1])) for side in sides]
            return torch.cat(padded, dim=axis)

        answers = [
            torch.tensor([[0] * (side["input_ids"].shape[1] - len(answer)) + [1] * len(answer)])
            for side, answer in zip(sides, request.answers, strict=True)
        ]
        return {
            "input_ids": stacked("input_ids"),
            "attention_mask": stacked("attention_mask"),
            "position_ids": stacked("position_ids", axis=1),
            "completion_mask": torch.cat([torch.nn.functional.pad(one, (0, length - one.shape[1])) for one in answers]),
            **{key: torch.cat([side[key] for side in sides]) for key in ("pixel_values_videos", "video_grid_thw")},
        }

    class WithClips(trl.DPOTrainer):  # type: ignore[misc,name-defined]
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    adapter = TrainedAdapter.of(task.family, task.parameters.lora, tiny_vlm.parameters(world.model).model)
    settings = adapter.config
    trainer = WithClips(
        family.model,
        args=trl.DPOConfig(
            output_dir=str(tmp_path),
            beta=0.2,
            use_cpu=True,
            report_to="none",
            bf16=False,
            gradient_checkpointing=False,
            remove_unused_columns=False,
            max_steps=1,
        ),
        train_dataset=Dataset.from_dict({"chosen": ["-"], "rejected": ["-"]}),
        processing_class=family.tokenizer,
        peft_config=LoraConfig(
            r=settings["r"], lora_alpha=settings["lora_alpha"], target_modules=settings["target_modules"]
        ),
        data_collator=collate,
    )
    loaded = set_peft_model_state_dict(trainer.model, adapter.tensors)
    assert not loaded.unexpected_keys
    theirs = trainer.compute_loss(trainer.model, collate([]))
    theirs.backward()
    assert float(theirs.detach()) == pytest.approx(float(loss), rel=1e-5)
    named = {name: weight.grad for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    assert named.keys() == ours.keys()
    assert len(weights) == len(ours) > 20
    for key, gradient in ours.items():
        torch.testing.assert_close(named[key], gradient, rtol=1e-4, atol=1e-6)


def test_it_learns_and_its_adapter_is_the_same_in_plain_transformers(world: World, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import Qwen2VLForConditionalGeneration

    trained = world.train(steps=30, batch_size=8, learning_rate=5e-3)
    TrainingLog.validate(trained.log)
    assert float(trained.log["loss"].iloc[0]) == pytest.approx(math.log(2), abs=1e-4)
    assert trained.log["accuracy"].iloc[-5:].mean() > 0.9
    assert trained.summary["validation_accuracy"] > 0.7
    assert trained.summary["best_step"] in set(trained.log["step"][trained.log["validation_log_likelihood"].notna()])
    trained.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        RECORD,
        "checksums.sha256",
    }
    # The model before training, plain, with the adapter beside it.
    base = Qwen2VLForConditionalGeneration.from_pretrained(world.model["path"])
    plain = PeftModel.from_pretrained(base, str(tmp_path)).eval()
    given = tiny_vlm.parameters(world.model)
    loaded = load_family(trained_model(given.model, tmp_path))
    task = world.task()
    name = str(task.table["question_id"].iloc[0])
    visuals = {name: task.clips.prepared([name])[0]}
    request = task.requests[0]
    with torch.no_grad():
        merged = plain_log_likelihoods(trained.family, visuals, request)
        again = plain_log_likelihoods(loaded, visuals, request)
        task.family.model = plain.base_model.model
        beside = plain_log_likelihoods(task.family, visuals, request)
        before = plain_log_likelihoods(load_family(given.model), visuals, request)
    for one, two, three, start in zip(merged, again, beside, before, strict=True):
        torch.testing.assert_close(two, one, rtol=0, atol=2e-5)
        torch.testing.assert_close(three, one, rtol=0, atol=2e-5)
        assert float((one - start).abs().max()) > 0.01
    record = json.loads((tmp_path / RECORD).read_text(encoding="utf-8"))
    assert record["type"] == "adapter"
    assert record["beta"] == 0.1
    # A flipped byte is noticed.
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(InputError, match="missing or damaged"):
        trained_model(given.model, tmp_path)


def test_same_bits_twice_and_after_a_kill(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"lora": {"rank": 2, "alpha": 4, "dropout": 0.2}}
    whole, real = world.train(**options), loop.learning_rate

    def killed(step: int, given: LoopParameters) -> float:
        if step == 4:
            raise KeyboardInterrupt
        return real(step, given)

    kept = options | {"checkpoint_folder": str(tmp_path / "checkpoints")}
    monkeypatch.setattr(loop, "learning_rate", killed)
    with pytest.raises(KeyboardInterrupt):
        world.train(**kept)
    steps: list[int] = []
    monkeypatch.setattr(loop, "learning_rate", lambda step, given: steps.append(step) or real(step, given))
    resumed = world.train(**kept)
    assert steps == [3, 4, 5, 6]
    pd.testing.assert_frame_equal(resumed.log, whole.log)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    whole.save(tmp_path / "one")
    resumed.save(tmp_path / "two")
    for path in sorted((tmp_path / "one").iterdir()):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name
    # Another response is another training.
    steps.clear()
    world.train(**kept)
    assert steps == []
    other = World.__new__(World)
    other.__dict__ = world.__dict__ | {"pairs": world.pairs.assign(rejected="no")}
    other.train(**kept)
    assert steps[0] == 1


def test_all_weights_of_the_language_model(world: World, tmp_path: Path) -> None:
    trained = world.train(lora=None, steps=3)
    assert trained.adapter is None
    trained.save(tmp_path)
    given = tiny_vlm.parameters(world.model).model
    loaded = load_family(trained_model(given, tmp_path))
    start = dict(load_family(given).model.named_parameters())
    changed = {name for name, weight in loaded.model.named_parameters() if not torch.equal(weight, start[name])}
    assert any("language_model" in name for name in changed)
    assert not any("visual" in name for name in changed)
    assert any("lm_head" in name or "embed_tokens" in name for name in changed)


def test_pairs_of_test_questions_and_of_unreadable_clips_are_left_out(world: World) -> None:
    sides = pairs_by_side(world.pairs, world.index)
    held_out = set(world.index.loc[world.index["split"] == "test", "question_id"])
    assert held_out
    assert held_out.isdisjoint(pd.concat(sides.values())["question_id"])
    failed = world.index.assign(status=np.where(world.index["question_id"] == "red-0", "failed", "ok"))
    assert "red-0" not in set(pd.concat(pairs_by_side(world.pairs, failed).values())["question_id"])
    with pytest.raises(InputError, match="none of 24 pairs belongs to a training question"):
        pairs_by_side(world.pairs, world.index.assign(split="test"))


def test_what_cannot_be_trained_is_rejected(world: World) -> None:
    alike = World.__new__(World)
    alike.__dict__ = world.__dict__ | {"pairs": world.pairs.assign(chosen="unheard", rejected="unseen")}
    with pytest.raises(InputError, match="the same tokens"):
        alike.task()
    with pytest.raises(InputError, match="3 processes cannot share the 2 passes"):
        tiny_vlm.parameters(world.model, training={"micro_batch_size": 2}).training.check_processes(3)
    with pytest.raises(ValueError, match="merge it first"):
        tiny_vlm.parameters({**world.model, "adapter": "x"})
    with pytest.raises(ValueError, match="quantised"):
        tiny_vlm.parameters({**world.model, "quantisation": "8bit"})
