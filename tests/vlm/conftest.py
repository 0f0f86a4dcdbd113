"""The fixtures of :mod:`tests.judges`."""

from tests.judges.conftest import *  # noqa: F403
