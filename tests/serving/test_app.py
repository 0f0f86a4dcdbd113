"""The service: scores are those of kedro score, bad requests get one clear error, nothing else can be read."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from vr_pipeline.errors import InputError
from vr_pipeline.rewards.checklist.model import ChecklistReward
from vr_pipeline.rewards.checklist.scoring import movers, score_file
from vr_pipeline.rewards.registry import ranker_of
from vr_pipeline.runtime.endpoint import EndpointUnavailable
from vr_pipeline.runtime.web import known_hosts
from vr_pipeline.serving.app import create_app
from vr_pipeline.serving.limits import ServingLimits
from vr_pipeline.serving.service import RewardService
from vr_pipeline.video.limits import VARIABLE, reading

LIMITS = ServingLimits(max_mebibytes=1, max_frames=100, max_megapixels=1)
ADDRESS = "http://127.0.0.1:8711"


def encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")


@pytest.fixture
def reward(tiny_reward: ChecklistReward) -> ChecklistReward:
    return tiny_reward


@pytest.fixture
def clips(served_clips: Path) -> Path:
    return served_clips


@pytest.fixture
def service(reward: ChecklistReward, clips: Path) -> RewardService:
    return RewardService(reward, clips, notes=["a note"])


@pytest.fixture
def client(service: RewardService, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setenv(VARIABLE, json.dumps(LIMITS.reading(reading().model_dump())))
    app = create_app(service, LIMITS, hosts=known_hosts("127.0.0.1", 8711))
    with TestClient(app, base_url=ADDRESS, raise_server_exceptions=False) as made:
        yield made


def detail(reply: Any, status: int) -> str:
    assert reply.status_code == status, reply.text
    assert list(reply.json()) == ["detail"]
    return str(reply.json()["detail"])


def test_scores_are_those_of_single_files(client: TestClient, reward: ChecklistReward, clips: Path) -> None:
    for name in ("dark.mp4", "bright.mp4", "wide.mp4", "picture.png", "within.mp4"):
        alone = score_file(reward, clips / name, "a cat")
        expected = alone.to_json()
        del expected["path"]
        by_name = client.post("/score", json={"path": name, "prompt": "a cat", "top": 2}).json()
        by_content = client.post("/score", json={"clip": encoded(clips / name), "prompt": "a cat", "top": 2}).json()
        moved = by_name.pop("moved")
        assert [(one["question"], one["moved"]) for one in moved] == movers(alone, reward.weights, 2)
        assert "[[prompt]]" not in json.dumps(moved)
        assert by_name == expected
        assert by_content == {**expected, "moved": moved}


def test_requests_at_the_same_time_are_scored_together_and_each_gets_its_own(
    reward: ChecklistReward, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is in a batch: good clips, bad ones, comparisons."""
    sizes: list[int] = []
    service = RewardService(reward, clips)
    answer, first = service.answer, threading.Event()

    def watched(asked: Any) -> Any:
        first.wait(10)  # until all have come
        sizes.append(len(asked))
        return answer(asked)

    monkeypatch.setattr(service, "answer", watched)
    names = ["dark.mp4", "bright.mp4", "wide.mp4", "text.mp4", "picture.png", "dark.mp4"]
    expected = {name: score_file(reward, clips / name, "a cat").total for name in set(names) - {"text.mp4"}}
    with TestClient(create_app(service, LIMITS), base_url=ADDRESS) as client, ThreadPoolExecutor(7) as pool:
        asked = [pool.submit(client.post, "/score", json={"path": name, "prompt": "a cat"}) for name in names]
        pair = {"first": {"path": "dark.mp4"}, "second": {"path": "bright.mp4"}, "prompt": "a cat"}
        compared = pool.submit(client.post, "/compare", json=pair)
        while client.get("/metrics").text.count('path="/score",status="422"') == 0:
            pass  # the bad one is answered while others wait
        first.set()
        replies = [one.result() for one in asked]
        assert compared.result().status_code == 200
    for name, reply in zip(names, replies, strict=True):
        if name == "text.mp4":
            assert "text" in detail(reply, 422)
        else:
            assert reply.json()["total"] == pytest.approx(expected[name], abs=1e-5)
    assert sum(sizes) == 6
    assert max(sizes) > 1


def test_a_failure_of_the_model_is_that_of_one_request(
    reward: ChecklistReward, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = RewardService(reward, clips)
    answer = service.answer

    def fails(asked: Any) -> Any:
        if any(one.clip.prompt == "poison" for one in asked):
            raise RuntimeError("the device is lost")
        return answer(asked)

    monkeypatch.setattr(service, "answer", fails)
    app = create_app(service, LIMITS)
    with TestClient(app, base_url=ADDRESS, raise_server_exceptions=False) as client, ThreadPoolExecutor(6) as pool:
        prompts = ["a cat", "poison", "a cat", "a cat", "poison", "a cat"]
        replies = list(pool.map(lambda text: client.post("/score", json={"path": "dark.mp4", "prompt": text}), prompts))
        for text, reply in zip(prompts, replies, strict=True):
            if text == "poison":
                assert detail(reply, 500) == "Internal error; see the server's log."
            else:
                assert reply.status_code == 200
        assert client.get("/health").json()["status"] == "ok"


def test_a_judge_whose_server_is_away_is_a_passing_failure(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise EndpointUnavailable("the server at http://10.0.0.7:8000/v1 does not answer")

    monkeypatch.setattr("vr_pipeline.serving.service.score_clips", fails)
    reply = client.post("/score", json={"path": "dark.mp4", "prompt": "a cat"})
    assert "10.0.0.7" not in detail(reply, 503)
    assert reply.headers["retry-after"]


def test_comparisons_are_those_of_the_ranker(client: TestClient, reward: ChecklistReward, clips: Path) -> None:
    (row,) = ranker_of(reward).compare([clips / "dark.mp4"], [clips / "bright.mp4"], ["a cat"]).to_dict("records")
    body = {"first": {"path": "dark.mp4"}, "second": {"clip": encoded(clips / "bright.mp4")}, "prompt": "a cat"}
    reply = client.post("/compare", json=body).json()
    assert reply == {
        "better": {"a": "first", "b": "second", "tie": "tie"}[row["better"]],
        **{f"p_{side}": row[column] for side, column in (("first", "p_a"), ("second", "p_b"), ("tie", "p_tie"))},
        "position_bias": 0.0,
    }
    swapped = client.post("/compare", json={**body, "first": body["second"], "second": body["first"]}).json()
    assert (swapped["p_first"], swapped["p_second"]) == (reply["p_second"], reply["p_first"])


GOOD = {"path": "dark.mp4", "prompt": "a cat"}
BAD: dict[str, tuple[bytes | dict[str, Any], int, str]] = {
    "no JSON": (b"clip", 400, "not valid JSON"),
    "nothing": (b"", 400, "not valid JSON"),
    "half": (b'{"path": "dark.mp4", "prom', 400, "not valid JSON"),
    "not UTF-8": (b'{"path": "\xff", "prompt": "a"}', 400, "not valid JSON"),
    "half of a pair of surrogates": (b'{"path": "\\ud800", "prompt": "a"}', 400, "not valid JSON"),
    "deep": (b"[" * 200_000, 400, "not valid JSON"),
    "a list": (b"[]", 422, "object"),
    "no clip": ({"prompt": "a"}, 422, "either 'clip'"),
    "two clips": ({**GOOD, "clip": "YQ=="}, 422, "either 'clip'"),
    "no prompt": ({"path": "dark.mp4"}, 422, "prompt: Field required"),
    "an empty prompt": ({**GOOD, "prompt": " "}, 422, "question 'as_said' asks about it"),
    "a long prompt": ({**GOOD, "prompt": "a " * 20_000}, 422, "prompt: String should have at most"),
    "a number as prompt": ({**GOOD, "prompt": 3}, 422, "prompt: Input should be a valid string"),
    "an unknown field": ({**GOOD, "promt": "a"}, 422, "promt: there is no such setting (perhaps 'prompt' is meant)"),
    "top of another kind": ({**GOOD, "top": "5"}, 422, "top: Input should be a valid integer"),
    "no base64": ({"clip": "?!", "prompt": "a"}, 422, "clip: Data should be valid base64"),
    "no video": ({"clip": base64.b64encode(b"text").decode(), "prompt": "a"}, 422, "field 'clip': "),
    "a pickle": ({"clip": base64.b64encode(b"\x80\x04cos\nsystem\n.").decode(), "prompt": "a"}, 422, "field 'clip'"),
    "damaged": ({"path": "text.mp4", "prompt": "a"}, 422, "field 'clip': cannot be"),
    "a file that is not there": ({**GOOD, "path": "none.mp4"}, 422, "no such file"),
    "the folder above": ({**GOOD, "path": "../outside.mp4"}, 422, "no such file"),
    "a way through the folder above": ({**GOOD, "path": "../clips/../outside.mp4"}, 422, "no such file"),
    "another folder": ({**GOOD, "path": "/etc/passwd"}, 422, "no such file"),
    "a link out of the folder": ({**GOOD, "path": "out.mp4"}, 422, "no such file"),
    "a loop of links": ({**GOOD, "path": "loop.mp4"}, 422, "no such file"),
    "the folder": ({**GOOD, "path": "."}, 422, "no such file"),
    "a NUL": ({**GOOD, "path": "dark.mp4\0.txt"}, 422, "no such file"),
    "a name that is too long": ({**GOOD, "path": "a" * 900}, 422, "no such file"),
    "an address": ({**GOOD, "path": "http://127.0.0.1/clip.mp4"}, 422, "no such file"),
    "too many bytes": (b" " * (LIMITS.max_bytes + 1), 413, "larger than 1048576 bytes"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_gets_one_clear_error(client: TestClient, clips: Path, name: str) -> None:
    body, status, message = BAD[name]
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    said = detail(client.post("/score", content=content), status)
    assert message in said
    assert str(clips.parent) not in said
    assert "vr-serve" not in said, "no place of this machine"
    assert "\n" not in said


def test_clips_have_limits(client: TestClient, tmp_path: Path, service: RewardService) -> None:
    Image.new("RGB", (1001, 1000)).save(tmp_path / "large.png")
    frames = [Image.new("RGB", (8, 8), (value, 0, 0)) for value in range(101)]
    frames[0].save(tmp_path / "long.gif", save_all=True, append_images=frames[1:])
    for name, message in (("large.png", "more than 1 million"), ("long.gif", "more than 100 frames")):
        body = {"clip": encoded(tmp_path / name), "prompt": "a cat"}
        assert message in detail(client.post("/score", json=body), 422)


def test_names_are_read_in_the_given_folder_only(reward: ChecklistReward) -> None:
    with TestClient(create_app(RewardService(reward), LIMITS), base_url=ADDRESS) as client:
        assert "this server reads no files" in detail(client.post("/score", json=GOOD), 422)


def test_unknown_paths_and_methods(client: TestClient) -> None:
    detail(client.get("/none"), 404)
    detail(client.get("/score"), 405)
    assert 'path="other",status="404"' in client.get("/metrics").text


def test_only_programs_of_this_machine_ask_without_a_token(client: TestClient, service: RewardService) -> None:
    for headers in ({"host": "evil.example:8711"}, {"origin": "http://evil.example"}):
        detail(client.post("/score", json=GOOD, headers=headers), 403)
    guarded = create_app(service, LIMITS, token="secret")
    with TestClient(guarded, base_url="http://lab.example") as other:
        for value in ("", "Bearer wrong", "Bearer sécret", "secret "):
            detail(other.post("/score", json=GOOD, headers={"authorization": value.encode()}), 401)
            detail(other.get("/metrics", headers={"authorization": value.encode()}), 401)
        assert other.post("/score", json=GOOD, headers={"authorization": "Bearer secret"}).status_code == 200
        assert other.get("/health").status_code == 200


def test_too_many_and_too_slow_requests(reward: ChecklistReward, clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = RewardService(reward, clips)
    answer, go, busy = service.answer, threading.Event(), threading.Event()

    def held(asked: Any) -> Any:
        busy.set()
        go.wait(10)
        return answer(asked)

    monkeypatch.setattr(service, "answer", held)
    limits = ServingLimits(waiting=2, timeout=0.5)
    with TestClient(create_app(service, limits), base_url=ADDRESS) as client, ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(client.post, "/score", json=GOOD) for _ in range(2)]
        busy.wait(10)
        while "vr_requests_in_progress 3" not in client.get("/metrics").text:
            pass
        reply = client.post("/score", json=GOOD)
        assert "2 requests are in progress" in detail(reply, 429)
        assert reply.headers["retry-after"] == "1"
        for one in waiting:
            assert "No answer within 0.5 seconds" in detail(one.result(), 504)
        go.set()
        assert client.post("/score", json=GOOD).status_code == 200  # the model is free again


def test_health_and_metrics(client: TestClient, reward: ChecklistReward) -> None:
    health = client.get("/health").json()
    assert health == {
        "status": "ok",
        "reward": "ChecklistReward",
        "identity": reward.identity,
        "dimensions": ["light", "alignment"],
        "notes": ["a note"],
    }
    for _ in range(3):
        client.post("/score", json=GOOD)
    reply = client.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    sample = re.compile(r'[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [0-9.e+-]+')
    lines = reply.text.splitlines()
    assert all(line.startswith("# ") or sample.fullmatch(line) for line in lines)
    assert 'vr_requests_total{path="/score",status="200"} 3' in lines
    assert "vr_scored_total 3" in lines
    assert 'vr_request_seconds_bucket{path="/score",le="+Inf"} 3' in lines
    buckets = [int(line.split()[1]) for line in lines if line.startswith('vr_request_seconds_bucket{path="/score"')]
    assert buckets == sorted(buckets)


def test_a_reward_without_a_finite_number_gives_an_error(
    reward: ChecklistReward, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vr_pipeline.serving.service.score_clips", lambda model, shown: [_not_a_number(model, clips)])
    with TestClient(create_app(RewardService(reward, clips), LIMITS), base_url=ADDRESS) as client:
        assert "not finite" in detail(client.post("/score", json=GOOD), 422)


def _not_a_number(model: ChecklistReward, clips: Path) -> Any:
    from dataclasses import replace

    return replace(score_file(model, clips / "dark.mp4", "a cat"), total=float("nan"))


def test_a_clip_that_the_model_cannot_take_fails_alone(
    reward: ChecklistReward, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the model says of it, no place of this machine is in the answer."""

    def look(loaded: Any, shown: Any) -> list[Any]:
        problem = f"memory runs out on {shown[0].path}"
        return [InputError(problem, remedy="take fewer frames", file=one.path) for one in shown]

    monkeypatch.setattr(reward, "look", look)
    with TestClient(create_app(RewardService(reward, clips), LIMITS), base_url=ADDRESS) as client:
        said = detail(client.post("/score", json=GOOD), 422)
    assert said == "memory runs out on the clip. Take fewer frames."


def test_frames_are_dropped_from_memory(client: TestClient, tmp_path: Path) -> None:
    """Files of requests stay only until the answer."""
    scratch = client.app.state.scratch  # type: ignore[attr-defined]
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "black.png")
    body = {"clip": encoded(tmp_path / "black.png"), "prompt": "a cat"}
    assert client.post("/score", json=body).status_code == 200
    assert client.post("/score", json={**body, "clip": "YQ=="}).status_code == 422
    assert list(scratch.iterdir()) == []
