"""Trainings of an ablation are items: stored one by one, taken up after a stop, read back as policies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from toy_training import Toy, make_toy
from vr_pipeline.errors import InputError, PipelineError
from vr_pipeline.evaluation.ablation import trainings as module
from vr_pipeline.evaluation.ablation.config import AblationParameters
from vr_pipeline.evaluation.ablation.trainings import plan_trainings, trained_policies, training_table
from vr_pipeline.items.filling import fill_folder
from vr_pipeline.items.folder import ItemFolder
from vr_pipeline.schemas import AblationTrainings
from vr_pipeline.training.config import DpoTrainingParameters
from vr_pipeline.training.shards import plan_shards

TENSORS = {"type": "safetensors", "framework": "torch"}
PARAMETERS = AblationParameters(objectives={"diffusion_dpo": {}, "mapo": {"loss": "mapo", "beta": 0.1}}, seeds=[0])


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return make_toy(tmp_path_factory.mktemp("model") / "micro")


def stored(toy: Toy, folder: Path, kind: str, tensors: dict[str, torch.Tensor]) -> ItemFolder:
    contents = {name: name for name in {key.partition("/")[0].replace(" ", "-") for key in tensors}}
    plan = plan_shards(
        kind, contents, lambda generator, names: tensors, toy.settings, part="text_encoder", settings=(), size=64
    )
    return fill_folder(folder, TENSORS, plan)


@pytest.fixture(scope="module")
def prepared(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, ItemFolder, ItemFolder]:
    folder = tmp_path_factory.mktemp("prepared")
    conditions = {
        f"{prompt}/{kind}": value for prompt, texts in toy.conditions.items() for kind, value in texts.items()
    }
    rows = [
        {"prompt_id": pair.prompt_id, "winner_video_id": pair.winner, "loser_video_id": pair.loser, "recipe": rule}
        for rule in PARAMETERS.pair_rules
        for pair in toy.pairs[: 6 if rule == "dpo" else 5]
    ]
    extra = dict.fromkeys(("prompt", "winner_sha256", "loser_sha256"), "x") | {
        "winner_reward": 1.0,
        "loser_reward": 0.0,
    }
    latents = stored(toy, folder / "latents", "latents", toy.latents)
    return pd.DataFrame(rows).assign(**extra), latents, stored(toy, folder / "prompts", "prompts", conditions)


def plan(toy: Toy, prepared: Sequence[Any], parameters: AblationParameters = PARAMETERS, **changes: Any) -> Any:
    pipeline = DpoTrainingParameters(training=toy.parameters(steps=2, **changes))
    return plan_trainings(*prepared, toy.settings, pipeline, parameters), pipeline


def test_trainings_are_stored_one_by_one_and_only_what_is_missing_is_trained_again(
    toy: Toy, prepared: Sequence[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []
    real = module._train

    def counting(pairs: pd.DataFrame, *arguments: Any) -> Any:
        trained.append(len(pairs))
        if len(trained) == 3:
            raise KeyboardInterrupt
        return real(pairs, *arguments)

    monkeypatch.setattr(module, "_train", counting)
    with pytest.raises(KeyboardInterrupt):
        fill_folder(tmp_path / "policies", TENSORS, plan(toy, prepared)[0])
    work, pipeline = plan(toy, prepared)
    folder = fill_folder(tmp_path / "policies", TENSORS, work)
    # Two before the stop, the one that was stopped twice, and the last.
    assert trained == [6, 6, 5, 5, 5]
    policies = trained_policies(folder, toy.settings, pipeline, PARAMETERS)
    assert list(policies) == [f"{rule}.{loss}.seed0" for rule in ("dpo", "mpo") for loss in ("diffusion_dpo", "mapo")]
    assert len({policy.identity for policy in policies.values()}) == 4
    table = AblationTrainings.validate(training_table(folder, PARAMETERS))
    assert table["steps"].tolist() == [2, 2, 2, 2]
    assert table["loss"].notna().all()


def test_a_policy_read_back_is_the_one_that_was_trained(toy: Toy, prepared: Sequence[Any], tmp_path: Path) -> None:
    one = PARAMETERS.model_copy(update={"pair_rules": ["dpo"], "objectives": {"diffusion_dpo": {}}})
    work, pipeline = plan(toy, prepared, one)
    (policy,) = trained_policies(fill_folder(tmp_path, TENSORS, work), toy.settings, pipeline, one).values()
    generator = toy.generator()
    generator.load_policy(policy)
    again = generator.policy()
    assert again.config == policy.config  # type: ignore[union-attr]
    assert again.identity == policy.identity


def test_a_training_that_breaks_is_recorded_and_others_go_on(
    toy: Toy, prepared: Sequence[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vr_pipeline.training import policies as training

    real = training.train_policy_on_pairs

    def breaking(data: Any, generator: Any, parameters: DpoTrainingParameters) -> Any:
        if parameters.training.loss == "mapo":
            raise PipelineError("The loss is not finite.")
        return real(data, generator, parameters)

    monkeypatch.setattr(training, "train_policy_on_pairs", breaking)
    parameters = PARAMETERS.model_copy(update={"pair_rules": ["mpo"]})
    work, pipeline = plan(toy, prepared, parameters)
    folder = fill_folder(tmp_path, TENSORS, work)
    assert list(trained_policies(folder, toy.settings, pipeline, parameters)) == ["mpo.diffusion_dpo.seed0"]
    table = AblationTrainings.validate(training_table(folder, parameters))
    assert table["error"].tolist() == ["", "The loss is not finite."]


def test_another_setting_is_another_training_and_whole_models_are_rejected(toy: Toy, prepared: Sequence[Any]) -> None:
    first, second = (plan(toy, prepared, **changes)[0].items for changes in ({}, {"learning_rate": 1e-4}))
    assert {item.key for item in first} == {item.key for item in second}
    assert not {item.identity for item in first} & {item.identity for item in second}
    with pytest.raises(InputError, match="adapters"):
        plan(toy, prepared, method="full")
