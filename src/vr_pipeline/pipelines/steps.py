"""Nodes of pipelines, each with the description that Kedro-Viz shows."""

import inspect
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from kedro.pipeline import Node
from kedro.pipeline.preview_contract import TextPreview


def step(
    function: Callable[..., Any],
    inputs: str | list[str] | None,
    outputs: str | list[str],
    *,
    name: str | None = None,
    tags: Sequence[str] = (),
) -> Node:
    """Return a node, by default with the name of its function, whose preview is the function's description."""
    with warnings.catch_warnings():
        # Kedro calls previews of nodes experimental.
        warnings.simplefilter("ignore")
        return Node(
            function,
            inputs,
            outputs,
            name=name or function.__name__,
            tags=list(tags),
            preview_fn=preview_of(function),
        )


def preview_of(function: Any) -> Callable[[], TextPreview] | None:
    """Return the preview of a function's node: its description; None without documentation."""
    text = description(function)
    # A partial and no closure: nodes are pickled on their way to other processes.
    return partial(_preview, text) if text else None


def _preview(text: str) -> TextPreview:
    return TextPreview(content=text)


def description(function: Any) -> str:
    """Return the first paragraph of a function's documentation, on one line."""
    return " ".join(inspect.cleandoc(function.__doc__ or "").split("\n\n")[0].split())
