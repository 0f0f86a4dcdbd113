"""A clip has one reward, whoever asks for it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from toy_training import Toy, make_toy
from vr_pipeline.checklist import Checklist, checklist_from_mapping
from vr_pipeline.commands import judge as commands
from vr_pipeline.generators.policy import ORIGINAL
from vr_pipeline.identifiers import prompt_id
from vr_pipeline.items.filling import fill_folder
from vr_pipeline.judges.config import ChecklistInferenceParameters
from vr_pipeline.judges.training.config import TinyJudgeParameters
from vr_pipeline.judges.training.tiny import create_tiny_judge, words_of
from vr_pipeline.rewards.checklist.model import ChecklistReward
from vr_pipeline.rewards.checklist.weights import RewardWeights
from vr_pipeline.training.config import DpoTrainingParameters, ValidationParameters
from vr_pipeline.training.validation import CheckpointValidation
from vr_pipeline.vlm.config import JudgeParameters

QUESTIONS: list[dict[str, Any]] = [
    {"id": "red", "text": "is it red ?"},
    {"id": "moves", "text": "does it show it ?", "gate": "red"},
    {"id": "as_asked", "text": "does it show [[prompt]] ?", "feature": "probability"},
]
CHECKLIST = checklist_from_mapping(
    {
        "name": "toy",
        "modality": "video",
        "dimensions": [
            {"name": "looks", "sub_dimensions": [{"name": "looks", "questions": QUESTIONS[:2]}]},
            {"name": "text", "sub_dimensions": [{"name": "text", "questions": QUESTIONS[2:]}]},
        ],
    }
)
WEIGHTS = RewardWeights(
    ("red", "moves", "as_asked"), np.array([1.0, 2.0, 4.0]), answers="binary", checklist_hash=CHECKLIST.hash
)
PAIRS = pd.DataFrame({"prompt_id": ["p"], "winner_video_id": ["w"], "loser_video_id": ["l"]})
SERVE = """
import sys
import mlflow, pandas as pd
model = mlflow.pyfunc.load_model(sys.argv[1])
print(model.predict(pd.DataFrame({"prompt": [sys.argv[2]], "video_path": [sys.argv[3]]})).to_json(orient="records"))
"""


@dataclass
class World:
    """A clip, the judge and the settings it is judged with, and what checkpoint validation gave it.

    The judge sees fewer frames than the clip has: who shows it all of them gets another answer. Another judge gives the
    alignment score.
    """

    judge: JudgeParameters
    judging: ChecklistInferenceParameters
    videos: Any
    index: pd.DataFrame
    clip: Path
    prompt: str
    expected: float


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    toy: Toy = make_toy(folder / "micro")
    words = words_of([*(question["text"] for question in QUESTIONS), *toy.conditions])
    for name, seed, frames in (("judge", 1, 8), ("other", 7, 2)):
        (folder / name).mkdir()
        tiny = TinyJudgeParameters(initial_std=0.4, layers=1, num_frames=frames)
        create_tiny_judge(tiny, words, seed=seed).save(folder / name)
    model: dict[str, Any] = {"family": "qwen2_vl", "device": "cpu", "threads": 1}
    judge = JudgeParameters(**model, path=str(folder / "judge"), num_frames=2)
    judging = ChecklistInferenceParameters.model_validate(
        {
            "alignment": {"question": "as_asked", "judge": {**model, "path": str(folder / "other")}},
            "max_median_outside_mass": 1.0,
        }
    )
    prompts = pd.DataFrame({"prompt": sorted(toy.conditions), "split": "validation"})
    prompts["prompt_id"] = prompts["prompt"].map(prompt_id)
    training = DpoTrainingParameters(
        training=toy.parameters(checkpoint_every=2),
        validation=ValidationParameters(folder=str(folder / "validation"), videos_per_prompt=1, num_prompts=1),
    )
    filled: list[Any] = []

    def fill(*given: Any) -> Any:
        filled.append(fill_folder(*given))
        return filled[-1]

    reward = ChecklistReward(CHECKLIST, WEIGHTS, judge, judging)
    validation = CheckpointValidation(PAIRS, prompts, reward, training, fill=fill)
    validation(toy.generator())
    ((_, expected),) = json.loads(validation._record(0).read_text())["rewards"]

    from vr_pipeline.items.video_index import index_made_clips

    index = index_made_clips(filled[0])
    clip = Path(filled[0].path(index["video_id"].item()))
    return World(judge, judging, filled[0], index, clip, index["prompt"].item(), expected)


@pytest.fixture
def by_pipeline(world: World, tmp_path: Path) -> pd.DataFrame:
    """The clip's row of the table of rewards, as the nodes of the pipelines make it."""
    return rewards_of_nodes(world, world.index, tmp_path / "answers")


def rewards_of_nodes(world: World, index: pd.DataFrame, folder: Path) -> pd.DataFrame:
    from vr_pipeline.pipelines.checklist_inference.nodes import collect_answers, plan_checklist_answers
    from vr_pipeline.pipelines.weight_regression.nodes import score_videos

    plan = plan_checklist_answers(world.videos, index, CHECKLIST, world.judge, world.judging)
    shards = fill_folder(folder, {"type": "table"}, plan)
    answers = collect_answers(shards, index, CHECKLIST, world.judging)
    return score_videos(answers, index, CHECKLIST, WEIGHTS.to_json())


def test_pipeline(world: World, by_pipeline: pd.DataFrame) -> None:
    assert by_pipeline["total"].item() == world.expected
    assert by_pipeline[["dim_looks", "dim_text"]].sum(axis=1).item() == pytest.approx(world.expected)


def test_evaluation(world: World, tmp_path: Path) -> None:
    from vr_pipeline.evaluation.metrics import policy_metrics

    rewards = rewards_of_nodes(world, world.index.assign(policy=ORIGINAL), tmp_path / "answers")
    assert policy_metrics(rewards)[ORIGINAL]["total"]["mean"] == world.expected


def test_commands(world: World, by_pipeline: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: Mapping[str, Checklist | dict[str, Any]] = {"checklist": CHECKLIST, "reward_weights": WEIGHTS.to_json()}
    catalog = SimpleNamespace(load=kept.__getitem__, exists=lambda name: True)
    params = {"judge": world.judge.model_dump(), "checklist_inference": world.judging.model_dump()}
    context = SimpleNamespace(params=params, catalog=catalog)
    monkeypatch.setattr(commands, "_context", lambda env: context)
    asked = [
        (commands.score, [str(world.clip)]),
        (commands.compare, [str(world.clip), str(world.clip)]),
    ]
    for command, files in asked:
        said = CliRunner().invoke(command, [*files, "--prompt", world.prompt, "--json"])
        for scored in json.loads(said.stdout)["files"]:
            assert scored["total"] == world.expected
            assert scored["dimensions"] == {name: by_pipeline[f"dim_{name}"].item() for name in ("looks", "text")}
            assert len(scored["frames"]) == 2


def test_served_model_in_a_process_of_its_own(world: World, by_pipeline: pd.DataFrame, tmp_path: Path) -> None:
    from vr_pipeline.pipelines.weight_regression.nodes import package_reward_model
    from vr_pipeline.serving.mlflow_model import save_reward_model

    served = {}
    for name, judging in (("whole", world.judging), ("without", world.judging.model_copy(update={"alignment": None}))):
        save_reward_model(tmp_path / name, package_reward_model(WEIGHTS.to_json(), CHECKLIST, world.judge, judging))
        done = subprocess.run(
            [sys.executable, "-c", SERVE, str(tmp_path / name), world.prompt, str(world.clip)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        (served[name],) = json.loads(done.stdout.strip().splitlines()[-1])
    expected = by_pipeline.iloc[0][["total", "dim_looks", "dim_text"]].to_dict()
    assert served["whole"] == pytest.approx(expected, abs=1e-10)  # JSON has ten digits
    # Without the other judge the reward is another: the comparison can fail.
    assert served["without"]["total"] != pytest.approx(world.expected, abs=1e-6)


def test_notebook(world: World, by_pipeline: pd.DataFrame, tmp_path: Path) -> None:
    """Both from a configuration and from a packaged folder; files and frames in memory alike."""
    import vr_pipeline as vr
    from vr_pipeline.datasets.reward_model import RewardModelDataset
    from vr_pipeline.video.read import read_clip

    RewardModelDataset(path=str(tmp_path / "packaged")).save(
        ChecklistReward(CHECKLIST, WEIGHTS, world.judge, world.judging)
    )
    frames, _, known = read_clip(world.clip)
    model = vr.load_reward_model(tmp_path / "packaged")
    assert model.identity == ChecklistReward(CHECKLIST, WEIGHTS, world.judge, world.judging).identity
    scores = model.score([world.clip, frames, str(world.clip)], [world.prompt] * 3, fps=known.fps)
    for column in ("total", "dim_looks", "dim_text"):
        assert scores[column].tolist() == [by_pipeline[column].item()] * 3
    compared = vr.load_ranker(tmp_path / "packaged").compare([world.clip], [255 - frames], [world.prompt], fps=8)
    assert compared[["p_a", "p_b", "p_tie"]].sum(axis=1).item() == 1.0
    assert compared["position_bias"].item() == 0.0


def test_workers_get_the_reward_without_the_models_that_are_loaded_here(
    world: World, by_pipeline: pd.DataFrame
) -> None:
    import cloudpickle

    model = ChecklistReward(CHECKLIST, WEIGHTS, world.judge, world.judging)
    assert model.loaded()
    there = cloudpickle.loads(cloudpickle.dumps(model))
    assert there._loaded is None
    assert there.score([world.clip], [world.prompt])["total"].item() == by_pipeline["total"].item()
    model.close()
    assert model._loaded is None
