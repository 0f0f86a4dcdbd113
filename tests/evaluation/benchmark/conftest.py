"""The fixtures of :mod:`tests.rewards`."""

from tests.rewards.conftest import *  # noqa: F403
