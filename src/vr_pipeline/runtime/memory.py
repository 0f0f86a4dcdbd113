"""Peak memory of this process, and releasing memory."""

import gc
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")
WORTH_FREEING = 2 * 2**30
"""Peak memory in bytes from which a search for unused memory is worthwhile."""


def peak_memory() -> int:
    """Return the peak resident memory of this process in bytes; 0 if the system does not report it.

    On Linux the figure is the kernel's ``VmHWM``. ``ru_maxrss`` is not used there: it survives ``exec``, so a small
    process that a large one started (``dvc repro``, a test runner) would report the large one's memory.
    """
    if STATUS.exists():
        for line in STATUS.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def free_memory(*, anyway: bool = False) -> None:
    """Release unused memory, including the GPU's.

    The parts of a model refer to each other, so Python finds a dropped one only by looking at every object there is:
    half a second once torch and transformers are loaded. A process that never was large, and has nothing on a GPU,
    leaves that to the next regular collection.

    Args:
        anyway: look in a small process too, as after an allocation has failed.
    """
    import torch

    on_gpu = torch.cuda.is_available() and torch.cuda.is_initialized()
    if anyway or on_gpu or not 0 < peak_memory() < WORTH_FREEING:
        gc.collect()
    if on_gpu:
        torch.cuda.empty_cache()
