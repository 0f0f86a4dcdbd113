"""Which pairs people are asked next."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kedro.io import DataCatalog, MemoryDataset
from tests.annotation.conftest import make_index

from vr_pipeline.annotation.active import covariance_of_weights, disagreement, most_informative
from vr_pipeline.annotation.choice import Selection
from vr_pipeline.annotation.offer import make_offer, make_study
from vr_pipeline.checklist import load_checklist
from vr_pipeline.errors import InputError
from vr_pipeline.rewards.checklist.tables import weighted_questions
from vr_pipeline.rewards.checklist.weights import RewardWeights
from vr_pipeline.schemas.parts import TableParts

ROOT = Path(__file__).resolve().parents[2]


def mean_variance(pool: np.ndarray, known: np.ndarray, weights: np.ndarray) -> float:
    """Mean variance of the log odds of all candidates after answers to known pairs, from the matrix itself."""
    information = np.eye(len(weights))
    for z in known:
        p = 1 / (1 + np.exp(-(z @ weights)))
        information += p * (1 - p) * np.outer(z, z)
    return float(np.mean([z @ np.linalg.solve(information, z) for z in pool]))


def example(seed: int, pairs: int = 12, questions: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    z = random.random((pairs, questions)) - random.random((pairs, questions))
    return z, random.random(questions) * 2, random.integers(3, size=pairs).astype(str)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), turns=st.booleans())
def test_every_pair_reduces_the_variance_of_predictions_most_given_the_earlier_ones(seed: int, turns: bool) -> None:
    z, weights, prompts = example(seed)
    prompts = prompts if turns else np.array([""] * len(z))
    before = z[:2] * 0.5
    order = most_informative(z, weights, covariance_of_weights(before, weights), prompts=prompts, asked=["0", "0", "9"])
    assert sorted(order) == list(range(len(z)))
    asked = {name: 2 if turns and name == "0" else 0 for name in set(prompts)}
    for step, place in enumerate(order):
        left = [k for k in range(len(z)) if k not in order[:step]]
        fewest = min(asked[prompts[k]] for k in left)
        allowed = [k for k in left if asked[prompts[k]] < 2 * fewest + 2]
        assert place in allowed
        known = [*before, *z[order[:step]]]
        reached = {k: mean_variance(z, np.array([*known, z[k]]), weights) for k in allowed}
        assert reached[place] == pytest.approx(min(reached.values()), abs=1e-9)
        asked[prompts[place]] += 1


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), cut=st.integers(1, 11))
def test_an_order_continues_where_it_was_interrupted_and_ignores_sides(seed: int, cut: int) -> None:
    z, weights, prompts = example(seed)
    start = covariance_of_weights(z[:0], weights)
    whole = most_informative(z, weights, start, prompts=prompts)
    sides = np.random.default_rng(seed).choice([-1.0, 1.0], size=(len(z), 1))
    assert most_informative(z * sides, weights, start, prompts=prompts, number=cut) == whole[:cut]
    after = covariance_of_weights(z[whole[:cut]], weights)
    left = [k for k in range(len(z)) if k not in whole[:cut]]
    assert np.linalg.eigvalsh(start - after).min() > -1e-12, "answers never make weights less certain"
    rest = most_informative(z[left], weights, after, prompts=prompts[left], asked=list(prompts[whole[:cut]]), pool=z)
    assert [left[k] for k in rest] == whole[cut:]


def test_a_copy_of_a_pair_waits_for_different_pairs() -> None:
    z = np.array([[0.9, 0.0], [0.9, 0.0], [0.0, 0.5]])
    start = covariance_of_weights(np.zeros((0, 2)), np.zeros(2), precision=0.01)
    assert most_informative(z, np.zeros(2), start, prompts=["", "", ""]) == [0, 2, 1]
    # Of two equal directions, the one whose answer is less certain; a pair of equal answers is last.
    weights = np.array([6.0, 6.0])
    z = np.array([[0.0, 0.0], [0.9, 0.0], [0.9, -0.8]])
    assert most_informative(z, weights, np.eye(2), prompts=["", "", ""]) == [2, 1, 0]


def test_disagreement_is_between_nothing_and_a_bit() -> None:
    margins = np.array([[3.0, -3.0, 3.0, 0.0], [30.0, -30.0, -30.0, 0.0]])
    found = disagreement(margins)
    assert found.argmax() == 2
    assert found[[0, 1, 3]] == pytest.approx(0, abs=1e-12)
    assert 0.3 < found[2] <= 1
    assert disagreement(-margins[::-1]) == pytest.approx(found)
    with pytest.raises(InputError, match="needs two rewards"):
        disagreement(margins[:1])


@pytest.fixture
def contents(clip_folder: Path) -> dict[str, object]:
    """Clips of three prompts with answers, weights, and preferences on which they were fitted."""
    index = make_index(prompts=3, clips=4)
    checklist = load_checklist(ROOT / "conf" / "base" / "checklist.yml")
    questions = weighted_questions(checklist)
    random = np.random.default_rng(5)
    answers = pd.DataFrame(
        [
            {"video_id": clip, "question_id": question, "p_yes": p, "answer": p > 0.5, "gated": False}
            for clip in index["video_id"]
            for question, p in zip(questions, random.random(len(questions)), strict=True)
        ]
    )
    weights = RewardWeights(tuple(questions), random.random(len(questions)), checklist_hash=checklist.hash)
    return {
        "video_index": index,
        "videos": {path.name: path for path in clip_folder.iterdir()},
        "checklist": checklist,
        "checklist_answers": TableParts(lambda: [answers.iloc[:32], answers.iloc[32:]]),
        "preference_answers": answers,
        "human_preferences": pd.DataFrame(
            {"video_id_a": ["clip-0-0", "clip-0-2"], "video_id_b": ["clip-0-1", "gone"], "preference": ["a", "b"]}
        ),
        "reward_weights": weights.to_json(),
        "rewards": index[["video_id", "prompt_id"]].assign(total=np.arange(12.0), dim_x=0.0),
    }


def offered(contents: dict[str, object], selection: Selection) -> list[str]:
    catalog = DataCatalog({name: MemoryDataset(content, copy_mode="assign") for name, content in contents.items()})
    return [pair.pair_id for pair in make_offer(catalog, make_study(None, "generated", None), selection).pairs]


def test_the_active_order_resumes_with_the_pairs_that_were_answered(contents: dict[str, object]) -> None:
    whole = offered(contents, Selection("active", pairs=None))
    assert len(whole) == len(set(whole)) == 3 * 6
    mixed = contents | {"video_index": contents["video_index"].sample(frac=1, random_state=3)}  # type: ignore[attr-defined]
    assert offered(mixed, Selection("active", pairs=7)) == whole[:7]
    assert offered(contents, Selection("active", pairs=None, asked=tuple(whole[:5]))) == whole
    # Pairs answered in another order or study come first, and count.
    other = (whole[9], "unknown", whole[3])
    resumed = offered(contents, Selection("active", pairs=6, asked=other))
    assert resumed[:2] == [whole[9], whole[3]]
    assert len(resumed) == len(set(resumed)) == 6
    assert offered(contents, Selection("active", pairs=1, asked=other)) == [whole[9]]


def test_preferences_and_weights_change_the_active_order(contents: dict[str, object]) -> None:
    whole = offered(contents, Selection("active", pairs=None))
    without = {name: content for name, content in contents.items() if name != "reward_weights"}
    assert sorted(offered(without, Selection("active", pairs=None))) == sorted(whole), "before the first fit"
    # What was asked about a pair makes the same question less useful.
    table = pd.DataFrame({"video_id_a": ["clip-0-0"], "video_id_b": ["clip-0-1"], "preference": ["tie"]})
    first = offered(contents | {"human_preferences": table}, Selection("active", pairs=None))
    known = offered(contents, Selection("active", pairs=None))
    assert first != known


def test_disagreement_begins_with_the_pairs_whose_rewards_contradict(
    contents: dict[str, object], tmp_path: Path
) -> None:
    table = contents["rewards"][["video_id", "total"]].copy()  # type: ignore[index]
    table.loc[table["video_id"] == "clip-1-3", "total"] = -20.0
    table.to_csv(tmp_path / "other.csv", index=False)
    selection = Selection("disagreement", pairs=3, rewards=(tmp_path / "other.csv",))
    catalog = DataCatalog({name: MemoryDataset(content, copy_mode="assign") for name, content in contents.items()})
    shown = make_offer(catalog, make_study(None, "generated", None), selection).pairs
    assert {"clip-1-3"} == set.intersection(*({pair.first.video_id, pair.second.video_id} for pair in shown))
    assert offered(contents, selection)[:2] == offered(contents, Selection("disagreement", 0, 2, 40, selection.rewards))
    table.iloc[1:].to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(InputError, match="has no reward in one of the tables"):
        offered(contents, selection)
