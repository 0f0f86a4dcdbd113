"""Nodes of pipelines."""

from collections.abc import Callable, Sequence
from typing import Any

from kedro.pipeline import Node


def step(
    function: Callable[..., Any],
    inputs: str | list[str] | None,
    outputs: str | list[str],
    *,
    name: str | None = None,
    tags: Sequence[str] = (),
) -> Node:
    """Return a node, by default with the name of its function."""
    return Node(function, inputs, outputs, name=name or function.__name__, tags=list(tags))
