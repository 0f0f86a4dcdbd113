"""Rewards measured on preferences: brute force, shared measurements, and pages with what is not defined left empty."""

from __future__ import annotations

import re
import weakref
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vr_pipeline.datasets.preference_sources import (
    PreferenceSourcesDataset,
    SourceClipsDataset,
    SourceVideosDataset,
)
from vr_pipeline.errors import InputError
from vr_pipeline.evaluation.benchmark.config import RewardBenchmarkParameters
from vr_pipeline.evaluation.benchmark.figures import (
    FIGURES,
    answers_of,
    benchmark_biases,
    benchmark_differences,
    benchmark_figures,
    leaderboard,
)
from vr_pipeline.evaluation.benchmark.measured import Part, measurement_of, score_table
from vr_pipeline.evaluation.benchmark.page import benchmark_page
from vr_pipeline.evaluation.benchmark.pairs import compared_pairs, judged_pairs, labelled_pairs
from vr_pipeline.identifiers import prompt_id
from vr_pipeline.items.filling import fill_folder
from vr_pipeline.items.video_index import index_given_clips
from vr_pipeline.preferences.formats import read_preferences
from vr_pipeline.rewards.registry import load_reward_model
from vr_pipeline.schemas import (
    BenchmarkDifferences,
    BenchmarkFigures,
    BenchmarkJudgedPairs,
    BenchmarkPairs,
    HumanPreferences,
)
from vr_pipeline.video.write import write_video
from vr_pipeline.work import WorkItem, WorkPlan, joined_plan

CLIPS, PROMPTS = 4, 10


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two files about one folder of clips, and one about another; brighter clips are preferred, mostly."""
    folder = tmp_path_factory.mktemp("sources")
    random = np.random.default_rng(0)
    for place in ("one", "two"):
        for prompt in range(PROMPTS):
            for clip in range(CLIPS):
                # Columns of noise: the more of them, the sharper.
                frames = np.zeros((2 + clip, 16, 16, 3), np.uint8)
                frames[:, :, : 2 + 3 * clip] = random.integers(0, 255, (1, 16, 2 + 3 * clip, 3))
                write_video(folder / place / f"{prompt}-{clip}.mp4", frames, fps=4.0)
    given = {}
    for name, place in (("first", "one"), ("again", "one"), ("other", "two")):
        rows = [
            {
                "prompt": f"prompt {prompt}",
                **{"video_path_a": f"{prompt}-{a}.mp4", "video_path_b": f"{prompt}-{b}.mp4"},
                "preference": "tie" if random.random() < 0.15 else "b" if random.random() < 0.8 else "a",
                "preference_speed": random.choice(["a", "b", ""]),
                **{"generator_a": f"g{a % 2}", "generator_b": f"g{b % 2}"},
            }
            for prompt in range(PROMPTS)
            for a, b in combinations(range(CLIPS), 2)
        ]
        pd.DataFrame(rows).to_csv(folder / f"{name}.csv", index=False)
        given[name] = {"filepath": str(folder / f"{name}.csv"), "videos": {"path": str(folder / place)}}
    return given


@pytest.fixture(scope="module")
def preferences(sources: dict[str, Any]) -> pd.DataFrame:
    table = PreferenceSourcesDataset(sources=sources).load()
    HumanPreferences.validate(table)
    return table


@pytest.fixture(scope="module")
def index(sources: dict[str, Any]) -> pd.DataFrame:
    clips, videos = SourceClipsDataset(sources=sources).load(), SourceVideosDataset(sources=sources).load()
    return index_given_clips(clips, videos, source="sources")


def parameters(**more: Any) -> RewardBenchmarkParameters:
    rewards = {
        "sharp": {"reward": {"type": "signals", "total": "sharpness"}},
        "long": {"reward": {"type": "signals", "total": "length"}},
        "asked": {"reward": {"type": "signals", "total": "length"}, "compare": True},
        "first": {"baseline": "always_first"},
        "tie": {"baseline": "always_tie"},
    }
    given = {"rewards": rewards, "bootstrap_samples": 40, "smallest_group": 5, "validation_share": 0.3}
    return RewardBenchmarkParameters.model_validate({**given, **more})


@pytest.fixture(scope="module")
def judged(preferences: pd.DataFrame, index: pd.DataFrame, sources: dict[str, Any], tmp_path_factory: Any) -> Any:
    from vr_pipeline.pipelines.reward_benchmark import nodes

    videos, given = SourceVideosDataset(sources=sources).load(), parameters()
    folder = tmp_path_factory.mktemp("stored")
    pairs, left_out = nodes.label_benchmark_pairs(preferences, index, given)
    assert not len(left_out)
    stored = fill_folder(folder / "shards", {"type": "table"}, nodes.measure_benchmark(videos, index, given))
    compared = fill_folder(folder / "compared", {"type": "table"}, nodes.compare_benchmark(videos, index, pairs, given))
    scores, table = nodes.collect_benchmark(stored, compared, index, pairs, given)
    BenchmarkPairs.validate(pairs)
    BenchmarkJudgedPairs.validate(table)
    # Two rewards that measure alike have one set of measurements.
    assert len(stored) == index["prompt_id"].nunique() == PROMPTS
    assert set(scores["reward"]) == {"sharp", "long"}
    return table


def test_clips_of_one_folder_are_one_set_and_others_are_apart(preferences: pd.DataFrame, index: pd.DataFrame) -> None:
    assert set(preferences["source"]) == {"first", "again", "other"}
    named = {name: {*own["video_id_a"], *own["video_id_b"]} for name, own in preferences.groupby("source")}
    assert named["first"] == named["again"]
    assert not named["first"] & named["other"]
    assert len(index) == 2 * PROMPTS * CLIPS
    assert set(index["status"]) == {"ok"}
    assert not preferences["pair_id"].duplicated().any()


def test_a_wrong_source_is_named() -> None:
    with pytest.raises(InputError) as error:
        PreferenceSourcesDataset(sources={"x": {"filepath": "a.csv", "videos": {"path": "v"}, "weight": 0}})
    assert error.value.field == "sources.x.weight"
    with pytest.raises(InputError, match="no sources"):
        PreferenceSourcesDataset(sources={})


def test_figures_are_those_of_counting(judged: pd.DataFrame) -> None:
    figures = benchmark_figures(judged, parameters())
    BenchmarkFigures.validate(figures)
    for row in figures[figures["by"] == "all"].to_dict("records"):
        own = judged[
            (judged["reward"] == row["reward"])
            & (judged["source"] == row["source"])
            & (judged["criterion"] == row["criterion"])
        ]
        chosen, tested = own[own["split"] == "validation"], own[own["split"] == "test"]
        candidates = sorted({0.0, *chosen["difference"].abs()})
        accuracy = [right(chosen, epsilon) for epsilon in candidates]
        assert row["threshold"] == pytest.approx(candidates[int(np.argmax(accuracy))])
        assert row["tau"] == pytest.approx(right(tested, row["threshold"]))
        assert row["tau_best"] == pytest.approx(max(right(tested, e) for e in {0.0, *tested["difference"].abs()}))
        decided = tested[tested["preference"] != "tie"]
        assert row["diff"] == pytest.approx(right(decided, 0.0))
        assert row["n"] == len(tested)
        assert row["tau_low"] <= row["tau"] <= row["tau_high"]
        if row["reward"] == "tie":
            assert row["diff"] == 0.0
            assert row["three_way_accuracy"] == pytest.approx((tested["preference"] == "tie").mean())


def right(table: pd.DataFrame, epsilon: float) -> float:
    """Share of right answers, counted one by one."""
    count = 0
    for difference, label in zip(table["difference"], table["preference"], strict=True):
        said = "tie" if abs(difference) <= epsilon else "a" if difference > 0 else "b"
        count += said == label
    return count / len(table)


def test_always_first_is_about_the_order_of_the_file(judged: pd.DataFrame, preferences: pd.DataFrame) -> None:
    own = judged[(judged["reward"] == "first") & (judged["criterion"] == "preference")]
    said = own.assign(answer=answers_of(own, 0.0)).set_index("pair_id")
    shown = preferences.set_index("pair_id")
    for pair, row in said.iterrows():
        first = row["video_id_a"] if row["answer"] == "a" else row["video_id_b"]
        assert first == shown.loc[pair, "video_id_a"]


def test_no_prompt_is_on_both_sides(judged: pd.DataFrame) -> None:
    for _, own in judged.groupby("source"):
        sides = own.groupby("split")["unit"].agg(set)
        assert not sides["validation"] & sides["test"]


def test_groups_have_rows_of_their_own(judged: pd.DataFrame) -> None:
    figures = benchmark_figures(judged, parameters())
    whole = figures[(figures["by"] == "all") & (figures["criterion"] == "preference")]
    for kind in ("generators", "length"):
        part = figures[(figures["by"] == kind) & (figures["criterion"] == "preference")]
        sizes = part.groupby(["reward", "source"])["n"].sum()
        expected = whole.set_index(["reward", "source"])["n"]
        assert (sizes == expected.loc[sizes.index]).all()
    none = benchmark_figures(judged, parameters(smallest_group=10_000))
    assert set(none["by"]) == {"all"}


def test_a_model_that_compares_says_what_its_scores_say(judged: pd.DataFrame) -> None:
    one = judged[judged["reward"] == "long"].set_index(["pair_id", "criterion"])["difference"]
    other = judged[judged["reward"] == "asked"].set_index(["pair_id", "criterion"])["difference"]
    assert (np.sign(one).loc[other.index] == other).all()


def test_differences_are_paired_and_corrected(judged: pd.DataFrame) -> None:
    figures = benchmark_figures(judged, parameters())
    differences = benchmark_differences(judged, figures)
    BenchmarkDifferences.validate(differences)
    whole = figures[(figures["by"] == "all")].set_index(["reward", "source", "criterion"])["three_way_accuracy"]
    for row in differences.to_dict("records"):
        key = (row["source"], row["criterion"])
        gap = whole[(row["first"], *key)] - whole[(row["second"], *key)]
        assert row["difference"] == pytest.approx(gap)
    assert len(differences) == 3 * 2 * 10
    few = benchmark_differences(judged[judged["reward"].isin(["sharp", "long"])], figures)
    both = few.merge(differences, on=["source", "criterion", "first", "second"], suffixes=("", "_many")).dropna()
    assert len(both)
    assert (both["ci_high"] - both["ci_low"] < both["ci_high_many"] - both["ci_low_many"]).all()


def test_length_and_position_of_people_and_rewards(judged: pd.DataFrame, preferences: pd.DataFrame) -> None:
    biases = benchmark_biases(judged, preferences).set_index(["source", "who"])
    assert biases.loc[("first", "long"), "length"] == pytest.approx(1.0)
    assert np.isnan(biases.loc[("first", "tie"), "length"])
    own = preferences[(preferences["source"] == "first") & (preferences["preference"] != "tie")]
    assert biases.loc[("first", "people"), "first_share"] == pytest.approx((own["preference"] == "a").mean())


def test_the_leaderboard_and_the_page_leave_out_what_is_not_defined(
    judged: pd.DataFrame, preferences: pd.DataFrame
) -> None:
    figures = benchmark_figures(judged, parameters())
    rows = leaderboard(figures, {"sharp": {"type": "SignalsReward"}})
    assert len(rows) == 5 * 3 * 2
    row = next(one for one in rows if one["reward"] == "tie")
    assert row["kendall"]["value"] is None
    assert set(FIGURES) <= set(row)
    report = {
        "sources": {"first": {"pairs": 1, "validation": 0, "test": 1, "left_out": 0}},
        "rewards": {"sharp": {"type": "SignalsReward"}},
    }
    page = benchmark_page(
        "Title", figures, benchmark_differences(judged, figures), benchmark_biases(judged, preferences), report
    )
    assert "Agreement with people" in page
    assert not re.search(r"\bnan\b", re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL), re.IGNORECASE)


def test_a_dimension_stands_for_the_criterion_of_its_name() -> None:
    pairs = pd.DataFrame(
        {
            **{"pair_id": ["p"], "source": ["s"], "criterion": ["speed"], "prompt_id": ["q"], "unit": ["q"]},
            **{"video_id_a": ["x"], "video_id_b": ["y"], "preference": ["a"], "split": ["test"]},
            **{"generators": [""], "seconds": [1.0], "length_gap": [0.0], "shown_first": [1.0]},
        }
    )
    scores = pd.DataFrame(
        [("r", clip, dimension, value) for clip, value in (("x", 2.0), ("y", 0.5)) for dimension in ("total", "Speed")],
        columns=["reward", "video_id", "dimension", "score"],
    )
    scores.loc[scores["dimension"] == "Speed", "score"] *= -1
    given = parameters(rewards={"r": {"reward": {"type": "signals"}}})
    (row,) = judged_pairs(pairs, scores, {}, given).to_dict("records")
    assert (row["dimension"], row["difference"]) == ("Speed", -1.5)
    wrong = parameters(rewards={"r": {"reward": {"type": "signals"}, "criteria": {"speed": "colour"}}})
    with pytest.raises(InputError, match="no dimension 'colour'"):
        judged_pairs(pairs, scores, {}, wrong)


def test_joined_plans_keep_their_items_and_batches_and_load_one_model_at_a_time(tmp_path: Path) -> None:
    class Model:
        pass

    batches: list[list[str]] = []
    models: list[weakref.ref[Model]] = []

    def plan(name: str, keys: Sequence[str], batch_size: int) -> WorkPlan:
        def setup() -> Model:
            assert all(model() is None for model in models), "the one before is gone"
            made = Model()
            models.append(weakref.ref(made))
            return made

        def make(context: Model, batch: Sequence[WorkItem]) -> list[pd.DataFrame]:
            batches.append([item.key for item in batch])
            return [pd.DataFrame({"from": [f"{name} {item.key}"]}) for item in batch]

        return WorkPlan([WorkItem(key, "1") for key in keys], make, batch_size, setup=setup)

    closed: list[str] = []
    plans = {"aa": plan("aa", ["k1", "k2", "k3"], 2), "bb": plan("bb", ["k1", "k2"], 3)}
    stored = fill_folder(tmp_path / "items", {"type": "table"}, joined_plan(plans, "items", closed.append))
    assert batches == [["k1", "k2"], ["k3"], ["k1", "k2"]]
    assert (len(models), closed) == (2, ["aa"])
    part = Part(stored, "aa")
    assert sorted(part.keys) == ["k1", "k2", "k3"]
    assert part.load_joined(["k2"])["from"].tolist() == ["aa k2"]
    assert Part(stored, "bb").load_joined(["k1"])["from"].tolist() == ["bb k1"]


def test_a_reward_weighed_otherwise_measures_the_same() -> None:
    one, other = (load_reward_model({"type": "signals", "total": name}) for name in ("motion", "length"))
    assert measurement_of(one) == measurement_of(other)
    assert measurement_of(one) != measurement_of(load_reward_model({"type": "signals", "max_frames": 4}))
    assert not len(score_table({}, None, pd.DataFrame()))


@pytest.mark.parametrize(
    ("reward", "reason"),
    [
        ({}, "give exactly one of reward, path and baseline"),
        ({"baseline": "always_tie", "path": "x"}, "give exactly one of reward, path and baseline"),
        ({"baseline": "always_tie", "compare": True}, "a baseline cannot compare"),
    ],
)
def test_a_reward_is_one_thing(reward: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parameters(rewards={"x": reward})


def test_each_pair_of_clips_is_compared_once(preferences: pd.DataFrame, index: pd.DataFrame) -> None:
    pairs, _ = labelled_pairs(preferences, index, parameters())
    asked = compared_pairs(pairs)
    assert len(asked) == 2 * PROMPTS * 6
    assert not asked.duplicated(["video_id_a", "video_id_b"]).any()


@pytest.mark.real_data
def test_real_scores_give_the_published_figures(real_data: Path) -> None:
    table = read_preferences(
        real_data / "data/preferences/tifa160_human_annotations_with_scores.json",
        "rated_items",
        columns={"group": "text_id", "prompt": "text", "score": "clipscore_vitb32"},
        criterion="human_avg",
    )
    prompts = table["prompt"].map(prompt_id)
    judged = pd.DataFrame(
        {
            **{"pair_id": table["pair_id"], "source": "tifa", "criterion": "preference", "prompt_id": prompts},
            **{"unit": prompts, "video_id_a": table["video_id_a"], "video_id_b": table["video_id_b"]},
            **{"preference": table["preference"], "split": "test", "generators": "", "seconds": 0.0},
            **{"length_gap": 0.0, "shown_first": 1.0, "reward": "clip", "dimension": "total", "answer": ""},
            **{"difference": table["score_a"] - table["score_b"], "position_bias": 0.0},
        }
    )
    (row,) = benchmark_figures(judged, parameters(bootstrap_samples=0)).to_dict("records")
    assert row["tau_best"] == 0.48375
    assert round(row["diff"], 3) == 0.695
    assert row["n"] == 1600
    assert row["tau"] is None or np.isnan(row["tau"]), "no pairs were left to choose a threshold on"


@pytest.mark.real_data
def test_baselines_on_real_votes_are_the_shares_of_the_votes(real_data: Path) -> None:
    votes = read_preferences(real_data / "data/preferences/genai_bench_video_votes.json", "genai_bench")
    votes = votes.drop_duplicates("pair_id")
    pairs = pd.DataFrame(
        {
            **{"pair_id": votes["pair_id"], "source": "genai", "criterion": "preference"},
            **{"prompt_id": votes["prompt"].map(prompt_id), "unit": votes["prompt"].map(prompt_id)},
            **{"video_id_a": votes["video_id_a"], "video_id_b": votes["video_id_b"]},
            **{"preference": votes["preference"], "split": "test", "generators": "", "seconds": 0.0},
            **{"length_gap": 0.0, "shown_first": 1.0},
        }
    )
    given = parameters(
        rewards={"first": {"baseline": "always_first"}, "tie": {"baseline": "always_tie"}}, bootstrap_samples=0
    )
    judged = judged_pairs(pairs, pd.DataFrame(columns=["reward", "video_id", "dimension", "score"]), {}, given)
    figures = benchmark_figures(judged, given).set_index("reward")
    shares = votes["preference"].value_counts(normalize=True)
    assert figures.loc["first", "three_way_accuracy"] == pytest.approx(shares["a"])
    assert figures.loc["tie", "three_way_accuracy"] == pytest.approx(shares["tie"])
    assert figures.loc["first", "diff"] == pytest.approx(shares["a"] / (shares["a"] + shares["b"]))
