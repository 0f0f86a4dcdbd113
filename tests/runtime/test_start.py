"""Python's search for garbage is off while a run starts, and on at its first node whatever happens."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from vr_pipeline.hooks import ProcessSettingsHook
from vr_pipeline.runtime.start import started, starting


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Search on before and after each test, in everything."""
    gc.enable()
    yield
    gc.enable()
    gc.unfreeze()


def test_the_search_is_off_until_the_first_node() -> None:
    with starting():
        assert not gc.isenabled()
        ProcessSettingsHook().before_pipeline_run()
        assert gc.isenabled()
        assert gc.get_freeze_count() > 1000
    assert gc.isenabled()


def test_a_run_that_never_starts_searches_again() -> None:
    with pytest.raises(ValueError, match="no pipeline"), starting():
        raise ValueError("no pipeline")
    assert gc.isenabled()


def test_a_search_that_the_user_turned_off_stays_off() -> None:
    gc.disable()
    with starting():
        started()
        assert not gc.isenabled()
    assert not gc.isenabled()
