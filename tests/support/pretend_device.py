"""A device with a memory of its own, on a machine without one.

Its tensors live in the CPU's memory and say that they are on ``pretend:0``; an operation on tensors of both devices
raises, as on a GPU. So what code for GPUs computes, and whether it puts every tensor where it belongs, is seen without
a GPU. What it cannot show: kernels, streams, memory.

``install`` changes torch for the whole process; processes that use it do nothing else.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_map

NAME = "pretend"
_PLACE = torch.device("cpu")  # replaced by install
_CROSSES = {"aten::_to_copy", "aten::copy_", "aten::_local_scalar_dense"}
_INDEXES = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
_FACTORIES = ("arange", "empty", "eye", "full", "linspace", "ones", "rand", "randint", "randn", "randperm", "zeros")


class MixedDevices(RuntimeError):
    """An operation on tensors of two devices."""


class PretendTensor(torch.Tensor):
    """A tensor on the device; ``inner`` is where its values really are."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> PretendTensor:
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined, no-any-return]
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=_PLACE,
        )

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    def __repr__(self, **_: Any) -> str:
        return f"PretendTensor({self.inner})"

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        return _compute(operation, arguments, options or {})

    def tolist(self) -> Any:
        return self.inner.tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError("the values are not in the CPU's memory: call cpu() first")

    def __getitem__(self, index: Any) -> Any:
        # Lists as an index would become tensors through a way that Python cannot follow.
        parts = index if isinstance(index, tuple) else (index,)
        return super().__getitem__(tuple(torch.as_tensor(part) if isinstance(part, list) else part for part in parts))


def _compute(operation: Any, arguments: Any, options: dict[str, Any]) -> Any:
    name = operation._schema.name
    tensors = [value for value in tree_flatten((arguments, options))[0] if isinstance(value, torch.Tensor)]
    here = [value for value in tensors if isinstance(value, PretendTensor)]
    _check(name, arguments, tensors, here)
    if name == "aten::copy_":
        _inner(arguments[0]).copy_(_inner(arguments[1]))
        return arguments[0]
    asked = options.get("device")
    to_here = bool(here) if asked is None else torch.device(asked).type == NAME
    if asked is not None:
        options = options | {"device": torch.device("cpu")}
    known = {id(value.inner): value for value in here}
    result = operation(*tree_map(_inner, arguments), **tree_map(_inner, options))
    if not to_here and name == "aten::_to_copy":
        return result.clone()
    return tree_map(
        lambda value: known.get(id(value), PretendTensor(value)) if to_here and type(value) is torch.Tensor else value,
        result,
    )


def _check(name: str, arguments: Any, tensors: list[torch.Tensor], here: list[PretendTensor]) -> None:
    elsewhere = [value for value in tensors if not isinstance(value, PretendTensor) and value.dim() > 0]
    if not here or not elsewhere or name in _CROSSES:
        return
    # What is indexed may be on a device with indices on the CPU, not the other way round.
    if name in _INDEXES and all(isinstance(value, PretendTensor) for value in (arguments[0], *arguments[2:3])):
        return
    raise MixedDevices(f"{name} of {[(tuple(value.shape), str(value.device)) for value in tensors]}")


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, PretendTensor) else value


def install() -> None:
    """Make the device known to torch under :data:`NAME`."""
    global _PLACE
    from torch import library as operators
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(NAME)
    _PLACE = torch.device(f"{NAME}:0")
    # Parameters of another class cannot take the place of others' data; they are exchanged as a whole.
    torch.__future__.set_swap_module_params_on_conversion(True)
    # Tensors of inference mode have no place for a subclass.
    torch.inference_mode = torch.no_grad  # type: ignore[assignment, misc]
    fallback = operators.Library("_", "IMPL")
    fallback.fallback(lambda operation, *arguments, **options: _compute(operation, arguments, options), "PrivateUse1")
    torch._pretend_fallback = fallback  # type: ignore[attr-defined]  # it lasts as long as it is held
    for name in (*_FACTORIES, "tensor"):
        setattr(torch, name, _made_elsewhere(getattr(torch, name)))
    # Asked for even where nothing is to be cast.
    torch.get_device_module(NAME).get_amp_supported_dtype = lambda: [torch.bfloat16]


def _made_elsewhere(factory: Any) -> Any:
    """A factory that fills tensors of the device on the CPU: some write into the output in ways of their own."""

    def make(*arguments: Any, **options: Any) -> Any:
        device = options.get("device")
        if device is None or torch.device(device).type != NAME:
            return factory(*arguments, **options)
        return factory(*arguments, **options | {"device": None}).to(device)

    return make
