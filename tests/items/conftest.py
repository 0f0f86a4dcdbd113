"""The fixtures of :mod:`tests.video`."""

from tests.video.conftest import *  # noqa: F403
