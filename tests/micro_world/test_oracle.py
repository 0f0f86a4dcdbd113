"""The oracle: right about clips it has not seen, and its own trees equal those of scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vr_pipeline.errors import InputError
from vr_pipeline.micro_world import oracle as module
from vr_pipeline.micro_world.clips import RenderedClips, render_clips
from vr_pipeline.micro_world.oracle import Oracle, features
from vr_pipeline.micro_world.preferences import UTILITY
from vr_pipeline.micro_world.world import Scene, render

QUESTIONS = list(UTILITY)


@pytest.fixture(scope="module")
def fitted() -> Oracle:
    clips = render_clips(1200, seed=0, purpose="oracle")
    return Oracle.fit(clips.frames, clips.scenes, seed=0, trees=8)


@pytest.fixture(scope="module")
def held_out() -> RenderedClips:
    return render_clips(480, seed=1, purpose="held out")


def test_balanced_accuracy_on_clips_not_seen(fitted: Oracle, held_out: RenderedClips) -> None:
    from sklearn.metrics import balanced_accuracy_score

    predicted = fitted.probabilities(held_out.frames, held_out.judged_prompts, QUESTIONS)
    truth = held_out.labels(QUESTIONS)
    assert predicted.shape == (480, 16)
    assert predicted.min() >= 0
    assert predicted.max() <= 1 + 1e-6
    scores = {
        question: balanced_accuracy_score(truth[:, column], predicted[:, column] > 0.5)
        for column, question in enumerate(QUESTIONS)
    }
    assert np.mean(list(scores.values())) >= 0.97, scores
    assert min(scores.values()) >= 0.85, scores


def test_answers_on_a_prompt_are_those_on_what_it_names(fitted: Oracle) -> None:
    clip = render(Scene("red", "ball", "left", "black"))[None].repeat(3, axis=0)
    prompts = ["red ball moves left on black", "blue ball moves left on black", "red ring moves right on white"]
    asked = ["colour_matches", "shape_matches", "direction_matches", "background_matches"]
    answers = fitted.probabilities(clip, prompts, asked) > 0.5
    assert answers.tolist() == [[True] * 4, [False, True, True, True], [True, False, False, False]]
    # Questions that no prompt enters have the same answer for every prompt.
    free = fitted.probabilities(clip, prompts, ["sharp", "moves_fast"])
    assert np.ptp(free, axis=0).max() == 0


def test_the_trees_predict_what_scikit_learn_predicts(held_out: RenderedClips) -> None:
    from sklearn.ensemble import ExtraTreesClassifier

    values = features(held_out.frames)
    classes = np.array([scene.speed for scene in held_out.scenes])
    forest = module._fit_forest(values[:300], classes[:300], seed=3, trees=5)
    reference = ExtraTreesClassifier(
        5, min_samples_leaf=4, max_features=0.5, class_weight="balanced", random_state=3
    ).fit(values[:300].astype(np.float32), classes[:300])
    for rows in (slice(0, 300), slice(300, None)):
        np.testing.assert_allclose(
            forest.predict(values[rows]), reference.predict_proba(values[rows].astype(np.float32)), atol=1e-6
        )


def test_saved_and_loaded_it_answers_the_same(fitted: Oracle, held_out: RenderedClips, tmp_path: Path) -> None:
    fitted.save(tmp_path / "oracle.safetensors")
    loaded = Oracle.load(tmp_path / "oracle.safetensors")
    arguments = (held_out.frames[:50], held_out.judged_prompts[:50], QUESTIONS)
    assert np.array_equal(loaded.probabilities(*arguments), fitted.probabilities(*arguments))
    for name in ("first", "second"):
        Oracle.fit(held_out.frames[:96], held_out.scenes[:96], seed=0, trees=2).save(tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_features_are_finite_for_any_clip_and_independent_of_the_others() -> None:
    random = np.random.default_rng(0)
    odd = np.stack(
        [
            np.zeros((8, 16, 16, 3), np.uint8),
            np.full((8, 16, 16, 3), 255, np.uint8),
            random.integers(0, 256, (8, 16, 16, 3), dtype=np.uint8),
        ]
    )
    values = features(odd)
    assert np.isfinite(values).all()
    for row in range(3):
        np.testing.assert_allclose(features(odd[row : row + 1])[0], values[row], rtol=1e-9, atol=1e-9)


def test_a_flipped_bit_anywhere_in_the_file_is_noticed(fitted: Oracle, tmp_path: Path) -> None:
    """But for the place of the hash itself and names of nothing: then the trees are those that were written."""
    path = tmp_path / "oracle.safetensors"
    fitted.save(path)
    content = path.read_bytes()
    chances, noticed = np.random.default_rng(0), 0
    for position in [8, 60, *chances.integers(8, len(content), 30).tolist()]:
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(chances.integers(8))
        path.write_bytes(damaged)
        try:
            loaded = Oracle.load(path)
        except InputError:
            noticed += 1
            continue
        for name, forest in fitted.forests.items():
            assert np.array_equal(forest.probability, loaded.forests[name].probability)
            assert np.array_equal(forest.threshold, loaded.forests[name].threshold)
    assert noticed >= 28
