"""Which device a process computes on."""

import os


def resolve_device(device: str) -> str:
    """Return this process's CUDA device for 'auto', or 'cpu' if there is none; other names unchanged."""
    if device != "auto":
        return device
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    # Processes launched together take one device each, by their number on this machine.
    return f"cuda:{os.environ['LOCAL_RANK']}" if "LOCAL_RANK" in os.environ else "cuda"
