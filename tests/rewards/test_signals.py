"""Simple signals of clips against what is known of made ones."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift

import vr_pipeline as vr
from vr_pipeline.rewards.signals import motion, optical_flow, saturation, sharpness


def texture(seed: int = 0) -> np.ndarray:
    smooth = gaussian_filter(np.random.default_rng(seed).random((160, 160)), 2.0)
    return (smooth - smooth.min()) / np.ptp(smooth)


def window(picture: np.ndarray, move: tuple[float, float]) -> np.ndarray:
    return shift(picture, move, order=3, mode="nearest")[20:116, 20:140]


def clip(moves: list[tuple[float, float]]) -> np.ndarray:
    frames = np.stack([window(texture(), move) for move in moves])
    return np.repeat((np.clip(frames, 0, 1) * 255).astype(np.uint8)[..., None], 3, axis=3)


@pytest.mark.parametrize("move", [(0.0, 0.0), (1.0, 0.0), (0.0, 2.5), (-3.0, 4.0), (6.0, -5.0)])
def test_the_flow_of_a_moved_texture_is_its_motion(move: tuple[float, float]) -> None:
    rows, columns = optical_flow(window(texture(), (0, 0)), window(texture(), move))
    assert (np.median(rows), np.median(columns)) == pytest.approx(move, abs=0.05)


def test_motion_is_the_mean_length_as_a_share_of_the_longest_side() -> None:
    moving = motion(clip([(0, 0), (0, 3), (0, 6)]))
    assert moving == pytest.approx(3 / 120, rel=0.05)
    assert motion(clip([(0, 0), (0, 0)])) == pytest.approx(0.0, abs=1e-6)
    assert motion(clip([(0, 0)])) == 0.0
    assert motion(clip([(0, 0), (0, 6), (0, 12)]), longest_side=60) == pytest.approx(2 * moving, rel=0.1)
    flat = np.full((3, 20, 20, 3), 90, np.uint8)
    assert motion(flat) == 0.0


def test_blur_is_less_sharp_and_grey_is_not_saturated() -> None:
    one = clip([(0, 0)])
    blurred = gaussian_filter(one.astype(float), (0, 2, 2, 0)).astype(np.uint8)
    assert sharpness(blurred) < sharpness(one) / 2
    assert saturation(one) == 0.0
    red = np.zeros((1, 4, 4, 3), np.uint8)
    red[..., 0] = 200
    assert saturation(red) == 1.0
    assert saturation(np.zeros_like(red)) == 0.0


def test_a_signal_is_a_reward_with_and_without_a_total() -> None:
    clips = [clip([(0, 0), (0, 2)]), clip([(0, 0), (0, 4)])]
    reward = vr.load_reward_model({"type": "signals", "total": "motion"})
    table = reward.score(clips, ["a", "b"], fps=8.0)
    assert list(table.columns) == ["total", "dim_motion"]
    assert table["total"][1] / table["total"][0] == pytest.approx(2.0, rel=0.05)
    assert table["total"][0] == pytest.approx(8 * motion(clips[0]))
    every = vr.load_reward_model({"type": "signals", "total": None})
    table = every.score(clips, ["a", "b"], fps=8.0)
    assert table["dim_length"].tolist() == [0.25, 0.25]
    assert every.identity != reward.identity
    assert every.measured_by == reward.measured_by
