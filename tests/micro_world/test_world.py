"""Scenes: what is drawn is what the answers say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vr_pipeline.micro_world.clips import render_clips
from vr_pipeline.micro_world.config import SceneParameters
from vr_pipeline.micro_world.world import (
    BACKGROUNDS,
    COLOURS,
    DIRECTIONS,
    NUM_FRAMES,
    RADIUS,
    SHAPES,
    SIZE,
    SPEEDS,
    ZIGZAG,
    Scene,
    all_prompts,
    answers,
    parse_prompt,
    perturbed_prompt,
    render,
    sample_scene,
)

plain_scenes = st.builds(
    Scene,
    colour=st.sampled_from(sorted(COLOURS)),
    shape=st.sampled_from(SHAPES),
    direction=st.sampled_from(DIRECTIONS),
    background=st.sampled_from(sorted(BACKGROUNDS)),
    speed=st.integers(0, 2),
    start=st.floats(0.2, 0.8),
    height=st.floats(0.3, 0.7),
)


def coverage(scene: Scene) -> np.ndarray:
    """How much of each pixel is not background, [frames, height, width], measured from the pixels."""
    frames = render(scene).astype(float)
    return np.abs(frames - 255.0 * BACKGROUNDS[scene.background]).max(axis=-1)


def centres(scene: Scene) -> np.ndarray:
    """Centre of mass of the shape in each frame, [frames, (x, y)], in pixels."""
    weight = coverage(scene)
    mass = weight.sum(axis=(1, 2))
    middle = np.arange(SIZE) + 0.5
    return (
        np.stack([(weight.sum(axis=1) * middle).sum(axis=1), (weight.sum(axis=2) * middle).sum(axis=1)], 1)
        / (mass[:, None])
    )


@given(plain_scenes)
@settings(max_examples=60, deadline=None)
def test_the_shape_moves_as_fast_as_its_grade_says_and_in_its_direction(scene: Scene) -> None:
    steps = np.diff(centres(scene), axis=0)
    sign = 1.0 if scene.direction == "right" else -1.0
    np.testing.assert_allclose(steps[:, 0].mean(), sign * SPEEDS[scene.speed], atol=0.04)
    np.testing.assert_allclose(steps[:, 1], 0.0, atol=0.05)


@given(plain_scenes, st.integers(1, 2))
@settings(max_examples=30, deadline=None)
def test_flaws_are_visible_in_the_pixels(scene: Scene, grade: int) -> None:
    plain = coverage(scene)
    shrunk = coverage(replace(scene, shrink=grade))
    assert shrunk[0] == pytest.approx(plain[0])
    assert shrunk[-1].sum() < 0.75 * plain[-1].sum()

    faint = render(replace(scene, contrast=grade)).astype(float)
    assert np.ptp(faint) < 0.75 * np.ptp(render(scene).astype(float))

    blurred = render(replace(scene, blur=grade)).astype(float)
    steepest = max(np.abs(np.diff(blurred, axis=axis)).max() for axis in (1, 2))
    assert steepest < 0.8 * max(np.abs(np.diff(render(scene).astype(float), axis=axis)).max() for axis in (1, 2))

    corner = render(replace(scene, flicker=grade)).astype(float)[:, 0, 0].mean(axis=-1)
    assert np.ptp(corner[0::2]) == 0
    assert np.ptp(corner[1::2]) == 0
    assert abs(corner[1] - corner[0]) > 15 * grade

    up_and_down = np.diff(centres(replace(scene, zigzag=1))[:, 1])
    np.testing.assert_allclose(np.abs(up_and_down), ZIGZAG, atol=0.05)

    drift = replace(scene, colour_drift=1, drift_colour="red" if scene.colour != "red" else "green")
    first, last = render(drift)[[0, -1]].astype(float), render(scene)[[0, -1]].astype(float)
    assert np.array_equal(first[0], last[0])
    assert np.abs(first[1] - last[1]).max() > 50


def test_areas_of_the_shapes_are_those_of_their_geometry() -> None:
    areas = {
        shape: (coverage(Scene("blue", shape, "right", "black", speed=0)) / 255 / COLOURS["blue"][2]).sum(axis=(1, 2))
        for shape in SHAPES
    }
    disc = np.pi * RADIUS**2
    arm = 0.3 * RADIUS
    np.testing.assert_allclose(areas["ball"], disc, rtol=0.02)
    np.testing.assert_allclose(areas["ring"], disc * (1 - 0.55**2), rtol=0.03)
    np.testing.assert_allclose(areas["cross"], 2 * (2 * RADIUS * 2 * arm) - (2 * arm) ** 2, rtol=0.05)


def test_rendering_is_supersampling_by_brute_force() -> None:
    """Every pixel is the mean of 16 samples, each inside or outside the shape."""
    scene = Scene("red", "ring", "left", "black", speed=2, shrink=1, zigzag=1, start=0.31, height=0.6)
    frames = render(scene)
    travel = SPEEDS[2] * (NUM_FRAMES - 1)
    for number in (0, 3, 7):
        share = number / (NUM_FRAMES - 1)
        x = RADIUS + 0.31 * (SIZE - 2 * RADIUS - travel) + travel * (1 - share)
        y = RADIUS + 0.6 * (SIZE - 2 * RADIUS - ZIGZAG) + (ZIGZAG if number % 2 else 0)
        radius = RADIUS * (1 + (0.72 - 1) * share)
        for row in range(SIZE):
            for column in range(SIZE):
                hits = 0
                for down in range(4):
                    for right in range(4):
                        away = np.hypot(column + (right + 0.5) / 4 - x, row + (down + 0.5) / 4 - y)
                        hits += 0.55 * radius <= away <= radius
                expected = np.round(np.array(COLOURS["red"]) * hits / 16 * 255)
                # Halves may fall to either side.
                assert np.abs(frames[number, row, column] - expected).max() <= 1


@given(st.integers(0, 10**6), st.sampled_from(all_prompts()))
@settings(max_examples=60, deadline=None)
def test_a_scene_shows_what_its_prompt_says(seed: int, prompt: str) -> None:
    scene = sample_scene(np.random.default_rng(seed), prompt)
    assert scene.prompt == prompt
    truth = answers(scene)
    assert all(truth[f"{name}_matches"] for name in ("colour", "shape", "direction", "background"))
    # Graded questions are cumulative: the stricter one implies the milder one.
    for strict, mild in (
        ("sharp", "not_very_blurred"),
        ("strong_contrast", "not_very_faint"),
        ("moves_fast", "moves_clearly"),
        ("size_kept", "size_mostly_kept"),
        ("brightness_steady", "brightness_mostly_steady"),
    ):
        assert truth[mild] or not truth[strict]
    perfect = sample_scene(np.random.default_rng(seed), prompt, flaw_scale=0.0)
    assert sum(answers(perfect).values()) == len(truth) - (2 - perfect.speed)
    other = perturbed_prompt(np.random.default_rng(seed), prompt, probability=1.0)
    judged = answers(scene, other)
    assert not any(judged[f"{name}_matches"] for name in ("colour", "shape", "direction", "background"))
    assert perturbed_prompt(np.random.default_rng(seed), prompt, probability=0.0) == prompt


def test_more_flaws_in_fast_clips_and_more_fast_clips_by_configuration() -> None:
    scenes = SceneParameters(flaw_scale_by_speed=(0.0, 1.0, 2.2), fast_share=0.5)
    prompts = all_prompts()
    drawn = [
        sample_scene(np.random.default_rng(seed), prompts[seed % len(prompts)], scenes=scenes) for seed in range(3000)
    ]
    # Six standard deviations of the binomial distribution.
    assert abs(np.mean([scene.speed == 2 for scene in drawn]) - 0.5) < 6 * np.sqrt(0.25 / len(drawn))
    by_speed = {speed: [scene for scene in drawn if scene.speed == speed] for speed in range(3)}
    assert abs(len(by_speed[0]) - len(by_speed[1])) < 6 * np.sqrt(len(drawn) / 2)
    assert not any(scene.blur or scene.flicker or scene.colour_drift for scene in by_speed[0])
    for speed, scale in ((1, 1.0), (2, 2.2)):
        shares = [np.mean([getattr(scene, flaw) > 0 for scene in by_speed[speed]]) for flaw in ("blur", "zigzag")]
        for share, expected in zip(shares, (0.32 * scale, 0.25 * scale), strict=True):
            assert abs(share - expected) < 6 * np.sqrt(expected * (1 - expected) / len(by_speed[speed]))


def test_scenes_of_the_shipped_world_are_drawn_as_when_its_models_were_made() -> None:
    """Hashes of the shipped files depend on every draw, so their order is part of the world."""
    drawn = [sample_scene(np.random.default_rng(seed), "red ball moves left on black") for seed in range(200)]
    for seed, scene in enumerate(drawn):
        random = np.random.default_rng(seed)
        assert scene.speed == random.integers(3)
        blur = random.random()
        scale = (0.7, 1.0, 1.4)[scene.speed]
        assert scene.blur == (2 if blur < 0.14 * scale else 1 if blur < 0.32 * scale else 0)


def test_prompts_are_all_different_and_parse_back() -> None:
    prompts = all_prompts()
    assert len(set(prompts)) == 48
    assert [Scene(*parse_prompt(prompt)).prompt for prompt in prompts] == prompts


@pytest.mark.parametrize(
    "text", ["", "red ball moves left", "pink ball moves left on black", "red ball jumps left on black"]
)
def test_other_texts_are_no_prompts(text: str) -> None:
    with pytest.raises(ValueError, match="not a prompt"):
        parse_prompt(text)


def test_clips_depend_on_seed_purpose_and_number_alone() -> None:
    few, many = (render_clips(count, seed=3, purpose="a") for count in (5, 60))
    assert np.array_equal(few.frames, many.frames[:5])
    assert few.scenes == many.scenes[:5]
    assert few.judged_prompts == many.judged_prompts[:5]
    assert few.frames.shape == (5, NUM_FRAMES, SIZE, SIZE, 3)
    assert few.frames.dtype == np.uint8
    for other in (render_clips(5, seed=4, purpose="a"), render_clips(5, seed=3, purpose="b")):
        assert not np.array_equal(few.frames, other.frames)
    labels = many.labels(["colour_matches", "sharp"])
    assert labels.shape == (60, 2)
    assert labels[:, 1].tolist() == [scene.blur == 0 for scene in many.scenes]
    assert 0 < labels[:, 0].mean() < 1


def test_the_shipped_prompts_are_those_of_the_world_and_untidy_ones_after_them():
    from vr_pipeline.pipelines.micro_world.nodes import write_prompts

    written = write_prompts()
    shipped = pd.read_csv(Path(__file__).resolve().parents[2] / "data/01_raw/prompts.csv")
    pd.testing.assert_frame_equal(shipped, written)
    assert written["prompt"].head(48).tolist() == all_prompts()
    assert set(written["source"].head(48)) == {"micro_world"}
    assert set(written["source"].tail(12)) == {"untidy"}
