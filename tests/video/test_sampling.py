"""Which frames stand for a clip."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vr_pipeline.video.sampling import plausible_rate, sample_indices, unless_steady, usable_times


@given(
    count=st.integers(1, 400),
    clip_fps=st.sampled_from([0.0, 1.0, 8.0, 23.976, 30.0]),
    num_frames=st.none() | st.integers(1, 60),
    rate=st.none() | st.floats(0.1, 60),
)
@example(count=70, clip_fps=30.0, num_frames=None, rate=29.999999)
@settings(max_examples=300, deadline=None)
def test_sampling_rules(count: int, clip_fps: float, num_frames: int | None, rate: float | None) -> None:
    indices = sample_indices(count, clip_fps, num_frames=num_frames, frames_per_second=rate)
    assert indices == sorted(set(indices))
    assert indices[0] == 0
    assert indices[-1] < count
    if num_frames is not None:
        assert len(indices) <= num_frames
        if rate is None and count >= num_frames >= 2:
            assert len(indices) == num_frames
            assert indices[-1] == count - 1
    if rate is not None and clip_fps > rate and num_frames is None:
        assert abs(len(indices) - count / clip_fps * rate) <= 1


@given(
    st.lists(st.floats(0.001, 2), min_size=2, max_size=60),
    st.none() | st.integers(1, 20),
    st.none() | st.floats(0.2, 9),
)
@settings(deadline=None)
def test_samples_are_spread_over_the_time_where_frames_are_not(
    gaps: list[float], num_frames: int | None, rate: float | None
) -> None:
    times = np.concatenate([[0], np.cumsum(gaps)])
    indices = sample_indices(len(times), 5.0, num_frames=num_frames, frames_per_second=rate, times=times.tolist())
    assert indices == sorted(set(indices))
    assert indices[0] == 0
    if num_frames is None and rate is None:
        assert len(indices) == len(times)
    if num_frames is not None:
        assert len(indices) <= num_frames
    elif rate is not None:
        # At each moment of the rate the frame is taken that is on the screen.
        for moment in np.arange(0, times[-1], 1 / rate):
            assert max(index for index, time in enumerate(times) if time <= moment + 1e-6) in indices


def test_sampling_options_must_be_positive() -> None:
    with pytest.raises(ValueError, match="num_frames"):
        sample_indices(5, 8.0, num_frames=0)
    with pytest.raises(ValueError, match="fps"):
        sample_indices(5, 8.0, frames_per_second=0.0)


@given(
    st.lists(st.floats(0, 2), min_size=1, max_size=60).filter(lambda gaps: sum(gaps) > 0.01),
    st.floats(0.05, 60),
)
@settings(deadline=None)
def test_beats_are_those_of_a_plain_search(gaps: list[float], rate: float) -> None:
    times = np.concatenate([[0], np.cumsum(gaps)])
    moments = np.arange(0, times[-1] * len(times) / (len(times) - 1), 1 / rate)
    expected = np.unique(np.searchsorted(times, moments + 1e-6, side="right") - 1).tolist()
    assert sample_indices(len(times), 5.0, frames_per_second=rate, times=times.tolist()) == expected


def test_a_long_pause_costs_no_memory() -> None:
    assert sample_indices(3, 5.0, frames_per_second=60.0, times=[0.0, 1e12, 2e12]) == [0, 1, 2]


@given(st.lists(st.none() | st.floats() | st.integers(-(2**62), 2**62).map(float), max_size=6), st.floats())
def test_nothing_absurd_leaves(times: list[float | None], stated: float) -> None:
    usable = usable_times(times)
    if usable is not None:
        assert usable[0] == 0
        assert np.isfinite(usable).all()
        assert (np.diff(usable) >= 0).all()
    assert 0 <= plausible_rate(stated, usable) <= 1000
    assert unless_steady(usable) in (None, usable)


def test_the_rate_is_the_containers_unless_its_times_differ() -> None:
    steady = [frame / 29.97 for frame in range(60)]
    assert plausible_rate(30000 / 1001, steady) == 30000 / 1001
    assert plausible_rate(90000.0, steady) == pytest.approx(29.97)
    assert plausible_rate(60.0, steady) == pytest.approx(29.97)
    assert plausible_rate(25.0, None) == 25.0
    assert plausible_rate(float("nan"), None) == plausible_rate(float("inf"), [0.0]) == 0.0
