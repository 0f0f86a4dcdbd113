"""A running study of pairs: the next question of each annotator, and the recording of answers."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vr_pipeline.annotation.agreement import study_results
from vr_pipeline.annotation.people import NotYours, OpenStudy, OutOfDate, now
from vr_pipeline.annotation.queue import Clip, Order, Pair
from vr_pipeline.annotation.secret import StudySecret
from vr_pipeline.annotation.store import Journal
from vr_pipeline.errors import InputError
from vr_pipeline.preferences.journal import OVERALL, SKIP, Choice, Label, Study

_PREFETCHED_PAIRS = 2


@dataclass
class AnnotationSession(OpenStudy):
    """The pairs of a study with its journal.

    Args:
        pairs: in the order shown.
        criteria: questions about each pair in order: dimensions and other criteria, then 'overall'.
        hints: questions of a checklist by dimension, shown with it; [[prompt]] is replaced.
        files: path of every clip by its name in the index.
        order, seed: of the pairs, recorded with every answer.
        secret: makes tokens of clips, sides and proofs of annotators.
        annotator: name of the only annotator; None if each enters a name on the page.
    """

    study: Study
    pairs: Sequence[Pair]
    criteria: Sequence[str]
    hints: Mapping[str, Sequence[str]]
    journal: Journal[Label]
    files: Mapping[str, Path]
    order: Order
    seed: int
    secret: StudySecret
    annotator: str | None = None
    _by_token: dict[str, Pair] = field(init=False)
    _clips: dict[str, Clip] = field(init=False)
    _skipped: set[tuple[str, str]] = field(init=False, default_factory=set)
    _began: set[str] = field(init=False, default_factory=set)
    _guard: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        if not self.pairs:
            raise InputError(
                "there are no pairs of clips to compare",
                remedy="make several clips per prompt, or use another --source",
            )
        self._by_token = {self._pair_token(pair): pair for pair in self.pairs}
        self._clips = {self._token(clip): clip for pair in self.pairs for clip in (pair.first, pair.second)}

    def describe(self) -> dict[str, Any]:
        return {
            "study": self.study.study,
            "blind": bool(self.study.policies),
            "criteria": list(self.criteria),
            "annotator": self.annotator,
            "pairs": len(self.pairs),
        }

    def headline(self) -> str:
        prompts = len({pair.prompt_id for pair in self.pairs})
        return f"{len(self.pairs)} pairs of {prompts} prompts, {self.order} order"

    def next_for(self, annotator: str) -> dict[str, Any]:
        name = self.check_annotator(annotator)
        own = [label for label in self.journal.labels() if label.annotator == name]
        given: dict[str, dict[str, str]] = {}
        for label in own:
            given.setdefault(label.pair, {})[label.criterion] = label.choice
        done = 0
        waiting: list[tuple[int, Pair, str]] = []
        for number, pair in enumerate(self.pairs, start=1):
            missing = [asked for asked in self.criteria if asked not in given.get(pair.pair_id, {})]
            if not missing:
                done += 1
            elif (name, pair.pair_id) not in self._skipped:
                waiting.append((number, pair, missing[0]))
        ahead = [clip for _, pair, _ in waiting[1 : 1 + _PREFETCHED_PAIRS] for clip in self._sides(pair, name)]
        return {
            "task": self._task(*waiting[0], annotator=name) if waiting else None,
            "ahead": [self._url(clip) for clip in ahead],
            "done": done,
            "total": len(self.pairs),
            "can_undo": bool(own),
        }

    def answer(
        self, *, label: str, annotator: str, pair: str, criterion: str, choice: Choice, left: str, seconds: float
    ) -> bool:
        """Record an answer; return False if it was recorded before.

        Args:
            label: identifier of the answer.
            annotator: their name.
            pair: token of the pair.
            criterion, choice: the answer.
            left: token of the left clip, to detect a page with other sides from before a restart.
            seconds: time of the answer.

        Raises:
            OutOfDate: the pair or criterion is not in the study, or the sides differ.
            AlreadyAnswered: see :meth:`Journal.add`.
            ValueError: the overall question is skipped.
        """
        name = self.check_annotator(annotator)
        if choice == SKIP and criterion == OVERALL:
            raise ValueError("the overall question cannot be skipped; choose 'no difference'")
        shown = self._by_token.get(pair)
        if shown is None or criterion not in self.criteria:
            raise OutOfDate("this pair is no longer part of the study")
        sides = self._sides(shown, name)
        if self._token(sides[0]) != left:
            raise OutOfDate("the clips have changed sides")
        return self.journal.add(
            Label(
                label=label,
                pair=shown.pair_id,
                prompt_id=shown.prompt_id,
                prompt=shown.prompt,
                criterion=criterion,
                choice=choice,
                left=sides[0].video_id,
                right=sides[1].video_id,
                left_file=sides[0].file,
                right_file=sides[1].file,
                left_generator=sides[0].generator,
                right_generator=sides[1].generator,
                annotator=name,
                seconds=round(seconds, 2),
                at=now(),
                order=self.order,
                seed=self.seed,
            )
        )

    def skip(self, annotator: str, pair: str) -> None:
        """Skip a pair for an annotator until the server restarts, since a clip does not load."""
        shown = self._by_token.get(pair)
        if shown is None:
            raise OutOfDate("this pair is no longer part of the study")
        with self._guard:
            self._skipped.add((self.check_annotator(annotator), shown.pair_id))

    def results(self, readers: Sequence[str] = ()) -> dict[str, Any]:
        """Return the figures of the study; of a blind comparison only if an annotator of ``readers`` is finished.

        Raises:
            NotYours: a blind comparison, and no reader is finished.
        """
        if self.study.policies and not any(self.next_for(name)["task"] is None for name in readers):
            raise NotYours(
                "Results of a blind comparison are shown when you have answered all pairs. The owner of the study "
                "reads them with kedro annotate --report."
            )
        return study_results(self.study, self.journal.labels(), self.criteria, len(self.pairs))

    def clip_path(self, token: str) -> Path | None:
        clip = self._clips.get(token)
        return self.files.get(clip.file) if clip is not None else None

    def _task(self, number: int, pair: Pair, criterion: str, *, annotator: str) -> dict[str, Any]:
        left, right = self._sides(pair, annotator)
        return {
            "pair": self._pair_token(pair),
            "number": number,
            "prompt": pair.prompt,
            "criterion": criterion,
            "step": self.criteria.index(criterion) + 1,
            "steps": len(self.criteria),
            "can_skip": criterion != OVERALL,
            "hints": [hint.replace("[[prompt]]", pair.prompt) for hint in self.hints.get(criterion, ())],
            "left": {"token": self._token(left), "url": self._url(left)},
            "right": {"token": self._token(right), "url": self._url(right)},
        }

    def _token(self, clip: Clip) -> str:
        # A token must not reveal the model of a clip, even if users' identifiers do.
        return self.secret.token("clip", clip.video_id, clip.generator)

    def _pair_token(self, pair: Pair) -> str:
        return self.secret.token("pair", pair.pair_id)

    def _sides(self, pair: Pair, annotator: str) -> tuple[Clip, Clip]:
        return pair.sides(annotator, self.secret.token("sides", self.seed))

    def _url(self, clip: Clip) -> str:
        return f"clips/{self._token(clip)}"
