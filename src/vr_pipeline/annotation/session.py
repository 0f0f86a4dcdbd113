"""A study as it is being answered: what to show next to whom, and what an answer means."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vr_pipeline.annotation.agreement import study_results
from vr_pipeline.annotation.queue import Clip, Order, Pair
from vr_pipeline.annotation.secret import StudySecret
from vr_pipeline.annotation.store import Journal
from vr_pipeline.errors import InputError
from vr_pipeline.preferences.journal import OVERALL, SKIP, Choice, Label, Study

_PREFETCHED_PAIRS = 2
_MOST_ANNOTATORS = 1000


class OutOfDate(Exception):
    """The page shows something that is no longer on offer; it has to ask again."""


class NotYours(Exception):
    """A request speaks for an annotator without their proof, or asks for results too early."""


@dataclass
class AnnotationSession:
    """The pairs of a study with its journal.

    Args:
        pairs: in the order of showing.
        criteria: asked of each pair in this order: names of dimensions and other criteria, then 'overall'.
        hints: questions of a checklist by dimension, shown beside it; [[prompt]] is filled in.
        files: path of every clip by its name in the index.
        order, seed: how the pairs were ordered, recorded with every answer.
        secret: makes the names of clips, the sides and the proofs of annotators.
        annotator: name of the only annotator; None lets each give a name on the page.
    """

    study: Study
    pairs: Sequence[Pair]
    criteria: Sequence[str]
    hints: Mapping[str, Sequence[str]]
    journal: Journal
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
                "there is no pair of clips to compare",
                remedy="make several clips for each prompt, or choose another --source",
            )
        self._by_token = {self._pair_token(pair): pair for pair in self.pairs}
        self._clips = {self._token(clip): clip for pair in self.pairs for clip in (pair.first, pair.second)}

    def describe(self) -> dict[str, Any]:
        """Return what the page needs to begin."""
        return {
            "study": self.study.study,
            "blind": bool(self.study.policies),
            "criteria": list(self.criteria),
            "annotator": self.annotator,
            "pairs": len(self.pairs),
        }

    def annotators(self) -> list[str]:
        """Return all who answered or began, in alphabetical order."""
        with self._guard:
            began = set(self._began)
        return sorted(began | {label.annotator for label in self.journal.labels()})

    def begin(self, annotator: str, proof: str | None) -> str:
        """Let an annotator begin or resume, and return the proof for their browser to keep.

        A name belongs to whoever uses it first; from then on the proof is needed.

        Args:
            proof: what the browser holds; None without one.

        Raises:
            NotYours: the name is in use, and the proof is missing or wrong.
            ValueError: the name cannot be used, or too many names are in use.
        """
        name = self.check_annotator(annotator)
        if proof is None or not self.secret.proves(name, proof):
            known = self.annotators()
            if name in known:
                raise NotYours(
                    f"The name {name} is in use. Open your personal link, or choose another name; "
                    "whoever started the server finds the links in its output."
                )
            if len(known) >= _MOST_ANNOTATORS:
                raise ValueError(f"{_MOST_ANNOTATORS} names are in use; start the server again")
        with self._guard:
            self._began.add(name)
        return self.secret.proof_of(name)

    def next_for(self, annotator: str) -> dict[str, Any]:
        """Return the next open question of an annotator, with what to load ahead; ``task`` is null when all is done."""
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
        """Record an answer; False if it was recorded before.

        Args:
            pair: the token of the pair, as the page got it.
            left: the token of the clip that the page shows left; sides are the server's to know, and a page from
                before a restart with another seed may show the other one.

        Raises:
            OutOfDate: no such pair or criterion, or other sides than shown.
            AlreadyAnswered: as :meth:`Journal.add`.
            ValueError: the question about the whole is skipped.
        """
        name = self.check_annotator(annotator)
        if choice == SKIP and criterion == OVERALL:
            raise ValueError("which clip is better overall cannot be skipped; choose 'no difference'")
        shown = self._by_token.get(pair)
        if shown is None or criterion not in self.criteria:
            raise OutOfDate("this pair is no longer part of the study")
        sides = self._sides(shown, name)
        if self._token(sides[0]) != left:
            raise OutOfDate("the clips stand on other sides now")
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
                at=_now(),
                order=self.order,
                seed=self.seed,
            )
        )

    def undo(self, annotator: str) -> bool:
        """Take back an annotator's last answer; False if there is none."""
        return self.journal.undo(self.check_annotator(annotator), at=_now()) is not None

    def skip(self, annotator: str, pair: str) -> None:
        """Leave a pair out for an annotator until the server is started again (a clip that does not load)."""
        shown = self._by_token.get(pair)
        if shown is None:
            raise OutOfDate("this pair is no longer part of the study")
        with self._guard:
            self._skipped.add((self.check_annotator(annotator), shown.pair_id))

    def results(self, readers: Sequence[str] = ()) -> dict[str, Any]:
        """Return the figures of the study so far.

        Args:
            readers: annotators whose proof the reader holds. Results of a blind comparison are shown only to one who
                has no open pair: who knows which policy leads no longer judges blindly.

        Raises:
            NotYours: a blind comparison, and no reader is done.
        """
        if self.study.policies and not any(self.next_for(name)["task"] is None for name in readers):
            raise NotYours(
                "Results of a blind comparison are shown when you have answered all pairs. "
                "Whoever runs the study reads them with kedro annotate --report."
            )
        return study_results(self.study, self.journal.labels(), self.criteria, len(self.pairs))

    def clip_path(self, token: str) -> Path | None:
        """Return the file of a clip by the token its address holds; None for anything that is not on offer."""
        clip = self._clips.get(token)
        return self.files.get(clip.file) if clip is not None else None

    def check_annotator(self, name: str) -> str:
        """Return the annotator's name, tidied. Raises :class:`ValueError` for one that cannot be used."""
        tidy = " ".join(name.split())
        if self.annotator is not None and tidy != self.annotator:
            raise ValueError(f"this server takes answers of {self.annotator} only")
        if not 1 <= len(tidy) <= 60 or not tidy.isprintable():
            raise ValueError("give a name of 1 to 60 characters")
        return tidy

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
        # Identifiers that users gave may say which model made a clip; the address must not, even to who guesses them.
        return self.secret.token("clip", clip.video_id, clip.generator)

    def _pair_token(self, pair: Pair) -> str:
        return self.secret.token("pair", pair.pair_id)

    def _sides(self, pair: Pair, annotator: str) -> tuple[Clip, Clip]:
        return pair.sides(annotator, self.secret.token("sides", self.seed))

    def _url(self, clip: Clip) -> str:
        return f"clips/{self._token(clip)}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
