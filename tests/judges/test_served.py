"""The judge behind a server: right probabilities, no answer that is none, no question asked twice, no key anywhere."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from kedro.io import DataCatalog, DatasetError
from kedro.runner import SequentialRunner
from pydantic import ValidationError

import chat_server
from chat_server import KEY, MODEL, ChatServer, Reply, answered, completion, distribution, question_of
from vr_pipeline import judges, schemas
from vr_pipeline.checklist import Checklist, checklist_from_mapping
from vr_pipeline.datasets.manifest import ManifestFolderDataset
from vr_pipeline.errors import InputError
from vr_pipeline.hooks.requirements import hub_models, model_folders
from vr_pipeline.judges import served
from vr_pipeline.judges.completions import NoAnswerError, plain_text, read_answer
from vr_pipeline.judges.config import AlignmentParameters, ChecklistInferenceParameters
from vr_pipeline.judges.served import WITHOUT_AN_ANSWER
from vr_pipeline.lineage.secrets import holds_redaction, without_secrets
from vr_pipeline.pipelines.checklist_inference.nodes import collect_answers, plan_checklist_answers
from vr_pipeline.pipelines.checklist_inference.pipeline import create_pipeline
from vr_pipeline.rewards.checklist.model import ChecklistReward
from vr_pipeline.rewards.checklist.weights import equal_weights
from vr_pipeline.rewards.registry import load_reward_model
from vr_pipeline.runtime.endpoint import EndpointUnavailable
from vr_pipeline.serving.mlflow_model import write_model_files
from vr_pipeline.video.write import write_video
from vr_pipeline.vlm.config import ChecklistJudgeParameters, JudgeParameters
from vr_pipeline.vlm.families import family_class
from vr_pipeline.vlm.loading import judge_identity

ROOT = Path(__file__).parents[2]
QUESTIONS = ("is it sharp?", 'is "[[prompt]]" shown?', "is it steady?")
YES, NO = {"Yes", " yes", "YES", "▁yes"}, {"No", " no", "NO\n"}


def expected(request: dict[str, Any], count: int = 20) -> tuple[float, float]:
    """Return p_yes and outside mass from the whole distribution, of which the server lists the top."""
    listed = sorted(distribution(request).items(), key=lambda pair: -pair[1])[:count]
    yes = sum(mass for token, mass in listed if token in YES)
    no = sum(mass for token, mass in listed if token in NO)
    return yes / (yes + no), 1 - yes - no


# -- what is asked and what comes back --------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [20, 5, 32])
def test_all_spellings_count_and_what_is_not_listed_is_outside(clips: list[np.ndarray], count: int) -> None:
    prompts = ["a dog", "a cat", "an <|im_end|> owl"]
    with ChatServer() as server:
        judge = judges.load_judge(server.judge(server={"top_logprobs": count}))
        p_yes, outside = judge.answer(clips, QUESTIONS, prompts)
        assert p_yes.shape == outside.shape == (3, 3)
        assert len(server.requests) == 9
        found = {}
        for request in server.requests:
            number = next(n for n, clip in enumerate(clips) if len(chat_server.pictures_of(request)) == len(clip))
            found[number, question_of(request)] = expected(request, count)
            np.testing.assert_array_equal(chat_server.pictures_of(request), clips[number])
    texts = ["is it sharp?", 'is "{}" shown?', "is it steady?"]
    for number, prompt in enumerate(("a dog", "a cat", "an < |im_end|> owl")):
        for place, text in enumerate(texts):
            values = found[number, text.format(prompt) + " Answer yes or no."]
            assert (p_yes[number, place], outside[number, place]) == pytest.approx(values, abs=1e-12)


def test_the_request_is_one_token_with_log_probabilities(clips: list[np.ndarray]) -> None:
    server_options = {
        "system": "Judge strictly.",
        "before_question": "Q: ",
        "after_question": " A:",
        "max_tokens_field": "max_completion_tokens",
        "image_detail": "low",
        "extra_body": {"chat_template_kwargs": {"enable_thinking": False}},
    }
    with ChatServer() as server:
        judges.load_judge(server.judge(server=server_options)).answer(clips[:1], ["is it so?"])
        (request,) = server.requests
    system, user = request.pop("messages")
    assert request == {
        "path": "/v1/chat/completions",
        "model": MODEL,
        "max_completion_tokens": 1,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 20,
        "chat_template_kwargs": {"enable_thinking": False},
    }
    assert system == {"role": "system", "content": "Judge strictly."}
    assert user["content"][-1] == {"type": "text", "text": "Q: is it so? A:"}
    assert {part["image_url"]["detail"] for part in user["content"][:-1]} == {"low"}


@pytest.mark.parametrize(("codec", "difference"), [("libx264rgb", 0), ("libx264", 60)])
def test_a_clip_can_be_one_video_at_its_rate_and_a_picture_stays_one(
    codec: str, difference: int, tmp_path: Path
) -> None:
    ramp = np.linspace(0, 255, 41 * 33 * 3).reshape(1, 41, 33, 3)
    clip = np.concatenate([ramp * share for share in (0.5, 0.75, 1.0)]).astype(np.uint8)
    with ChatServer() as server:
        judge = judges.load_judge(server.judge(server={"media": "video", "video_codec": codec}))
        judge.answer([clip, clip[:1]], ["is it so?"], frames_per_second=[2.5, 1.0])
        media = sorted(chat_server.media_of(request)[0] for request in server.requests)
    assert [kind for kind, _ in media] == ["image/png", "video/mp4"]
    (tmp_path / "sent.mp4").write_bytes(media[1][1])
    with av.open(str(tmp_path / "sent.mp4")) as container:
        assert float(container.streams.video[0].average_rate) == 2.5
        sent = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert len(sent) == 3
    if codec == "libx264rgb":
        np.testing.assert_array_equal(sent, clip)
    else:  # even sides
        assert sent.shape[1:3] == (42, 32) or sent.shape[1:3] == (40, 32)
        assert np.abs(sent[:, :32, :32].astype(int) - clip[:, :32, :32]).mean() < difference


def test_frames_are_thinned_and_fitted(clips: list[np.ndarray]) -> None:
    with ChatServer() as server:
        judge = judges.load_judge(server.judge(num_frames=2, max_pixels=24 * 24, server={"image_format": "jpeg"}))
        assert (judge.num_frames, judge.frames_per_second) == (2, None)
        judge.answer(clips[:1], ["is it so?"])
        pictures = chat_server.pictures_of(server.requests[0])
        assert {kind for kind, _ in chat_server.media_of(server.requests[0])} == {"image/jpeg"}
    assert len(pictures) == 2
    height, width, _ = pictures[0].shape
    assert height * width <= 24 * 24
    assert height / width == pytest.approx(32 / 48, rel=0.1)


def test_what_cannot_be_asked_is_rejected(clips: list[np.ndarray]) -> None:
    with ChatServer() as server:
        judge = judges.load_judge(server.judge())
        with pytest.raises(InputError, match="asks about the prompt"):
            judge.answer(clips, QUESTIONS)
        with pytest.raises(ValueError, match="3 clips, 1 prompts"):
            judge.answer(clips, QUESTIONS, ["a"])
        with pytest.raises(ValueError, match="must be uint8"):
            judge.answer([clips[0].astype(float)], QUESTIONS, ["a"])
        assert judge.answer([], QUESTIONS, [])[0].shape == (0, 3)
        assert server.requests == []


# -- what is no answer ------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from(chat_server.TOKENS), st.floats(1e-6, 1.0)), min_size=1, max_size=12))
def test_any_listed_masses_give_what_their_definition_says(pairs: list[tuple[str, float]]) -> None:
    whole = 1.25 * sum(mass for _, mass in pairs)
    listed = [(token, mass / whole) for token, mass in pairs]
    document = completion([(token, math.log(mass)) for token, mass in listed])
    yes = sum(mass for token, mass in listed if token in YES)
    no = sum(mass for token, mass in listed if token in NO)
    if yes + no == 0:
        with pytest.raises(NoAnswerError, match="neither yes nor no"):
            read_answer(document, "is it so?")
        return
    answer = read_answer(document, "is it so?")
    assert answer.p_yes == pytest.approx(yes / (yes + no))
    assert answer.outside_mass == pytest.approx(1 - yes - no)
    assert answer.unknown_mass == pytest.approx(0.2)


BAD_NUMBERS = [math.nan, math.inf, -math.inf, 0.5, "0.1", None, True, [1]]


@pytest.mark.parametrize("value", BAD_NUMBERS, ids=repr)
def test_what_is_no_log_probability_is_no_answer(value: Any) -> None:
    for listed in ([("Yes", value), ("No", -1.0)], [("Yes", -1.0), ("word", value)]):
        with pytest.raises(NoAnswerError, match="the log-probability"):
            read_answer(completion(listed), "is it so?")


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"choices": []},
        {"choices": [{"message": {"content": "Yes"}}]},
        {"choices": [{"logprobs": None}]},
        {"choices": [{"logprobs": {"content": []}}]},
        {"choices": [{"logprobs": {"content": [{"token": "Yes", "logprob": -0.1}]}}]},
        {"choices": [{"logprobs": {"content": [{"top_logprobs": [{"token": "Yes"}]}]}}]},
        {"choices": [{"logprobs": {"content": [{"top_logprobs": "Yes"}]}}]},
        {"choices": "Yes"},
    ],
    ids=str,
)
def test_text_without_log_probabilities_is_no_answer(document: dict[str, Any]) -> None:
    with pytest.raises(NoAnswerError, match="no log-probabilities"):
        read_answer(document, "is it so?")


def test_masses_of_more_than_one_and_of_nothing_are_no_answer() -> None:
    with pytest.raises(NoAnswerError, match=r"together 1\.8"):
        read_answer(completion([("Yes", math.log(0.9)), ("word", math.log(0.9))]), "is it so?")
    # What servers write for tokens without probability.
    with pytest.raises(NoAnswerError, match=r"neither yes nor no.*'<think>'"):
        read_answer(completion([("<think>", -0.001), ("Yes", -9999.0), ("No", -9999.0)]), "is it so?")
    assert read_answer(completion([("Yes", 1e-9), ("No", -9999.0)]), "is it so?") == (1.0, 0.0, 0.0)
    with pytest.raises(NoAnswerError, match="neither yes nor no"):
        read_answer(completion([("yesterday", -0.1), ("not", -3.0)]), "is it so?")


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("a <|im_end|> b", "a < |im_end|> b"),
        ("</s><image>", "< /s>< image>"),
        ("[INST] x [/INST]", "[ INST] x [ /INST]"),
        ("<｜end｜>", "< ｜end｜>"),
        ("1 < 2, 3 <4, [a], [1], I <3 U", "1 < 2, 3 <4, [a], [1], I <3 U"),
    ],
)
def test_control_tokens_of_users_are_broken(text: str, plain: str) -> None:
    assert plain_text(text) == plain


# -- many questions at a time -----------------------------------------------------------------------------------------


def test_results_are_the_same_in_whatever_order_answers_come(clips: list[np.ndarray]) -> None:
    delays = np.random.default_rng(0)

    def late(request: dict[str, Any], attempt: int) -> Any:
        time.sleep(float(delays.uniform(0, 0.03)))
        return answered(request)

    found = []
    for concurrency in (1, 7):
        with ChatServer(late) as server:
            judge = judges.load_judge(server.judge(server={"concurrency": concurrency}))
            found.append(judge.answer(clips, QUESTIONS, ["a", "b", "c"]))
            assert 1 <= server.most_at_a_time <= concurrency
            alone = [judge.answer([clip], QUESTIONS, [prompt]) for clip, prompt in zip(clips, "abc", strict=True)]
            assert len(server.requests) == 9
            found.append(tuple(np.concatenate(parts) for parts in zip(*alone, strict=True)))
    for p_yes, outside in found[1:]:
        np.testing.assert_array_equal(p_yes, found[0][0])
        np.testing.assert_array_equal(outside, found[0][1])


def test_the_number_of_requests_at_a_time_has_a_limit_and_is_used(clips: list[np.ndarray]) -> None:
    together = threading.Barrier(3)

    def meet(request: dict[str, Any], attempt: int) -> Any:
        together.wait(20)  # breaks if fewer than three are under way
        return answered(request)

    with ChatServer(meet) as server:
        judge = judges.load_judge(server.judge(server={"concurrency": 3, "retries": 0}))
        judge.answer(clips[:1], [f"is it {number}?" for number in range(12)])
        assert server.most_at_a_time == 3
        assert len(server.connections) <= 4  # one more asked for the list of models


def refusing(marks: tuple[str, ...], reply: Any) -> Callable[[dict[str, Any], int], Any]:
    return lambda request, attempt: (
        reply if any(mark in question_of(request) for mark in marks) else answered(request, attempt)
    )


@pytest.mark.parametrize("concurrency", [1, 5])
def test_the_first_failure_of_a_clip_is_named_and_others_are_not_asked_again(
    clips: list[np.ndarray], concurrency: int
) -> None:
    questions = [f"is it {letter}?" for letter in "abcdefgh"]
    with ChatServer(refusing(("is it c", "is it f"), completion([("maybe", -0.01)]))) as server:
        judge = judges.load_judge(server.judge(server={"concurrency": concurrency}))
        with pytest.raises(NoAnswerError, match=r"'maybe'.* asked 'is it c|is it c.*'maybe'"):
            judge.answer(clips, questions)
        assert server.times("is it a") == server.times("is it c") == 3
        asked = len(server.requests)
        for clip in clips:
            with pytest.raises(NoAnswerError, match="is it c"):
                judge.answer([clip], questions)
        assert len(server.requests) == asked
        # Afterwards the failed question is asked again: the server may have been mended.
        server.reply = answered
        judge.answer(clips, questions)
        assert server.times("is it c") == 6
        assert server.times("is it a") == 3
        assert max(Counter(json.dumps(request["messages"]) for request in server.requests).values()) == 2


def test_a_server_that_never_answers_yes_or_no_is_not_asked_about_everything(clips: list[np.ndarray]) -> None:
    with ChatServer(lambda *_: completion([("<think>", -0.001)])) as server:
        judge = judges.load_judge(server.judge(server={"concurrency": 2}))
        many = [clips[0] // (number + 1) for number in range(100)]
        with pytest.raises(EndpointUnavailable, match=r"None of the first 32 requests.*<think>.*enable_thinking"):
            judge.answer(many, QUESTIONS, ["a"] * 100)
        assert len(server.requests) <= WITHOUT_AN_ANSWER + 2


def test_a_server_that_is_gone_stops_all_at_once(clips: list[np.ndarray]) -> None:
    with ChatServer() as server:
        judge = judges.load_judge(server.judge(server={"retries": 2}))
    before = time.monotonic()
    with pytest.raises(EndpointUnavailable, match="does not answer"):
        judge.answer(clips, [f"is it {number}?" for number in range(2000)])
    assert time.monotonic() - before < 30


@pytest.mark.parametrize("trouble", [Reply(429), Reply(500), Reply(content=None), Reply(200, b"{")], ids=repr)
def test_answers_after_passing_trouble_are_those_without(clips: list[np.ndarray], trouble: Reply) -> None:
    with ChatServer() as server:
        right = judges.load_judge(server.judge()).answer(clips, QUESTIONS, ["a", "b", "c"])
    with ChatServer(lambda request, attempt: trouble if attempt < 3 else answered(request)) as server:
        judge = judges.load_judge(server.judge())
        np.testing.assert_array_equal(judge.answer(clips, QUESTIONS, ["a", "b", "c"]), right)
        assert len(server.requests) == 27


# -- which model answers ----------------------------------------------------------------------------------------------


def test_another_model_than_the_named_one_is_rejected(clips: list[np.ndarray]) -> None:
    named = r"'judge\.path': .*has no model 'stand-in/judge', but one, two"
    with ChatServer(models=["one", "two"]) as server, pytest.raises(InputError, match=named):
        judges.load_judge(server.judge())
    dated = f"{MODEL}-2026-01-01"
    with ChatServer(lambda request, _: {**answered(request), "model": dated}, models=[]) as server:
        with pytest.raises(EndpointUnavailable, match=f"'{dated}' has answered"):
            judges.load_judge(server.judge()).answer(clips, QUESTIONS, ["a", "b", "c"])
        judge = judges.load_judge(server.judge(server={"answers_as": dated}))
        assert np.isfinite(judge.answer(clips, QUESTIONS, ["a", "b", "c"])[0]).all()


IDENTITY = judge_identity(JudgeParameters.model_validate(ChatServer().judge(server={"url": "http://127.0.0.1:1/v1"})))
OTHER = [
    *({"path": "other/model"}, {"revision": "a" * 40}, {"num_frames": 3}, {"frames_per_second": 2.0}),
    *({"max_pixels": 100}, {"min_pixels": 100}),
    *({"server": {"media": "video"}}, {"server": {"image_format": "jpeg"}}, {"server": {"jpeg_quality": 50}}),
    *({"server": {"image_detail": "low"}}, {"server": {"video_codec": "libx264"}}, {"server": {"system": "x"}}),
    *({"server": {"before_question": "x"}}, {"server": {"after_question": "x"}}, {"server": {"top_logprobs": 5}}),
    *({"server": {"max_tokens_field": "max_completion_tokens"}}, {"server": {"extra_body": {"seed": 1}}}),
    {"server": {"answers_as": "x"}},
]
SAME = [
    *({"device": "cuda"}, {"threads": 3}, {"dtype": "bfloat16"}, {"prefix": "cached"}, {"clip_batch": 9}),
    {"question_chunk_size": 3},
    *({"server": {"url": "https://example.org/v1"}}, {"server": {"api_key_variable": "SOME_KEY"}}),
    *({"server": {"retries": 9}}, {"server": {"concurrency": 9}}, {"server": {"timeout_seconds": 9}}),
    *({"server": {"first_wait_seconds": 9}}, {"server": {"longest_wait_seconds": 9}}),
    *({"server": {"max_response_mib": 9}}, {"server": {"allow_http": True}}, {"server": {"currency": "EUR"}}),
    *({"server": {"price_per_million_input_tokens": 1}}, {"server": {"price_per_million_output_tokens": 1}}),
    {"server": {"tokens_per_frame": 1}},
]


def changed(change: dict[str, Any]) -> JudgeParameters:
    base: dict[str, Any] = {"family": "openai_compatible", "path": MODEL}
    return JudgeParameters.model_validate({**base, **change, "server": change.get("server", {})})


def test_the_identity_has_all_that_answers_depend_on_and_nothing_else() -> None:
    assert {judge_identity(changed(change)) for change in SAME} == {IDENTITY}
    others = {judge_identity(changed(change)) for change in OTHER}
    assert len(others - {IDENTITY}) == len(OTHER)
    # A setting that is new has to be put into one of the lists.
    tried = {name for change in (*OTHER, *SAME) for name in (*change, *change.get("server", {}))}
    fields = {*JudgeParameters.model_fields, *type(changed({}).server).model_fields}
    rejected = {"adapter", "trust_remote_code", "quantisation", "before_clip"}
    assert fields - tried == {"family"} | rejected


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"family": "qwen2_vl", "path": "./x", "server": {}}, "belong together"),
        ({"family": "openai_compatible", "path": "x"}, "belong together"),
        ({"adapter": "./a"}, "adapter cannot be set"),
        ({"quantisation": "4bit"}, "quantisation cannot be set"),
        ({"trust_remote_code": True, "revision": "a" * 40}, "trust_remote_code cannot be set"),
        ({"from": "trained", "trained": "./judge"}, "from: trained"),
        ({"server": {"extra_body": {"logprobs": False, "model": "y"}}}, "cannot set logprobs, model"),
        ({"server": {"apikey": KEY}}, "apikey"),
    ],
)
def test_settings_that_contradict_each_other_are_rejected(settings: dict[str, Any], said: str) -> None:
    base: dict[str, Any] = {"family": "openai_compatible", "path": "x", "server": {}}
    given = settings if "family" in settings else {**base, **settings}
    with pytest.raises(ValidationError, match=said):
        ChecklistJudgeParameters.model_validate(given)


def test_the_documented_configuration_is_one() -> None:
    section = (ROOT / "docs" / "judges.md").read_text(encoding="utf-8").split("### A judge behind a server")[1]
    block = section.split("```yaml\n")[1].split("```")[0]
    judge = ChecklistJudgeParameters.model_validate(yaml.safe_load(block.replace("\n    # ", "\n    "))["judge"])
    assert judge.server is not None
    assert (judge.server.api_key_variable, judge.server.price_per_million_input_tokens) == ("JUDGE_KEY", 0.5)


def test_a_model_behind_a_server_is_neither_trained_nor_looked_for_here() -> None:
    parameters = ChecklistJudgeParameters.model_validate({"family": "openai_compatible", "path": "a/b", "server": {}})
    assert list(model_folders({"judge": parameters}, "p")) == list(hub_models({"judge": parameters}, "p")) == []
    with pytest.raises(InputError, match="likelihood of whole answers"):
        family_class("openai_compatible")


def test_a_clip_is_encoded_once_for_its_questions_and_not_for_those_that_are_answered(
    clips: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    whole = served.image_parts

    def counted(frames: np.ndarray, server: Any) -> Any:
        encoded.append(len(frames))
        return whole(frames, server)

    monkeypatch.setattr(served, "image_parts", counted)
    with ChatServer() as server:
        judge = judges.load_judge(server.judge(server={"concurrency": 2}))
        for _ in range(2):
            judge.answer(clips, QUESTIONS, ["a", "b", "c"])
    # The last question of a clip may be answered before the one before it is sent.
    assert sorted(set(encoded)) == sorted(len(clip) for clip in clips)
    assert len(encoded) <= 2 * len(clips)


def test_a_packaged_reward_asks_the_same_judge_again(tmp_path: Path, videos: Any, checklist: Checklist) -> None:
    with ChatServer() as server:
        judge = ChecklistJudgeParameters.model_validate(server.judge(num_frames=2))
        reward = ChecklistReward(checklist, equal_weights(checklist), judge)
        write_model_files(tmp_path / "reward", reward)
        packaged = load_reward_model(tmp_path / "reward" / "reward.json")
        assert isinstance(packaged, ChecklistReward)
        assert packaged.identity == reward.identity
        clip = videos[0]["v3.mp4"]
        pd.testing.assert_frame_equal(packaged.score([clip], ["a"]), reward.score([clip], ["a"]))


# -- through the pipeline ---------------------------------------------------------------------------------------------


def checklist_of(*questions: dict[str, str]) -> Checklist:
    dimension = {"name": "all", "sub_dimensions": [{"name": "all", "questions": list(questions)}]}
    return checklist_from_mapping({"name": "some", "modality": "video", "dimensions": [dimension]})


@pytest.fixture
def checklist() -> Checklist:
    sharp, shown, steady = QUESTIONS
    gated = {"id": "steady", "text": steady, "gate": "sharp"}
    return checklist_of({"id": "sharp", "text": sharp}, {"id": "shown", "text": shown}, gated)


@pytest.fixture
def videos(tmp_path: Path) -> tuple[dict[str, Path], pd.DataFrame]:
    """Six clips of two prompts."""
    rows = []
    for number in range(6):
        name = f"v{number}"
        write_video(tmp_path / "clips" / f"{name}.mp4", np.full((4, 16, 16, 3), 40 * number, np.uint8), fps=4)
        row = {"video_id": name, "prompt_id": f"p{number % 2}", "prompt": f"prompt {number % 2}", "path": f"{name}.mp4"}
        row |= {"sample_index": number // 2, "seed": 0, "generator": "test", "num_frames": 4, "fps": 4.0}
        rows.append(row | {"height": 16, "width": 16, "sha256": f"hash{number}", "status": "ok", "error": ""})
    index = schemas.VideoIndex.validate(pd.DataFrame(rows))
    return {path.name: path for path in (tmp_path / "clips").iterdir()}, index


ONE_CLIP = ChecklistInferenceParameters(clips_per_item=1)


def shards_in(folder: Path) -> ManifestFolderDataset:
    return ManifestFolderDataset(path=str(folder), format={"type": "table"})


def test_the_pipeline_asks_every_question_once_and_the_key_is_nowhere(
    videos: Any, checklist: Checklist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder, index = videos
    monkeypatch.setenv("SOME_KEY", KEY)
    text = (ROOT / "conf/base/catalog/checklist_inference.yml").read_text(encoding="utf-8")
    entries = yaml.safe_load(text.replace("${globals:data}", "data"))
    del entries["checklist"]
    for entry in entries.values():
        for name in ("filepath", "path"):
            if name in entry:
                entry[name] = str(tmp_path / entry[name])
    with ChatServer(key=KEY) as server, caplog.at_level(logging.DEBUG):
        prices = {"price_per_million_input_tokens": 2.0, "price_per_million_output_tokens": 10.0}
        settings = server.judge(num_frames=2, server={"api_key_variable": "SOME_KEY", **prices})
        judge = ChecklistJudgeParameters.model_validate(settings)
        given = {"videos": folder, "video_index": index[:2], "preference_videos": folder}
        given |= {"preference_video_index": index[2:4], "checklist": checklist, "params:judge": judge}
        given |= {"params:checklist_inference": ONE_CLIP}
        for _ in range(2):
            catalog = DataCatalog.from_config(entries)
            for name, value in given.items():
                catalog[name] = value
            SequentialRunner().run(create_pipeline(), catalog)
        assert len(server.requests) == 12
        answers = catalog.load("checklist_answers").whole()
        assert answers["video_id"].tolist() == ["v0"] * 3 + ["v1"] * 3
        assert answers["frames_judged"].unique().tolist() == [2]
        values = sorted(expected(request) for request in server.requests)
        both = pd.concat([answers, catalog.load("preference_answers")])
        assert sorted(zip(both["p_yes"], both["outside_mass"], strict=True)) == pytest.approx(
            np.array(values), abs=1e-12
        )
    assert ": 3 requests, 0 without an answer" in caplog.text
    # 100 tokens sent and 1 received: 2.1e-4 for each request.
    assert "0.0006 USD at the stated prices" in caplog.text
    recorded = without_secrets(judge.model_dump(mode="json"))
    assert not holds_redaction(recorded)
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(KEY.encode() in content for content in written)
    assert KEY not in caplog.text + json.dumps(recorded) + repr(judge)


def test_a_clip_without_an_answer_is_set_aside_with_its_reason(
    videos: Any, checklist: Checklist, tmp_path: Path
) -> None:
    folder, index = videos

    def undecided(request: dict[str, Any], attempt: int) -> Any:
        nothing = shows(request, 0) and "sharp" in question_of(request)
        return completion([("Perhaps", -0.1), ("▁", -3.0)]) if nothing else answered(request)

    together = ChecklistInferenceParameters(clips_per_item=3)
    with ChatServer(undecided) as server:
        judge = ChecklistJudgeParameters.model_validate(server.judge())
        shards = shards_in(tmp_path / "shards")
        shards.save(plan_checklist_answers(folder, index, checklist, judge, together))
        table = collect_answers(shards.load(), index, checklist, together)
        assert table["video_id"].unique().tolist() == ["v1", "v2", "v3", "v4", "v5"]
        parts = pd.concat([shards.load().load(key) for key in shards.load().keys])
        ((video, reason),) = parts[parts["error"] != ""][["video_id", "error"]].to_numpy().tolist()
        assert video == "v0"
        assert "neither yes nor no" in reason
        assert "Perhaps" in reason
        # No question was asked twice, and the one clip cost no other answer.
        assert max(Counter(json.dumps(request["messages"]) for request in server.requests).values()) == 1
        asked = len(server.requests)
        shards.save(plan_checklist_answers(folder, index, checklist, judge, together))
        assert len(server.requests) == asked


def test_a_killed_run_asks_no_finished_clip_again(videos: Any, checklist: Checklist, tmp_path: Path) -> None:
    folder, index = videos
    index.to_pickle(tmp_path / "index.pkl")
    (tmp_path / "checklist.json").write_text(checklist.model_dump_json(), encoding="utf-8")
    child: list[int] = []

    def killing(request: dict[str, Any], attempt: int) -> Any:
        if len(server.requests) == 8:  # in the third clip
            os.kill(child[0], signal.SIGKILL)
        return answered(request)

    program = """
        import sys
        from pathlib import Path
        import pandas as pd
        from vr_pipeline.checklist.schema import Checklist
        from vr_pipeline.datasets.manifest import ManifestFolderDataset
        from vr_pipeline.judges.config import ChecklistInferenceParameters
        from vr_pipeline.pipelines.checklist_inference.nodes import plan_checklist_answers
        from vr_pipeline.vlm.config import ChecklistJudgeParameters

        folder = Path(sys.argv[1])
        plan = plan_checklist_answers(
            {path.name: path for path in (folder / "clips").iterdir()},
            pd.read_pickle(folder / "index.pkl"),
            Checklist.model_validate_json((folder / "checklist.json").read_text()),
            ChecklistJudgeParameters.model_validate_json(sys.argv[2]),
            ChecklistInferenceParameters(clips_per_item=1),
        )
        ManifestFolderDataset(path=str(folder / "shards"), format={"type": "table"}).save(plan)
    """
    with ChatServer(killing) as server:
        settings = server.judge(server={"concurrency": 1})
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program), str(tmp_path), json.dumps(settings)],
            env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        )
        child.append(process.pid)
        assert process.wait(timeout=120) == -signal.SIGKILL
        assert len(server.requests) == 8
        server.reply = answered
        judge = ChecklistJudgeParameters.model_validate(settings)
        shards = shards_in(tmp_path / "shards")
        shards.save(plan_checklist_answers(folder, index, checklist, judge, ONE_CLIP))
        # Only the clip that was under way is asked again: two of its questions.
        assert len(server.requests) == 6 * 3 + 2
        resumed = collect_answers(shards.load(), index, checklist, ONE_CLIP)
        whole = shards_in(tmp_path / "whole")
        whole.save(plan_checklist_answers(folder, index, checklist, judge, ONE_CLIP))
        pd.testing.assert_frame_equal(resumed, collect_answers(whole.load(), index, checklist, ONE_CLIP))


def test_a_server_that_goes_away_stops_the_run_and_finished_clips_stay(
    videos: Any, checklist: Checklist, tmp_path: Path
) -> None:
    folder, index = videos
    shards = shards_in(tmp_path / "shards")
    with ChatServer(lambda request, _: answered(request) if len(server.requests) <= 7 else Reply(401)) as server:
        judge = ChecklistJudgeParameters.model_validate(server.judge(server={"concurrency": 1}))
        with pytest.raises((EndpointUnavailable, DatasetError), match="answers 401"):
            shards.save(plan_checklist_answers(folder, index, checklist, judge, ONE_CLIP))
        assert len(server.requests) == 8
        server.reply = answered
        shards.save(plan_checklist_answers(folder, index, checklist, judge, ONE_CLIP))
        assert len(server.requests) == 8 + 18 - 6


def test_it_can_give_the_alignment_score_too(videos: Any) -> None:
    score = {"id": "shown", "text": QUESTIONS[1], "feature": "probability"}
    with ChatServer() as server:
        alignment = {"judge": server.judge(server={"after_question": " Is it?"}), "question": "shown"}
        judging = ChecklistInferenceParameters(alignment=AlignmentParameters.model_validate(alignment))
        judge = ChecklistJudgeParameters.model_validate(server.judge())
        reward = ChecklistReward(checklist_of(score), judge=judge, judging=judging)
        row = reward.measured(*videos).set_index("video_id").loc["v3"]
        (request,) = [one for one in server.requests if question_of(one).endswith(" Is it?") and shows(one, 120)]
        assert (row["p_yes"], row["outside_mass"]) == pytest.approx((expected(request)[0], 0.0))
        assert len(server.requests) == 12


def shows(request: dict[str, Any], grey: int) -> bool:
    return int(chat_server.pictures_of(request)[0].max()) == grey
