"""The fixtures of :mod:`tests.training`."""

from tests.training.conftest import *  # noqa: F403
