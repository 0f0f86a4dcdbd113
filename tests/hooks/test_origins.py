"""Partial runs do not combine results that do not belong together, and say what to run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kedro.framework.hooks.manager import _create_hook_manager
from kedro.framework.project import pipelines
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline

from vr_pipeline.config import Parameters
from vr_pipeline.errors import InputError
from vr_pipeline.hooks import OriginsHook
from vr_pipeline.runners import DeviceRunner


class Training(Parameters):
    beta: int = 30
    device: str = "cpu"


def score(weights: str) -> str:
    return f"rewards of {weights}"


def choose(rewards: str) -> str:
    return f"pairs of {rewards}"


def train(pairs: str, parameters: Training) -> str:
    return f"policy of {pairs}, beta {parameters.beta}"


def note(pairs: str, parameters: Training) -> str:
    return f"log of {pairs}, beta {parameters.beta}"


def sample(policy: str) -> str:
    return f"clips of {policy}"


def report(clips: str, weights: str, pairs: str, log: str) -> str:
    return "page"


ALL = Pipeline(
    [
        Node(score, "weights", "rewards", name="score"),
        Node(choose, "rewards", "pairs", name="choose", tags="cpu"),
        Node(train, ["pairs", "params:training"], "policy", name="train", tags="gpu"),
        Node(note, ["pairs", "params:training"], "log", name="note"),
        Node(sample, "policy", "in_memory", name="sample", tags="gpu"),
        Node(lambda clips: clips, "in_memory", "clips", name="write_clips", tags="gpu"),
        Node(report, ["clips", "weights", "pairs", "log"], "page", name="report"),
    ]
)


def judge(log: str, teacher: str, parameters: Training) -> str:
    return f"answers about {log}"


def taught(dataset: str) -> Pipeline:
    """A model that is trained, and a node that joins it with what was made otherwise."""
    return Pipeline(
        [
            Node(train, ["pairs", "params:training"], dataset, name="teach"),
            Node(judge, ["log", dataset, "params:training"], "page", name="judge"),
        ]
    )


class Project:
    """Runs parts of a pipeline in a folder, as sessions of the command line would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "weights.txt").write_text("w1")

    def run(
        self,
        *nodes: str,
        whole: Pipeline = ALL,
        weights: str | None = None,
        environment: str | None = None,
        **settings: Any,
    ) -> None:
        if weights is not None:
            (self.folder / "weights.txt").write_text(weights)
        part = whole.only_nodes(*nodes) if nodes else whole
        kept = ("weights", "rewards", "pairs", "policy", "log", "clips", "page", "trained_judge")
        catalog = DataCatalog.from_config(
            {name: {"type": "text.TextDataset", "filepath": str(self.folder / f"{name}.txt")} for name in kept}
        )
        catalog["params:training"] = MemoryDataset(Training(**settings), copy_mode="assign")
        hook, manager = OriginsHook(), _create_hook_manager()
        manager.register(hook)
        given = {"training": settings} if settings else {}
        run_params = {"project_path": str(self.folder), "env": environment, "runtime_params": given}
        hook.before_pipeline_run(run_params, part, catalog)
        DeviceRunner().run(part, catalog, manager)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setattr(pipelines, "_content", {"whole": ALL, "__default__": ALL})
    monkeypatch.setattr(pipelines, "_is_data_loaded", True)
    made = Project(tmp_path)
    made.run()
    return made


def test_parts_of_a_run_that_changed_nothing_pass(project: Project) -> None:
    for node in ("score", "choose", "report"):
        project.run(node)
    project.run("train", "note", "sample", "write_clips", "report", beta=100)
    project.run("report")


def test_a_trained_judge_is_used_with_results_of_other_settings(project: Project) -> None:
    project.run("teach", whole=taught("trained_judge"), beta=100)
    project.run("judge", whole=taught("trained_judge"))
    project.run("teach", whole=taught("policy"), beta=100)
    with pytest.raises(InputError, match=r"policy was made with training\.beta = 100"):
        project.run("judge", whole=taught("policy"))


def test_a_report_does_not_take_policies_of_before(project: Project) -> None:
    project.run("score", "choose", weights="w2")
    with pytest.raises(InputError) as caught:
        project.run("report")
    text = str(caught.value)
    assert "clips was made from another policy" not in text
    assert "policy was made from another pairs.txt than the current one" in text
    assert "log was made from another pairs.txt" in text
    assert "'kedro run --pipeline=whole --from-nodes=note,train'" in text
    project.run("train", "note", "sample", "write_clips", "report")


def test_it_is_seen_before_the_first_node(project: Project) -> None:
    before = (project.folder / "page.txt").stat().st_mtime_ns
    project.run("score", weights="w2")
    with pytest.raises(InputError, match=r"pairs was made from another rewards\.txt"):
        project.run("note", "report")
    assert (project.folder / "page.txt").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="--env=mine"):
        project.run("report", environment="mine")


def test_what_becomes_stale_in_the_run_itself_is_seen_at_its_node(project: Project) -> None:
    # As --tags does, which filters the nodes between.
    (project.folder / "weights.txt").write_text("w2")
    with pytest.raises(InputError, match=r"policy was made from another pairs\.txt"):
        project.run("score", "choose", "report")


def test_settings_of_results_that_are_joined_agree(project: Project) -> None:
    project.run("train", "sample", "write_clips", beta=100)
    with pytest.raises(InputError, match=r"training\.beta = (30|100)"):
        project.run("report")
    project.run("note", beta=100)
    project.run("report")


def test_where_the_work_is_done_does_not_matter(project: Project) -> None:
    project.run("train", "sample", "write_clips", device="cuda:1")
    project.run("report")


def test_a_lost_record_stops_nothing(project: Project) -> None:
    (project.folder / "logs" / "origins.json").unlink()
    project.run("score", weights="w2")
    project.run("report")
