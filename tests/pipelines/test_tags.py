"""The tag ``gpu`` is on every node that may load a model: found in the sources, through all that a node calls."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

LOADERS = {"load_generator", "load_judge", "load_reward_model", "load_embedder", "load_text_model"}
LOADERS |= {"ranker_of", "load_family", "train_vlm"}
LOADERS |= {"train_judge", "train_preference_reward", "train_unified_reward", "pretrain_generator"}


@functools.cache
def named_in(function: Any) -> tuple[list[Any], set[str]]:
    """Functions and classes of the project that a function's source names outside of annotations, and attributes."""
    try:
        tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(function)))
    except OSError:  # a method that a decorator of its class has made
        return [], set()
    known = dict(vars(importlib.import_module(function.__module__)))
    hints: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vr_pipeline"):
            module = importlib.import_module(str(node.module))
            known |= {alias.asname or alias.name: getattr(module, alias.name, None) for alias in node.names}
        for hint in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            hints |= {id(inner) for inner in ast.walk(hint)} if isinstance(hint, ast.AST) else set()
    found, attributes = [], set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and id(node) not in hints:
            found.append(known.get(node.id))
        elif isinstance(node, ast.Attribute):
            attributes.add(node.attr)
            inside = known.get(node.value.id) if isinstance(node.value, ast.Name) else None
            found.append(getattr(inside, node.attr, None) if isinstance(inside, ModuleType) else None)
    own = [one for one in found if str(getattr(one, "__module__", "")).startswith("vr_pipeline")]
    return [one for one in own if inspect.isclass(one) or inspect.isfunction(inspect.unwrap(one))], attributes


def reached(function: Callable[..., Any]) -> set[str]:
    """Names of the functions that a function may call at any depth; of classes it names, the methods that are named."""
    while isinstance(function, functools.partial):
        function = function.func
    seen: set[Any] = set()
    classes: set[type] = set()
    attributes = {"__init__", "__post_init__", "__call__", "__iter__", "__enter__", "__getitem__"}
    waiting = {inspect.unwrap(function)}
    while waiting:
        while waiting:
            seen.add(one := waiting.pop())
            named, found = named_in(one)
            attributes |= found
            classes |= {base for thing in named if inspect.isclass(thing) for base in thing.__mro__}
            waiting |= {inspect.unwrap(thing) for thing in named if not inspect.isclass(thing)} - seen
        methods = [vars(cls)[name] for cls in classes for name in attributes & set(vars(cls))]
        methods = [getattr(method, "__func__", method) for method in methods]
        waiting = {method for method in methods if inspect.isfunction(method)} - seen
    return {one.__name__ for one in seen}


def test_nodes_that_may_load_a_model_are_tagged() -> None:
    from vr_pipeline.pipeline_registry import register_pipelines

    nodes = {node.short_name: node for pipeline in register_pipelines().values() for node in pipeline.nodes}
    loading = {name for name, node in nodes.items() if reached(node.func) & LOADERS}
    # These name the reward, which can ask a judge, and only read what it has measured.
    loading -= {f"collect_{of}answers" for of in ("", "preference_", "evaluation_", "ablation_")}
    loading -= {"describe_reward", "collect_rewards", "collect_evaluation_rewards", "collect_guided_rewards"}
    loading -= {"collect_benchmark", "report_benchmark"}
    assert loading == {name for name, node in nodes.items() if "gpu" in node.tags}
