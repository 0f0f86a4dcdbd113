"""The start of a run without the search for garbage.

Until the first node runs, a command imports libraries and reads configuration. All of that stays, but Python searches
it for garbage again and again, which takes a tenth of the start.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_state = {"off": False}


@contextmanager
def starting() -> Iterator[None]:
    """Turn the search off until :func:`started`, at the latest until the end of the block."""
    _state["off"] = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        started()


def started() -> None:
    """Search again, but not in what exists now, if :func:`starting` turned the search off."""
    if _state["off"]:
        _state["off"] = False
        gc.freeze()
        gc.enable()
