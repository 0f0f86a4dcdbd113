"""Checkpoints are judged on held-out prompts, once, and the best becomes the policy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from toy_training import Toy
from vr_pipeline.checklist import checklist_from_mapping
from vr_pipeline.datasets.policy import PolicyDataset
from vr_pipeline.errors import InputError
from vr_pipeline.generators.policy import ORIGINAL, Policy
from vr_pipeline.identifiers import prompt_id
from vr_pipeline.items.filling import fill_folder
from vr_pipeline.judges.config import ChecklistInferenceParameters
from vr_pipeline.judges.training.config import TinyJudgeParameters
from vr_pipeline.judges.training.tiny import create_tiny_judge, words_of
from vr_pipeline.rewards.checklist.model import ChecklistReward
from vr_pipeline.rewards.checklist.weights import RewardWeights, equal_weights
from vr_pipeline.runtime.live_curves import checkpoint_row
from vr_pipeline.schemas import ValidationLog
from vr_pipeline.training import validation as module
from vr_pipeline.training.config import DpoTrainingParameters, ValidationParameters
from vr_pipeline.training.preference_trainer import Validation, train_on_pairs
from vr_pipeline.training.validation import CheckpointValidation, _gap, no_validation, validation_prompts
from vr_pipeline.vlm.config import JudgeParameters

QUESTIONS = [{"id": "red", "text": "is it red ?"}, {"id": "as_asked", "text": "does it show [[prompt]] ?"}]
CHECKLIST = checklist_from_mapping(
    {
        "name": "toy",
        "modality": "video",
        "dimensions": [{"name": "all", "sub_dimensions": [{"name": "all", "questions": QUESTIONS}]}],
    }
)
JUDGING = ChecklistInferenceParameters(max_median_outside_mass=1.0)
PAIRS = pd.DataFrame({"prompt_id": ["p"], "winner_video_id": ["w"], "loser_video_id": ["l"]})


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory, toy: Toy) -> JudgeParameters:
    folder = tmp_path_factory.mktemp("judge")
    words = words_of([*(question["text"] for question in QUESTIONS), *toy.conditions])
    create_tiny_judge(TinyJudgeParameters(initial_std=0.4, layers=1), words, seed=1).save(folder)
    return JudgeParameters(family="qwen2_vl", path=str(folder), device="cpu", threads=1)


@pytest.fixture
def saved() -> list[Path]:
    """Folders of the checkpoints whose weights were written."""
    return []


@pytest.fixture
def make(toy: Toy, judge: JudgeParameters, tmp_path: Path, saved: list[Path]) -> Callable[..., CheckpointValidation]:
    prompts = pd.DataFrame({"prompt": sorted(toy.conditions)})
    prompts["prompt_id"] = prompts["prompt"].map(prompt_id)
    prompts["split"] = ["train", "validation", "test"] * 2

    def build(pairs: pd.DataFrame = PAIRS, training: Any = None, **changes: Any) -> CheckpointValidation:
        weights = equal_weights(CHECKLIST).to_json() | {"answers": "probability"}
        parameters = DpoTrainingParameters(
            training=training or toy.parameters(checkpoint_every=2),
            validation=ValidationParameters(folder=str(tmp_path / "validation"), videos_per_prompt=2, **changes),
        )
        return CheckpointValidation(
            pairs,
            prompts,
            ChecklistReward(CHECKLIST, RewardWeights.from_json(weights), judge, JUDGING),
            parameters,
            fill=fill_folder,
            save=lambda folder, policy: saved.append(folder) or PolicyDataset(path=str(folder)).save(policy),
        )

    return build


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every load of a judge during the test."""
    import vr_pipeline.judges as judges

    seen: list[str] = []
    load = judges.load_judge

    def spy(config: Any) -> Any:
        seen.append(config.path)
        return load(config)

    monkeypatch.setattr(judges, "load_judge", spy)
    return seen


def test_prompts_are_those_of_the_splits_up_to_the_limit() -> None:
    table = pd.DataFrame({"prompt_id": list("dbca"), "prompt": list("dbca"), "split": ["validation"] * 3 + ["train"]})
    assert list(validation_prompts(table, ValidationParameters())["prompt_id"]) == ["b", "c", "d"]
    assert list(validation_prompts(table, ValidationParameters(num_prompts=2))["prompt_id"]) == ["b", "c"]
    assert len(validation_prompts(table, ValidationParameters(splits=["train", "validation"]))) == 4
    with pytest.raises(InputError, match="validation_fraction"):
        validation_prompts(table[table["split"] == "train"], ValidationParameters())


def test_the_best_checkpoint_is_the_policy_and_everything_is_recorded(
    toy: Toy, make: Callable[..., CheckpointValidation], loads: list[str]
) -> None:
    validation, told = make(keep_judge=True), []
    validation._observe = told.append
    generator = toy.generator()
    log = train_on_pairs(
        generator,
        toy.data,
        toy.parameters(checkpoint_every=2),
        validation=Validation(validation(generator)),
    )
    table = ValidationLog.validate(validation.table(log))
    assert list(table["step"]) == [0, 2, 4, 6]
    assert table["policy"].iloc[0] == ORIGINAL
    assert table["policy"].nunique() == 4
    assert (table["clips"] == 4).all()
    # Whoever looked on was told the same as each checkpoint was judged, the original first.
    assert [row["step"] for row in told] == [0, 2, 4, 6]
    assert [row["validation_reward"] for row in told] == table["reward"].tolist()
    means = [
        pd.DataFrame(json.loads(validation._record(step).read_text())["rewards"]).groupby(0)[1].mean()
        for step in table["step"]
    ]
    assert [float(mean.mean()) for mean in means] == pytest.approx(table["reward"].tolist())
    assert table[["gap_low", "gap_high"]].isna().all(axis=None)  # two prompts do not tell how far others differ
    assert [row["validation_dim_all"] for row in told] == table["dim_all"].tolist()
    assert told == [checkpoint_row(row) for row in table.to_dict("records")]
    assert table["reward"].nunique() > 1, "different weights give different clips"
    np.testing.assert_allclose(table["reward"], table["dim_all"], atol=1e-12)
    recorded = log.set_index("step")["validation_reward"].dropna()
    np.testing.assert_array_equal(recorded.to_numpy(), table["reward"].iloc[1:].to_numpy())
    best = table[table["chosen"]]
    assert len(best) == 1
    assert best["reward"].item() == table["reward"].iloc[1:].max()
    assert generator.policy().identity == best["policy"].item()
    assert len(loads) == 1, "the judge stayed in memory"

    # The rewards are those that the same weights get outside training.
    again = make()
    again(toy.generator())
    again._generator = generator
    assert again.reward(99) == best["reward"].item()
    assert len(loads) == 1, "nothing was judged a second time"


def test_a_second_training_judges_nothing_again_and_gives_the_same(
    toy: Toy, make: Callable[..., CheckpointValidation], loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = []
    sampled: list[int] = []
    sample = module.sample_items
    monkeypatch.setattr(module, "sample_items", lambda generator, items: sampled.append(1) or sample(generator, items))
    for _ in range(2):
        generator = toy.generator()
        validation = make()
        log = train_on_pairs(
            generator,
            toy.data,
            toy.parameters(checkpoint_every=3),
            validation=Validation(validation(generator)),
        )
        logs.append((log, validation.table(log), len(loads), len(sampled)))
    pd.testing.assert_frame_equal(logs[0][0], logs[1][0])
    pd.testing.assert_frame_equal(logs[0][1], logs[1][1])
    assert logs[0][2] == 3, "the judge was freed and loaded for each of the original and two checkpoints"
    assert logs[0][2:] == logs[1][2:]


def test_a_killed_training_keeps_what_was_judged(
    toy: Toy, make: Callable[..., CheckpointValidation], loads: list[str], tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    parameters = toy.parameters(checkpoint_every=2)
    arguments = (toy.data, parameters)
    whole_generator = toy.generator()
    whole_validation = make()
    whole = train_on_pairs(whole_generator, *arguments, validation=Validation(whole_validation(whole_generator)))
    expected = whole_validation.table(whole)

    generator, validation = toy.generator(), make()
    judge = validation(generator)

    def killed(step: int) -> float:
        if step == 4:
            raise Killed
        return judge(step)

    with pytest.raises(Killed):
        train_on_pairs(generator, *arguments, checkpoint=tmp_path / "state.safetensors", validation=Validation(killed))
    loads.clear()
    generator, validation = toy.generator(), make()
    steps: list[int] = []
    judge = validation(generator)
    log = train_on_pairs(
        generator,
        *arguments,
        checkpoint=tmp_path / "state.safetensors",
        validation=Validation(lambda step: steps.append(step) or judge(step)),
    )
    assert steps == [4, 6]
    assert loads == [], "the uninterrupted training had judged the same weights"
    pd.testing.assert_frame_equal(validation.table(log), expected)
    assert generator.policy().identity == whole_generator.policy().identity


def test_weights_of_a_checkpoint_make_the_clips_it_was_judged_by(
    toy: Toy, make: Callable[..., CheckpointValidation], tmp_path: Path
) -> None:
    generator, validation = toy.generator(), make()
    log = train_on_pairs(
        generator, toy.data, toy.parameters(checkpoint_every=2), validation=Validation(validation(generator))
    )
    table = validation.table(log)
    folder = tmp_path / "validation"
    clips = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.mp4")}
    step, identity = table.loc[~table["chosen"], ["step", "policy"]].iloc[-1]
    policy = PolicyDataset(path=str(validation._kept / identity)).load()
    assert policy.identity == identity
    assert policy.provenance["training"] == {"step": step}
    folder.rename(tmp_path / "judged in training")
    fresh = toy.generator()
    judge = make()(fresh)
    fresh.load_policy(policy)
    assert judge(99) == table.set_index("step")["reward"][step]
    again = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.mp4")}
    assert len(again) == 2 * 4, "those of the original and of the checkpoint"
    assert again.items() <= clips.items()


def test_a_killed_training_ends_with_the_weights_of_all_checkpoints(
    toy: Toy, make: Callable[..., CheckpointValidation], saved: list[Path], tmp_path: Path
) -> None:
    def run(until: int) -> CheckpointValidation:
        generator, validation = toy.generator(), make()
        judge, measure = validation(generator), validation._measure

        def killed(step: int, policy: Policy | None) -> dict[str, Any]:
            if step > until:
                raise KeyboardInterrupt  # the weights are there, and no result
            return measure(step, policy)

        validation._measure = killed
        state = tmp_path / "state.safetensors"
        train_on_pairs(
            generator, toy.data, toy.parameters(checkpoint_every=2), checkpoint=state, validation=Validation(judge)
        )
        return validation

    with pytest.raises(KeyboardInterrupt):
        run(until=2)
    assert len(saved) == 2
    times = {folder: folder.stat().st_mtime_ns for folder in saved}
    validation = run(until=6)
    kept = sorted(validation._kept.iterdir())
    assert len(kept) == len(saved) == 3, "what was there is not written again"
    assert sorted(saved) == kept
    assert all(folder.stat().st_mtime_ns == time for folder, time in times.items())
    steps = [PolicyDataset(path=str(folder)).load().provenance["training"]["step"] for folder in saved]
    assert steps == [2, 4, 6]


@pytest.mark.parametrize(
    ("method", "wanted", "count"), [("lora", None, 1), ("lora", False, 0), ("full", None, 0), ("full", True, 1)]
)
def test_weights_are_kept_of_adapters_or_as_asked(
    method: str, wanted: bool | None, count: int, toy: Toy, make: Callable[..., CheckpointValidation], saved: list[Path]
) -> None:
    generator = toy.generator()
    judge = make(keep_weights=wanted)(generator)
    if method == "lora":
        generator.add_adapter(rank=2, alpha=2.0, targets=None, seed=0)
    else:
        generator.train_all_weights(reference=False)
    judge(1)
    assert len(saved) == count
    assert all(PolicyDataset(path=str(folder)).load().identity == folder.name for folder in saved)


@pytest.mark.parametrize(("changes", "every"), [({"seed": 31}, 2), ({}, 3)], ids=["other clips", "other steps"])
def test_a_training_that_was_judged_otherwise_is_not_gone_on_with(
    changes: dict[str, int], every: int, toy: Toy, make: Callable[..., CheckpointValidation], tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    def run(validation: CheckpointValidation, every: int, until: int = 6) -> tuple[list[int], pd.DataFrame]:
        generator, steps = toy.generator(), []
        judge = validation(generator)

        def judged(step: int) -> float:
            if step > until:
                raise Killed
            steps.append(step)
            return judge(step)

        log = train_on_pairs(
            generator,
            toy.data,
            toy.parameters(checkpoint_every=every),
            checkpoint=tmp_path / "state.safetensors",
            validation=Validation(judged, validation.identity),
        )
        return steps, validation.table(log)

    with pytest.raises(Killed):
        run(make(), 2, until=4)
    steps, table = run(make(training=toy.parameters(checkpoint_every=every), **changes), every)
    assert steps == list(range(every, 7, every))
    assert list(table["step"]) == [0, *steps]


def test_results_that_were_deleted_meanwhile_do_not_end_a_training(
    toy: Toy, make: Callable[..., CheckpointValidation], caplog: pytest.LogCaptureFixture
) -> None:
    validation = make()
    validation(toy.generator())
    log = pd.DataFrame({"step": [1, 2, 3], "validation_reward": [np.nan, 1.0, 1.0]})
    table = ValidationLog.validate(validation.table(log))
    assert list(table["step"]) == [0]
    assert not table["chosen"].any()
    assert "Results of 2 judged checkpoints were deleted" in caplog.text
    validation._record(0).unlink()
    assert ValidationLog.validate(validation.table(log)).empty


def test_only_the_first_process_judges(
    toy: Toy, make: Callable[..., CheckpointValidation], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "some run")
    generator = toy.generator()
    judge = make()(generator)
    generator.add_adapter(rank=2, alpha=2.0, targets=None, seed=0)
    assert judge(1) is None
    assert not (tmp_path / "validation").exists()


def test_spread_weights_are_judged_as_whole_ones(
    toy: Toy, make: Callable[..., CheckpointValidation], loads: list[str]
) -> None:
    rewards = []
    for sharding in ("none", "fsdp2"):
        validation = make(training=toy.parameters(method="full", sharding=sharding))
        generator = toy.generator()
        judge = validation(generator)
        for value in generator.train_all_weights(reference=False):
            value.data.mul_(0.9)
        if sharding != "none":
            validation._folder = validation._folder.with_name("another")  # nothing of the first is there
        rewards.append(judge(1))
    assert rewards[0] == rewards[1]


def test_another_training_has_results_of_its_own(toy: Toy, make: Callable[..., CheckpointValidation]) -> None:
    places = set()
    for validation in (make(), make(PAIRS.assign(winner_video_id="x")), make(seed=31)):
        validation(toy.generator())
        places.add(validation._record(0))
    assert len(places) == 3
    for place in places:
        assert json.loads(place.read_text())["step"] == 0


def test_threads_and_kernels_are_as_training_left_them(toy: Toy, make: Callable[..., CheckpointValidation]) -> None:
    before, generator = torch.get_num_threads(), toy.generator()
    try:
        torch.set_num_threads(2)
        torch.use_deterministic_algorithms(True)
        make()(generator)
        assert torch.get_num_threads() == 2
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(False)


def test_a_training_without_validation_has_an_empty_table() -> None:
    assert ValidationLog.validate(no_validation()).empty


def test_how_far_a_checkpoint_is_from_the_chosen_one() -> None:
    ours, theirs = [1.0, 2.0, 4.0, 3.0, 6.0], [0.0, 2.0, 1.0, 2.0, 2.0]
    difference = np.subtract(ours, theirs)
    both = [[[f"p{i}", value] for i, value in enumerate(side)] for side in (ours, theirs)]
    both[0].append(["elsewhere", 100.0])
    half = stats.t.ppf(0.995, 4) * difference.std(ddof=1) / np.sqrt(5)
    assert _gap(*both, 0.99) == pytest.approx((difference.mean() - half, difference.mean() + half))
