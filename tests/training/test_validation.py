"""Checkpoints are judged on held-out prompts, once, and the best becomes the policy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from toy_training import Toy
from vr_pipeline.checklist import checklist_from_mapping
from vr_pipeline.datasets.manifest import ManifestFolderDataset
from vr_pipeline.datasets.policy import PolicyDataset
from vr_pipeline.errors import InputError
from vr_pipeline.generators.policy import ORIGINAL, Adapter, Policy
from vr_pipeline.identifiers import content_hash, prompt_id
from vr_pipeline.items.filling import fill_folder
from vr_pipeline.items.video_index import index_made_clips
from vr_pipeline.judges.config import ChecklistInferenceParameters
from vr_pipeline.judges.training.config import TinyJudgeParameters
from vr_pipeline.judges.training.tiny import create_tiny_judge, words_of
from vr_pipeline.rewards.checklist.halves import OTHER_HALF
from vr_pipeline.rewards.checklist.model import ChecklistReward
from vr_pipeline.rewards.checklist.weights import RewardWeights, equal_weights
from vr_pipeline.rewards.named import RewardModelParameters
from vr_pipeline.runtime.live_curves import checkpoint_row
from vr_pipeline.schemas import ValidationLog
from vr_pipeline.training import bound, reward_hacking
from vr_pipeline.training import validation as module
from vr_pipeline.training.bound import BELOW, dimensions_below
from vr_pipeline.training.checkpoint_reward import ChecklistParts, CheckpointReward
from vr_pipeline.training.config import DpoTrainingParameters, ValidationParameters
from vr_pipeline.training.judged import _gap, kept_step, no_validation, validation_prompts
from vr_pipeline.training.policies import train_policy_on_pairs
from vr_pipeline.training.preference_trainer import Validation, train_on_pairs
from vr_pipeline.training.reward_hacking import ALARM
from vr_pipeline.training.validation import CheckpointValidation, PolicyFiles
from vr_pipeline.vlm.config import JudgeParameters

QUESTIONS = [{"id": "red", "text": "is it red ?"}, {"id": "as_asked", "text": "does it show [[prompt]] ?"}]
CHECKLIST = checklist_from_mapping(
    {
        "name": "toy",
        "modality": "video",
        "dimensions": [{"name": "all", "sub_dimensions": [{"name": "all", "questions": QUESTIONS}]}],
    }
)
SHARPNESS = {"sharpness": RewardModelParameters(type="signals", total="sharpness")}
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

    def build(
        pairs: pd.DataFrame = PAIRS, training: Any = None, hold_outs: Any = None, **changes: Any
    ) -> CheckpointValidation:
        weights = equal_weights(CHECKLIST).to_json() | {"answers": "probability"}
        parameters = DpoTrainingParameters(
            training=training or toy.parameters(checkpoint_every=2),
            validation=ValidationParameters(
                folder=str(tmp_path / "validation"), videos_per_prompt=2, hold_outs=hold_outs or {}, **changes
            ),
        )
        return CheckpointValidation(
            pairs,
            prompts,
            ChecklistReward(CHECKLIST, RewardWeights.from_json(weights), judge, JUDGING),
            parameters,
            fill=fill_folder,
            hold_outs={name: other.model() for name, other in (hold_outs or {}).items()},
            files=PolicyFiles(
                lambda folder, policy: saved.append(folder) or PolicyDataset(path=str(folder)).save(policy),
                lambda folder: PolicyDataset(path=str(folder)).load(),
            ),
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


def test_a_hold_out_measures_the_same_clips_and_chooses_nothing(
    toy: Toy, make: Callable[..., CheckpointValidation], tmp_path: Path
) -> None:

    def trained(validation: CheckpointValidation) -> pd.DataFrame:
        generator = toy.generator()
        parameters = toy.parameters(checkpoint_every=2)
        log = train_on_pairs(generator, toy.data, parameters, validation=Validation(validation(generator)))
        return ValidationLog.validate(validation.table(log))

    other = SHARPNESS["sharpness"].model()
    validation = make(hold_outs=SHARPNESS)
    table = trained(validation)
    for row in table.to_dict("records"):
        place = validation._folder / "clips" / content_hash("checkpoint", toy.generator().identity, row["policy"])
        form = {"type": "video", "fps": toy.generator().parameters.fps}
        videos = ManifestFolderDataset(path=str(place / "videos"), format=form).load()
        index = index_made_clips(videos)
        measured = fill_folder(place / "again", {"type": "table"}, other.measure(videos, index))
        expected = other.rewards(other.collect(measured, index), index)["total"].mean()
        assert row["hold_out_sharpness"] == pytest.approx(expected)
    assert (table["hold_out_sharpness_se"] > 0).any()
    without = make()
    without._folder = tmp_path / "without"
    alone = trained(without)
    assert "hold_out_sharpness" not in alone
    pd.testing.assert_frame_equal(alone, table[alone.columns])


def test_the_other_half_of_the_questions_uses_the_answers_of_the_judge(
    toy: Toy, make: Callable[..., CheckpointValidation], judge: JudgeParameters
) -> None:
    documents = [
        RewardWeights(("red", "as_asked"), np.array(values), checklist_hash=CHECKLIST.hash).to_json()
        for values in ([1.0, 0.0], [0.0, 2.0])
    ]
    parts = ChecklistParts(
        checklist=CHECKLIST, weights=documents[0] | {OTHER_HALF: documents[1]}, judge=judge, judging=JUDGING
    )
    stored = CheckpointReward.model_validate_json(CheckpointReward(prompts=[], reward=parts).model_dump_json())
    settings = ValidationParameters(hold_out_questions=True, hold_outs=SHARPNESS)
    hold_outs = stored.hold_outs(settings)
    assert sorted(hold_outs) == [OTHER_HALF, "sharpness"]
    validation = make()
    validation._reward, validation._hold_outs = stored.model(), {OTHER_HALF: hold_outs[OTHER_HALF]}
    log = train_on_pairs(
        generator := toy.generator(),
        toy.data,
        toy.parameters(checkpoint_every=2),
        validation=Validation(validation(generator)),
    )
    table = validation.table(log)
    assert len(table) > 1
    for row in table.to_dict("records"):
        place = validation._folder / "clips" / content_hash("checkpoint", toy.generator().identity, row["policy"])
        assert sorted(path.name for path in place.iterdir() if path.is_dir()) == ["answers", "videos"], "judged once"
        answers = ManifestFolderDataset(path=str(place / "answers"), format={"type": "table"}).load()
        index = index_made_clips(
            ManifestFolderDataset(
                path=str(place / "videos"), format={"type": "video", "fps": toy.generator().parameters.fps}
            ).load()
        )
        by_question = hold_outs[OTHER_HALF].collect(answers, index).groupby("question_id")["p_yes"].mean()
        assert row["reward"] == pytest.approx(by_question["red"])
        assert row["hold_out_other_half"] == pytest.approx(2 * by_question["as_asked"])
    for reward in (stored.reward.model_copy(update={"weights": documents[0]}), SHARPNESS["sharpness"], None):
        with pytest.raises(InputError, match="questions to half"):
            stored.model_copy(update={"reward": reward}).hold_outs(settings)
    assert stored.hold_outs(ValidationParameters()) == {}


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


def alarmed(monkeypatch: pytest.MonkeyPatch, at: int, since: int) -> None:
    """Raise an alarm at a step."""
    found = {"hold_out": "sharpness", "dimension": "total", "since_step": since, "change": -1.0, "p_value": 0.001}
    monkeypatch.setattr(reward_hacking, "find_alarm", lambda records, *_: found if records[-1]["step"] == at else None)


def trained_with_alarm(
    toy: Toy, make: Callable[..., CheckpointValidation], action: str, state: Path | None = None
) -> tuple[CheckpointValidation, Policy, pd.DataFrame]:
    """Train with three checkpoints; with two prompts an alarm is possible only at such a level."""
    training = toy.parameters(checkpoint_every=2)
    validation = make(training=training, hold_outs=SHARPNESS, alarm={"action": action, "level": 0.99})
    parameters = validation._parameters.model_copy(update={"checkpoint_folder": str(state) if state else None})
    policy, log = train_policy_on_pairs(toy.data, toy.settings, parameters, validation=validation)
    return validation, policy, log


def test_an_alarm_only_shows_what_it_does_not_act_on(
    toy: Toy,
    make: Callable[..., CheckpointValidation],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    _, without, _ = trained_with_alarm(toy, make, "report")
    shutil.rmtree(tmp_path / "validation")
    alarmed(monkeypatch, at=4, since=2)
    validation, policy, log = trained_with_alarm(toy, make, "report")
    table = ValidationLog.validate(validation.table(log))
    assert policy.identity == without.identity
    assert [bool(text) for text in table["alarm"]] == [False, False, True, False]
    assert "since step 2" in table["alarm"].iloc[2]
    assert "Alarm for reward hacking after step 4" in caplog.text
    assert log.set_index("step")[ALARM].dropna().to_dict() == {4: 2.0}


@pytest.mark.parametrize(("action", "judged"), [("choose", [0, 2, 4, 6]), ("stop", [0, 2, 4])])
@pytest.mark.parametrize("since", [2, 0])
def test_an_alarm_goes_back_to_a_checkpoint_before_the_fall_and_may_end_the_training(
    action: str,
    judged: list[int],
    since: int,
    toy: Toy,
    make: Callable[..., CheckpointValidation],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    alarmed(monkeypatch, at=4, since=since)
    # The judge likes every checkpoint better than the one before.
    monkeypatch.setattr(module.CheckpointValidation, "reward", _rising(module.CheckpointValidation.reward))
    validation, policy, log = trained_with_alarm(toy, make, action, tmp_path / "states")
    table = ValidationLog.validate(validation.table(log))
    assert list(table["step"]) == judged
    assert table.set_index("step")["chosen"].to_dict() == {step: step == since for step in judged}
    assert policy.provenance["training"]["chosen"] == {"kept_step": since}
    if since:
        assert policy.identity == table.set_index("step")["policy"][since]
    else:
        assert isinstance(policy, Adapter)
        assert all(not value.any() for name, value in policy.tensors.items() if "lora_B" in name)
    # A second run takes the result, and the same checkpoint of it.
    _, again, log_again = trained_with_alarm(toy, make, action, tmp_path / "states")
    assert again.identity == policy.identity
    pd.testing.assert_frame_equal(log_again, log)
    if since:
        shutil.rmtree(validation._kept)
        with pytest.raises(InputError, match="alarm and bound of the validation choose"):
            trained_with_alarm(toy, make, action, tmp_path / "states")


@pytest.mark.parametrize(("rejected", "kept"), [((4, 6), 2), ((2, 4, 6), 0)])
def test_a_checkpoint_with_a_dimension_below_the_original_is_not_chosen(
    rejected: tuple[int, ...],
    kept: int,
    toy: Toy,
    make: Callable[..., CheckpointValidation],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module.CheckpointValidation, "reward", _rising(module.CheckpointValidation.reward))
    answers = iter(["all"] if step in rejected else [] for step in (2, 4, 6))
    seen = []
    monkeypatch.setattr(bound, "dimensions_below", lambda *found: seen.append(found) or next(answers))
    validation = make(training=toy.parameters(checkpoint_every=2), bound="mean")
    policy, log = train_policy_on_pairs(toy.data, toy.settings, validation._parameters, validation=validation)
    table = ValidationLog.validate(validation.table(log)).set_index("step")
    assert table["chosen"].to_dict() == {step: step == kept for step in (0, 2, 4, 6)}
    assert table["below"].to_dict() == {step: "all" if step in rejected else "" for step in (0, 2, 4, 6)}
    assert log.set_index("step")[BELOW].dropna().to_dict() == {step: float(step in rejected) for step in (2, 4, 6)}
    assert policy.provenance["training"]["chosen"] == {"kept_step": kept}
    if kept:
        assert policy.identity == table["policy"][kept]
    for step in rejected:
        assert f"The checkpoint after step {step} is not chosen: all below the original" in caplog.text
    # Each is compared with the original, in the means by prompt that its own record has.
    assert [kind for _, _, kind in seen] == ["mean"] * 3
    assert all(before == seen[0][1] for _, before, _ in seen)
    assert np.mean(list(seen[0][1]["dim_all"].values())) == pytest.approx(table["dim_all"][0])


@settings(max_examples=60, deadline=None)
@given(
    rewards=st.lists(st.integers(0, 4), min_size=1, max_size=6),
    below=st.lists(st.booleans(), min_size=6, max_size=6),
    alarm=st.sampled_from([None, 0, 1, 3]),
    failed=st.sampled_from([None, 0, 2]),
)
def test_the_kept_step_is_the_first_best_that_is_allowed(
    rewards: list[int], below: list[bool], alarm: int | None, failed: int | None
) -> None:
    steps = range(1, len(rewards) + 1)
    log = pd.DataFrame({"step": steps, "validation_reward": rewards, BELOW: [float(x) for x in below[: len(rewards)]]})
    log[ALARM] = np.where(np.arange(len(log)) == len(log) - 1, np.nan if alarm is None else alarm, np.nan)
    if failed is not None:
        log["kept_step"] = np.where(np.arange(len(log)) == len(log) - 1, float(failed), np.nan)
    last = min(x for x in (len(rewards), alarm, failed) if x is not None)
    allowed = [step for step in steps if step <= last and not below[step - 1]]
    first = failed if failed is not None else 1 + rewards.index(max(rewards))
    kept = first <= last and (first == 0 or (first <= len(rewards) and not below[first - 1]))
    expected = first if kept else max(allowed, key=lambda step: rewards[step - 1], default=0)
    if failed is None or failed <= len(rewards):
        assert kept_step(log, alarms=True, bound=True) == expected
    assert kept_step(log) == first


def test_a_dimension_is_below_by_its_mean_or_by_its_interval() -> None:
    prompts = [f"p{number}" for number in range(6)]
    before = {name: dict.fromkeys(prompts, 1.0) for name in ("total", "dim_a", "dim_b", "dim_c")}
    moved = {
        "total": dict.fromkeys(prompts, -9.0),
        "dim_a": dict(zip(prompts, [1.0 - 0.1 * k for k in range(1, 7)], strict=True)),
        "dim_b": dict(zip(prompts, [1.5, 1.5, 1.5, -1.0, 0.5, 0.9], strict=True)),
        "dim_c": dict.fromkeys(prompts, 1.0) | {"elsewhere": -50.0},
    }
    assert dimensions_below(moved, before, "mean") == ["a", "b"]
    assert dimensions_below(moved, before, "interval") == ["a"]
    half = stats.t.ppf(1 - 0.025 / 3, 5) * np.std([0.1 * k for k in range(1, 7)], ddof=1) / np.sqrt(6)
    for shift, expected in ((half - 1e-6, []), (half + 1e-6, ["a"])):
        centred = dict(zip(prompts, [1.35 - 0.1 * k - shift for k in range(1, 7)], strict=True))
        assert dimensions_below(moved | {"dim_a": centred}, before, "interval") == expected
    few = {name: dict(list(values.items())[:4]) for name, values in moved.items()}
    assert dimensions_below(few, before, "interval") == []


def _rising(judge: Callable[[CheckpointValidation, int], float | None]) -> Callable[..., float]:
    def reward(validation: CheckpointValidation, step: int) -> float:
        judge(validation, step)
        return float(step)

    return reward


def test_alarms_that_act_make_another_training(make: Callable[..., CheckpointValidation]) -> None:
    plain, reported, acting = (
        make(hold_outs=SHARPNESS, alarm={"action": action, "level": 0.99}).identity if action else make().identity
        for action in ("", "report", "stop")
    )
    assert plain == reported != acting


def test_too_few_prompts_for_an_alarm_are_reported(
    toy: Toy, make: Callable[..., CheckpointValidation], caplog: pytest.LogCaptureFixture
) -> None:
    make(hold_outs=SHARPNESS, alarm={"action": "stop"})(toy.generator())
    assert "2 validation prompts cannot show that a held-out reward falls. 6 can, for 3 checkpoints" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hold_outs": {}}, "needs validation.hold_outs"),
        ({"keep_weights": False}, "set validation.keep_weights to true"),
    ],
)
def test_an_alarm_that_acts_needs_hold_outs_and_weights(changes: dict[str, Any], message: str) -> None:
    settings = {"hold_outs": {"sharpness": {"type": "signals"}}, "alarm": {"action": "choose"}} | changes
    with pytest.raises(ValueError, match=message):
        DpoTrainingParameters(validation=settings)
    DpoTrainingParameters(validation={"hold_out_questions": True, "alarm": {"action": "choose"}})
    with pytest.raises(ValueError, match=r"bound: mean goes back .* set validation.keep_weights to true"):
        DpoTrainingParameters(validation={"bound": "mean", "keep_weights": False})
