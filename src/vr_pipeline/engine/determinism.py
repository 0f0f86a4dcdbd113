"""Settings for bit-identical results on the same machine."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def deterministic(threads: int | None = None) -> Iterator[None]:
    """Use deterministic kernels, and a fixed number of CPU threads if one is given, within this context."""
    import torch

    before_threads = torch.get_num_threads()
    before_mode = torch.are_deterministic_algorithms_enabled()
    before_warn = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before_mode, warn_only=before_warn)
        torch.set_num_threads(before_threads)


@contextlib.contextmanager
def outside_training() -> Iterator[None]:
    """Allow nondeterministic kernels within the block, then restore torch's threads and kernels.

    Not every model has deterministic kernels on GPUs, and another number of threads would change the training's
    rounding.
    """
    import torch

    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.set_num_threads(threads)
