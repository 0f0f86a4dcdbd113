"""Training of latent rewards: one time and noise for both clips, reproducible, resumed and shared to the same end."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import tiny_latent_reward
from tiny_latent_reward import Given, parameters, scores_of
from two_processes import in_two_processes
from vr_pipeline import schemas
from vr_pipeline.engine import loop
from vr_pipeline.engine.groups import Group
from vr_pipeline.errors import InputError
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.latent_reward import LatentReward, LatentRewardSettings
from vr_pipeline.rewards.videoreward.losses import bradley_terry_with_ties_loss
from vr_pipeline.training.latent_reward.data import LatentPairs, noise_pairs
from vr_pipeline.training.latent_reward.report import noise_deviations, report_by_noise
from vr_pipeline.training.latent_reward.task import LatentRewardTask, even_times
from vr_pipeline.training.latent_reward.training import TrainedLatentReward, train_latent_reward


@pytest.fixture(params=["given", "wan"])
def either(request: pytest.FixtureRequest) -> Given:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


def test_both_clips_have_the_same_time_and_noise(either: Given) -> None:
    data, generator = either.pairs(), load_generator(either.settings)
    pairs = data.pairs[:5]
    draws = [(number, (0.25, 0.5)) for number in range(5)]
    found = noise_pairs(generator, data, pairs, draws, seed=1)
    first, second = found.timesteps.chunk(2)
    assert torch.equal(first, second)
    low, high = generator.timesteps_at(torch.tensor([0.25, 0.5]))
    assert ((first >= low) & (first <= high)).all()
    # What is not the clip is the same noise on both sides, and not that of another pair.
    latents = torch.stack([either.latents[pair.clips[side]] for side in (0, 1) for pair in pairs])
    clean = generator.add_noise(latents, torch.zeros_like(latents), found.timesteps)
    noise = (found.noised - clean).chunk(2)
    torch.testing.assert_close(noise[0], noise[1], rtol=0, atol=1e-5)
    assert not torch.allclose(noise[0][0], noise[0][1], atol=1e-2)
    for name, value in found.condition.items():
        assert torch.equal(value[0], either.conditions[pairs[0].prompt_id][name][0])


def test_draws_depend_on_the_pair_alone(given: Given) -> None:
    data, generator = given.pairs(), load_generator(given.settings)
    pairs, draws = data.pairs[:4], [(3, (0.0, 1.0))] * 4
    together = noise_pairs(generator, data, pairs, draws, seed=1).noised
    alone = noise_pairs(generator, data, pairs[2:3], draws[2:3], seed=1).noised
    assert torch.equal(together[[2, 6]], alone)
    assert not torch.equal(alone, noise_pairs(generator, data, pairs[2:3], [(4, (0.0, 1.0))], seed=1).noised)
    apart = noise_pairs(generator, data, pairs, draws, seed=1, one_noise=False).noised
    assert torch.equal(apart[:4], together[:4])
    assert not torch.equal(apart[4:], together[4:])


def new_task(given: Given, **changes: Any) -> LatentRewardTask:
    data, generator = given.pairs(**changes), load_generator(given.settings)
    settings = LatentRewardSettings(
        dimensions=data.names,
        network=parameters(**changes).network,
        base=generator.weights_identity,  # type: ignore[attr-defined]
    )
    return LatentRewardTask(LatentReward(generator, settings, 2), data, parameters(**changes))


def test_a_steps_loss_is_that_of_bradley_and_terry(given: Given) -> None:
    task = new_task(given)
    found, _ = task.step(1, Group())
    chosen = [task.order[position] for position in range(4)]
    values = []
    for pair, epoch in chosen:
        batch = noise_pairs(task.generator, task.data, [pair], [(epoch, (0.0, 1.0))], task.parameters.seed)
        with torch.no_grad():
            first, second = task.reward.scores(batch.noised, batch.timesteps, batch.condition)
        label = torch.from_numpy(task.data.label[pair.row]).float()
        values.append(bradley_terry_with_ties_loss(first - second, label, 5.0))
    assert float(found) == pytest.approx(float(torch.stack(values).mean()), rel=1e-4)


@pytest.mark.parametrize("change", [{"micro_batch_size": 2}, {"micro_batch_size": 1, "gradient_checkpointing": True}])
def test_parts_of_a_step_add_up(given: Given, change: dict[str, Any]) -> None:
    whole, parts = new_task(given), new_task(given, **change)
    for task in (whole, parts):
        task.step(1, Group())
    for one, other in zip(whole.weights(), parts.weights(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-6)


def test_it_learns_what_the_clips_show(either: Given) -> None:
    network = {"blocks": 2, "pooling": "attention"}
    found = either.train(network=network, steps=40, batch_size=12, checkpoint_every=20, loss="bt")
    report = schemas.LatentRewardReport.validate(found.report)
    assert list(report["dimension"].unique()) == ["light", "motion", "all"]
    low = report[report["time_from"] == 0.0].set_index("dimension")
    assert low.loc["light", "accuracy"] > 0.85
    assert found.summary["by_dimension"]["light"]["accuracy"] > 0.75


def test_a_low_rank_update_is_trained_alone(given: Given, tmp_path: Path) -> None:
    found = given.train(network={"blocks": 1, "lora": {"rank": 2, "alpha": 2.0}}, steps=2)
    assert all("lora_" in name or name.startswith("head.") for name in found.reward.named_weights())
    found.save(tmp_path)
    generator = load_generator(given.settings)
    assert LatentReward.load(tmp_path, generator).identity == found.reward.identity


def test_the_same_training_gives_the_same_weights_whatever_the_order(
    given: Given, trained: TrainedLatentReward
) -> None:
    data = given.pairs()
    shuffled = LatentPairs(
        data.table.sample(frac=1.0, random_state=3, ignore_index=True), data.latents, data.conditions
    )
    again = train_latent_reward(shuffled, given.settings, parameters())
    assert again.reward.identity == trained.reward.identity
    pd.testing.assert_frame_equal(again.log, trained.log)
    pd.testing.assert_frame_equal(again.report, trained.report)
    assert trained.log["validation_accuracy"].notna().sum() == 3


class Stopped(BaseException):
    """What a kill looks like from inside."""


def test_a_killed_training_resumes_to_the_same_weights(
    given: Given, trained: TrainedLatentReward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    step = LatentRewardTask.step

    def killed(self: LatentRewardTask, number: int, group: Group) -> Any:
        if number == 4 and number not in seen:
            seen.append(number)
            raise Stopped
        seen.append(number)
        return step(self, number, group)

    monkeypatch.setattr(LatentRewardTask, "step", killed)
    with pytest.raises(Stopped):
        given.train(checkpoint_folder=str(tmp_path))
    found = given.train(checkpoint_folder=str(tmp_path))
    assert seen == [1, 2, 3, 4, 3, 4, 5, 6]
    assert found.reward.identity == trained.reward.identity
    pd.testing.assert_frame_equal(found.log, trained.log)
    # A finished training is taken up and not done again.
    monkeypatch.setattr(loop._Loop, "run", lambda self: pytest.fail("trained again"))
    assert given.train(checkpoint_folder=str(tmp_path)).reward.identity == trained.reward.identity


@pytest.mark.slow
def test_two_processes_train_what_one_does(given: Given, trained: TrainedLatentReward, tmp_path: Path) -> None:
    (tmp_path / "given.pickle").write_bytes(pickle.dumps(given))
    expected = scores_of(given, trained)
    assert expected.std(dim=0).min() > 0.01
    # Not by weights: a bias of keys changes nothing, so that its gradient is rounding, which AdamW enlarges.
    for scores, log, report in in_two_processes(tiny_latent_reward.train_in_group, str(tmp_path)):
        torch.testing.assert_close(scores, expected, rtol=0, atol=1e-3)
        np.testing.assert_allclose(log["loss"], trained.log["loss"], rtol=1e-3)
        pd.testing.assert_frame_equal(report, trained.report, rtol=0.05)


def test_the_report_counts_what_is_in_the_right_order() -> None:
    label = np.array([[1.0, np.nan], [-1.0, 0.0], [1.0, -1.0]])
    scores = np.zeros((3, 2, 2, 2))
    scores[:, 0, 0, 0] = [1.0, 1.0, 2.0]  # right, wrong, right in the first bin and dimension
    scores[2, 1, 1, 1] = 1.0  # right in the second bin and dimension; the rest is undecided, which is wrong
    apart = -scores
    held_out = parameters().held_out
    bins = {(0.0, 0.5): 0.3, (0.5, 1.0): 0.9}
    found = report_by_noise(scores, apart, label, ["p", "q", "q"], ["x", "y"], bins, held_out)
    values = found.set_index(["dimension", "time_from"])
    assert values.loc[("x", 0.0), "accuracy"] == pytest.approx(2 / 3)
    assert values.loc[("x", 0.0), "accuracy_apart"] == pytest.approx(1 / 3)
    assert values.loc[("y", 0.5), ["n", "accuracy", "accuracy_apart"]].tolist() == [1, 1.0, 0.0]
    assert values.loc[("all", 0.0), ["n", "prompts", "accuracy"]].tolist() == [4, 2, 0.5]
    assert values.loc[("all", 0.5), "noise_deviation"] == 0.9


def test_bins_have_the_noise_of_their_middle(either: Given) -> None:
    generator = load_generator(either.settings)
    bins = even_times((0.0, 1.0), 4)
    assert bins == [(0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0)]
    found = list(noise_deviations(generator, bins).values())
    if either.settings.family == "wan":
        assert found == pytest.approx([0.125, 0.375, 0.625, 0.875])
    assert found == sorted(found)


def test_pairs_without_numbers_are_left_out(given: Given) -> None:
    data = given.pairs()
    clip = data.pairs[0].clips[0]
    kept = data.usable({clip}, set())
    assert clip not in {*kept.table["video_id_a"], *kept.table["video_id_b"]}
    assert kept.label.shape[0] == len(kept.table) < len(data.table)
    without = {name: value for name, value in given.latents.items() if name != clip}
    with pytest.raises(InputError, match="not encoded"):
        LatentPairs(data.table, without, data.conditions).usable(set(), set())
    with pytest.raises(InputError, match="of every pair"):
        data.usable(set(given.latents), set())


def test_half_precision_is_rejected(given: Given) -> None:
    half = given.settings.model_copy(update={"dtype": "float16"})
    with pytest.raises(InputError, match="float16"):
        train_latent_reward(given.pairs(), half, parameters())
