"""A running graded annotation: the next clip and sub-dimension of each annotator, and the recording of answers.

Annotators first grade training clips and see the correct answers. After passing, they grade clips of the study mixed
with unmarked control items. Each clip goes to several annotators; if they differ too much in a sub-dimension, one more
grades it without seeing their grades.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from vr_pipeline.annotation.grade_book import GradeBook
from vr_pipeline.annotation.grade_figures import grade_ranks, grade_results, training_rounds
from vr_pipeline.annotation.guide import Criterion, GradingGuide, filled
from vr_pipeline.annotation.items import GradedClip
from vr_pipeline.annotation.people import OpenStudy, OutOfDate, now
from vr_pipeline.annotation.secret import StudySecret
from vr_pipeline.annotation.store import Journal
from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.identifiers import content_hash
from vr_pipeline.preferences.journal import Grade, Part, Study
from vr_pipeline.video.read import VideoReadError, probe

_PREFETCHED = 2
_RESERVED_SECONDS = 1800
"""Seconds for which a shown clip is reserved for its annotator."""
_Given = Mapping[tuple[str, int, str], set[str]]
"""Answered sub-dimensions of an annotator by item."""


@dataclass(frozen=True)
class Task:
    """An item with the sub-dimensions that an annotator still has to grade."""

    part: Part
    round: int
    clip: GradedClip
    missing: tuple[str, ...]
    asked: int

    @property
    def item(self) -> tuple[Part, int, str]:
        """As :attr:`Grade.item`."""
        return self.part, self.round, self.clip.video_id


@dataclass
class GradingSession(OpenStudy):
    """The clips of a study with its journal.

    Args:
        clips: in the order shown.
        training, control: items with known grades.
        criteria: questions about each clip, in order.
        seed: of the order, recorded with every answer.
    """

    study: Study
    clips: Sequence[GradedClip]
    training: Sequence[GradedClip]
    control: Sequence[GradedClip]
    checklist: Checklist
    guide: GradingGuide
    criteria: Sequence[Criterion]
    journal: Journal[Grade]
    seed: int
    secret: StudySecret
    annotator: str | None = None
    _files: dict[str, Path] = field(init=False)
    _book: GradeBook = field(init=False)
    _turn: threading.RLock = field(init=False, default_factory=threading.RLock)
    _reserved: dict[str, tuple[str, float]] = field(init=False, default_factory=dict)
    _began: set[str] = field(init=False, default_factory=set)
    _guard: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        shown = [clip.path for clip in (*self.clips, *self.training, *self.control)]
        shown += [option.clip for one in self.criteria for option in one.options if option.clip is not None]
        self._book = GradeBook(self.journal.labels(), grade_ranks(self.checklist), self.guide)
        self._files = {self._token(path): path for path in shown}

    def describe(self) -> dict[str, Any]:
        return {"study": self.study.study, "blind": False, "annotator": self.annotator, "clips": len(self.clips)}

    def headline(self) -> str:
        return (
            f"{len(self.clips)} clips, {len(self.criteria)} questions each, {self.guide.annotators_per_clip} "
            f"annotators per clip; {len(self.training)} training and {len(self.control)} control items"
        )

    def next_for(self, annotator: str) -> dict[str, Any]:
        name = self.check_annotator(annotator)
        with self._turn:
            training, waiting, done = self._waiting(name)
            self._reserved.pop(name, None)
            if waiting and waiting[0].part == "clip":
                self._reserved[name] = (waiting[0].clip.video_id, time.monotonic())
            last = self._book.own[name][-1:]
        return {
            "task": self._shown(waiting[0]) if waiting else None,
            "training": training,
            "ahead": [self._url(task.clip.path) for task in waiting[1 : 1 + _PREFETCHED]],
            "done": done,
            "total": done + len(waiting),
            "can_undo": bool(last) and last[0].part != "training",
        }

    def answer(
        self, *, label: str, annotator: str, item: str, criterion: str, grade: str, reason: str, seconds: float
    ) -> dict[str, Any] | None:
        """Record a grade, or a reason to skip the question.

        Returns:
            for a training item, whether it is ``right``, and the correct ``grade``; otherwise None.

        Raises:
            OutOfDate: the question is not open for this annotator.
            ValueError: the grade is unknown, or both grade and reason are missing.
        """
        name = self.check_annotator(annotator)
        repeated = self.journal.find(label)
        if repeated is not None and repeated.annotator == name:
            return _feedback(repeated)
        grades = [option.grade for one in self.criteria if one.name == criterion for option in one.options]
        if grades and grade not in (grades if not reason.strip() else ("",)):
            raise ValueError(f"give one of the grades {', '.join(grades)}, or a reason to skip the question")
        return _feedback(self._write(name, item, (criterion,), label, grade=grade, reason=reason, seconds=seconds))

    def skip(self, *, label: str, annotator: str, item: str, reason: str) -> None:
        """Skip all open questions of an item that cannot be shown. Raises as :meth:`answer`."""
        name = self.check_annotator(annotator)
        if not reason.strip():
            raise ValueError("give a reason to skip the clip")
        self._write(name, item, (), label, grade="", reason=reason, seconds=0.0)

    def undo(self, annotator: str) -> bool:
        """Undo an annotator's last answer, except in training, where the correct answer was shown."""
        name = self.check_annotator(annotator)
        with self._turn:
            last = self._book.own[name][-1:]
            if not last or last[0].part == "training" or not super().undo(name):
                return False
            self._book.remove(last[0])
            return True

    def results(self, readers: Sequence[str] = ()) -> dict[str, Any]:
        return grade_results(self.study, self.journal.labels(), self.checklist, self.guide, len(self.clips))

    def clip_path(self, token: str) -> Path | None:
        return self._files.get(token)

    def _training(self, own: Sequence[Grade], given: _Given) -> tuple[dict[str, Any] | None, list[Task]]:
        """Return the state of an annotator's training, and its open items."""
        if not self.training:
            return None, []
        known = {(clip.video_id, criterion) for clip in self.training for criterion in clip.known}
        rounds, expected = training_rounds([one for one in own if (one.video_id, one.criterion) in known]), len(known)
        number, (answered, right) = len(rounds) - 1, rounds[-1]
        passed = answered >= expected and right / expected >= self.guide.pass_share
        failed = answered >= expected and not passed
        if failed and number + 1 < self.guide.training_rounds:
            number, answered = number + 1, 0
        state = {
            "round": number + 1,
            "rounds": self.guide.training_rounds,
            "share": right / expected if failed or passed else None,
            "needed": self.guide.pass_share,
            "passed": passed,
            "failed": failed,
        }
        if answered >= expected:
            return state, []
        tasks = [self._open("training", number, clip, clip.known, given) for clip in self.training]
        return state, [task for task in tasks if task is not None]

    def _study(self, name: str, given: _Given) -> list[Task]:
        """Return the open items of an annotator: started ones, disputes, then new clips mixed with control items."""
        reserved: dict[str, set[str]] = defaultdict(set)
        for other, (video, since) in self._reserved.items():
            if other != name and time.monotonic() - since < _RESERVED_SECONDS:
                reserved[video].add(other)
        wanted = self.guide.annotators_per_clip
        criteria = tuple(one.name for one in self.criteria)
        began: list[Task | None] = []
        disputed: list[Task | None] = []
        fresh: list[Task | None] = []
        for clip in self.clips:
            video = clip.video_id
            graders = list(self._book.people.get(video, ()))[:wanted]
            others = {*graders, *reserved.get(video, ())} - {name}
            if name in graders:
                began.append(self._open("clip", 0, clip, criteria, given))
            elif len(others) < wanted:
                fresh.append(self._open("clip", 0, clip, criteria, given))
            elif (contested := self._book.open.get(video)) and not reserved.get(video, set()) - set(graders):
                disputed.append(self._open("clip", 0, clip, contested, given))
        begun = [self._open("control", 0, clip, clip.known, given) for clip in self.control]
        began += [task for task in begun if task is not None and task.item in given]
        fresh = self._with_controls(name, fresh, given)
        return [task for task in (*began, *disputed, *fresh) if task is not None]

    def _with_controls(self, name: str, fresh: Sequence[Task | None], given: _Given) -> list[Task | None]:
        """Return new clips mixed with unseen control items, at positions drawn by a hash."""
        order = sorted(self.control, key=lambda clip: content_hash("control", self.seed, name, clip.video_id))
        seen = sum(part == "control" for part, _, _ in given)
        begun = sum(part == "clip" for part, _, _ in given)
        mixed = list(fresh)
        for number in reversed(range(len(order))):
            drawn = int(content_hash("place", self.seed, name, number), 16) / 2.0**64
            place = int((number + drawn) / self.guide.control_share) - begun
            if number >= seen and place <= len(fresh):
                mixed.insert(max(place, 0), self._open("control", 0, order[number], order[number].known, given))
        return mixed

    def _open(self, part: Part, number: int, clip: GradedClip, asked: Collection[str], given: _Given) -> Task | None:
        answered = given.get((part, number, clip.video_id), set())
        missing = tuple(one.name for one in self.criteria if one.name in asked and one.name not in answered)
        return Task(part, number, clip, missing, len(asked)) if missing else None

    def _waiting(self, name: str) -> tuple[dict[str, Any] | None, list[Task], int]:
        """Return the state of the training, the open items, and the number of finished ones."""
        given = self._book.given[name]
        training, waiting = self._training(self._book.own[name], given)
        if training is not None and not training["passed"]:
            return training, waiting, len(self.training) - len(waiting)
        waiting = self._study(name, given)
        begun = sum(part != "training" for part, _, _ in given)
        return training, waiting, begun - sum(task.item in given for task in waiting)

    def _write(self, name: str, item: str, criteria: tuple[str, ...], label: str, **given: Any) -> Grade:
        """Write an answer to the given sub-dimensions of an item, or to all open ones if none is given."""
        with self._turn:
            task = next((task for task in self._waiting(name)[1] if self._item_token(task) == item), None)
            if task is None or not set(criteria) <= set(task.missing):
                raise OutOfDate("this question is no longer open")
            for number, criterion in enumerate(criteria or task.missing):
                identifier = label if criteria else f"{label}-{number}"
                written = self._grade(task, criterion, label=identifier, annotator=name, **given)
                if self.journal.add(written):
                    self._book.add(written)
            return written

    def _grade(self, task: Task, criterion: str, **given: Any) -> Grade:
        clip = task.clip
        return Grade(
            **given | {"seconds": round(given["seconds"], 2), "reason": given["reason"].strip()},
            part=task.part,
            round=task.round,
            video_id=clip.video_id,
            prompt=clip.prompt,
            file=clip.file,
            generator=clip.generator,
            criterion=criterion,
            right=clip.known.get(criterion, ""),
            clip_seconds=_clip_seconds(clip.path),
            at=now(),
            seed=self.seed,
        )

    def _shown(self, task: Task) -> dict[str, Any]:
        one = next(one for one in self.criteria if one.name == task.missing[0])
        prompt = task.clip.prompt
        return {
            "item": self._item_token(task),
            "training": task.part == "training",
            "prompt": prompt,
            "criterion": one.name,
            "question": filled(one.question, prompt),
            "step": task.asked - len(task.missing) + 1,
            "steps": task.asked,
            "url": self._url(task.clip.path),
            "options": [
                {
                    "grade": option.grade,
                    "text": filled(option.text, prompt),
                    "example": option.example,
                    "url": None if option.clip is None else self._url(option.clip),
                }
                for option in one.options
            ],
        }

    def _item_token(self, task: Task) -> str:
        return self.secret.token("item", *task.item)

    def _token(self, path: Path) -> str:
        return self.secret.token("clip", str(path))

    def _url(self, path: Path) -> str:
        return f"clips/{self._token(path)}"


def _feedback(label: Grade) -> dict[str, Any] | None:
    return {"right": label.grade == label.right, "grade": label.right} if label.part == "training" else None


@lru_cache(maxsize=1024)
def _clip_seconds(path: Path) -> float:
    """Return the length of a clip in seconds, 0 for images and unreadable files."""
    try:
        information = probe(path)
    except VideoReadError:
        return 0.0
    return round(information.num_frames / information.fps, 2) if information.fps > 0 else 0.0
