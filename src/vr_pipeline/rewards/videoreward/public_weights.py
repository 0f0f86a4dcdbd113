"""Weights in the public VideoReward layout: a PEFT state of a Qwen2-VL with older names, including the head.

All keys and shapes are compared with the architecture; missing and unknown weights are errors.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vr_pipeline.errors import InputError
from vr_pipeline.storage.models import reason_in_short

if TYPE_CHECKING:
    import torch

    State = dict[str, torch.Tensor]
    Shapes = Mapping[str, tuple[int, ...]]

PEFT: Final = "base_model.model."
"""Prefix of names in a state of PEFT."""
HEAD: Final = "rm_head.weight"
EMBEDDING: Final = "model.embed_tokens.weight"
OUTPUT: Final = "lm_head.weight"
VISION: Final = "visual."
_FULL: Final = ("model.safetensors", "model.pth")
_ADAPTER: Final = ("adapter_model.safetensors", "adapter_model.bin")
_REST: Final = ("non_lora_state_dict.safetensors", "non_lora_state_dict.pth", "non_lora_state_dict.bin")
_LORA: Final = re.compile(r"(?P<module>.+)\.lora_(?P<part>[AB])(?:\.default)?\.weight")
_BASE: Final = re.compile(r"(?P<module>.+)\.base_layer\.(?P<leaf>weight|bias)")
_OLD_PREFIXES: Final = (("model.visual.", VISION), ("model.language_model.", "model."))
"""Prefixes of names in current transformers, and before 4.52, which checkpoints have."""


def old_name(name: str) -> str:
    """Return the name of a weight of Qwen2-VL in older versions of transformers."""
    for today, before in _OLD_PREFIXES:
        if name.startswith(today):
            return before + name.removeprefix(today)
    return name


def weight_files(checkpoint: Path) -> tuple[Path, ...]:
    """Return the file of a full state, or those of the adapter and of the fully trained weights.

    Raises:
        InputError: files are missing.
    """
    full = _first(checkpoint, _FULL)
    if full is not None:
        return (full,)
    parts = [_first(checkpoint, names) for names in (_ADAPTER, _REST)]
    for part, names in zip(parts, (_ADAPTER, _REST), strict=True):
        if part is None:
            other = f", nor {names[0]}" if parts == [None, None] else ""
            raise InputError(
                f"there is no {_FULL[1]}{other}" if other else f"there is no {names[0]}",
                remedy="Give the complete checkpoint: model.pth, or adapter_model.safetensors and "
                "non_lora_state_dict.pth",
                file=checkpoint,
            )
    return tuple(part for part in parts if part is not None)


def is_pickled(path: Path) -> bool:
    """Return whether a file of weights is a pickle."""
    return path.suffix != ".safetensors"


def read_state(path: Path) -> State:
    """Read tensors by name; pickles with ``weights_only``, which runs no code.

    Raises:
        InputError: the file cannot be read, or has other content than tensors of finite numbers.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if is_pickled(path):
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        else:
            state = load_file(path)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"the pickle has more than tensors; no code was run ({reason_in_short(error)})",
            remedy="Do not trust this file; download the checkpoint from its owner",
            file=path,
        ) from error
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError) as error:
        problem = f"the file cannot be read ({reason_in_short(error)})"
        raise InputError(problem, remedy="Download the checkpoint again", file=path) from error
    if not isinstance(state, Mapping) or not state:
        raise InputError("it is not a mapping of weights", remedy="Download the checkpoint again", file=path)
    for name, tensor in state.items():
        problem = ""
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
            problem = "it is not a tensor of numbers"
        elif not bool(torch.isfinite(tensor).all()):
            problem = "it has values that are not finite numbers"
        if problem:
            raise InputError(problem, remedy="Download the checkpoint again", file=path, field=str(name))
    return dict(state)


def full_state(adapter: State, rest: State, base: State, *, vision_trained: bool, tied: bool, file: Path) -> State:
    """Return the full state of an adapter, the fully trained weights and the base model.

    Args:
        adapter: pairs of LoRA matrices.
        rest: fully trained weights, which replace those of the base model: head, embeddings, vision tower.
        base: weights of the base model by :func:`old_name`.
        vision_trained: whether the whole vision tower must be in ``rest``.
        tied: whether embeddings and output are one weight.
        file: of ``rest``, for messages.

    Raises:
        InputError: ``rest`` lacks the head, the embeddings or a part of the vision tower.
    """
    matches = {name: _LORA.fullmatch(name) for name in adapter}
    lora = {
        f"{match['module']}.lora_{match['part']}.default.weight" if match else name: adapter[name]
        for name, match in matches.items()
    }
    adapted = {match["module"] for match in matches.values() if match}
    seen = [name for name in rest if name.startswith(PEFT + VISION)]
    needed = {PEFT + HEAD, PEFT + EMBEDDING}
    if vision_trained or seen:
        needed |= {PEFT + name for name in base if name.startswith(VISION)}
    for name in sorted(needed - rest.keys()):
        raise _trouble(f"'{name}' is missing", file, name)
    state: State = {}
    for name, tensor in base.items():
        module, _, leaf = (PEFT + name).rpartition(".")
        state[f"{module}.base_layer.{leaf}" if module in adapted else PEFT + name] = tensor
    embedding = rest[PEFT + EMBEDDING]
    state[PEFT + OUTPUT] = embedding if tied else base[OUTPUT][: len(embedding)]
    return {**state, **rest, **lora}


def merged(state: State, shapes: Shapes, *, prefix: str, factor: float | None, every_layer: bool, file: Path) -> State:
    """Return the weights of a full state with LoRA merged, W + factor B A, in float32 without the head.

    Args:
        state: by the checkpoint's names.
        shapes: of the architecture's weights by current names, with the checkpoint's number of embeddings.
        prefix: :data:`PEFT`, or empty for a state without LoRA.
        factor: alpha / r; None if unknown.
        every_layer: whether all layers have the same LoRA matrices.
        file: of the state, for messages.

    Raises:
        InputError: a weight is missing, unknown or has another shape, or the factor is needed and unknown.
    """
    names = {prefix + old_name(name): name for name in shapes}
    adapted = {match["module"] for name in state if (match := _LORA.fullmatch(name) or _BASE.fullmatch(name))}
    adapted = {module for module in adapted if f"{module}.weight" in names}
    _compare(keys_of_state(names, adapted, prefix), state.keys(), file)
    if factor is None and adapted:
        raise InputError(
            "the state has LoRA matrices, but their rank or alpha is missing",
            remedy="Set lora_r and lora_alpha",
            file=file,
            field="peft_lora_config",
        )
    if every_layer:
        _check_every_layer(adapted, names, file)
    scale = factor or 0.0  # unused without LoRA
    result: State = {}
    for name, today in names.items():
        module, _, leaf = name.rpartition(".")
        weight = state[f"{module}.base_layer.{leaf}" if module in adapted else name]
        if tuple(weight.shape) != tuple(shapes[today]):
            raise _shape_trouble(name, weight, list(shapes[today]), file)
        weight = weight.float()
        if module in adapted and leaf == "weight":
            weight = weight + scale * _product(state, module, weight, file)
        result[today] = weight.contiguous()
    return result


def keys_of_state(names: Collection[str], adapted: Collection[str], prefix: str) -> set[str]:
    """Return the keys of a full state.

    Args:
        names: of the architecture's weights in the checkpoint, with the prefix.
        adapted: modules with LoRA.
        prefix: of the head's name.
    """
    keys = {prefix + HEAD}
    for name in names:
        module, _, leaf = name.rpartition(".")
        keys.add(f"{module}.base_layer.{leaf}" if module in adapted else name)
    return keys | {f"{module}.lora_{part}.default.weight" for module in adapted for part in "AB"}


def _product(state: State, module: str, weight: torch.Tensor, file: Path) -> torch.Tensor:
    """Return B A of a module, float32."""
    down, up = (state[f"{module}.lora_{part}.default.weight"].float() for part in "AB")
    rank = down.shape[0]
    for part, tensor, shape in (("A", down, [rank, weight.shape[1]]), ("B", up, [weight.shape[0], rank])):
        if list(tensor.shape) != shape:
            raise _shape_trouble(f"{module}.lora_{part}.default.weight", tensor, shape, file)
    return up @ down


def ranks(state: State) -> dict[str, int]:
    """Return the rank of every LoRA matrix A, by name."""
    return {
        name: tensor.shape[0] for name, tensor in state.items() if (m := _LORA.fullmatch(name)) and m["part"] == "A"
    }


def _check_every_layer(adapted: Collection[str], names: Mapping[str, str], file: Path) -> None:
    """Reject a state in which only some layers have LoRA matrices."""
    kinds = {re.sub(r"\.\d+\.", ".N.", module) for module in adapted}
    for name in names:
        module, _, leaf = name.rpartition(".")
        if leaf == "weight" and re.sub(r"\.\d+\.", ".N.", module) in kinds and module not in adapted:
            raise _trouble(f"'{module}.lora_A.default.weight' is missing, unlike in other layers", file, module)


def _compare(wanted: Collection[str], found: Collection[str], file: Path) -> None:
    missing, unknown = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    for names, what in ((missing, "missing"), (unknown, "unknown to this kind of model")):
        if names:
            count = "" if len(names) == 1 else f", as are {len(names) - 1} more"
            raise _trouble(f"the weight '{names[0]}' is {what}{count}", file, names[0])


def _shape_trouble(name: str, tensor: Any, shape: list[int], file: Path) -> InputError:
    return _trouble(f"the weight '{name}' has shape {list(tensor.shape)} instead of {shape}", file, name)


def _trouble(problem: str, file: Path, name: str) -> InputError:
    return InputError(
        problem,
        remedy="Download the checkpoint again, and check that the base model is that of its training",
        file=file,
        field=name,
    )


def _first(folder: Path, names: Collection[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)
