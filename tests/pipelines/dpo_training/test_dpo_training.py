"""What the nodes before a training hand to it."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError

from vr_pipeline.checklist import load_checklist
from vr_pipeline.judges.config import ChecklistInferenceParameters
from vr_pipeline.pipelines.dpo_training.nodes import describe_checkpoint_reward, name_checkpoint_reward, train_policy
from vr_pipeline.pipelines.dpo_training.pipeline import create_pipeline
from vr_pipeline.pipelines.recipes import RECIPES
from vr_pipeline.project.explain import blocks_of
from vr_pipeline.rewards.named import RewardModelParameters
from vr_pipeline.training.checkpoint_reward import ChecklistParts, CheckpointReward
from vr_pipeline.training.config import DpoTrainingParameters
from vr_pipeline.vlm.config import JudgeParameters

PROMPTS = pd.DataFrame(
    {"prompt_id": list("dcba"), "prompt": list("4321"), "source": "s", "split": ["validation"] * 3 + ["train"]}
)
JUDGE = JudgeParameters(family="qwen2_vl", path="data/06_models/micro_world/judge", device="cpu")


@pytest.mark.parametrize(("validation", "prompts"), [({"num_prompts": 2}, ["b", "c"]), (None, [])])
def test_the_reward_of_checkpoints_comes_back_from_json_as_it_was(validation: dict | None, prompts: list[str]) -> None:
    checklist = load_checklist(Path(__file__).parents[3] / "conf/base/checklist.yml")
    judging = ChecklistInferenceParameters(clips_per_item=3)
    weights = {"weights": [0.1, 1 / 3]}
    parameters = DpoTrainingParameters.model_validate({"validation": validation})
    described = describe_checkpoint_reward(PROMPTS, checklist, weights, JUDGE, judging, parameters)
    read = CheckpointReward.model_validate(json.loads(json.dumps(described)))
    parts = read.reward
    assert isinstance(parts, ChecklistParts)
    assert (parts.checklist.hash, parts.judge, parts.judging, parts.weights) == (
        checklist.hash,
        JUDGE,
        judging,
        weights,
    )
    assert list(read.prompt_table["prompt_id"]) == prompts


def test_a_reward_that_parameters_name_judges_checkpoints(tmp_path: Path) -> None:
    scores = tmp_path / "scores.csv"
    scores.write_text("video_id,dimension,score\nx,sharp,1\nx,bright,2\n")
    parameters = DpoTrainingParameters.model_validate({"validation": {}})
    named = RewardModelParameters.model_validate({"type": "scores", "path": str(scores), "total": None})
    described = json.loads(json.dumps(name_checkpoint_reward(PROMPTS, named, parameters)))
    read = CheckpointReward.model_validate(described)
    model = read.model()
    assert model is not None
    assert model.dimensions == ("sharp", "bright")
    assert list(read.prompt_table["prompt_id"]) == ["b", "c", "d"]
    assert read.facts() == {"type": "scores", "path": str(scores), "identity": model.identity}
    assert read.hashes() == {"reward_model": model.identity}
    scores.write_text("video_id,dimension,score\nx,sharp,1\nx,bright,3\n")
    assert read.hashes() != {"reward_model": model.identity}


def test_without_a_reward_no_checkpoint_is_judged() -> None:
    parameters = DpoTrainingParameters.model_validate({"validation": {}})
    none = RewardModelParameters.model_validate({"type": None, "path": "left by another environment"})
    read = CheckpointReward.model_validate(name_checkpoint_reward(PROMPTS, none, parameters))
    assert read.model() is None
    assert read.prompt_table.empty
    assert read.facts() == read.hashes() == {}


def test_every_recipe_trains_with_its_own_settings() -> None:
    settings = {
        "training": {"beta": 30.0, "steps": 7, "loss": "diffusion_dpo"},
        "recipes": {"mpo": {"loss": "mapo", "beta": 0.1}},
    }
    parameters = DpoTrainingParameters.model_validate(settings)
    assert parameters.for_recipe("dpo") is parameters
    own = parameters.for_recipe("mpo").training
    assert (own.loss, own.beta, own.steps) == ("mapo", 0.1, 7)
    with pytest.raises(ValidationError, match=r"recipes\.mpo\.betta: Extra inputs"):
        DpoTrainingParameters.model_validate({"recipes": {"mpo": {"betta": 1.0}}})
    with pytest.raises(ValidationError, match="label_smoothing"):
        DpoTrainingParameters.model_validate({"recipes": {"mpo": {"loss": "mapo", "label_smoothing": 0.1}}})


def test_nodes_of_recipes_have_the_types_and_the_description_of_their_function() -> None:
    pipeline = create_pipeline()
    assert blocks_of([pipeline])["dpo_training"] == [DpoTrainingParameters]
    for recipe in RECIPES:
        (node,) = (one for one in pipeline.nodes if one.name == recipe.dataset("train_policy"))
        assert node.func.__doc__ == train_policy.__doc__
        assert node.func.keywords == {"recipe": recipe.name}
        assert len(node.inputs) <= 6
