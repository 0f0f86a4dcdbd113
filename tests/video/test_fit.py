"""Clips made to fit a generator: nothing is stretched, and the stated rule is what was done."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vr_pipeline.video.clip import VideoInformation, VideoReadError
from vr_pipeline.video.fit import FitParameters, FittedClips, Wanted, fit_frames, fitting_rule, read_fitted
from vr_pipeline.video.write import write_video

sides = st.integers(8, 400)


@given(sides, sides, sides, sides, st.sampled_from(["crop", "pad"]))
def test_both_sides_are_scaled_alike_and_cover_or_lie_within(
    height: int, width: int, tall: int, wide: int, shape: str
) -> None:
    parameters = FitParameters.model_validate({"shape": shape})
    rule = fitting_rule(VideoInformation(1, 0.0, height, width), Wanted(1, tall, wide, 8.0), parameters)
    scaled = rule.scaled
    factor = (max if shape == "crop" else min)(tall / height, wide / width)
    assert abs(scaled[0] - height * factor) <= 0.5
    assert abs(scaled[1] - width * factor) <= 0.5
    if shape == "crop":
        assert scaled[0] >= tall
        assert scaled[1] >= wide
    else:
        assert scaled[0] <= tall
        assert scaled[1] <= wide
    assert tall in scaled[:1] or wide in scaled[1:]
    assert not rule.problem


@given(st.integers(1, 60), st.floats(1, 60), st.integers(2, 30), st.floats(1, 60), st.sampled_from(["first", "centre"]))
def test_frames_are_those_that_a_player_shows_at_each_moment(
    count: int, rate: float, number: int, fps: float, window: str
) -> None:
    clip, wanted = VideoInformation(count, rate, 8, 8), Wanted(number, 8, 8, fps)
    rule = fitting_rule(clip, wanted, FitParameters.model_validate({"window": window, "too_short": "repeat_last"}))
    assert len(rule.frames) == number
    assert all(0 <= frame < count for frame in rule.frames)
    assert all(b >= a for a, b in zip(rule.frames, rule.frames[1:], strict=False))
    strict = fitting_rule(clip, wanted, FitParameters.model_validate({"window": window}))
    if strict.problem:
        assert "too short" in strict.problem
        assert rule.frames[: len(strict.frames)] == strict.frames
        assert set(rule.frames[len(strict.frames) :]) == {strict.frames[-1]}
    elif window == "first" and count > 1 and abs(rate / fps - 1) > 0.01:
        # Brute force: the frame whose time of showing holds the moment.
        for k, frame in enumerate(rule.frames):
            assert frame / rate <= k / fps + 1e-5
            assert k / fps < (frame + 1) / rate + 1e-5


def test_rates_that_are_unknown_or_nearly_the_same_change_nothing() -> None:
    wanted = Wanted(4, 8, 8, 24.0)
    for rate in (0.0, 23.976, 24.0):
        rule = fitting_rule(VideoInformation(4, rate, 8, 8), wanted, FitParameters())
        assert (rule.frames, rule.changes, rule.problem) == ((0, 1, 2, 3), (), "")


def test_windows_and_what_is_too_short() -> None:
    wanted, long = Wanted(4, 8, 8, 8.0), VideoInformation(9, 8.0, 8, 8)
    assert fitting_rule(long, wanted, FitParameters()).frames == (0, 1, 2, 3)
    centre = fitting_rule(long, wanted, FitParameters(window="centre"))
    assert centre.frames == (2, 3, 4, 5)
    assert centre.changes == ("frames 3 to 6 of 9",)
    assert (
        "it has 3 frames, and the generator takes 4"
        in fitting_rule(VideoInformation(3, 8.0, 8, 8), wanted, FitParameters()).problem
    )
    repeated = fitting_rule(VideoInformation(3, 8.0, 8, 8), wanted, FitParameters(too_short="repeat_last"))
    assert repeated.frames == (0, 1, 2, 2)
    assert repeated.changes == ("last frame repeated 1 times",)
    # 12 frames at 24 a second last half a second, which are 4 frames at 8.
    assert fitting_rule(VideoInformation(12, 24.0, 8, 8), wanted, FitParameters()).frames == (0, 3, 6, 9)
    uneven = VideoInformation(3, 2.0, 8, 8, times=[0.0, 0.1, 0.5])
    assert fitting_rule(uneven, wanted, FitParameters()).frames == (0, 1, 1, 1)


def test_pixels_that_were_enlarged_come_back_exactly() -> None:
    small = np.random.default_rng(0).integers(0, 256, (2, 6, 4, 3), dtype=np.uint8)
    large = small.repeat(3, axis=1).repeat(3, axis=2)
    assert np.array_equal(fit_frames(large, (6, 4), Wanted(2, 6, 4, 8.0)), small)


def test_the_centre_stays_and_the_rest_is_black() -> None:
    frames = np.arange(6, dtype=np.uint8).reshape(1, 1, 6, 1).repeat(4, axis=1).repeat(3, axis=3) + 1
    cut = fit_frames(frames, (4, 6), Wanted(1, 4, 4, 8.0))
    assert cut[0, 0, :, 0].tolist() == [2, 3, 4, 5]
    padded = fit_frames(frames, (4, 6), Wanted(1, 8, 6, 8.0))
    assert padded[0, :, 0, 0].tolist() == [0, 0, 1, 1, 1, 1, 0, 0]


def test_a_circle_stays_a_circle(tmp_path: Path) -> None:
    rows, columns = np.mgrid[0:64, 0:128]
    disc = ((rows - 32) ** 2 + (columns - 64) ** 2 < 20**2)[..., None].repeat(3, axis=2).astype(np.uint8) * 255
    write_video(tmp_path / "a.mp4", np.stack([disc] * 4), fps=8, codec="libx264rgb", crf=0)
    for shape in ("crop", "pad"):
        parameters = FitParameters.model_validate({"shape": shape})
        fitted = read_fitted(tmp_path / "a.mp4", Wanted(4, 32, 32, 8.0), parameters)
        assert fitted.shape == (4, 32, 32, 3)
        seen = fitted[0, :, :, 0] > 127
        assert abs(int(seen.any(axis=1).sum()) - int(seen.any(axis=0).sum())) <= 1
    with pytest.raises(VideoReadError, match="another shape: it has 64 x 128"):
        read_fitted(tmp_path / "a.mp4", Wanted(4, 32, 32, 8.0), FitParameters(shape="reject"))
    with pytest.raises(VideoReadError, match="too short"):
        read_fitted(tmp_path / "a.mp4", Wanted(5, 64, 128, 8.0), FitParameters(shape="reject"))


def test_clips_are_read_as_their_rule_says(tmp_path: Path) -> None:
    frames = np.random.default_rng(1).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
    write_video(tmp_path / "a.mp4", frames, fps=24, codec="libx264rgb", crf=0)
    clips = FittedClips({"x": tmp_path / "a.mp4"}, Wanted(3, 16, 16, 8.0), FitParameters())
    assert "x" in clips
    assert "y" not in clips
    assert np.array_equal(clips.load("x"), frames[[0, 3, 6]])
    assert np.array_equal(
        read_fitted(tmp_path / "a.mp4", Wanted(1, 16, 16, 8.0), FitParameters(window="centre")), frames[5:6]
    )
