"""How much memory this process has needed."""

from __future__ import annotations

import sys
from pathlib import Path

STATUS = Path("/proc/self/status")


def peak_memory() -> int:
    """Largest resident memory of this process so far, bytes; 0 where the system does not tell.

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
