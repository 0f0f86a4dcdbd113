"""What holds for all tests."""

from __future__ import annotations

import signal

import pytest

# A shell that starts the tests in the background makes them ignore Ctrl-C, and so would every process they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep together, when tests run in several processes, what shares expensive fixtures.

    The runs of the whole pipeline are made once for all tests in end_to_end; elsewhere a file stays in one process.
    """
    for item in items:
        folder = item.path.parent
        group = folder if folder.name == "end_to_end" else item.path
        item.add_marker(pytest.mark.xdist_group(str(group.relative_to(item.config.rootpath))))
