"""The checklist file: what is read, what is rejected and how the message names the place."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from given_answers import given_answers
from vr_pipeline.checklist import checklist_from_mapping, load_checklist
from vr_pipeline.datasets.checklist import ChecklistDataset
from vr_pipeline.errors import InputError

CONTENT: dict[str, Any] = {
    "name": "two aspects",
    "modality": "video",
    "dimensions": [
        {
            "name": "alignment",
            "sub_dimensions": [
                {"name": "text", "questions": [{"id": "follows", "text": 'Does it show "[[prompt]]"?'}]},
            ],
        },
        {
            "name": "people",
            "sub_dimensions": [
                {"name": "presence", "questions": [{"id": "person", "text": "Is there a person?", "weighted": False}]},
                {
                    "name": "hands",
                    "questions": [
                        {"id": "hands", "text": "Are there hands?", "gate": "person", "weighted": False},
                        {"id": "perfect", "text": "Are the hands perfect?", "gate": "hands"},
                        {"id": "fair", "text": "Are the hands fair?", "gate": "hands"},
                    ],
                    "grades": {"2": [True, True, True], 1: ["yes", "no", "yes"], 0: [None, False, False]},
                },
            ],
        },
    ],
}


def changed(path: list[Any], value: Any) -> dict[str, Any]:
    content = copy.deepcopy(CONTENT)
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return content


def test_order_dimensions_and_lookup() -> None:
    checklist = checklist_from_mapping(CONTENT)
    assert checklist.question_ids == ["follows", "person", "hands", "perfect", "fair"]
    assert checklist.dimensions == ["alignment", "people"]
    assert [q.question_id for q in checklist.questions_of("people")] == ["person", "hands", "perfect", "fair"]
    assert checklist.question("follows").ask("a cat") == 'Does it show "a cat"?'
    assert checklist.question("follows").holds_prompt
    assert not checklist.question("person").holds_prompt
    with pytest.raises(InputError, match="no dimension 'motion'"):
        checklist.questions_of("motion")


def test_gates_reach_through_gates() -> None:
    checklist = checklist_from_mapping(CONTENT)
    assert checklist.gates_of("perfect") == ["hands", "person"]


def test_grades_give_answers() -> None:
    checklist = checklist_from_mapping(CONTENT)
    assert checklist.answers_from_grades({"hands": 1}) == {"hands": True, "perfect": False, "fair": True}
    assert checklist.answers_from_grades({"hands": 0.0}) == {"perfect": False, "fair": False}
    assert checklist.answers_from_grades({"sound": 3, "hands": None}) == {}
    with pytest.raises(InputError, match="grade '7'"):
        checklist.answers_from_grades({"hands": 7})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed(["dimensions", 1, "sub_dimensions", 0, "questions", 0, "id"], "follows"), "'follows' is used 2 times"),
        (changed(["dimensions", 1, "sub_dimensions", 1, "questions", 1, "gate"], "feet"), "gate 'feet'"),
        (changed(["dimensions", 1, "sub_dimensions", 1, "questions", 1, "gate"], "perfect"), "circle"),
        (changed(["dimensions", 1, "sub_dimensions", 0, "questions", 0, "gate"], "fair"), "circle"),
        (changed(["dimensions"], []), "has no 'dimensions'"),
        (changed(["dimensions", 0, "sub_dimensions", 0, "questions"], []), "has no 'questions'"),
        (changed(["dimensions", 1, "sub_dimensions", 1, "grades", 1], ["yes"]), "1 answers for 3 questions"),
        (changed(["dimensions", 1, "sub_dimensions", 1, "grades", 1], ["yes", "perhaps", "no"]), "grade '1'"),
        (changed(["dimensions", 1, "sub_dimensions", 1, "grades", 1], [1, 0, 1]), "grade '1'"),
        (changed(["modality"], "smell"), "'modality' of the checklist is 'smell'"),
        (changed(["dimensions", 0, "sub_dimensions", 0, "questions", 0, "text"], " "), "has no 'text'"),
        (changed(["modalities"], "video"), "the checklist has the unknown key 'modalities'"),
        (changed(["dimensions", 0, "weight"], 1), "dimension 'alignment' has the unknown key 'weight'"),
        (changed(["dimensions", 0, "sub_dimensions", 0, "grade"], {}), "sub-dimension 'text' has the unknown key"),
        (changed(["name"], True), "has no 'name'"),
        (changed(["dimensions", 0, "sub_dimensions", 0, "questions", 0, "wieghted"], True), "unknown key 'wieghted'"),
        (changed(["dimensions", 0, "sub_dimensions", 0, "questions", 0, "weighted"], "maybe"), "'weighted'"),
        (changed(["dimensions", 0, "sub_dimensions", 0, "questions", 0, "feature"], "sum"), "'feature'"),
        (changed(["dimensions", 1, "sub_dimensions", 1, "name"], "text"), "sub-dimension 'text' is used 2 times"),
        (None, "empty"),
        ([], "not a mapping"),
    ],
)
def test_mistakes_are_rejected(content: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        checklist_from_mapping(content, file="my.yml")
    assert "my.yml" in str(caught.value)


def test_file_mistakes_name_the_row(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load_checklist(tmp_path / "none.yml")
    with pytest.raises(InputError, match="cannot be read"):
        load_checklist(tmp_path)
    (tmp_path / "bad.yml").write_text("name: x\ndimensions: [\n", encoding="utf-8")
    with pytest.raises(InputError, match="row 3"):
        load_checklist(tmp_path / "bad.yml")
    (tmp_path / "bytes.yml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(InputError, match="UTF-8"):
        load_checklist(tmp_path / "bytes.yml")


def test_dataset_reads_the_file(tmp_path: Path) -> None:
    path = tmp_path / "checklist.yml"
    path.write_text(yaml.safe_dump(CONTENT, sort_keys=False), encoding="utf-8")
    assert ChecklistDataset(filepath=str(path)).load() == checklist_from_mapping(CONTENT)
    assert load_checklist(path).sub_dimensions[-1].grades["1"] == (True, False, True)


def test_shipped_checklist_loads() -> None:
    checklist = load_checklist(Path(__file__).parents[2] / "conf/base/checklist.yml")
    assert len(checklist.questions) == 16
    assert len(checklist.dimensions) == 5


def test_hash_is_of_questions_not_of_name_or_grades() -> None:
    base = checklist_from_mapping(CONTENT)
    assert checklist_from_mapping(changed(["name"], "other")).hash == base.hash
    assert checklist_from_mapping(changed(["dimensions", 1, "sub_dimensions", 1, "grades"], None)).hash == base.hash
    for path, value in (
        (["modality"], "image"),
        (["dimensions", 0, "name"], "fit"),
        (["dimensions", 0, "sub_dimensions", 0, "questions", 0, "text"], "Well?"),
        (["dimensions", 1, "sub_dimensions", 1, "questions", 2, "gate"], "person"),
    ):
        assert checklist_from_mapping(changed(path, value)).hash != base.hash


@given(st.lists(st.booleans(), min_size=5, max_size=5))
def test_a_question_is_off_exactly_when_some_gate_above_it_said_no(answers: list[bool]) -> None:
    checklist = checklist_from_mapping(CONTENT)
    said = dict(zip(checklist.question_ids, answers, strict=True))
    off = given_answers(said, checklist).set_index("question_id")["gated"]
    for question in checklist.question_ids:
        assert off[question] == any(not said[gate] for gate in checklist.gates_of(question))


def test_the_checklist_of_first_frames_stands_alone_and_can_be_appended_to_that_of_videos() -> None:
    folder = Path(__file__).parents[2] / "conf" / "checklists"
    alone, video = (load_checklist(folder / f"{name}.yml") for name in ("first_frame", "video"))
    assert alone.modality == "video"
    assert all("first frame" in question.text for question in alone.questions)
    parsed = [yaml.safe_load((folder / f"{name}.yml").read_text(encoding="utf-8")) for name in ("video", "first_frame")]
    both = checklist_from_mapping(parsed[0] | {"dimensions": parsed[0]["dimensions"] + parsed[1]["dimensions"]})
    assert list(both.question_ids) == [*video.question_ids, *alone.question_ids]
