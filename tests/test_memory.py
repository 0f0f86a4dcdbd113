"""Peak memory is this process's own, whoever started it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from vr_pipeline.memory import peak_memory


def test_an_allocation_that_is_touched_raises_the_peak():
    before = peak_memory()
    block = np.ones(before // 8 + 2**22, dtype=np.float64)
    assert peak_memory() >= max(before, block.nbytes)


def test_a_small_process_does_not_report_the_memory_of_the_large_one_that_started_it():
    block = np.ones(400 * 2**17)
    code = "from vr_pipeline.memory import peak_memory; print(peak_memory())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(run.stdout) < block.nbytes < peak_memory()
