"""What holds for all tests."""

from __future__ import annotations

import signal
import sys
from typing import Any

import absl.logging
import hypothesis
import pytest

# A shell that starts the tests in the background makes them ignore Ctrl-C, and so would every process they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says more about the machine's load than about the code.
hypothesis.settings.register_profile("any_machine", deadline=None)
hypothesis.settings.load_profile("any_machine")

# absl, which rouge-score brings, logs to the stream that it found when it was imported, and closes it as soon as
# logging is configured anew, as every command of Kedro does: that would be pytest's own stream.
absl.logging.get_absl_handler().python_handler.stream = sys.__stderr__


SHARE_RUNS = {"test_backends.py", "test_faults.py", "test_mpo_dpo.py", "test_notebooks.py", "test_pictures.py"}
"""Files in end_to_end whose tests look at the same runs of the whole pipeline."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep together, when tests run in several processes, what shares expensive fixtures: a file, or several."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "shared runs" if file.rpartition("/")[2] in SHARE_RUNS else file

    return ByFile(config, log)
