"""Machine profiles go over any environment, and say where and how much at a time, never what is computed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from vr_pipeline.config import Parameters
from vr_pipeline.errors import InputError
from vr_pipeline.hooks.commands import kept_options
from vr_pipeline.judges.training.config import JudgeTrainingParameters
from vr_pipeline.project.configuration import LOADER_ARGUMENTS, SteadyConfigLoader
from vr_pipeline.project.machines import SETTABLE, VARIABLE, laid_over, machine_names, read_machine
from vr_pipeline.runners.config import RunnerConfiguration, TorchrunRoute
from vr_pipeline.training.config import DpoTrainingParameters
from vr_pipeline.vlm.config import ChecklistJudgeParameters

CONF = Path(__file__).resolve().parents[2] / "conf"
ENVIRONMENTS = ("base", "flow", "cogvideox", "cogvideox_5b", "wan", "image", "videoreward", "unified")
BLOCKS: dict[str, type[Parameters]] = {
    "judge": ChecklistJudgeParameters,
    "dpo_training": DpoTrainingParameters,
    "judge_training": JudgeTrainingParameters,
}


def loader(conf: Path, environment: str, **options: Any) -> SteadyConfigLoader:
    return SteadyConfigLoader(str(conf), env=environment, **LOADER_ARGUMENTS, **options)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    for place, text in {
        "base/parameters.yml": "generator: {batch_size: 2, threads: 4}\njudge: {clip_batch: 1}\n",
        "base/runner.yml": "routes: {train: {backend: torchrun, processes: 2}, gpu: {backend: in_process}}\n",
        "real/runner.yml": "execution: {workers: 3}\n",
        "machines/big.yml": "description: big\nparameters: {judge: {clip_batch: 8}}\n"
        "runner: {routes: {train: {backend: ray, num_gpus: 1}}}\n",
    }.items():
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text(text)
    return tmp_path


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_profile_goes_over_every_environment(environment: str) -> None:
    read = loader(CONF, environment)
    below, runner_below = read["parameters"], read["runner"]
    for name in machine_names(CONF):
        profile = read_machine(CONF, name)
        parameters = laid_over(below, profile.parameters)
        runner = RunnerConfiguration.model_validate(laid_over(runner_below, profile.runner))
        blocks = {block: kind.model_validate(parameters[block]) for block, kind in BLOCKS.items()}
        changed = dict(differences(below, parameters))
        assert all(place.rpartition(".")[2] in SETTABLE for place in changed)
        train = runner.routes["train"]
        if isinstance(train, TorchrunRoute):
            assert blocks["dpo_training"].training.batch_size % (train.processes * train.machines) == 0  # type: ignore[attr-defined]


def differences(one: Any, other: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(one, dict) and isinstance(other, dict):
        assert one.keys() <= other.keys()
        for name, value in other.items():
            yield from differences(one.get(name), value, f"{place}.{name}")
    elif one != other:
        yield place, other


def test_a_profile_lies_over_the_environment_and_under_the_command_line(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "big")
    read = loader(own, "real", runtime_params={"generator": {"threads": 1}})
    assert read["parameters"] == {"generator": {"batch_size": 2, "threads": 1}, "judge": {"clip_batch": 8}}
    # Another backend replaces the route below, whose settings it does not know.
    routes = {"train": {"backend": "ray", "num_gpus": 1}, "gpu": {"backend": "in_process"}}
    assert read["runner"] == {"routes": routes, "execution": {"workers": 3}}
    both = loader(own, "real", runtime_params={"judge": {"clip_batch": 2}})
    assert both["parameters"]["judge"] == {"clip_batch": 2}
    monkeypatch.delenv(VARIABLE)
    assert loader(own, "real")["parameters"]["judge"] == {"clip_batch": 1}


def test_the_documentation_shows_a_profile_as_it_is() -> None:
    page = (CONF.parent / "docs" / "gpu_and_clusters.md").read_text(encoding="utf-8")
    block = page.split("```yaml\n# conf/machines/8gpu.yml\n")[1].split("```")[0]
    assert yaml.safe_load(block) == yaml.safe_load((CONF / "machines" / "8gpu.yml").read_text(encoding="utf-8"))
    assert all(f"`{name}`" in page for name in machine_names(CONF))


def test_an_unknown_profile_is_rejected_with_the_known_ones(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "huge")
    with pytest.raises(InputError, match=r"no machine profile 'huge'.*Use one of big"):
        loader(own, "real")["runner"]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("description: x\nparameters: {dpo_training: {training: {beta: 1.0}}}\n", "training.beta"),
        ("description: x\ngpus: 8\n", "gpus"),
        ("description: [\n", "cannot be read"),
        ("runner: {}\n", "description"),
    ],
)
def test_a_profile_that_is_none_is_rejected(own: Path, text: str, match: str) -> None:
    (own / "machines" / "bad.yml").write_text(text)
    with pytest.raises(InputError, match=match):
        read_machine(own, "bad")


def test_blocks_are_merged_and_values_replaced() -> None:
    below = {"a": {"b": 1, "c": [1]}, "d": 2}
    assert laid_over(below, {"a": {"c": [2]}, "e": 3}) == {"a": {"b": 1, "c": [2]}, "d": 2, "e": 3}
    assert below == {"a": {"b": 1, "c": [1]}, "d": 2}


def test_suggested_commands_keep_the_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["kedro", "run", "--machine=8gpu"])
    assert kept_options({"env": "wan"}) == ["--env=wan", "--machine=8gpu"]
