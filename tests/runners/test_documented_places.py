"""Every block of docs/gpu_and_clusters.md goes through the code that reads what users write."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from kedro.pipeline import Node

from vr_pipeline.errors import InputError
from vr_pipeline.pipeline_registry import register_pipelines
from vr_pipeline.runners import DeviceRunner
from vr_pipeline.runners.backends import check_routes, open_backends

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "gpu_and_clusters.md").read_text(encoding="utf-8")


def blocks(language: str) -> dict[str, str]:
    """The page's blocks in a language by the title above them; of several below one title the last counts."""
    titles = [(found.start(), found[1]) for found in re.finditer(r"^##+ (.*)$", PAGE, re.MULTILINE)]
    found = {}
    for block in re.finditer(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        title = [title for start, title in titles if start < block.start()][-1]
        found[title] = block[1]
    return found


def is_runner_file(text: str) -> bool:
    return text.startswith("# conf/<env>/runner.yml")


RUNNER = {title: yaml.safe_load(text) for title, text in blocks("yaml").items() if is_runner_file(text)}
CLUSTER = {"CPU": 256.0, "GPU": 32.0, "memory": 4 * 512 * 2.0**30}
"""What Ray says of four machines with eight GPUs each."""


def test_each_kind_of_place_has_its_file():
    assert list(RUNNER) == [
        "One workstation with one GPU",
        "One machine with eight GPUs",
        "A Ray cluster",
        "Training in several processes",
        "On several machines",
    ]


@pytest.fixture(scope="module")
def nodes() -> list[Node]:
    return register_pipelines()["mpo_dpo"].nodes


def routed(settings: dict[str, Any], nodes: list[Node]) -> tuple[DeviceRunner, list[Any]]:
    runner = DeviceRunner()
    runner.configure(settings)
    return runner, [(node, runner.route_of(node)) for node in nodes]


@pytest.mark.parametrize("place", RUNNER)
def test_the_runner_takes_the_files_on_such_machines(place, nodes, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1 if "workstation" in place else 8)
    runner, routes = routed(RUNNER[place], nodes)
    check_routes(routes, runner.configuration)


@pytest.mark.parametrize("place", ["One machine with eight GPUs", "Training in several processes"])
def test_four_visible_gpus_are_not_eight(place, nodes, monkeypatch):
    # What CUDA_VISIBLE_DEVICES=0,1,2,3 does.
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    runner, routes = routed(RUNNER[place], nodes)
    with pytest.raises(InputError, match=r"8 processes are configured, but this machine has 4 GPU"):
        check_routes(routes, runner.configuration)


class FakeRay:
    """Records what reaches Ray, and is a cluster of a given size."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, total: dict[str, float]) -> None:
        ray = pytest.importorskip("ray")
        self.started: dict[str, Any] = {}
        self.remote: dict[str, Any] = {}
        monkeypatch.setattr(ray, "is_initialized", lambda: False)
        monkeypatch.setattr(ray, "init", lambda **options: self.started.update(options))
        monkeypatch.setattr(ray, "shutdown", lambda: None)
        monkeypatch.setattr(ray, "cluster_resources", lambda: total)

        def remote(**options: Any) -> Any:
            self.remote.update(options)
            raise Asked

        monkeypatch.setattr(ray, "remote", remote)


class Asked(Exception):
    """The task got as far as Ray."""


def test_the_file_of_the_cluster_reaches_ray(nodes, monkeypatch):
    fake = FakeRay(monkeypatch, CLUSTER)
    runner, routes = routed(RUNNER["A Ray cluster"], nodes)
    check_routes(routes, runner.configuration)
    training = next(route for node, route in routes if "train" in node.tags)
    with open_backends(routes, runner.configuration) as backends:
        assert fake.started["address"] == "auto"
        assert "num_cpus" not in fake.started  # Ray rejects them beside an address
        with pytest.raises(Asked):
            backends["ray"].run(None, training)
    assert fake.remote == {
        **{"num_cpus": 8, "num_gpus": 1, "memory": 64 * 2**30, "resources": None},
        **{"max_retries": 2, "max_calls": 1},
    }


def test_custom_resources_reach_ray(nodes, monkeypatch):
    fake = FakeRay(monkeypatch, {**CLUSTER, "big_memory": 1.0})
    settings = {"routes": {"train": {**RUNNER["A Ray cluster"]["routes"]["train"], "resources": {"big_memory": 1}}}}
    runner, routes = routed(settings, nodes)
    training = next(route for node, route in routes if "train" in node.tags)
    with open_backends(routes, runner.configuration) as backends, pytest.raises(Asked):
        backends["ray"].run(None, training)
    assert fake.remote["resources"] == {"big_memory": 1}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"execution": {"workers": 33, "num_gpus": 1}}, "33 GPU are configured, but the cluster has 32"),
        ({"routes": {"train": {"backend": "ray", "resources": {"big_memory": 1}}}}, "1 big_memory are configured"),
        # The node would keep its GPU while its 32 workers wait for theirs.
        (
            {"routes": {"gpu": {"backend": "ray", "num_gpus": 1}}, "execution": {"workers": 32, "num_gpus": 1}},
            "33 GPU are configured, but the cluster has 32",
        ),
    ],
)
def test_more_than_the_cluster_has_is_rejected_before_anything_runs(settings, message, nodes, monkeypatch):
    FakeRay(monkeypatch, CLUSTER)
    runner, routes = routed(settings, nodes)
    with pytest.raises(InputError, match=message), open_backends(routes, runner.configuration):
        raise AssertionError("it was not rejected")


@pytest.mark.parametrize("place", blocks("bash"))
def test_scripts_parse(place):
    shell = shutil.which("bash")
    if shell is None:
        pytest.skip("there is no bash")
    done = subprocess.run([shell, "-n"], input=blocks("bash")[place], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_script_for_several_machines_sets_what_the_runner_knows(nodes):
    from kedro.framework.cli.utils import _split_params

    script = blocks("bash")["On several machines"].replace("$SLURM_NNODES", "2").replace("$head", "gpu1")
    [settings] = re.findall(r'--runner-params="(.*)"', script)
    runner = DeviceRunner(**_split_params(None, None, settings))
    runner.configure({})
    route = runner.configuration.routes["train"]
    assert (route.machines, route.processes, route.rendezvous) == (2, 8, "gpu1:29400")
    assert "kedro join gpu1:29400" in " ".join(script.replace('"', "").split())


# Fields of ray.io/v1 RayCluster (ray-operator/apis/ray/v1/raycluster_types.go of KubeRay) and of pods (core/v1):
# the name of each, and what it holds.
_CONTAINER = {"name": str, "image": str, "workingDir": str, "resources": dict, "volumeMounts": list}
_POD = {"template.spec.containers[]." + name: kind for name, kind in _CONTAINER.items()} | {
    "template.spec.volumes[].name": str,
    "template.spec.volumes[].persistentVolumeClaim.claimName": str,
}
_GROUP = {"rayStartParams": dict, **_POD}
FIELDS = {
    "apiVersion": str,
    "kind": str,
    "metadata.name": str,
    "spec.rayVersion": str,
    "spec.authOptions.mode": str,
    **{f"spec.headGroupSpec.{name}": kind for name, kind in _GROUP.items()},
    **{f"spec.workerGroupSpecs[].{name}": kind for name, kind in _GROUP.items()},
    "spec.workerGroupSpecs[].groupName": str,
    **{f"spec.workerGroupSpecs[].{name}": int for name in ("replicas", "minReplicas", "maxReplicas")},
}


def fields(value: Any, path: str = "") -> list[tuple[str, Any]]:
    """All fields of a manifest down to those that :data:`FIELDS` names."""
    if path in FIELDS:
        return [(path, value)]
    if isinstance(value, dict):
        return [leaf for name, below in value.items() for leaf in fields(below, f"{path}.{name}" if path else name)]
    if isinstance(value, list):
        return [leaf for below in value for leaf in fields(below, f"{path}[]")]
    return [(path, value)]


def test_the_cluster_for_kubernetes_has_fields_that_exist(nodes, monkeypatch):
    ray = pytest.importorskip("ray")
    cluster = yaml.safe_load(blocks("yaml")["On Kubernetes"])
    found = fields(cluster)
    assert {path for path, _ in found} - set(FIELDS) == set()
    assert [path for path, value in found if not isinstance(value, FIELDS[path])] == []
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    assert cluster["spec"]["authOptions"] == {"mode": "token"}
    # Workers of another version cannot join.
    assert cluster["spec"]["rayVersion"] == ray.__version__
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    for group in groups:
        # Parameters of 'ray start' are texts, numbers too.
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == {
            volume["name"] for volume in pod["volumes"]
        }
    # It is large enough for the runner's file.
    workers = cluster["spec"]["workerGroupSpecs"][0]
    limits = workers["template"]["spec"]["containers"][0]["resources"]["limits"]
    total = {"CPU": workers["replicas"] * float(limits["cpu"]), "GPU": workers["replicas"] * 8.0, "memory": 2.0**41}
    assert limits["nvidia.com/gpu"] == "8"
    FakeRay(monkeypatch, total)
    runner, routes = routed(RUNNER["A Ray cluster"], nodes)
    with open_backends(routes, runner.configuration):
        pass
