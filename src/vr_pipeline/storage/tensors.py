"""Tensors from safetensors files of any origin: complete, of usable precision, and finite."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from vr_pipeline.errors import InputError
from vr_pipeline.storage.models import reason_in_short

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

_TOO_FEW_BITS = ("F8_", "F6_", "F4", "I8", "U8")
"""Prefixes of the names of types whose numbers need scales that are stored elsewhere."""


_DIGEST = "sha256"
"""Key of a file's metadata, for the hash of its tensors."""


def write_tensors(path: Path, tensors: Mapping[str, npt.NDArray]) -> None:
    """Write arrays to a safetensors file with their hash, which :func:`read_tensors` compares."""
    import numpy as np
    from safetensors.numpy import save_file

    arrays = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    save_file(arrays, path, metadata={_DIGEST: _digest(arrays)})


def _digest(arrays: Mapping[str, npt.NDArray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}\n".encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def read_tensors(path: Path, *, remedy: str) -> dict[str, torch.Tensor]:
    """Read all tensors of a file.

    Args:
        path: safetensors file of 16 bits or more.
        remedy: of errors.

    Raises:
        InputError: it is missing, damaged or empty, has other tensors than :func:`write_tensors` wrote, has too few
            bits, or has NaN or infinity.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = sorted(file.keys())
            for name in names:
                _check_type(file.get_slice(name).get_dtype(), name, path, remedy)
            tensors: dict[str, torch.Tensor] = {name: file.get_tensor(name) for name in names}
            recorded = (file.metadata() or {}).get(_DIGEST)
    except (SafetensorError, OSError, ValueError, RuntimeError, MemoryError) as error:
        raise InputError(
            f"not a safetensors file, or not a whole one ({reason_in_short(error)})", file=path, remedy=remedy
        ) from error
    if not tensors:
        raise InputError("the file holds no tensors", file=path, remedy=remedy)
    if recorded is not None and recorded != _digest({name: value.numpy() for name, value in tensors.items()}):
        raise InputError("the file is damaged: its tensors are not those that were written", file=path, remedy=remedy)
    for name, value in tensors.items():
        check_numbers(name, value, path, remedy=remedy)
    return tensors


def check_numbers(name: str, value: torch.Tensor, file: Path | None, *, remedy: str) -> None:
    """Raise :class:`InputError` for a tensor with NaN or infinity."""
    if not bool(value.isfinite().all()):
        lost = int((~value.isfinite()).sum())
        raise InputError(
            f"{lost} of {value.numel()} values of the tensor '{name}' are no finite numbers", file=file, remedy=remedy
        )


def check_precision(folder: Path, *, field: str) -> None:
    """Raise :class:`InputError` for a folder without weights, or with weights of fewer than 16 bits."""
    from safetensors import safe_open

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise InputError(
            "there are no model weights (*.safetensors) here",
            file=folder,
            field=field,
            remedy="fetch the model again, with the weights of all its parts",
        )
    for path in files:
        with safe_open(path, framework="numpy") as file:
            for name in sorted(file.keys()):
                _check_type(file.get_slice(name).get_dtype(), name, path, "give weights of 16 bits or more")


def _check_type(kind: str, name: str, path: Path, remedy: str) -> None:
    if kind.startswith(_TOO_FEW_BITS):
        raise InputError(
            f"the tensor '{name}' is stored as {kind}: so few bits mean nothing without their scales",
            file=path,
            remedy=remedy,
        )
