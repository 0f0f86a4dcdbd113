"""What holds for all tests."""

from __future__ import annotations

import signal
import sys

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


# First, because xdist reads the marks in its own hook of this name.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep together, when tests run in several processes, what shares expensive fixtures.

    Tests that look at the same run of the whole pipeline stay in one process; elsewhere a file does.
    """
    for item in items:
        used = getattr(item, "fixturenames", ())
        runs = [name for name in ("small_runs", "demo_run") if name in used]
        item.add_marker(pytest.mark.xdist_group((runs or [str(item.path.relative_to(item.config.rootpath))])[0]))
