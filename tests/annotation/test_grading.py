"""Who is asked what when clips are graded: training, control items, a number of annotators, adjudication."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from fastapi.testclient import TestClient
from tests.annotation.graded import CHECKLIST, NAMES, STUDY, answer, graded_clip, open_session

from vr_pipeline.annotation.app import create_app
from vr_pipeline.annotation.grading import GradingSession
from vr_pipeline.annotation.items import clips_to_grade, known_items
from vr_pipeline.annotation.people import OutOfDate
from vr_pipeline.annotation.store import Journal
from vr_pipeline.errors import InputError
from vr_pipeline.preferences.formats import read_preferences
from vr_pipeline.preferences.journal import Study, read_grades, read_labels

GOOD = {"light": "5", "shape": "yes", "letters": "2"}
BAD = {"light": "1", "shape": "no", "letters": "0"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def graders(session: GradingSession, video: str) -> set[str]:
    return {label.annotator for label in session.journal.labels() if label.video_id == video and label.part == "clip"}


def test_each_clip_is_asked_in_every_sub_dimension_of_as_many_annotators_as_wanted(path: Path) -> None:
    session = open_session(path, clips=4)
    asked = []
    while (task := session.next_for("Ada")["task"]) is not None:
        asked.append((task["prompt"], task["criterion"], task["step"], task["steps"]))
        if task["criterion"] == "shape":
            assert task["question"] == f"{task['prompt']}: is the shape right?"
            assert [option["grade"] for option in task["options"]] == ["yes", "no"]
        answer(session, "Ada", GOOD)
    assert [row[1:] for row in asked] == [(name, place, 3) for place, name in enumerate(NAMES, start=1)] * 4
    assert session.next_for("Ada")["done"] == session.next_for("Ada")["total"] == 4
    # Two at work at once share what is left, also before the first answer.
    first = {name: session.next_for(name)["task"]["prompt"] for name in ("Bob", "Cleo")}
    assert first["Bob"] != first["Cleo"]
    answer(session, "Bob", GOOD, times=3)
    answer(session, "Cleo", GOOD, times=3)
    while session.next_for("Dan")["task"] is not None:
        answer(session, "Dan", GOOD)
    while session.next_for("Eve")["task"] is not None:
        answer(session, "Eve", GOOD)
    assert [len(graders(session, f"clip{number}")) for number in range(4)] == [2] * 4
    assert all(session.next_for(name)["task"] is None for name in ("Ada", "Bob", "Cleo", "Dan", "Eve", "Fay"))


def test_a_difference_of_more_grades_goes_to_a_third_who_is_asked_only_that(path: Path) -> None:
    session = open_session(path, clips=1, adjudicate_above=2)
    answer(session, "Ada", {"light": "5", "shape": "yes", "letters": "2"}, times=3)
    answer(session, "Bob", {"light": "2", "shape": "no", "letters": "0"}, times=3)
    assert session.results()["adjudication"] == {"above": 2, "open": 1, "settled": 0}
    assert session.next_for("Ada")["task"] is session.next_for("Bob")["task"] is None
    task = session.next_for("Cleo")["task"]
    assert (task["criterion"], task["steps"]) == ("light", 1)
    assert session.next_for("Dan")["task"] is None  # Cleo has it before her
    answer(session, "Cleo", {"light": ""})  # cannot say: somebody else is asked
    assert session.next_for("Cleo")["task"] is None
    answer(session, "Dan", {"light": "3"})
    assert session.results()["adjudication"] == {"above": 2, "open": 0, "settled": 1}
    assert session.next_for("Eve")["task"] is None
    assert session.undo("Dan")
    assert session.next_for("Eve")["task"] is None  # Dan has it before him again
    assert session.next_for("Dan")["task"]["criterion"] == "light"


def test_training_shows_the_right_answers_and_is_passed_or_repeated_or_failed(path: Path) -> None:
    training = (graded_clip("t0", light="5", shape="yes"), graded_clip("t1", letters="2"))
    session = open_session(path, training=training, pass_share=0.6, training_rounds=2)
    state = session.next_for("Ada")
    assert state["task"]["training"]
    assert (state["training"]["round"], state["total"], state["task"]["steps"]) == (1, 2, 2)
    assert answer(session, "Ada", BAD) == {"right": False, "grade": "5"}
    assert answer(session, "Ada", GOOD) == {"right": True, "grade": "yes"}
    assert not session.next_for("Ada")["can_undo"]
    assert not session.undo("Ada")
    answer(session, "Ada", BAD)
    again = session.next_for("Ada")
    assert (again["training"]["round"], again["training"]["failed"], again["task"]["criterion"]) == (2, True, "light")
    assert again["training"]["share"] == pytest.approx(1 / 3)
    answer(session, "Ada", BAD)
    answer(session, "Ada", GOOD, times=2)
    passed = session.next_for("Ada")
    assert passed["training"]["passed"]
    assert not passed["task"]["training"]
    for _ in range(6):
        answer(session, "Bob", BAD)
    failed = session.next_for("Bob")
    assert (failed["task"], failed["training"]["failed"], failed["training"]["passed"]) == (None, True, False)
    with pytest.raises(OutOfDate):
        session.answer(
            label="bob-by-hand", annotator="Bob", item=passed["task"]["item"], criterion="light", grade="1", reason="",
            seconds=1,
        )  # fmt: skip
    people = {one["annotator"]: one for one in session.results()["annotators"]}
    assert (people["Ada"]["training_rounds"], people["Bob"]["training_share"]) == (2, 0.0)


def test_control_items_come_among_the_clips_without_a_sign(path: Path) -> None:
    control = tuple(graded_clip(f"k{number}", light="5") for number in range(4))
    session = open_session(path, clips=10, control=control, control_share=0.25)
    places: dict[str, list[int]] = {}
    for name in ("Ada", "Bob"):
        seen: list[str] = []
        while (state := session.next_for(name))["task"] is not None:
            assert set(state["task"]) == set(session.next_for(name)["task"])
            assert (state["task"]["training"], "control" in json.dumps(state)) == (False, False)
            if state["task"]["prompt"] not in seen:
                seen.append(state["task"]["prompt"])
            answer(session, name, GOOD if name == "Ada" else BAD)
        assert state["done"] == state["total"] == len(seen)
        assert len(seen) in (12, 13)
        places[name] = [place for place, prompt in enumerate(seen) if prompt.startswith("prompt of k")]
    assert places["Ada"] != places["Bob"]
    for number, place in enumerate(places["Ada"]):
        assert number * 4 <= place - number < number * 4 + 4  # one in four, somewhere among its four
    ada, bob = session.results()["annotators"]
    assert (ada["control_share"], bob["control_share"], bob["control_off"]) == (1.0, 0.0, 4.0)
    assert any("control" in flag for flag in bob["flags"])
    assert session.results()["clips_graded"] == 10


def test_a_server_that_is_killed_loses_no_grade(path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom tests.annotation.graded import answer, open_session\n"
        "session = open_session(Path(sys.argv[1]))\n"
        "grades = {'light': '4', 'shape': 'no', 'letters': '1'}\n"
        "for number in range(5):\n    answer(session, 'Ada', grades)\n    print(number, flush=True)\n"
        "time.sleep(60)"
    )
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root / "src"), str(root)])}
    process = subprocess.Popen([sys.executable, "-c", code, path], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line == "4\n":
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    with path.open("ab") as file:
        file.write(b'{"event": "grade", "label": "torn')
    before = read_grades(path)
    assert [one.grade for one in before] == ["4", "no", "1", "4", "no"]
    session = open_session(path)
    task = session.next_for("Ada")["task"]
    assert (task["criterion"], task["step"]) == ("letters", 3)
    answer(session, "Ada", GOOD)
    assert read_grades(path)[:5] == before
    session.journal.close()
    with pytest.raises(InputError, match="not about"):
        Journal(path, Study(study="test", source="generated"))
    for read in (read_labels, lambda name: read_preferences(name, "annotations")):
        with pytest.raises(InputError, match="grades of single clips"):
            read(path)


def test_the_server_takes_grades_and_nothing_else(path: Path, clip_folder: Path) -> None:
    def shown(number: int):
        from vr_pipeline.annotation.items import GradedClip

        name = f"clip-{number}-0"
        return GradedClip(name, "<b>bold</b>", f"{name}.mp4", "some model", clip_folder / f"{name}.mp4")

    session = open_session(path, shown=shown)
    client = TestClient(create_app(session, hosts=frozenset({"127.0.0.1:1"})), base_url="http://127.0.0.1:1")
    assert "script-src 'sha256-" in client.get("/").headers["content-security-policy"]
    state = client.post("/api/begin", json={"annotator": "Ada"}).json()
    task = state["task"]
    assert "clip-" not in json.dumps(state)  # neither names of clips nor paths
    assert client.get("/" + task["url"]).headers["content-type"] == "video/mp4"
    for name in ("..%2f..%2fetc%2fpasswd", "clip-0-0.mp4", str(clip_folder / "clip-0-0.mp4")):
        assert client.get(f"/clips/{name}").status_code == 404
    body = {
        **{"label": "label-0001", "annotator": "Ada", "item": task["item"], "criterion": "light"},
        **{"grade": "4", "reason": "", "seconds": 2.0},
    }
    for changes, status in (
        ({"grade": "9"}, 422),
        ({"grade": ""}, 422),
        ({"reason": "both a grade and a reason"}, 422),
        ({"reason": "x" * 301, "grade": ""}, 422),
        ({"item": "0" * 32}, 409),
        ({"criterion": "beauty"}, 409),
        ({"annotator": "Bob"}, 403),
        ({"further": 1}, 422),
    ):
        assert client.post("/api/labels", json=body | changes).status_code == status, changes
    assert not session.journal.labels()
    following = client.post("/api/labels", json=body).json()
    assert (following["feedback"], following["task"]["criterion"]) == (None, "shape")
    assert client.post("/api/labels", json=body).status_code == 200  # the same again: a reply was lost
    assert client.post("/api/labels", json=body | {"label": "label-0002"}).status_code == 409
    skip = {"label": "label-0003", "annotator": "Ada", "item": task["item"], "reason": "The clip cannot be shown"}
    moved = client.post("/api/skip", json=skip).json()
    assert (moved["task"]["item"] != task["item"], moved["done"]) == (True, 1)
    assert [one.grade for one in session.journal.labels()] == ["4", "", ""]
    assert session.journal.labels()[0].clip_seconds == pytest.approx(4 / 8)
    assert client.post("/api/undo", json={"annotator": "Ada"}).json()["task"]["criterion"] == "letters"
    page = client.get("/results").text
    assert "The clip cannot be shown" in page
    assert client.get("/api/results").json()["reasons"] == {"The clip cannot be shown": 1}


def test_known_items_are_clips_of_the_study_or_lie_beside_their_table(tmp_path: Path) -> None:
    clips = [graded_clip("one"), graded_clip("two")]
    (tmp_path / "extra.mp4").write_bytes(b"")
    (tmp_path.parent / "outside.mp4").write_bytes(b"")

    def read(text: str):
        (tmp_path / "known.csv").write_text(text, encoding="utf-8")
        return known_items(tmp_path, "known.csv", CHECKLIST, clips)

    items = read("file,prompt,Light,shape\none.mp4,,4.0,\nextra.mp4,a dog,,no\n")
    assert [(one.video_id, one.prompt, one.known) for one in items] == [
        ("one.mp4", "prompt of one", {"light": "4"}),
        ("extra.mp4", "a dog", {"shape": "no"}),
    ]
    assert items[0].path == clips[0].path
    for text, message in (
        ("file,light\nextra.mp4,9\n", "row 2, field 'light': grade '9' is not a grade of sub-dimension 'light'"),
        ("file,light\nextra.mp4,\n", "row 2: the row has no grade"),
        ("file,light\n../outside.mp4,3\n", r"no file '../outside.mp4' in the folder"),
        ("file,light\n/etc/passwd,3\n", "no file '/etc/passwd' in the folder"),
        ("file,light\none.mp4,3\none.mp4,4\n", "row 3.*twice"),
        ("light\n3\n", "the column of clips is missing"),
    ):
        with pytest.raises(InputError, match=message):
            read(text)
    with pytest.raises(InputError, match="in the folder"):
        known_items(tmp_path, "../known.csv", CHECKLIST, clips)


def test_the_order_of_clips_is_the_seeds_and_not_the_tables() -> None:
    index = pd.DataFrame(
        {
            "video_id": [f"v{n}" for n in range(9)],
            "prompt": "a cat",
            "path": [f"v{n}.mp4" for n in range(9)],
            "generator": "x",
            "status": ["failed", *["ok"] * 8],
        }
    )
    files = {name: Path(name) for name in index["path"]}
    orders = [
        [clip.video_id for clip in clips_to_grade(table, files, seed=seed)]
        for table, seed in ((index, 0), (index[::-1], 0), (index, 1))
    ]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == [f"v{n}" for n in range(1, 9)]
    with pytest.raises(InputError, match="no clips to grade"):
        clips_to_grade(index.assign(status="failed"), files, seed=0)
    assert STUDY.checklist.startswith("small ")
