"""One setting, ``from: trained``, has a system use the judge or reward that was trained here; by default none does."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline
from pydantic import ValidationError

from vr_pipeline.errors import InputError
from vr_pipeline.hooks.trained_models import TRAINED, check_trained_models
from vr_pipeline.pipeline_registry import register_pipelines
from vr_pipeline.pipelines.systems import MPO_DPO
from vr_pipeline.project.places import stored_at
from vr_pipeline.rewards.named import RewardModelParameters
from vr_pipeline.vlm.config import ChecklistJudgeParameters, JudgeParameters

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = ("base", "flow", "image", "unified")
USERS = {"judge": "mpo_dpo", "reward_model": "videoreward_dpo", "unified_reward_model": "unified_dpo"}
MODELS: dict[str, Any] = {
    "judge": ChecklistJudgeParameters,
    "reward_model": RewardModelParameters,
    "unified_reward_model": RewardModelParameters,
}


@pytest.fixture(scope="module")
def pipelines() -> dict[str, Pipeline]:
    return register_pipelines()


@cache
def loader(environment: str, *trained: str) -> Any:
    """The configuration, read once, in which these blocks take the trained model, as by --params=BLOCK.from=trained."""
    from vr_pipeline.settings import CONFIG_LOADER_ARGS, CONFIG_LOADER_CLASS

    given = {block: {"from": "trained"} for block in trained}
    return CONFIG_LOADER_CLASS(str(ROOT / "conf"), env=environment, runtime_params=given, **CONFIG_LOADER_ARGS)


def catalog_of(configuration: Any) -> DataCatalog:
    catalog = DataCatalog.from_config({name: configuration["catalog"][name] for name in TRAINED.values()})
    for block, model in MODELS.items():
        catalog[f"params:{block}"] = MemoryDataset(model.model_validate(configuration["parameters"][block]))
    return catalog


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_one_setting_takes_what_was_trained_in_every_environment(
    environment: str, pipelines: dict[str, Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    configuration = loader(environment, *TRAINED)
    catalog = catalog_of(configuration)
    for block, dataset in TRAINED.items():
        chosen = MODELS[block].model_validate(configuration["parameters"][block])
        place = Path(str(stored_at(catalog, dataset)))
        assert ROOT / chosen.path == ROOT / place
        assert "micro_world" not in chosen.path
        assert (chosen.revision if block == "judge" else chosen.settings.get("family")) is None
        # All else is as it was.
        others = {"path", "revision", "family", "template"}
        before = MODELS[block].model_validate(loader(environment)["parameters"][block])
        assert chosen.model_dump(exclude=others) == before.model_dump(exclude=others)
        check_trained_models(pipelines[USERS[block]], catalog)
    # What is trained starts from the model as it is.
    assert "from" not in (configuration["parameters"]["judge_training"].get("start") or {})


@pytest.mark.parametrize("environment", ["base", "image"])
def test_by_default_the_model_and_its_identity_stay(environment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    block = loader(environment)["parameters"]["judge"]
    plain = {name: value for name, value in block.items() if name not in {"from", "trained"}}
    chosen = ChecklistJudgeParameters.model_validate(block)
    assert chosen.path == block["path"]
    assert chosen.model_dump(mode="json") == JudgeParameters.model_validate(plain).model_dump(mode="json")
    assert ChecklistJudgeParameters.model_validate(plain | {"from": None}).path == block["path"]


def test_code_that_a_trained_folder_brings_needs_its_commit_and_the_adapter_is_in_the_weights() -> None:
    block = {"family": "cogvlm2_video", "path": "org/model", "revision": "0" * 40, "trust_remote_code": True}
    block |= {"adapter": "./adapter", "from": "trained", "trained": "./judge"}
    chosen = ChecklistJudgeParameters.model_validate(block)
    assert (chosen.path, chosen.revision, chosen.adapter) == ("./judge", "0" * 40, None)
    for wrong in ({"trained": None}, {"from": "taught"}):
        with pytest.raises(ValidationError, match=r"needs 'trained', the folder|'given' or 'trained'"):
            ChecklistJudgeParameters.model_validate(block | wrong)


def test_judging_waits_for_the_trained_judge(pipelines: dict[str, Pipeline]) -> None:
    chain, method = pipelines["judge_mpo"], pipelines["mpo_dpo"]
    short = {node.short_name for node in chain.nodes}
    assert short == {node.short_name for node in (method + pipelines["judge_training"]).nodes}
    waiting = {node.short_name for node in chain.nodes if "trained_judge" in node.inputs}
    assert waiting == {"answer_checklist", "answer_checklist_on_preferences"}
    # All else that asks the judge comes after their answers.
    before = {node.name for node in chain.to_nodes("judge_training.train_judge").nodes}
    after = {node.name for node in chain.from_nodes("judge_training.train_judge").nodes}
    asking = {node.name for node in chain.nodes if "params:judge" in node.inputs}
    assert asking <= after - before
    assert not any("trained_judge" in node.inputs for node in method.nodes)


def test_stages_of_dvc_depend_on_the_trained_judge(pipelines: dict[str, Pipeline]) -> None:
    from vr_pipeline.lineage.project import parts_of, project_stages

    def stages(whole: str, *trained: str) -> Any:
        return project_stages(ROOT, loader("wan", *trained), parts_of(pipelines, whole), "wan", "vr_pipeline").stages

    folder = "data/wan/06_models/judge"
    chain = stages("judge_mpo", "judge")
    assert set(chain) == {"judge_training", "judge_checklist_inference"} | set(MPO_DPO.stages) - {"checklist_inference"}
    names = list(chain)
    assert names.index("judge_training") < names.index("judge_checklist_inference")
    assert chain["judge_training"].outputs["trained_judge"].path == folder
    assert chain["judge_checklist_inference"].inputs["trained_judge"] == folder
    asking = {"judge_checklist_inference", "weight_regression", "dpo_training", "evaluation"}
    assert {name for name, stage in chain.items() if folder in stage.dependencies} == asking
    # By the setting alone, the stages of mpo_dpo do too.
    method = stages("mpo_dpo", "judge")
    asking = asking - {"judge_checklist_inference"} | {"checklist_inference"}
    assert {name for name, stage in method.items() if folder in stage.dependencies} == asking


def test_another_judge_than_the_trained_one_is_rejected_before_work_starts(
    pipelines: dict[str, Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    given, trained = (catalog_of(loader("base", *blocks)) for blocks in ((), ("judge", "reward_model")))
    check_trained_models(pipelines["judge_mpo"], trained)
    check_trained_models(pipelines["mpo_dpo"], given)
    for name in ("judge_mpo", "judge_checklist_inference"):
        with pytest.raises(
            InputError, match=r"uses the trained model 'trained_judge', but judge is another .*from=tra"
        ):
            check_trained_models(pipelines[name], given)
    for first, second in (("judge_training", "mpo_dpo"), ("preference_reward_training", "videoreward_dpo")):
        both = pipelines[first] + pipelines[second]
        with pytest.raises(InputError, match=r"trains 'trained_.*' and also uses it, without"):
            check_trained_models(both, trained)
        check_trained_models(both, given)
    elsewhere = loader("flow", "judge")["parameters"]["judge"]
    trained["params:judge"] = MemoryDataset(ChecklistJudgeParameters.model_validate(elsewhere))
    with pytest.raises(InputError, match=r"field 'judge\.trained'.* the catalog keeps '"):
        check_trained_models(pipelines["mpo_dpo"], trained)
