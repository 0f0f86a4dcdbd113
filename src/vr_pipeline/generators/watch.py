"""Where, while clips are sampled, numbers stop being finite.

Pipelines clamp what they decode, which makes white of infinity, and a cast to bytes makes black of NaN: both would
pass for pictures.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch


class Watch:
    """What has been seen of one batch.

    Args:
        size: clips in the batch.
    """

    def __init__(self, size: int) -> None:
        self._places: list[str] = [""] * size

    def look(self, values: torch.Tensor, place: str) -> None:
        """Note the place for every clip that has its first value that is not finite here; values are [batch, ...]."""
        self._note(values.isfinite().flatten(1).all(dim=1).tolist(), place)

    def _note(self, finite: Iterable[bool], place: str) -> None:
        for row, is_finite in enumerate(finite):
            if not is_finite and not self._places[row]:
                self._places[row] = place

    def look_at(self, made: Any, place: str) -> None:
        """Look at a tensor, or at those of a tuple, where lists hold one tensor per clip; ignore other entries."""
        import torch

        values = made if isinstance(made, tuple) else (made,) if isinstance(made, torch.Tensor) else made.to_tuple()
        for value in values:
            if isinstance(value, torch.Tensor):
                self.look(value, place)
            elif isinstance(value, list):
                self._note((bool(one.isfinite().all()) for one in value), place)

    def after_step(self, _: Any, step: int, __: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Look at the ends of a pipeline's steps; changes nothing."""
        self.look(tensors["latents"], f"in denoising step {step + 1}")
        return {}

    def lost_in(self, row: int, clip: npt.NDArray[np.floating]) -> str:
        """Return where a clip of the batch lost its numbers; empty if it did not."""
        return self._places[row] or ("" if np.isfinite(clip).all() else "after decoding")


@contextlib.contextmanager
def watch_numbers(pipeline: Any, size: int) -> Iterator[Watch]:
    """Look at what the text encoder and the autoencoder of a pipeline give within a block."""
    watch = Watch(size)

    def watched(call: Callable[..., Any], place: str) -> Callable[..., Any]:
        def look_at_results(*arguments: Any, **keywords: Any) -> Any:
            made = call(*arguments, **keywords)
            watch.look_at(made, place)
            return made

        return look_at_results

    decoding = "in the autoencoder"
    with contextlib.ExitStack() as restored:
        for owner, name, place in (
            (pipeline, "encode_prompt", "in the text encoder"),
            (pipeline.vae, "decode", decoding),
        ):
            restored.enter_context(replaced_for_now(owner, name, watched(getattr(owner, name), place)))
        if (decoder := getattr(pipeline.vae, "decoder", None)) is not None:
            # Some autoencoders clamp what they decode.
            hook = decoder.register_forward_hook(lambda _, __, made: watch.look_at(made, decoding))
            restored.callback(hook.remove)
        yield watch


@contextlib.contextmanager
def replaced_for_now(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Have another value for an attribute within a block."""
    own = vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        delattr(owner, name) if own is None else setattr(owner, name, own)
