"""The server: who may ask, what is given away, and that wrong questions change nothing."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from fastapi.testclient import TestClient
from tests.annotation.conftest import HOSTILE_PROMPT

from vr_pipeline.annotation.app import MOST_BYTES, create_app, personal_link
from vr_pipeline.annotation.media import browser_clip
from vr_pipeline.annotation.secret import study_secret
from vr_pipeline.identifiers import content_hash
from vr_pipeline.runtime.web import is_loopback, known_hosts
from vr_pipeline.video.read import read_frames
from vr_pipeline.video.write import write_video


@pytest.fixture
def client(make_session):
    return TestClient(
        create_app(make_session(), hosts=known_hosts("127.0.0.1", 8710)), base_url="http://127.0.0.1:8710"
    )


def ask(client: TestClient, annotator: str = "Ada") -> dict:
    reply = client.post("/api/begin", json={"annotator": annotator})
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


def test_criteria_may_be_skipped_and_the_whole_may_not(make_session) -> None:
    session = make_session(criteria=["motion", "overall"])
    client = TestClient(create_app(session, hosts=frozenset({"127.0.0.1:1"})), base_url="http://127.0.0.1:1")
    state = ask(client)
    assert state["task"]["can_skip"]
    state = answer(client, state, "skip").json()
    assert (state["task"]["criterion"], state["task"]["can_skip"]) == ("overall", False)
    rejected = answer(client, state, "skip")
    assert (rejected.status_code, "cannot be skipped" in rejected.json()["detail"]) == (422, True)
    assert answer(client, state, "tie").json()["done"] == 1
    assert client.get("/api/results").json()["criteria"][0]["skipped"] == 1
    assert "Skipped" in client.get("/results").text


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
    again = TestClient(
        create_app(make_session(), hosts=known_hosts("127.0.0.1", 1)),
        base_url="http://127.0.0.1:1",
        cookies=dict(client.cookies),
    )
    assert ask(again)["task"] == fresh["task"]  # a restarted server resumes where the first stopped


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
def test_answers_that_cannot_be_are_rejected(client, changes) -> None:
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


def other_browser(client: TestClient) -> TestClient:
    return TestClient(client.app, base_url=client.base_url)


def test_nobody_answers_or_undoes_as_somebody_else(make_session) -> None:
    session = make_session()
    client = TestClient(create_app(session, hosts=known_hosts("127.0.0.1", 1)), base_url="http://127.0.0.1:1")
    state = ask(client)
    assert answer(client, state).status_code == 200
    stranger = other_browser(client)
    mine = ask(stranger, "Bob")
    for cookies in (dict(stranger.cookies), dict.fromkeys(client.cookies, "0" * 32)):
        foreign = TestClient(client.app, base_url=client.base_url, cookies=cookies)
        assert foreign.post("/api/begin", json={"annotator": "Ada"}).status_code == 403
        assert foreign.post("/api/begin", json={"annotator": "  Ada "}).status_code == 403
        assert answer(foreign, mine, annotator="Ada").status_code == 403
        assert foreign.post("/api/undo", json={"annotator": "Ada"}).status_code == 403
        assert foreign.post("/api/skip", json={"annotator": "Ada", "pair": mine["task"]["pair"]}).status_code == 403
        assert foreign.get("/api/next", params={"annotator": "Ada"}).status_code == 403
        assert foreign.get("/join", params={"annotator": "Ada", "proof": "0" * 32}).status_code == 403
    assert [label.annotator for label in session.journal.labels()] == ["Ada"]
    # The personal link carries over to another browser; the proof of one name is none of another.
    link = personal_link(session, "Ada")
    assert other_browser(client).get("/" + link.replace("Ada", "Bob")).status_code == 403
    joined = stranger.get("/" + link)
    assert (joined.status_code, joined.url.path, joined.url.params["name"]) == (200, "/", "Ada")
    assert ask(stranger)["done"] == 1
    assert "httponly" in client.post("/api/begin", json={"annotator": "Ada"}).headers["set-cookie"].lower()


def test_large_requests_are_rejected_before_they_are_held(client) -> None:
    for content in (b"x" * (MOST_BYTES + 1), (b"x" * 1000 for _ in range(1 + MOST_BYTES // 1000))):
        reply = client.post("/api/undo", content=content, headers={"content-type": "application/json"})
        assert (reply.status_code, str(MOST_BYTES) in reply.text) == (413, True)
    taken = 0

    async def endless() -> dict:
        nonlocal taken
        taken += 1
        return {"type": "http.request", "body": b"x" * 1000, "more_body": True}

    sent = []

    async def send(message: dict) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/api/undo", "headers": [(b"host", b"127.0.0.1:8710")]}
    asyncio.run(client.app(scope | {"query_string": b""}, endless, send))
    assert sent[0]["status"] == 413
    assert taken <= 1 + MOST_BYTES // 1000


def test_results_of_a_blind_comparison_are_for_those_who_are_done(make_session) -> None:
    session = make_session(blind=True)
    client = TestClient(create_app(session, hosts=known_hosts("127.0.0.1", 1)), base_url="http://127.0.0.1:1")
    state = ask(client)
    while state["task"]:
        for page in ("/results", "/api/results"):
            assert client.get(page).status_code == 403
        state = answer(client, state).json()
    assert client.get("/api/results").json()["answers"] == 9
    assert "95 % interval" in client.get("/results").text
    stranger = other_browser(client)
    assert stranger.get("/api/results").status_code == stranger.get("/results").status_code == 403
    ask(stranger, "Bob")
    assert stranger.get("/api/results").status_code == 403


def test_names_and_sides_of_a_blind_study_cannot_be_computed(make_session, tmp_path) -> None:
    """All that a client may know - names, identifiers, seed, the code - gives neither a clip's name nor its side."""
    session = make_session(blind=True)
    known = {content_hash(*parts) for pair in session.pairs for parts in guesses(session, pair)}
    shown, swapped = set(), []
    for annotator in ("Ada", "Bob", "Cleo", "Dan"):
        for pair in session.pairs:
            task = session._task(1, pair, "overall", annotator=annotator)
            shown |= {task["pair"], task["left"]["token"], task["right"]["token"]}
            swapped.append(task["left"]["token"] != session._task(1, pair, "overall", annotator="Ada")["left"]["token"])
    assert not shown & known
    assert not shown & {pair.pair_id for pair in session.pairs}
    assert any(swapped)
    plain = [pair.sides("Ada", 0)[0] for pair in session.pairs]
    others = set()
    for number in range(8):
        session.secret = study_secret(tmp_path / f"other{number}.jsonl")
        others.add(
            tuple(session._sides(pair, "Ada")[0] is side for pair, side in zip(session.pairs, plain, strict=True))
        )
    assert len(others) > 1, "the sides depend on the secret"
    assert (tmp_path / ".other0.jsonl.secret").stat().st_mode & 0o777 == 0o600


def guesses(session, pair) -> list[tuple]:
    """What the names of clips could be made of, without the secret."""
    found = []
    for clip in (pair.first, pair.second):
        found += [
            ("annotated clip", session.study.study, clip.video_id, clip.generator),
            ("clip", clip.video_id, clip.generator),
            (clip.video_id,),
        ]
    return found
