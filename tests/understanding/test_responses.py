"""From questions to pairs: what is read, sampled, judged, sifted and tested, item by item."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tiny_unifiedreward
import tiny_vlm
import vr_pipeline as vr
from vr_pipeline.errors import InputError
from vr_pipeline.items.filling import fill_folder
from vr_pipeline.rewards.named import RewardModelParameters
from vr_pipeline.rewards.registry import ranker_of
from vr_pipeline.schemas import QuestionIndex, ResponsePairs, VlmAnswers
from vr_pipeline.understanding.candidates import collect_candidates, merged, plan_candidates
from vr_pipeline.understanding.config import VlmDpoParameters
from vr_pipeline.understanding.evaluation import collect_answers, plan_answers, summarised, with_figures
from vr_pipeline.understanding.judging import RewardJudge, collect_judgements, judged, plan_judgements
from vr_pipeline.understanding.media import QuestionMedia, index_questions, questions_of
from vr_pipeline.understanding.selection import select_response_pairs
from vr_pipeline.video.sampled import Sampling
from vr_pipeline.work import WorkPlan


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("responses")
    model = tiny_vlm.write_model(folder / "model")
    media = tiny_vlm.write_clips(folder / "clips", each=5)
    given = tiny_vlm.parameters(model, candidates={"temperature": 3.0})
    return {"model": model, "media": media, "given": given, "index": tiny_vlm.index(media, given)}


def candidates_plan(world: dict[str, Any], given: VlmDpoParameters | None = None) -> WorkPlan:
    given = given or world["given"]
    media = QuestionMedia(world["media"], world["index"])
    asked = questions_of(world["index"], "train", "validation")
    return plan_candidates(asked, media, given.model, given.dialogue, given.candidates)


def contents(folder: Any) -> dict[str, Any]:
    return {key: folder.load(key) for key in folder.keys}


def test_the_index_says_what_can_be_read(world: dict[str, Any], tmp_path: Path) -> None:
    from PIL import Image

    media = dict(world["media"])
    for number, size in enumerate(((24, 24), (24, 24), (24, 32))):
        media[f"{number}.png"] = tmp_path / f"{number}.png"
        Image.new("RGB", size, (number * 90, 0, 0)).save(media[f"{number}.png"])
    media["broken.mp4"] = tmp_path / "broken.mp4"
    media["broken.mp4"].write_bytes(world["media"]["red-0.mp4"].read_bytes()[:300])
    rows = [
        ("clip", ["red-0.mp4"]),
        ("frames", ["1.png", "0.png"]),
        ("sizes", ["0.png", "2.png"]),
        ("broken", ["broken.mp4"]),
        ("absent", ["none.mp4"]),
    ]
    table = pd.DataFrame(
        [
            {"question_id": name, "group": name, "prompt": "?", "answer": "", "files": json.dumps(files)}
            for name, files in rows
        ]
    )
    found = QuestionIndex.validate(index_questions(table, media, world["given"].split)).set_index("question_id")
    assert found["status"].tolist() == ["ok", "ok", "failed", "failed", "failed"]
    assert "2 different sizes" in found.loc["sizes", "error"]
    assert "file 'none.mp4' is not in the folder" in found.loc["absent", "error"]
    assert set(found["split"]) == {"train", "validation", "test"}
    shown = QuestionMedia(media, found.reset_index()).read("frames", Sampling(8, 2.0))
    assert shown.frames.shape == (2, 24, 24, 3)
    # In the order in which they are named.
    assert shown.frames[:, 0, 0, 0].tolist() == [90, 0]
    with pytest.raises(InputError, match="no question is usable"):
        index_questions(table.tail(2), media, world["given"].split)


def test_candidates_belong_to_their_question(world: dict[str, Any], tmp_path: Path) -> None:
    plan = candidates_plan(world)
    stored = fill_folder(tmp_path / "all", {"type": "json"}, plan)
    whole = contents(stored)
    assert all(sum(one["count"] for one in content["responses"]) <= 4 for content in whole.values())
    # Alone, in batches of another size, a question has the same responses.
    one = WorkPlan(plan.items[2:3], plan.make_batch, 1, plan.description, plan.setup)
    assert contents(fill_folder(tmp_path / "one", {"type": "json"}, one)) == {
        plan.items[2].key: whole[plan.items[2].key]
    }
    again = candidates_plan(world)
    assert [item.identity for item in again.items] == [item.identity for item in plan.items]
    for change in ({"temperature": 1.0}, {"seed": 1}, {"num_candidates": 5}):
        other = candidates_plan(world, tiny_vlm.parameters(world["model"], candidates={"temperature": 3.0} | change))
        assert {item.identity for item in other.items}.isdisjoint(item.identity for item in plan.items)
    table = collect_candidates(stored)
    assert table["candidate_id"].is_unique
    assert not table.duplicated(["question_id", "response"]).any()


def test_equal_responses_are_merged_and_empty_ones_are_none() -> None:
    found = merged([("red", True), ("", True), ("blue", True), ("red", False)])
    assert found == [
        {"response": "red", "count": 2, "finished": False},
        {"response": "blue", "count": 1, "finished": True},
    ]


def chain(world: dict[str, Any], tmp_path: Path, judge: tiny_vlm.ExactJudge) -> tuple[Any, pd.DataFrame]:
    index, given = world["index"], world["given"]
    words = ["red ball", "blue ball", "black ring", "red ring", "ball"]
    candidates = pd.DataFrame(
        [
            {"question_id": name, "candidate_id": f"{name}/{number}", "response": word, "count": 1, "finished": True}
            for name in index.loc[index["split"] != "test", "question_id"]
            for number, word in enumerate(words)
        ]
    )
    plan = plan_judgements(
        questions_of(index, "train", "validation"),
        candidates,
        QuestionMedia(world["media"], index),
        judge,
        given.judging,
    )
    return fill_folder(tmp_path, {"type": "json"}, plan), candidates


def test_judgements_are_stored_and_sifted(world: dict[str, Any], tmp_path: Path) -> None:
    index = world["index"]
    judge = tiny_vlm.ExactJudge(index)
    stored, candidates = chain(world, tmp_path, judge)
    once = judge.scored
    assert once == len(candidates)
    chain(world, tmp_path, judge)
    assert judge.scored == once
    comparisons, points = collect_judgements(stored)
    # Neighbours only: two comparisons of five candidates.
    assert (comparisons.groupby("group").size() == 2).all()
    assert len(points) == len(candidates)
    pairs, figures = select_response_pairs(index, candidates, comparisons, points, world["given"].judging)
    ResponsePairs.validate(pairs)
    answers = index.set_index("question_id")["answer"]
    for row in pairs.itertuples():
        right = answers[row.question_id].split()
        score = {
            said: sum(a == b for a, b in zip(said.split(), right, strict=False)) for said in candidates["response"]
        }
        assert (row.chosen_score, row.rejected_score) == (score[row.chosen], score[row.rejected])
        assert row.chosen_score > row.rejected_score
    assert figures["comparisons"] == len(comparisons)
    assert figures["sifting"]["selected"] == len(pairs)
    assert figures["sifting"]["groups_without_pair"] + len(pairs) == figures["questions"]
    turned, _ = select_response_pairs(index, candidates[::-1], comparisons[::-1], points[::-1], world["given"].judging)
    pd.testing.assert_frame_equal(turned, pairs)
    strict = world["given"].judging.model_copy(update={"min_margin": 9.0})
    with pytest.raises(InputError, match="gives a pair of responses"):
        select_response_pairs(index, candidates, comparisons, points, strict)


def test_a_judge_that_gives_no_number_is_no_judge(world: dict[str, Any]) -> None:
    class Broken(tiny_vlm.ExactJudge):
        def score_responses(self, *given: Any) -> pd.DataFrame:
            return super().score_responses(*given).assign(total=np.nan)

    one = pd.DataFrame({"candidate_id": ["x"], "response": ["red ball"]})
    with pytest.raises(InputError, match="gives nan for 'total'"):
        judged(Broken(world["index"]), world["media"]["red-0.mp4"], "?", one, world["given"].judging)
    with pytest.raises(InputError, match="no reward is set"):
        RewardJudge(world["given"].reward_model)


def test_a_unified_reward_judges_files_and_frames(world: dict[str, Any], tmp_path: Path) -> None:
    folder = tiny_unifiedreward.saved_reward(tmp_path / "reward")
    given = RewardModelParameters(type="unifiedreward", path=str(folder), device="cpu", threads=1)
    judge = RewardJudge(given)
    assert judge.identity == RewardJudge(given).identity
    table = pd.DataFrame({"candidate_id": ["x", "y", "z"], "response": ["red ball", "blue ring", "ball"]})
    path = world["media"]["red-0.mp4"]
    frames = tiny_vlm.frames_of("red", 0)
    reward = vr.load_reward_model({"type": "unifiedreward", "path": str(folder), "device": "cpu"})
    ranker = ranker_of(reward)
    for shown, fps in ((path, None), (frames, ranker.sampling().frames_per_second)):
        found = judged(judge, shown, "is it red ?", table, world["given"].judging)
        (comparison,) = found["comparisons"]
        assert (comparison["a"], comparison["b"]) == ("x", "y")
        said = ranker.compare_responses([shown], ["is it red ?"], ["red ball"], ["blue ring"], fps=fps)
        assert comparison["p_a"] == pytest.approx(said["p_a"][0], abs=1e-6)
        assert comparison["p_a"] + comparison["p_b"] == pytest.approx(1.0)
        total = reward.score_responses([shown], ["is it red ?"], ["ball"], fps=fps)["total"][0]
        assert found["points"][2] == {"item": "z", "total": pytest.approx(total, abs=1e-5)}
    # A reward of clips is none of responses.
    clips_only = tiny_unifiedreward.saved_reward(
        tmp_path / "clips", template=tiny_unifiedreward.toy_template(video_understanding={})
    )
    other = RewardJudge(RewardModelParameters(type="unifiedreward", path=str(clips_only), device="cpu"))
    with pytest.raises(InputError, match="has no pair of the task 'video_understanding'"):
        judged(other, path, "is it red ?", table, world["given"].judging)


def test_before_and_after_by_hand() -> None:
    """Figures of four questions in two groups; an empty answer has no points, an unknown one no exact match."""
    answers = pd.DataFrame(
        {
            "question_id": ["1", "2", "3", "4"],
            "group": ["x", "x", "y", "y"],
            "prompt": "?",
            "answer": ["red ball", "blue ball", "red ring", ""],
            "response_before": ["blue ball", "Blue  ball", "", "red"],
            "response_after": ["red ball", "blue ball", "red ring", "red"],
            "drawn_before": ['["red ball", "Red ball"]', '["x", "blue ball"]', "[]", '["x"]'],
            "drawn_after": ['["red ball", "y"]', '["blue ball", "blue ball"]', '["red ring"]', '["x"]'],
        }
    )

    class Media:
        def source(self, name: str) -> Path:
            return Path(name)

    class Lengths:
        def score_responses(self, clips: Any, prompts: Any, responses: Any) -> pd.DataFrame:
            return pd.DataFrame({"total": [float(len(text.split())) for text in responses]})

    table = VlmAnswers.validate(with_figures(answers, Media(), Lengths()))
    assert table["exact_before"].tolist()[:3] == [0.0, 1.0, 0.0]
    assert table["exact_after"].tolist()[:3] == [1.0, 1.0, 1.0]
    assert np.isnan(table["exact_before"][3])
    assert np.isnan(table["points_before"][2])
    found = summarised(table)
    assert (found["questions"], found["groups"], found["changed_answers"]) == (4, 2, 3)
    assert (found["empty_answers_before"], found["empty_answers_after"]) == (1, 0)
    # Group x gains a half, group y one.
    assert found["exact"]["gain"]["mean"] == pytest.approx(0.75)
    assert found["exact"]["before"]["mean"] == pytest.approx(1 / 3)
    assert (found["exact"]["better"], found["exact"]["worse"]) == (2, 0)
    assert found["points"]["before"]["n"] == 3
    assert table["drawn_exact_before"].tolist()[:2] == [1.0, 0.5]
    # Nothing was drawn for the third before: it is left out.
    assert (found["drawn_exact"]["before"]["n"], found["drawn_exact"]["gain"]["mean"]) == (2, 0.0)
    assert "points" not in summarised(with_figures(answers, Media(), None))


def test_the_same_model_before_and_after_changes_nothing(world: dict[str, Any], tmp_path: Path) -> None:
    given, index = world["given"], world["index"]
    asked = questions_of(index, "test")
    media = QuestionMedia(world["media"], index)
    plan = plan_answers(asked, media, given.model, given)
    assert len(plan.items) == 2 * len(asked)
    stored = fill_folder(tmp_path, {"type": "json"}, plan)
    table = collect_answers(stored, asked)
    assert table["question_id"].tolist() == [question["question_id"] for question in asked]
    for name in ("response", "drawn"):
        assert table[f"{name}_before"].tolist() == table[f"{name}_after"].tolist()
    assert {len(json.loads(drawn)) for drawn in table["drawn_before"]} == {given.test.samples}
    found = summarised(with_figures(table, media, tiny_vlm.ExactJudge(index)))
    assert found["changed_answers"] == 0
    assert found["exact"]["gain"]["mean"] == 0.0
