"""Parameters that no pipeline reads stop a run; those that this run does not read are named."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from kedro.framework.project import pipelines
from kedro.pipeline import Node, Pipeline

from toy_project import kedro, make_project
from vr_pipeline.config import Parameters
from vr_pipeline.errors import InputError
from vr_pipeline.hooks.parameters import ParametersHook, check_recipes, check_splits, unknown_settings
from vr_pipeline.pipelines.recipes import RECIPES
from vr_pipeline.project.configuration import SteadyConfigLoader


class Training(Parameters):
    beta: float = 30.0


class TrainBlock(Parameters):
    training: Training = Training()
    seed: int = 0


def train(block: TrainBlock, plain: int) -> int:
    return plain


def judge(block: TrainBlock) -> int:
    return 0


TRAIN = Pipeline([Node(train, ["params:dpo_training", "params:inner.plain"], "policy", name="train")])
JUDGE = Pipeline([Node(judge, "params:judging", "answers", name="judge")])
CONFIGURED = "dpo_training: {training: {beta: 1}}\ninner: {plain: 3}\njudging: {seed: 1}\n_anchors: {a: 1}\n"


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Check a run of one pipeline with parameters from files and from the command line."""
    monkeypatch.setattr(pipelines, "_content", {"train": TRAIN, "judge": JUDGE, "__default__": TRAIN + JUDGE})
    monkeypatch.setattr(pipelines, "_is_data_loaded", True)
    logger = logging.getLogger("vr_pipeline.hooks.parameters")
    monkeypatch.setattr(logging.getLogger("vr_pipeline"), "propagate", True)

    def run(pipeline: Pipeline, given: dict[str, Any] | None = None, files: dict[str, str] | None = None) -> None:
        for name, text in {"base/parameters.yml": CONFIGURED, **(files or {})}.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        (tmp_path / "real").mkdir(exist_ok=True)
        hook = ParametersHook()
        hook._loader = SteadyConfigLoader(
            str(tmp_path),
            base_env="base",
            default_run_env="real",
            runtime_params=given or {},
            merge_strategy={"parameters": "soft"},
        )
        hook.before_pipeline_run({"runtime_params": given}, pipeline)

    assert logger.isEnabledFor(logging.WARNING)
    return run


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"dpo_traning": {"training": {"beta": 100}}},
            r"dpo_traning\.training\.beta \(perhaps 'dpo_training",
        ),
        ({"beta": 100}, r"parameter beta \(perhaps 'dpo_training\.training\.beta'"),
        ({"dpo_training": {"training": {"betta": 1}}}, r"betta \(perhaps 'dpo_training\.training\.beta'"),
        ({"judging": {"sed": 1}}, r"judging\.sed \(perhaps 'judging\.seed'"),
        ({"inner": {"plane": 1}}, r"inner\.plane \(perhaps 'inner\.plain'"),
        ({"dpo_traning": {}}, r"dpo_traning"),
        ({"_private": 1, "other": None}, r"parameter other"),
    ],
)
def test_what_no_pipeline_reads_stops_the_run(check: Any, given: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told) as caught:
        check(TRAIN, given)
    assert caught.value.field == "--params"


@pytest.mark.parametrize("file", ["base/parameters_more.yml", "real/parameters.yml", "real/parameters/judge.yml"])
def test_files_of_every_environment_are_checked(check: Any, file: str) -> None:
    with pytest.raises(InputError, match=r"judgging\.seed \(perhaps 'judging\.seed' is meant\)") as caught:
        check(TRAIN, files={file: "judgging: {seed: 3}\n"})
    assert caught.value.field == "conf/<env>/parameters"


def test_known_parameters_pass_and_unread_ones_are_named(check: Any, caplog: pytest.LogCaptureFixture) -> None:
    check(TRAIN, {"dpo_training": {"training": {"beta": 2}}, "inner": {"plain": 4}})
    assert not caplog.records
    check(JUDGE, {"dpo_training": {"training": {"beta": 2}}})
    [record] = caplog.records
    assert "--params sets dpo_training, which no node of this run reads" in record.getMessage()


def test_values_that_the_configuration_takes_up_itself_pass(check: Any) -> None:
    check(JUDGE, {"number": 3}, {"real/parameters.yml": "judging: {seed: '${runtime_params:number}'}\n"})


def test_a_node_that_reads_all_parameters_knows_them_all(check: Any) -> None:
    every = Pipeline([Node(judge, "parameters", "answers", name="all")])
    check(every, {"anything": 1})


def test_trouble_of_an_unused_block_other_than_names_is_left_to_its_own_run() -> None:
    blocks: dict[str, Any] = {"dpo_training": [TrainBlock]}
    assert unknown_settings({"dpo_training": {"seed": "no number"}}, blocks) == []
    assert unknown_settings({"dpo_training": {"seed": "no number", "seeds": 1}}, blocks) == ["dpo_training.seeds"]


def test_a_misspelt_block_stops_the_command_before_any_node(tmp_path: Path) -> None:
    folder = make_project(tmp_path)
    run = kedro(folder, "run", "--params=toi.rows=3")
    assert run.returncode == 1
    assert "toi.rows (perhaps 'toy.rows' is meant)" in run.stderr
    assert not (folder / "data").exists()
    assert not (folder / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("validation", "tested", "common"),
    [
        ({"splits": ["validation"]}, {"splits": ["validation"]}, "validation"),
        ({"splits": ["validation", "test"]}, {"splits": ["test", "train"]}, "test"),
        ({"num_prompts": 3}, {"splits": ["validation"]}, "validation"),
        ({"splits": ["test"]}, {"seed": 1}, "test"),
        ({"splits": ["validation"]}, {"splits": ["test"]}, None),
        ({}, {}, None),
        (None, {"splits": ["validation"]}, None),
    ],
)
def test_policies_are_not_tested_on_the_prompts_that_chose_them(
    validation: dict | None, tested: dict, common: str | None
) -> None:
    parameters = {"dpo_training": {"validation": validation}, "evaluation": tested}
    if common is None:
        check_splits(parameters)
        return
    with pytest.raises(InputError, match=f"same split, {common}"):
        check_splits(parameters)


@pytest.mark.parametrize(
    ("block", "recipes", "message"),
    [
        ("pair_selection", {"best": {"rule": "mpo"}}, "pair_selection.recipes.best': there is no recipe 'best'"),
        ("dpo_training", {"best": {"beta": 1.0}}, "dpo_training.recipes.best': there is no recipe 'best'"),
        ("pair_selection", {"mpo": None}, "pair_selection.recipes.mpo': the recipe 'mpo' has no pair rule"),
        ("pair_selection", {"dpo": {"reward": "taste"}}, "dpo.reward': no pipeline makes rewards named 'taste'"),
    ],
)
def test_recipes_and_their_settings_belong_together(block: str, recipes: dict[str, Any], message: str) -> None:
    parameters: dict[str, Any] = {"pair_selection": {"recipes": {recipe.name: {} for recipe in RECIPES}}}
    check_recipes(parameters)
    changed = {**parameters.get(block, {}).get("recipes", {}), **recipes}
    parameters[block] = {"recipes": {name: settings for name, settings in changed.items() if settings is not None}}
    with pytest.raises(InputError, match=message):
        check_recipes(parameters)


def test_the_reward_of_a_recipe_is_one_that_the_pipeline_makes() -> None:
    def named(reward: str | None) -> dict[str, Any]:
        return {"pair_selection": {"recipes": {recipe.name: {"reward": reward} for recipe in RECIPES}}}

    for pipeline, reward in (
        ("mpo_dpo", "checklist"),
        ("__default__", "checklist"),
        ("videoreward_dpo", "reward_model"),
    ):
        check_recipes(named(reward), [pipeline])
        check_recipes(named(None), [pipeline])
    check_recipes(named("reward_model"), ["pair_selection"])
    with pytest.raises(InputError, match="Omit it, or use reward_model in videoreward_dpo"):
        check_recipes(named("checklist"), ["videoreward_dpo"])
    with pytest.raises(InputError, match="Omit it, or use checklist in mpo_dpo"):
        check_recipes(named("reward_model"), ["mpo_dpo"])


def test_a_rule_that_needs_comparisons_goes_with_a_system_that_makes_them() -> None:
    def ruled(**rules: str) -> dict[str, Any]:
        return {"pair_selection": {"recipes": {name: {"rule": rule} for name, rule in rules.items()}}}

    check_recipes(ruled(dpo="dpo", mpo="mpo", sift="sift"), ["unified_dpo"])
    check_recipes(ruled(dpo="sift", mpo="mpo", sift="sift"), ["unified_dpo"])
    check_recipes(ruled(dpo="dpo", mpo="mpo", sift="sift"), ["videoreward_dpo"])
    with pytest.raises(InputError, match="'sift' needs comparisons of clips, which videoreward_dpo does not make"):
        check_recipes(ruled(dpo="sift", mpo="mpo", sift="sift"), ["videoreward_dpo"])
    with pytest.raises(InputError, match="the recipe 'sift' has no pair rule"):
        check_recipes(ruled(dpo="dpo", mpo="mpo"), ["unified_dpo"])
    check_recipes(ruled(dpo="dpo", mpo="mpo"), ["mpo_dpo"])
