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

    The runs of the whole pipeline are made once for all tests in end_to_end; elsewhere a file stays in one process.
    """
    for item in items:
        folder = item.path.parent
        group = folder if folder.name == "end_to_end" else item.path
        item.add_marker(pytest.mark.xdist_group(str(group.relative_to(item.config.rootpath))))
