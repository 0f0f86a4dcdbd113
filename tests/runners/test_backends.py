"""The same results wherever nodes and batches run, also when workers die."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import time
from pathlib import Path

import pytest

from toy_project import kedro, make_project, start_kedro
from vr_pipeline.datasets.manifest import ManifestFolderDataset
from vr_pipeline.runners.config import Execution, RayCluster
from vr_pipeline.runners.ray_pool import pool_loop
from vr_pipeline.work import WorkItem, WorkPlan, use_loop

ray = pytest.importorskip("ray")
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


def run(folder: Path, *arguments: str) -> tuple[dict[str, bytes], str]:
    """Files under data/ after a run without MLflow, and what was printed."""
    make_project(folder)
    (folder / "conf" / "local" / "mlflow.yml").write_text("enabled: false\n")
    done = kedro(folder, "run", *arguments)
    assert done.returncode == 0, done.stderr
    # Hidden files hold times: what is known of files that were verified.
    files = (path for path in (folder / "data").rglob("[!.]*.*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}, done.stdout + done.stderr


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> dict[str, bytes]:
    return run(tmp_path_factory.mktemp("reference"))[0]


@pytest.fixture(scope="module")
def cluster():
    """One cluster of two cores; the command lines below join it by its address."""
    from vr_pipeline.runners.ray_backend import connected

    with connected(RayCluster(num_cpus=2, num_gpus=0)):
        yield ray.get_runtime_context().gcs_address


def test_nodes_give_the_same_files_on_every_backend(tmp_path, reference, cluster):
    routes = "routes.gpu.backend=ray,routes.train.backend=torchrun,routes.train.processes=2"
    files, printed = run(tmp_path, f"--runner-params={routes},ray.address={cluster}")
    assert files == reference
    assert "clips: 4 clips" in printed
    assert "training_log_mpo: 2 rows" in printed


def test_a_node_whose_worker_is_killed_is_run_again_from_where_it_was(tmp_path, reference, cluster):
    settings = f"routes.gpu.backend=ray,ray.address={cluster}"
    files, printed = run(tmp_path, f"--runner-params={settings}", "--params=toy.trouble=kill once")
    assert (tmp_path / "killed").exists()
    assert "clips: 1 of 4 are there already" in printed
    assert files == reference


def test_the_signal_of_schedulers_stops_a_run_on_ray_as_ctrl_c_does(tmp_path, cluster):
    make_project(tmp_path)
    workers = f"--runner-params=execution.workers=2,ray.address={cluster}"
    process = start_kedro(tmp_path, "run", "--params=toy.trouble=slow,toy.rows=60", workers)
    try:
        end = time.monotonic() + 100
        while not list((tmp_path / "data" / "clips").glob("p*.json")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end, "the run did not begin"
            time.sleep(0.05)
        process.terminate()
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130, errors
    assert "The run was stopped." in errors
    assert "--from-nodes=make_clips" in errors
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        assert connection.execute("select status from runs").fetchall() == [("KILLED",)]


def test_errors_in_other_processes_read_as_errors_here_and_mlflow_has_them(tmp_path, cluster):
    make_project(tmp_path)
    settings = f"execution: {{workers: 2}}\nroutes: {{train: {{backend: ray}}}}\nray: {{address: '{cluster}'}}\n"
    (tmp_path / "conf" / "local" / "runner.yml").write_text(settings)
    # In two processes both are at fault, or wait for each other: all end at once.
    launched = "--runner-params=routes.train.backend=torchrun,routes.train.processes=2"
    for place in ([], [launched]):
        done = kedro(tmp_path, "run", "--params=toy.trouble=table", *place)
        assert done.returncode == 1
        assert "column 'step': field_uniqueness fails 2 time(s), for instance 1, 1 (row 2, 3)" in done.stderr
        assert "--from-nodes=train_policy" in done.stderr
    lacking = f"--runner-params=routes.train.num_gpus=1000,ray.address={cluster}"
    done = kedro(tmp_path, "run", lacking)
    assert done.returncode == 1
    assert "1000 GPU are configured, but the cluster has 0" in done.stderr

    # One run of MLflow for each, and none of the workers' own.
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        assert connection.execute("select status from runs").fetchall() == [("FAILED",)] * 3
        errors = [value for (value,) in connection.execute("select value from tags where key = 'error'")]
        times = connection.execute("select count(*) from metrics where key = 'seconds.make_clips'").fetchone()
    assert sum("field_uniqueness" in error for error in errors) == 2
    assert sum("1000 GPU" in error for error in errors) == 1
    assert times == (2,)


def test_a_ray_that_is_started_here_listens_to_this_machine_only(cluster):
    import psutil

    assert ray.get(ray.remote(seven).remote()) == 7  # a worker listens too
    this = psutil.Process()
    places = [place for process in [this, *this.children(recursive=True)] for place in listening(process)]
    assert len(places) > 3
    assert {place.removeprefix("::ffff:") for place in places} <= {"127.0.0.1", "::1"}


def listening(process) -> list[str]:
    import psutil

    try:
        return [place.laddr.ip for place in process.net_connections() if place.status == psutil.CONN_LISTEN]
    except psutil.Error:  # it has just ended
        return []


def process_of_node(number: int) -> int:
    return os.getpid()


@pytest.mark.parametrize("fresh", [True, False])
def test_nodes_have_a_process_of_their_own_unless_told_otherwise(cluster, fresh):
    from kedro.io import DataCatalog, MemoryDataset
    from kedro.pipeline import Node
    from kedro.runner.task import Task

    from vr_pipeline.runners.config import RayRoute
    from vr_pipeline.runners.ray_backend import RayNodes

    catalog = DataCatalog({"a": MemoryDataset(1), **{name: MemoryDataset() for name in "bcd"}})
    for name in "bcd":
        task = Task(Node(process_of_node, "a", name, name=f"make_{name}"), catalog, is_async=False)
        RayNodes(Execution()).run(task, RayRoute() if fresh else RayRoute(fresh_worker=False))
    processes = {catalog.load(name) for name in "bcd"}
    assert os.getpid() not in processes
    # Ray may start a second one beside the first, but never a third while two wait.
    assert len(processes) == 3 if fresh else len(processes) < 3


def describe(context: int, batch) -> list[dict[str, object]]:
    return [{"key": item.key, "batch": [other.key for other in batch], "model": context} for item in batch]


def seven() -> int:
    return 7


def make_folder(folder: Path, make=describe, workers: int = 0) -> dict[str, bytes]:
    items = [WorkItem(f"item{n}", "1") for n in range(11)]
    store = ManifestFolderDataset(path=str(folder), format={"type": "json"})
    plan = WorkPlan(items, make, batch_size=2, description="things", setup=seven)
    if workers:
        with use_loop(pool_loop(Execution(workers=workers))):
            store.save(plan)
    else:
        store.save(plan)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.usefixtures("cluster")
class TestPool:
    def test_workers_make_what_the_loop_makes(self, tmp_path):
        assert make_folder(tmp_path / "pool", workers=2) == make_folder(tmp_path / "loop")

    def test_workers_are_new_for_every_plan_unless_told_otherwise(self, tmp_path):
        def tells_its_process(context, batch):
            return [{"process": os.getpid(), "model": context} for _ in batch]

        for fresh, number in ((True, 2), (False, 1)):
            loop, processes = pool_loop(Execution(workers=1, fresh_workers=fresh)), set()
            for model in (lambda: 7, lambda: 8):
                plan = WorkPlan([WorkItem("a", "1")], tells_its_process, setup=model)
                [(_, [made])] = loop(plan, plan.batches())
                assert made["model"] == model()
                processes.add(made["process"])
            assert len(processes) == number

    def test_a_worker_that_dies_is_replaced(self, tmp_path):
        marker = tmp_path / "died"

        def dies_once(context, batch):
            if batch[0].key == "item4" and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return describe(context, batch)

        assert make_folder(tmp_path / "pool", dies_once, workers=2) == make_folder(tmp_path / "loop")
        assert marker.exists()

    def test_workers_that_keep_dying_stop_the_run_and_keep_what_is_made(self, tmp_path):
        from kedro.io import DatasetError

        def dies(context, batch):
            if batch[0].key == "item4":
                os.kill(os.getpid(), signal.SIGKILL)
            return describe(context, batch)

        with pytest.raises(DatasetError, match="keep dying"):
            make_folder(tmp_path / "pool", dies, workers=1)
        assert (tmp_path / "pool" / "item0.json").exists()
        assert make_folder(tmp_path / "pool") == make_folder(tmp_path / "loop")

    def test_errors_of_the_work_come_through(self, tmp_path):
        from kedro.io import DatasetError

        def fails(context, batch):
            raise ZeroDivisionError("in the worker")

        with pytest.raises(DatasetError, match="in the worker") as caught:
            make_folder(tmp_path / "pool", fails, workers=2)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
