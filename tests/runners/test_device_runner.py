"""Routes: which backend a node gets, and what is rejected before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline
from kedro.runner import SequentialRunner

from vr_pipeline.errors import InputError, RunInterrupted
from vr_pipeline.project.configuration import SteadyConfigLoader
from vr_pipeline.runners import DeviceRunner
from vr_pipeline.runners.device_runner import RESUME_FROM

ROOT = Path(__file__).resolve().parents[2]


def double(number: int) -> int:
    return 2 * number


def stop(number: int) -> int:
    raise KeyboardInterrupt


def node(function=double, source="a", target="b", *, tags=(), name=None) -> Node:
    return Node(function, source, target, name=name or f"make_{target}", tags=list(tags))


def test_runs_as_the_sequential_runner_does():
    pipeline = Pipeline([node(), node(source="b", target="c", tags=["gpu"]), node(source="c", target="d")])
    outputs = [
        {name: data.load() for name, data in runner.run(pipeline, DataCatalog({"a": MemoryDataset(1)})).items()}
        for runner in (DeviceRunner(), SequentialRunner())
    ]
    assert outputs[0] == outputs[1] == {"d": 8}


def test_the_first_configured_tag_decides():
    runner = DeviceRunner()
    runner.configure({"routes": {"train": {"backend": "torchrun", "processes": 2}, "gpu": {"backend": "ray"}}})
    assert runner.route_of(node(tags=["gpu", "train"])).backend == "torchrun"
    assert runner.route_of(node(tags=["gpu"])).backend == "ray"
    assert runner.route_of(node()).backend == "in_process"


def test_overrides_lie_over_the_file():
    file = {"routes": {"gpu": {"backend": "ray", "num_gpus": 1, "num_cpus": 4}}, "execution": {"workers": 8}}
    runner = DeviceRunner(routes={"gpu": {"num_cpus": 2}})
    runner.configure(file)
    assert (runner.configuration.routes["gpu"].num_gpus, runner.configuration.routes["gpu"].num_cpus) == (1, 2)
    assert runner.configuration.execution.workers == 8
    # Settings of one backend mean nothing to another.
    runner = DeviceRunner(routes={"gpu": {"backend": "in_process"}})
    runner.configure(file)
    assert runner.configuration.routes["gpu"].backend == "in_process"
    assert file["routes"]["gpu"]["num_cpus"] == 4


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"route": {}}, "route"),
        ({"routes": {"gpu": {"backend": "spark"}}}, "routes.gpu"),
        ({"routes": {"gpu": {"backend": "ray", "num_gpus": -1}}}, "routes.gpu.ray.num_gpus"),
        ({"execution": {"workers": 0}}, "execution.workers"),
    ],
)
def test_settings_that_make_no_sense_name_their_field(settings, field):
    with pytest.raises(InputError) as caught:
        DeviceRunner().configure(settings)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("route", "message"),
    [({"train": {"backend": "in_process"}, "gpus": {}}, "no node has the tag 'gpus'")],
)
def test_routes_for_tags_that_do_not_exist_are_rejected(route, message):
    runs = []
    pipeline = Pipeline([node(lambda number: runs.append(number) or number)])
    runner = DeviceRunner()
    runner.configure({"routes": {tag: {"backend": "in_process", **settings} for tag, settings in route.items()}})
    with pytest.raises(InputError, match=message):
        runner.run(pipeline, DataCatalog({"a": MemoryDataset(1)}))
    assert runs == []


def test_only_training_goes_to_torchrun():
    runner = DeviceRunner(default={"backend": "torchrun"})
    with pytest.raises(InputError, match="is not a training node"):
        runner.run(Pipeline([node()]), DataCatalog({"a": MemoryDataset(1)}))


def test_an_interrupt_becomes_an_error_that_knows_where_to_go_on(tmp_path):
    from kedro_datasets.json import JSONDataset

    catalog = DataCatalog({"a": MemoryDataset(1), "b": JSONDataset(filepath=str(tmp_path / "b.json"))})
    pipeline = Pipeline([node(), node(source="b", target="c"), node(stop, "c", "d")])
    with pytest.raises(RunInterrupted) as caught:
        DeviceRunner().run(pipeline, catalog)
    # "c" was in memory only, so it has to be made again.
    assert getattr(caught.value.__cause__, RESUME_FROM) == ["make_c"]


def test_nothing_listens_beyond_this_machine_unless_configured():
    from vr_pipeline.runners.config import RunnerConfiguration

    shipped = RunnerConfiguration()
    assert shipped.ray.dashboard is False
    assert shipped.ray.dashboard_host == "127.0.0.1"
    assert shipped.ray.address is None
    assert shipped.execution.workers == 1


@pytest.mark.parametrize("environment", ["base", "cogvideox", "cogvideox_5b", "wan", "image"])
def test_a_route_for_training_takes_training_nodes_though_they_are_gpu_nodes_too(environment):
    from vr_pipeline.settings import CONFIG_LOADER_ARGS

    loader = SteadyConfigLoader(str(ROOT / "conf"), env=environment, **CONFIG_LOADER_ARGS)
    training = Node(print, inputs="a", outputs="b", name="training", tags=["gpu", "train"])
    other = Node(print, inputs="a", outputs="b", name="other", tags=["gpu"])
    runner = DeviceRunner(routes={"train": {"backend": "torchrun", "processes": 2}})
    runner.configure(loader["runner"])
    assert runner.route_of(training).backend == "torchrun"
    assert runner.route_of(other).backend == "in_process"
