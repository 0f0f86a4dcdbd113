"""Which device a process computes on."""

from __future__ import annotations

import os


def resolve_device(device: str) -> str:
    """For 'auto' the CUDA device of this process, or 'cpu' where there is none; anything else as it is."""
    if device != "auto":
        return device
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    # Processes launched together take a device each, by their number on this machine.
    return f"cuda:{os.environ['LOCAL_RANK']}" if "LOCAL_RANK" in os.environ else "cuda"
