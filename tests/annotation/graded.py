"""A small checklist, and sessions that grade by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vr_pipeline.annotation.grading import GradingSession
from vr_pipeline.annotation.guide import GradingGuide, grades_key, load_guide
from vr_pipeline.annotation.items import GradedClip
from vr_pipeline.annotation.secret import study_secret
from vr_pipeline.annotation.store import Journal
from vr_pipeline.checklist import checklist_from_mapping
from vr_pipeline.preferences.journal import Grade, Study

CHECKLIST = checklist_from_mapping(
    {
        "name": "small",
        "modality": "video",
        "dimensions": [
            {
                "name": "quality",
                "sub_dimensions": [
                    {
                        "name": "light",
                        "questions": [{"id": f"light_{n}", "text": f"Is it above {n}?"} for n in (4, 3, 2, 1)],
                        "grades": {n: [n > step for step in (4, 3, 2, 1)] for n in (1, 2, 3, 4, 5)},
                    },
                    {"name": "shape", "questions": [{"id": "shape", "text": "[[prompt]]: is the shape right?"}]},
                    {
                        "name": "letters",
                        "questions": [
                            {"id": "letters_right", "text": "Are they right?", "gate": "letters_there"},
                            {"id": "letters_there", "text": "Are there letters?"},
                        ],
                        "grades": {2: ["yes", "yes"], 1: ["no", "yes"], 0: [None, "no"]},
                    },
                ],
            }
        ],
    }
)
STUDY = Study(study="test", source="generated", checklist=grades_key(CHECKLIST))
NAMES = ["light", "shape", "letters"]


def make_grade(number: int, **changes: object) -> Grade:
    values: dict[str, object] = {
        "label": f"grade-{number:04d}",
        "part": "clip",
        "video_id": "one",
        "prompt": "a cat",
        "file": "one.mp4",
        "criterion": "light",
        "grade": "3",
        "annotator": "Ada",
        "seconds": 4.0,
        "at": "2026-01-01T00:00:00.000+00:00",
        "seed": 0,
    }
    return Grade.model_validate(values | changes)


def graded_clip(name: str, **known: str) -> GradedClip:
    return GradedClip(name, f"prompt of {name}", f"{name}.mp4", "some model", Path(f"/nowhere/{name}.mp4"), known)


def open_session(
    path: Path,
    clips: int = 3,
    training: tuple[GradedClip, ...] = (),
    control: tuple[GradedClip, ...] = (),
    shown: Callable[[int], GradedClip] = lambda number: graded_clip(f"clip{number}"),
    **guide: Any,
) -> GradingSession:
    settings = GradingGuide.model_validate(guide)
    criteria = load_guide(None, CHECKLIST)[1]
    journal: Journal[Grade] = Journal(path, STUDY)
    made = [shown(number) for number in range(clips)]
    return GradingSession(STUDY, made, training, control, CHECKLIST, settings, criteria, journal, 0, study_secret(path))


def answer(
    session: GradingSession, name: str, grades: Mapping[str, str], *, times: int = 1, seconds: float = 5.0
) -> Any:
    """Answer as many questions by the grade of their sub-dimension; the last feedback comes back."""
    feedback = None
    for _ in range(times):
        task = session.next_for(name)["task"]
        number = len(session.journal.labels())
        feedback = session.answer(
            label=f"{name.replace(' ', '-')}-{number:06d}",
            annotator=name,
            item=task["item"],
            criterion=task["criterion"],
            grade=grades[task["criterion"]],
            reason="" if grades[task["criterion"]] else "cannot be told",
            seconds=seconds,
        )
    return feedback
