"""The pipeline in memory, on a world whose weights are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner
from matplotlib.figure import Figure

from vr_pipeline import schemas
from vr_pipeline.checklist import Checklist
from vr_pipeline.errors import InputError
from vr_pipeline.judges.config import ChecklistInferenceParameters
from vr_pipeline.pipelines.weight_regression.nodes import label_pairs
from vr_pipeline.pipelines.weight_regression.pipeline import create_pipeline
from vr_pipeline.rewards.checklist.halves import OTHER_HALF as KEY
from vr_pipeline.rewards.checklist.halves import question_halves
from vr_pipeline.rewards.checklist.weights import RewardWeights
from vr_pipeline.rewards.config import WeightRegressionParameters
from vr_pipeline.vlm.config import JudgeParameters


class KeptDataset(MemoryDataset):
    """Keeps what a runner would let go once all nodes have read it."""

    def _release(self) -> None:
        pass


PARAMETERS = WeightRegressionParameters(answers="probability", bootstrap_samples=50)
PROMPTS = pd.DataFrame({"prompt": ["none of the compared"], "split": ["test"]})


def run(world: dict[str, Any], checklist: Checklist, parameters: WeightRegressionParameters) -> dict[str, Any]:
    pipeline = create_pipeline()
    tables = {name: world[name] for name in pipeline.inputs() if name in world}
    judge = JudgeParameters(family="qwen2_vl", path="./not/there")
    data = {**tables, "checklist": checklist, "params:weight_regression": parameters, "params:judge": judge}
    data["params:checklist_inference"] = ChecklistInferenceParameters()
    data.setdefault("filtered_prompts", PROMPTS)
    catalog = DataCatalog({name: MemoryDataset(value, copy_mode="assign") for name, value in data.items()})
    for name in pipeline.all_outputs():
        catalog[name] = KeptDataset(copy_mode="assign")
    SequentialRunner().run(pipeline, catalog)
    return {name: catalog[name].load() for name in pipeline.all_outputs()}


@pytest.fixture(scope="module")
def outputs(world: dict[str, Any], checklist: Checklist) -> dict[str, Any]:
    return run(world, checklist, PARAMETERS)


def test_tables_keep_their_schemas(outputs: dict[str, Any]) -> None:
    schemas.LabelledPairs.validate(outputs["labelled_pairs"])
    schemas.PairScores.validate(outputs["pair_scores"])
    schemas.WeightRemovals.validate(outputs["weight_removals"])
    schemas.AccuracyCurve.validate(outputs["accuracy_curve"])
    schemas.SubDimensionDeviations.validate(outputs["preference_deviations"])
    schemas.Rewards.validate(outputs["rewards"])
    assert sum(isinstance(value, Figure) for value in outputs.values()) == 5


def test_weights_find_the_truth_and_predict_held_out_preferences(
    outputs: dict[str, Any], world: dict[str, Any]
) -> None:
    weights = RewardWeights.from_json(outputs["reward_weights"])
    assert np.corrcoef(weights.weights, world["truth"])[0, 1] > 0.7
    agreement = outputs["reward_agreement"]
    assert agreement["diff"] > 0.7
    assert agreement["n"] == (outputs["labelled_pairs"]["split"] == "held_out").sum()


def test_nothing_reported_was_fitted_on(outputs: dict[str, Any], world: dict[str, Any], checklist: Checklist) -> None:
    pairs = outputs["labelled_pairs"]
    held_out = set(pairs.loc[pairs["split"] == "held_out", "pair_id"])
    changed = world["human_preferences"].copy()
    turned = changed["pair_id"].isin(held_out)
    changed.loc[turned, "preference"] = changed.loc[turned, "preference"].map({"a": "b", "b": "a", "tie": "tie"})
    again = run({**world, "human_preferences": changed}, checklist, PARAMETERS)
    assert again["reward_weights"] == outputs["reward_weights"]
    assert again["reward_agreement"]["diff"] == pytest.approx(1 - outputs["reward_agreement"]["diff"])


def test_rewards_cover_every_readable_clip(outputs: dict[str, Any], world: dict[str, Any]) -> None:
    assert set(outputs["rewards"]["video_id"]) == set(world["video_index"]["video_id"])
    assert "sample_index" in outputs["rewards"]


def test_result_does_not_depend_on_the_order_of_rows(
    outputs: dict[str, Any], world: dict[str, Any], checklist: Checklist
) -> None:
    shuffled = {
        name: value.sample(frac=1, random_state=3) if isinstance(value, pd.DataFrame) else value
        for name, value in world.items()
    }
    again = run(shuffled, checklist, PARAMETERS)
    assert again["reward_weights"] == outputs["reward_weights"]
    assert again["reward_agreement"] == outputs["reward_agreement"]
    pd.testing.assert_frame_equal(again["rewards"], outputs["rewards"])


@pytest.mark.parametrize("change", [{"labels": "soft"}, {"answers": "probability"}, {"encoding": "plus_minus"}])
def test_other_settings_work_too(world: dict[str, Any], checklist: Checklist, change: dict[str, Any]) -> None:
    result = run(world, checklist, WeightRegressionParameters(bootstrap_samples=5, **change))
    assert result["reward_agreement"]["diff"] > 0.65
    assert result["reward_weights"]["answers"] == change.get("answers", "binary")


def test_given_weights_are_used_as_they_are_and_the_pairs_test_them(
    world: dict[str, Any], checklist: Checklist
) -> None:
    given = {question: float(world["truth"][at]) for at, question in enumerate(checklist.question_ids)}
    result = run(world, checklist, PARAMETERS.model_copy(update={"given": given}))
    weights = RewardWeights.from_json(result["reward_weights"])
    assert dict(zip(weights.question_ids, weights.weights, strict=True)) == given
    assert weights.answers == PARAMETERS.answers
    assert result["reward_agreement"]["diff"] > 0.7
    assert not len(result["weight_removals"])

    first = checklist.question_ids[0]
    alone = run(world, checklist, PARAMETERS.model_copy(update={"given": {first: 2.0}}))
    assert RewardWeights.from_json(alone["reward_weights"]).kept == (first,)
    assert len(alone["weight_removals"]) == len(checklist.question_ids) - 1
    schemas.WeightRemovals.validate(alone["weight_removals"])
    answers = world["checklist_answers"].set_index(["video_id", "question_id"])["p_yes"]
    rewards = alone["rewards"].set_index("video_id")["total"]
    for name in rewards.index[:5]:
        assert rewards[name] == pytest.approx(2.0 * answers[name, first])


def test_given_weights_name_questions_of_the_checklist(world: dict[str, Any], checklist: Checklist) -> None:
    with pytest.raises(InputError, match="no question 'sharpp'"):
        run(world, checklist, PARAMETERS.model_copy(update={"given": {"sharpp": 1.0}}))
    with pytest.raises(ValueError, match="set 'questions' to all"):
        WeightRegressionParameters(given={"sharp": 1.0}, questions="half")


def test_generators_are_rated_where_several_were_compared(world: dict[str, Any]) -> None:
    index = world["preference_video_index"]
    assert label_pairs(world["human_preferences"], index, PROMPTS, PARAMETERS)[1]["generators"] == []
    two = index.assign(generator=np.where(index["sample_index"] % 2 == 0, "x", "y"))
    ratings = label_pairs(world["human_preferences"], two, PROMPTS, PARAMETERS)[1]["generators"]
    assert {row["generator"] for row in ratings} == {"x", "y"}
    assert ratings[0]["rating"] == pytest.approx(-ratings[1]["rating"])


def test_pairs_of_broken_clips_are_counted_and_the_rest_goes_on(world: dict[str, Any]) -> None:
    index = world["preference_video_index"].copy()
    index.loc[index.index[:3], ["status", "error"]] = ["failed", "truncated file"]
    pairs, report, _ = label_pairs(world["human_preferences"], index, PROMPTS, PARAMETERS)
    broken = set(index["video_id"][:3])
    assert not broken & {*pairs["video_id_a"], *pairs["video_id_b"]}
    assert report["left_out"]["pairs"] > 0
    assert "truncated file" in report["left_out"]["examples"][0]["reason"]
    index[["status", "error"]] = ["failed", "truncated file"]
    with pytest.raises(InputError, match="none of the 960 preferences"):
        label_pairs(world["human_preferences"], index, PROMPTS, PARAMETERS)


def test_unknown_clips_and_ties_alone_stop_with_one_message(world: dict[str, Any], checklist: Checklist) -> None:
    with pytest.raises(
        InputError, match=r"row \d+, field 'video_id_a': video .* is not one of the 2 clips of preference_video_index"
    ):
        label_pairs(world["human_preferences"], world["preference_video_index"].iloc[:2], PROMPTS, PARAMETERS)
    ties = {**world, "human_preferences": world["human_preferences"].assign(preference="tie")}
    with pytest.raises(InputError, match=r"field 'preference': all \d+ preferences are ties"):
        run(ties, checklist, PARAMETERS)


def test_pairs_on_prompts_that_policies_are_tested_on_are_shown_or_removed(
    world: dict[str, Any], outputs: dict[str, Any], checklist: Checklist
) -> None:
    fitted = outputs["labelled_pairs"].query("split == 'fit'")
    same, other = list(dict.fromkeys(fitted["prompt"]))[:2]
    held_out = outputs["labelled_pairs"].query("split == 'held_out'")["prompt"].iloc[0]
    prompts = pd.DataFrame({"prompt": [same.upper(), other, held_out], "split": ["test", "validation", "train"]})
    # Only exactly the same counts as nearly the same.
    removing = PARAMETERS.model_copy(update={"near_duplicate": 1.0})
    assert removing.overlaps == "remove", "no prompt of a test is fitted on unless somebody asks for it"
    settings = removing.model_copy(update={"overlaps": "show"})
    shown = run({**world, "filtered_prompts": prompts}, checklist, settings)
    schemas.PromptOverlaps.validate(shown["prompt_overlaps"])
    found = shown["prompt_overlaps"][["tested", "trained", "kind"]].itertuples(index=False, name=None)
    assert set(found) == {
        ("test", "weights", "exact"),
        ("validation", "weights", "exact"),
        ("held_out_preferences", "policies", "exact"),
    }
    assert shown["reward_weights"] == outputs["reward_weights"], "showing changes nothing"
    removed = run({**world, "filtered_prompts": prompts}, checklist, removing)
    pairs = removed["labelled_pairs"]
    assert set(pairs.loc[pairs["split"] == "overlap", "prompt"]) == {same, other}
    assert set(removed["prompt_overlaps"]["trained"]) == {"policies"}
    schemas.LabelledPairs.validate(pairs)
    schemas.PairScores.validate(removed["pair_scores"])
    assert removed["preference_report"]["splits"]["overlap"]["prompts"] == 2
    left = world["human_preferences"][~world["human_preferences"]["prompt"].isin([same, other])]
    without = run({**world, "human_preferences": left}, checklist, settings)
    assert removed["reward_weights"] == without["reward_weights"]
    every = pd.DataFrame({"prompt": list(dict.fromkeys(fitted["prompt"])), "split": "test"})
    with pytest.raises(InputError, match=r"fitting pairs are \(nearly\) validation or test prompts") as error:
        run({**world, "filtered_prompts": every}, checklist, removing)
    assert error.value.field == "weight_regression.overlaps"


def test_a_source_of_weight_counts_more_in_the_fit(
    world: dict[str, Any], outputs: dict[str, Any], checklist: Checklist
) -> None:
    preferences = world["human_preferences"]
    prompts = sorted(set(preferences["prompt"]))
    second = preferences["prompt"].isin(prompts[::2])
    sources = preferences.assign(source=np.where(second, "two", "one"))
    alike = run({**world, "human_preferences": sources.assign(weight=3.0)}, checklist, PARAMETERS)
    assert alike["reward_weights"] == outputs["reward_weights"], "equal weights are no weights"
    assert alike["preference_report"]["sources"]["two"]["weight"] == 3.0
    assert set(alike["reward_agreement"]["by_source"]) == {"one", "two"}
    # A source that counts almost nothing leaves the fit to the other one.
    settings = PARAMETERS.model_copy(update={"penalty": 1e-3})
    heavy = run({**world, "human_preferences": sources.assign(weight=np.where(second, 1e-9, 1.0))}, checklist, settings)
    fitted = alike["labelled_pairs"].query("split == 'fit' and source == 'two'")["pair_id"]
    alone = run({**world, "human_preferences": preferences[~preferences["pair_id"].isin(fitted)]}, checklist, settings)
    found, expected = (RewardWeights.from_json(one["reward_weights"]).weights for one in (heavy, alone))
    np.testing.assert_allclose(found, expected, atol=2e-2)


def test_halves_are_fitted_on_the_same_pairs_and_share_no_question(
    outputs: dict[str, Any], world: dict[str, Any], checklist: Checklist
) -> None:
    found = run(world, checklist, PARAMETERS.model_copy(update={"questions": "half"}))
    schemas.WeightRemovals.validate(found["weight_removals"])
    halves = [RewardWeights.from_json(document) for document in (found["reward_weights"], found["reward_weights"][KEY])]
    for weights, questions in zip(halves, question_halves(checklist), strict=True):
        assert set(weights.kept) <= set(questions)
        assert weights.checklist_hash == checklist.hash
        assert weights.statistics["n_fitted"] == outputs_of(outputs).statistics["n_fitted"]
        assert 0.5 < weights.statistics["accuracy"] <= outputs_of(outputs).statistics["accuracy"] + 0.02
    # The reward of pairs and the agreement use the first half; the rewards of clips follow its answers alone.
    changed = world["checklist_answers"].copy()
    other = changed["question_id"].isin(question_halves(checklist)[1])
    changed.loc[other, "answer"] = ~changed.loc[other, "answer"].astype(bool)
    changed.loc[other, "p_yes"] = 1 - changed.loc[other, "p_yes"]
    again = run({**world, "checklist_answers": changed}, checklist, PARAMETERS.model_copy(update={"questions": "half"}))
    pd.testing.assert_frame_equal(again["rewards"], found["rewards"])
    assert KEY not in outputs["reward_weights"]


def outputs_of(outputs: dict[str, Any]) -> RewardWeights:
    return RewardWeights.from_json(outputs["reward_weights"])
