"""Two processes of a group, as torch's elastic launch starts them, that sum by gloo on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def in_two_processes(function: Callable[..., Any], *arguments: Any) -> tuple[Any, Any]:
    """What a function returns in the first and in the second process; both have to be able to import it."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    launch = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        run_id="test",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="spawn",
    )
    results = elastic_launch(launch, function)(*arguments)
    return results[0], results[1]
