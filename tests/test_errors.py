"""Errors that users see."""

from __future__ import annotations

import pickle

import pytest

from vr_pipeline.errors import InputError, PipelineError, about


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ({}, "it is wrong. Mend it."),
        ({"file": "a.csv"}, "file a.csv: it is wrong. Mend it."),
        ({"row": 3}, "row 3: it is wrong. Mend it."),
        ({"file": "a.csv", "row": 3, "field": "prompt"}, "file a.csv, row 3, field 'prompt': it is wrong. Mend it."),
        ({"row": 0}, "row 0: it is wrong. Mend it."),
    ],
)
def test_the_message_names_the_place_the_problem_and_what_to_do(place: dict[str, object], expected: str) -> None:
    error = InputError("it is wrong", remedy="mend it", **place)  # type: ignore[arg-type]
    assert str(error) == expected
    assert isinstance(error, PipelineError)
    assert "\n" not in str(error)


def test_a_quoted_error_ends_with_one_full_stop_and_names_its_file_once() -> None:
    inner = str(InputError("it ends in the middle", remedy="give it again", file="clips/red ball/1.mp4"))
    for name in ("red ball/1.mp4", "clips/red ball/1.mp4"):
        assert about(name, inner) == inner
    # A name that is only part of the words says something that they do not.
    assert about("a", "it is damaged") == "a: it is damaged"
    assert about("b.mp4", inner) == f"b.mp4: {inner}"
    outer = InputError(f"no clip is readable; the first reason: {inner}", remedy="correct this", file="index")
    assert str(outer) == (
        "file index: no clip is readable; the first reason: file clips/red ball/1.mp4: it ends in the middle. "
        "Give it again. Correct this."
    )


def test_errors_survive_pickling_as_workers_send_them() -> None:
    from vr_pipeline.video.read import VideoReadError

    for kind in (InputError, VideoReadError):
        error = kind("it is wrong", remedy="mend it", file="a.mp4", row=3, field="x")
        again = pickle.loads(pickle.dumps(error))
        assert str(again) == str(error)
        assert type(again) is kind
        assert (again.problem, again.remedy, again.file, again.row, again.field) == (
            "it is wrong",
            "mend it",
            "a.mp4",
            3,
            "x",
        )
