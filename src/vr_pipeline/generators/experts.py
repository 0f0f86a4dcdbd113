"""Two denoisers as one module: each has an adapter of its own, and both are trained, switched and counted together."""

from __future__ import annotations

from typing import Any

import torch


class Experts(torch.nn.Module):
    """Denoisers of one class by the names that their pipeline gives them."""

    def __init__(self, parts: dict[str, torch.nn.Module]) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)

    @property
    def config(self) -> Any:
        """Settings of the first; those that size and positions depend on are the same for all."""
        return next(self.children()).config

    def add_adapter(self, config: Any) -> None:
        """Add a low-rank adapter to each."""
        for part in self.children():
            part.add_adapter(config)  # type: ignore[operator]

    def disable_adapters(self) -> None:
        """Switch the adapters off."""
        for part in self.children():
            part.disable_adapters()  # type: ignore[operator]

    def enable_adapters(self) -> None:
        """Switch the adapters on."""
        for part in self.children():
            part.enable_adapters()  # type: ignore[operator]

    def enable_gradient_checkpointing(self) -> None:
        """Compute activations again going back."""
        for part in self.children():
            part.enable_gradient_checkpointing()  # type: ignore[operator]
