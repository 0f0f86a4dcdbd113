"""The server: who may ask, what is given away, and that wrong questions change nothing."""

from __future__ import annotations

import numpy as np
import pytest
from fastapi.testclient import TestClient
from tests.annotation.conftest import HOSTILE_PROMPT

from vr_pipeline.annotation.app import create_app, is_loopback, known_hosts
from vr_pipeline.annotation.media import browser_clip
from vr_pipeline.video.read import read_frames
from vr_pipeline.video.write import write_video


@pytest.fixture
def client(make_session):
    return TestClient(
        create_app(make_session(), hosts=known_hosts("127.0.0.1", 8710)), base_url="http://127.0.0.1:8710"
    )


def ask(client: TestClient, annotator: str = "Ada") -> dict:
    reply = client.get("/api/next", params={"annotator": annotator})
    assert reply.status_code == 200, reply.text
    return reply.json()


def answer(client: TestClient, state: dict, choice: str = "left", annotator: str = "Ada", **changes: object):
    task = state["task"]
    body = {
        "label": f"label-{task['pair']}-{task['criterion'][:4]}-{annotator}",
        "annotator": annotator,
        "pair": task["pair"],
        "criterion": task["criterion"],
        "choice": choice,
        "left": task["left"]["token"],
        "seconds": 1.0,
    }
    return client.post("/api/labels", json=body | changes)


def test_a_study_from_beginning_to_end(make_session) -> None:
    session = make_session(criteria=["quality", "overall"], hints={"quality": ["Is [[prompt]] sharp?"]})
    client = TestClient(create_app(session, hosts=frozenset({"127.0.0.1:1"})), base_url="http://127.0.0.1:1")
    state = ask(client)
    assert (state["done"], state["total"], state["can_undo"]) == (0, 9, False)
    seen = []
    while state["task"]:
        task = state["task"]
        seen.append((task["pair"], task["criterion"]))
        assert task["hints"] == ([f"Is {task['prompt']} sharp?"] if task["criterion"] == "quality" else [])
        state = answer(client, state).json()
    assert len(seen) == len(set(seen)) == 18
    assert [criterion for _, criterion in seen] == ["quality", "overall"] * 9
    assert ask(client, "Bob")["done"] == 0
    back = client.post("/api/undo", json={"annotator": "Ada"}).json()
    assert (back["undone"], back["done"], back["task"]["criterion"]) == (True, 8, "overall")
    assert back["task"]["pair"] == seen[-1][0]
    results = client.get("/api/results").json()
    assert results["annotators"][0]["answers"] == 17
    assert HOSTILE_PROMPT not in client.get("/results").text


def test_a_page_that_is_out_of_date_has_to_ask_again(client, make_session) -> None:
    state = ask(client)
    assert answer(client, state).status_code == 200
    assert answer(client, state).status_code == 200  # the same answer again: a reply was lost
    assert answer(client, state, label="another-label").status_code == 409
    fresh = ask(client)
    assert answer(client, fresh, left=fresh["task"]["right"]["token"]).status_code == 409
    assert answer(client, fresh, pair="none").status_code == 409
    assert answer(client, fresh, criterion="beauty").status_code == 409
    assert client.get("/api/results").json()["answers"] == 1
    again = TestClient(create_app(make_session(), hosts=known_hosts("127.0.0.1", 1)), base_url="http://127.0.0.1:1")
    assert ask(again)["task"] == fresh["task"]  # a server started again goes on where the first was


@pytest.mark.parametrize(
    "changes",
    [
        {"choice": "best"},
        {"label": "short"},
        {"label": "x" * 65},
        {"seconds": -1},
        {"annotator": "  "},
        {"annotator": "a" * 61},
        {"annotator": "a\u0000b"},
        {"further": 1},
        {"pair": ["a"]},
    ],
)
def test_answers_that_cannot_be_are_refused(client, changes) -> None:
    assert answer(client, ask(client), **changes).status_code == 422
    assert client.get("/api/results").json()["answers"] == 0


def test_only_this_site_may_ask(client) -> None:
    assert client.get("/").status_code == 200
    assert client.get("/", headers={"host": "localhost:8710"}).status_code == 200
    for host in ("evil.example", "evil.example:8710", "127.0.0.1", "127.0.0.1:80", "", "localhost:8710.evil.example"):
        assert client.get("/api/next?annotator=Ada", headers={"host": host}).status_code == 403, host
    state = ask(client)
    for headers in (
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site"},
    ):
        reply = client.post("/api/undo", json={"annotator": "Ada"}, headers=headers)
        assert reply.status_code == 403, headers
    assert client.post("/api/undo", json={"annotator": "Ada"}, headers={"origin": "http://127.0.0.1:8710"}).is_success
    assert (
        client.post("/api/labels", content="annotator=Ada", headers={"content-type": "text/plain"}).status_code == 422
    )
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert client.get("/", headers=link).status_code == 200  # a link that somebody follows
    assert ask(client) == state


def test_another_machine_needs_the_key(make_session) -> None:
    hosts = known_hosts("0.0.0.0", 8710, ("lab.example",))
    app = create_app(make_session(), hosts=hosts, key="secret")
    client = TestClient(app, base_url="http://lab.example:8710")
    assert client.get("/").status_code == 403
    assert client.get("/?key=wrong").status_code == 403
    assert client.get("/?key=secret").status_code == 200
    assert ask(client)["total"] == 9  # the cookie has it now
    assert [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8", "0.0.0.0", "lab")] == [
        True,
        True,
        True,
        True,
        False,
        False,
    ]


def test_nothing_but_the_studys_clips_is_served_and_their_addresses_tell_nothing(make_session, clip_folder) -> None:
    session = make_session(blind=True)
    client = TestClient(create_app(session, hosts=known_hosts("127.0.0.1", 1)), base_url="http://127.0.0.1:1")
    state = ask(client)
    task = state["task"]
    shown = str(state)
    assert "mpo" not in shown
    assert "original" not in shown
    reply = client.get("/" + task["left"]["url"])
    assert (reply.status_code, reply.headers["content-type"]) == (200, "video/mp4")
    assert reply.content[4:8] == b"ftyp"
    for name in (
        "..%2f..%2fetc%2fpasswd",
        "../../../etc/passwd",
        "%2e%2e/%2e%2e/pyproject.toml",
        "original-0-0.mp4",
        str(clip_folder / "mpo-0-0.mp4"),
        "",
    ):
        assert client.get(f"/clips/{name}").status_code in (404, 405), name
    assert client.get("/docs").status_code == client.get("/openapi.json").status_code == 404


def test_the_page_lets_nothing_run_but_its_own_script(client) -> None:
    reply = client.get("/")
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    assert "unsafe-eval" not in policy
    assert reply.headers["x-content-type-options"] == "nosniff"
    for outside in ("http://", "https://", "//cdn"):
        assert outside not in reply.text


def test_a_clip_that_cannot_be_read_can_be_left_out(client, make_session, clip_folder, tmp_path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    session = make_session(files={path.name: broken for path in clip_folder.iterdir()})
    client = TestClient(create_app(session, hosts=known_hosts("127.0.0.1", 1)), base_url="http://127.0.0.1:1")
    task = ask(client)["task"]
    reply = client.get("/" + task["left"]["url"])
    assert reply.status_code == 422
    assert str(tmp_path) not in reply.text
    following = client.post("/api/skip", json={"annotator": "Ada", "pair": task["pair"]}).json()
    assert following["task"]["pair"] != task["pair"]
    assert ask(client, "Bob")["task"]["pair"] == task["pair"]


def test_clips_are_made_playable_and_left_alone_where_they_are(tmp_path) -> None:
    frames = np.zeros((6, 144, 192, 3), dtype=np.uint8)
    frames[..., 0] = 220
    write_video(tmp_path / "played.mp4", frames, fps=8, codec="libx264")
    write_video(tmp_path / "lossless.mp4", frames, fps=8)
    played = browser_clip(tmp_path / "played.mp4")
    assert played.content == (tmp_path / "played.mp4").read_bytes()
    encoded = browser_clip(tmp_path / "lossless.mp4")
    assert encoded.media_type == "video/mp4"
    (tmp_path / "encoded.mp4").write_bytes(encoded.content)
    again = read_frames(tmp_path / "encoded.mp4")
    assert again.shape == frames.shape
    assert np.abs(again.astype(int) - frames).max() < 12
    write_video(tmp_path / "image.mp4", frames[:1], fps=8)
    assert browser_clip(tmp_path / "image.mp4").media_type == "image/png"
