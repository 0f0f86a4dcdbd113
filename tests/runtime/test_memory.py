"""Peak memory is this process's own, whoever started it; what is dropped is given back where that is worth it."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref

import numpy as np
import pytest

from vr_pipeline.runtime import memory
from vr_pipeline.runtime.memory import free_memory, peak_memory


def test_an_allocation_that_is_touched_raises_the_peak():
    before = peak_memory()
    block = np.ones(before // 8 + 2**22, dtype=np.float64)
    assert peak_memory() >= max(before, block.nbytes)


def test_a_small_process_does_not_report_the_memory_of_the_large_one_that_started_it():
    block = np.ones(400 * 2**17)
    code = "from vr_pipeline.runtime.memory import peak_memory; print(peak_memory())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(run.stdout) < block.nbytes < peak_memory()


class Part:
    """Refers to itself, as the parts of a model refer to each other."""

    def __init__(self) -> None:
        self.owner = self


@pytest.mark.parametrize(("peak", "anyway", "freed"), [(1, False, False), (1, True, True), (10, False, True)])
def test_what_is_dropped_is_searched_for_in_large_processes_and_on_demand(monkeypatch, peak, anyway, freed):
    monkeypatch.setattr(memory, "peak_memory", lambda: peak * 2**30)
    gc.disable()
    try:
        dropped = weakref.ref(Part())
        free_memory(anyway=anyway)
        assert (dropped() is None) == freed
    finally:
        gc.enable()
