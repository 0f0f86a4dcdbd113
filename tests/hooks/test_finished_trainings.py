"""What was trained is not trained again: not after a kill before it was saved, and not by a second run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from kedro.framework.hooks.manager import _create_hook_manager
from kedro.framework.project import pipelines
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline

from toy_training import Toy, make_toy
from vr_pipeline.datasets.policy import PolicyDataset
from vr_pipeline.engine import loop
from vr_pipeline.generators.policy import Policy
from vr_pipeline.hooks import FinishedTrainingHook
from vr_pipeline.hooks.finished_trainings import state_folders
from vr_pipeline.runners import DeviceRunner
from vr_pipeline.training.config import DpoTrainingParameters
from vr_pipeline.training.preference_trainer import train_on_pairs


class Killed(BaseException):
    """What a kill looks like from inside."""


def training_on(toy: Toy, first: int) -> Callable[[DpoTrainingParameters], tuple[Policy, pd.DataFrame]]:
    def train(parameters: DpoTrainingParameters) -> tuple[Policy, pd.DataFrame]:
        generator = toy.generator()
        file = Path(str(parameters.checkpoint_folder)) / f"{first}.safetensors"
        data = replace(toy.data, pairs=toy.pairs[first : first + 3])
        log = train_on_pairs(generator, data, parameters.training, checkpoint=file, retrain=parameters.retrain)
        return generator.policy(), log

    return train


def evaluate(policy_a: Policy, policy_b: Policy) -> pd.DataFrame:
    return pd.DataFrame({"policy": [policy_a.identity, policy_b.identity]})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """Two trainings and what uses them."""
    toy = make_toy(tmp_path_factory.mktemp("model") / "micro")
    trainings = [
        Node(
            training_on(toy, first),
            "params:dpo_training",
            [f"policy_{name}", f"training_log_{name}"],
            name=f"train_policy_{name}",
            tags="train",
        )
        for name, first in (("a", 0), ("b", 3))
    ]
    return Pipeline([*trainings, Node(evaluate, ["policy_a", "policy_b"], "result", name="evaluate")])


@pytest.fixture(autouse=True)
def registered(whole: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelines, "_content", {"whole": whole})
    monkeypatch.setattr(pipelines, "_is_data_loaded", True)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps that were made."""
    made: list[int] = []
    log_row = loop.log_row
    monkeypatch.setattr(loop, "log_row", lambda step, *rest: made.append(step) or log_row(step, *rest))
    return made


def catalog(folder: Path, **settings: Any) -> DataCatalog:
    tables = ("training_log_a", "training_log_b", "result")
    entries: dict[str, dict[str, str]] = {
        name: {"type": "pandas.CSVDataset", "filepath": str(folder / f"{name}.csv")} for name in tables
    }
    for name in ("policy_a", "policy_b"):
        entries[name] = {"type": "vr_pipeline.datasets.policy.PolicyDataset", "path": str(folder / name)}
    made = DataCatalog.from_config(entries)
    parameters = DpoTrainingParameters(
        **{
            "training": Toy.parameters(checkpoint_every=4, batch_size=2),
            "checkpoint_folder": str(folder / "checkpoints"),
            **settings,
        }
    )
    made["params:dpo_training"] = MemoryDataset(parameters, copy_mode="assign")
    return made


def run(pipeline: Pipeline, folder: Path, **settings: Any) -> None:
    """As a session does: what follows a run is called only if the run went well."""
    manager, entries = _create_hook_manager(), catalog(folder, **settings)
    manager.register(FinishedTrainingHook())
    result = DeviceRunner().run(pipeline, entries, manager)
    manager.hook.after_pipeline_run(run_params={}, run_result=result, pipeline=pipeline, catalog=entries)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("moment", "goes_on"),
    [("before the policy", "with the same command"), ("before the log", "where it stopped")],
)
def test_a_kill_while_the_second_policy_is_saved(
    moment: str, goes_on: str, whole: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: list[int]
) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    run(whole, undisturbed)
    assert steps == [*range(1, 7)] * 2
    steps.clear()
    save = PolicyDataset.save

    def saving(dataset: Any, data: Policy) -> None:
        if dataset._path.name == "policy_b":
            if moment == "before the log":
                save(dataset, data)
            raise Killed
        save(dataset, data)

    with monkeypatch.context() as patch:
        patch.setattr(PolicyDataset, "save", saving)
        with pytest.raises(Killed):
            run(whole, killed)
    assert steps == [*range(1, 7)] * 2
    steps.clear()
    run(whole if goes_on == "with the same command" else whole.from_nodes("train_policy_b"), killed)
    assert steps == [], "both trainings were finished"
    assert files(killed) == files(undisturbed)


def test_a_run_that_goes_on_after_the_trainings_clears_up(
    whole: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(DeviceRunner, "_release_datasets", lambda *_: (tmp_path / "result.csv").mkdir(exist_ok=True))
        with pytest.raises(Exception, match="Failed while saving data"):
            run(whole, tmp_path)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
    (tmp_path / "result.csv").rmdir()
    run(whole.from_nodes("evaluate"), tmp_path, kept_trainings=1)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["3.safetensors"]


def test_a_second_run_trains_nothing_unless_it_is_asked_to(whole: Pipeline, tmp_path: Path, steps: list[int]) -> None:
    run(whole, tmp_path)
    before = files(tmp_path)
    steps.clear()
    run(whole, tmp_path)
    assert steps == []
    assert files(tmp_path) == before
    run(whole, tmp_path, retrain=True)
    assert steps == [*range(1, 7)] * 2
    assert files(tmp_path) == before
    # Another seed is another training, and the way back finds the first one's result.
    steps.clear()
    run(whole, tmp_path, training=Toy.parameters(checkpoint_every=4, batch_size=2, seed=5))
    assert steps == [*range(1, 7)] * 2
    assert files(tmp_path) != before


def test_runs_that_have_nothing_to_do_with_trainings_leave_states_alone(whole: Pipeline, tmp_path: Path) -> None:
    entries = catalog(tmp_path)
    assert set(state_folders(whole.only_nodes("evaluate"), entries)) == {(tmp_path / "checkpoints", 4)}
    validated = catalog(tmp_path, validation={"folder": "judged"}, kept_trainings=2)
    assert list(state_folders(whole, validated)) == [(tmp_path / "checkpoints", 2), (Path("judged/trainings"), 2)]
    other = Pipeline([Node(lambda: 1, None, "elsewhere", name="other")])
    assert list(state_folders(other, entries)) == []
    # Parameters that a run does not need are not validated, and stay as they are written.
    entries["params:dpo_training"] = MemoryDataset({"checkpoint_folder": None, "part": {"checkpoint_folder": "here"}})
    assert list(state_folders(whole, entries)) == [(Path("here"), 4)]
