"""Nodes on Ray: a cluster started here for one run, or an existing one by its address."""

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from kedro.runner.task import Task

from vr_pipeline.errors import InputError, PipelineError
from vr_pipeline.runners.config import Execution, RayCluster, RayRoute, Route
from vr_pipeline.runners.meeting import parse_address
from vr_pipeline.runners.ray_pool import pool_loop
from vr_pipeline.runners.ray_token import keep_token_private
from vr_pipeline.runners.shipping import execute, pack, unpack
from vr_pipeline.runners.signals import signals_kept
from vr_pipeline.runtime.environment import LOCAL_RAY, environment_variables, overrule
from vr_pipeline.work import use_loop

logger = logging.getLogger(__name__)

_GIB = 2**30
_ANSWER_SECONDS = 5.0


@contextmanager
def _on_this_machine() -> Iterator[None]:
    """Restrict a Ray started here to the loopback interface; on Linux its servers would listen on all interfaces.

    Anyone who reaches them could run code. Ray reads the variable when it is imported, in this process and in those
    that it starts. Ray's token keeps other users of this machine out.
    """
    with environment_variables({"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}):
        from ray._private import ray_constants

        logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
        # It may have been imported before.
        known, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
        try:
            yield
        finally:
            ray_constants.ENABLE_RAY_CLUSTER = known


@contextmanager
def connected(cluster: RayCluster) -> Iterator[None]:
    """Connect to the cluster for the duration of a run; a cluster started here is stopped again."""
    import ray

    if ray.is_initialized():
        yield
        return
    if cluster.address is not None:
        check_reachable(cluster.address)
    with _on_this_machine() if cluster.address is None else nullcontext():
        _start(cluster)
        try:
            yield
        finally:
            ray.shutdown()


def check_reachable(address: str) -> None:
    """Check that something listens at a cluster's address; Ray itself would try for minutes.

    Raises:
        InputError: the address has no host and port, or nothing answers there within seconds.
    """
    if address in ("auto", "local"):
        return
    try:
        host, port = parse_address(address.removeprefix("ray://").partition("/")[0])
        with socket.create_connection((host, port), timeout=_ANSWER_SECONDS):
            return
    except ValueError as error:
        trouble = str(error)
    except OSError as error:
        trouble = f"nothing answers there: {error.strerror or error}"
    raise InputError(
        f"the Ray cluster at {address} cannot be reached ({trouble})",
        remedy="correct the address or start the cluster, or omit the address to start Ray here",
        file="conf/<env>/runner.yml",
        field="ray.address",
    )


def _start(cluster: RayCluster) -> None:
    import ray

    # A worker without GPUs must not see any: Ray's announced default.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = {"log_to_driver": True, "logging_level": logging.WARNING, "configure_logging": False}
    if cluster.address is None:
        for sentence in overrule(LOCAL_RAY, "ray.address in conf/<env>/runner.yml, which names no cluster,"):
            logger.warning(sentence)
        keep_token_private()
        logger.info("Starting Ray on this machine")
        options |= {
            # Without it Ray joins whatever cluster runs on this machine.
            "address": "local",
            "num_cpus": cluster.num_cpus,
            "num_gpus": cluster.num_gpus,
            "include_dashboard": cluster.dashboard,
            "dashboard_host": cluster.dashboard_host,
        }
    else:
        options["address"] = cluster.address
    # On a busy machine Ray may exceed its time limit of half a minute; a second start often succeeds.
    for last in (True,) if cluster.address else (False, True):
        try:
            with signals_kept():
                ray.init(**options)
            return
        except Exception as error:  # Ray raises bare exceptions, for instance when its start takes too long
            ray.shutdown()
            if last:
                raise InputError(
                    f"Ray cannot be reached or started ({error})",
                    remedy="check the address, or omit it to start Ray here",
                    file="conf/<env>/runner.yml",
                    field="ray.address",
                ) from error
            logger.warning("Ray did not start in time; trying once more")


def check_resources(needs: Mapping[str, float], field: str) -> None:
    """Check that the connected cluster has enough resources; waiting for missing ones would never end.

    Raises:
        InputError: the needs exceed the cluster's total.
    """
    import ray

    total = ray.cluster_resources()
    for name, amount in needs.items():
        if amount > total.get(name, 0):
            raise InputError(
                f"{amount:g} {name} are configured, but the cluster has {total.get(name, 0):g}",
                remedy="reserve less or add machines",
                file="conf/<env>/runner.yml",
                field=field,
            )


def needs_of(reserving: RayRoute | Execution) -> dict[str, float]:
    """Return Ray resource -> amount that a route, or all workers within a node, reserve; memory in bytes."""
    if isinstance(reserving, RayRoute):
        needs = {"memory": reserving.memory_gib * _GIB, **reserving.resources}
        copies = 1
    else:
        copies = reserving.workers
        needs = {name: amount * copies for name, amount in reserving.resources.items()}
    needs |= {"CPU": reserving.num_cpus * copies, "GPU": reserving.num_gpus * copies}
    return {name: amount for name, amount in needs.items() if amount > 0}


class RayNodes:
    """Runs each node as one Ray task."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution

    def run(self, task: Task, route: Route) -> None:
        import ray

        assert isinstance(route, RayRoute)
        remote = ray.remote(
            num_cpus=route.num_cpus,
            num_gpus=route.num_gpus,
            memory=route.memory_gib * _GIB or None,
            resources=route.resources or None,
            max_retries=route.max_retries,
            # A worker that exits after one node frees its memory, including the GPU's; 0 keeps it.
            max_calls=1 if route.fresh_worker else 0,
        )(_execute_on_worker)
        pending = remote.remote(pack(task), self._execution)
        try:
            outcome = ray.get(pending)
        except KeyboardInterrupt:
            ray.cancel(pending, force=True)
            raise
        except ray.exceptions.RayError as error:
            raise PipelineError(
                f"The worker of node '{task.node.name}' died {route.max_retries + 1} time(s): {error}"
            ) from error
        unpack(outcome, task)


def _execute_on_worker(shipment: Any, execution: Execution) -> Any:
    if execution.workers > 1:
        with use_loop(pool_loop(execution)):
            return execute(shipment)
    return execute(shipment)
