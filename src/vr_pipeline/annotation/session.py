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
from vr_pipeline.annotation.store import Choice, Journal, Label, Study
from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash

_PREFETCHED_PAIRS = 2


class OutOfDate(Exception):
    """The page shows something that is not on offer any more; it has to ask again."""


@dataclass
class AnnotationSession:
    """The pairs of a study with its journal.

    Args:
        study: what is compared.
        pairs: in the order of showing.
        criteria: asked of each pair in this order: names of dimensions, then 'overall'.
        hints: questions of a checklist by dimension, shown beside it; [[prompt]] is filled in.
        journal: where answers go.
        files: path of every clip by its name in the index.
        order, seed: how the pairs were ordered, recorded with every answer.
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
    annotator: str | None = None
    _by_id: dict[str, Pair] = field(init=False)
    _clips: dict[str, Clip] = field(init=False)
    _skipped: set[tuple[str, str]] = field(init=False, default_factory=set)
    _guard: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        if not self.pairs:
            raise InputError(
                "there is no pair of clips to compare",
                remedy="make several clips for each prompt, or choose another --source",
            )
        self._by_id = {pair.pair_id: pair for pair in self.pairs}
        self._clips = {self._token(clip): clip for pair in self.pairs for clip in (pair.first, pair.second)}

    def describe(self) -> dict[str, Any]:
        """What the page needs to begin."""
        return {
            "study": self.study.study,
            "blind": bool(self.study.policies),
            "criteria": list(self.criteria),
            "annotator": self.annotator,
            "pairs": len(self.pairs),
        }

    def next_for(self, annotator: str) -> dict[str, Any]:
        """The next open question of an annotator, with what to load ahead; ``task`` is null when all is done."""
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
        ahead = [clip for _, pair, _ in waiting[1 : 1 + _PREFETCHED_PAIRS] for clip in pair.sides(name, self.seed)]
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
            left: the token of the clip that the page shows left; sides are the server's to know, and a page from
                before a restart with another seed may show the other one.

        Raises:
            OutOfDate: no such pair or criterion, or other sides than shown.
            AlreadyAnswered: as :meth:`Journal.add`.
        """
        name = self.check_annotator(annotator)
        shown = self._by_id.get(pair)
        if shown is None or criterion not in self.criteria:
            raise OutOfDate("this pair is not part of the study any more")
        sides = shown.sides(name, self.seed)
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
        with self._guard:
            self._skipped.add((self.check_annotator(annotator), pair))

    def results(self) -> dict[str, Any]:
        """Figures of the study so far."""
        return study_results(self.study, self.journal.labels(), self.criteria, len(self.pairs))

    def clip_path(self, token: str) -> Path | None:
        """The file of a clip by the token its address holds; None for anything that is not on offer."""
        clip = self._clips.get(token)
        return self.files.get(clip.file) if clip is not None else None

    def check_annotator(self, name: str) -> str:
        """The annotator's name, tidied. Raises :class:`ValueError` for one that cannot be used."""
        tidy = " ".join(name.split())
        if self.annotator is not None and tidy != self.annotator:
            raise ValueError(f"this server takes answers of {self.annotator} only")
        if not 1 <= len(tidy) <= 60 or not tidy.isprintable():
            raise ValueError("give a name of 1 to 60 characters")
        return tidy

    def _task(self, number: int, pair: Pair, criterion: str, *, annotator: str) -> dict[str, Any]:
        left, right = pair.sides(annotator, self.seed)
        return {
            "pair": pair.pair_id,
            "number": number,
            "prompt": pair.prompt,
            "criterion": criterion,
            "step": self.criteria.index(criterion) + 1,
            "steps": len(self.criteria),
            "hints": [hint.replace("[[prompt]]", pair.prompt) for hint in self.hints.get(criterion, ())],
            "left": {"token": self._token(left), "url": self._url(left)},
            "right": {"token": self._token(right), "url": self._url(right)},
        }

    def _token(self, clip: Clip) -> str:
        # Identifiers that users gave may say which model made a clip; the address must not.
        return content_hash("annotated clip", self.study.study, clip.video_id, clip.generator)

    def _url(self, clip: Clip) -> str:
        return f"clips/{self._token(clip)}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
