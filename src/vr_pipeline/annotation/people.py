"""Annotators of a study: names, proofs in browsers, and the base of all kinds of studies."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vr_pipeline.annotation.secret import StudySecret
from vr_pipeline.annotation.store import Journal
from vr_pipeline.preferences.journal import Study

_MOST_ANNOTATORS = 1000


class OutOfDate(Exception):
    """The page shows a question that is no longer open and must be reloaded."""


class NotYours(Exception):
    """A request for an annotator without their proof, or for results too early."""


class OpenStudy(ABC):
    """An open study with its journal and annotators.

    Attributes:
        secret: makes tokens of clips and proofs of annotators.
        annotator: name of the only annotator; None if each enters a name on the page.
    """

    study: Study
    journal: Journal[Any]
    secret: StudySecret
    annotator: str | None
    _began: set[str]
    _guard: threading.Lock

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return the initial data of the page."""

    @abstractmethod
    def headline(self) -> str:
        """Return the content of the study in words."""

    @abstractmethod
    def next_for(self, annotator: str) -> dict[str, Any]:
        """Return the next question of an annotator and clips to preload; ``task`` is null when all is done."""

    @abstractmethod
    def results(self, readers: Sequence[str] = ()) -> dict[str, Any]:
        """Return the figures of the study, for a reader with the proofs of ``readers``."""

    @abstractmethod
    def clip_path(self, token: str) -> Path | None:
        """Return the file of a clip by its token; None if it is not in the study."""

    def annotators(self) -> list[str]:
        """Return all annotators who started or answered, in alphabetical order."""
        with self._guard:
            began = set(self._began)
        return sorted(began | {label.annotator for label in self.journal.labels()})

    def begin(self, annotator: str, proof: str | None) -> str:
        """Let an annotator start or resume, and return the proof for their browser.

        The first use of a name claims it; later uses need the proof.

        Raises:
            NotYours: the name is in use, and the proof is missing or wrong.
            ValueError: the name is invalid, or too many names are in use.
        """
        name = self.check_annotator(annotator)
        if proof is None or not self.secret.proves(name, proof):
            known = self.annotators()
            if name in known:
                raise NotYours(
                    f"The name {name} is in use. Open your personal link, or choose another name; the output of the "
                    "server lists the links."
                )
            if len(known) >= _MOST_ANNOTATORS:
                raise ValueError(f"{_MOST_ANNOTATORS} names are in use; start the server again")
        with self._guard:
            self._began.add(name)
        return self.secret.proof_of(name)

    def undo(self, annotator: str) -> bool:
        """Undo an annotator's last answer; return False if there is none."""
        return self.journal.undo(self.check_annotator(annotator), at=now()) is not None

    def check_annotator(self, name: str) -> str:
        """Return the annotator's name without extra spaces. Raises :class:`ValueError` if it is invalid."""
        tidy = " ".join(name.split())
        if self.annotator is not None and tidy != self.annotator:
            raise ValueError(f"this server accepts answers of {self.annotator} only")
        if not 1 <= len(tidy) <= 60 or not tidy.isprintable():
            raise ValueError("give a name of 1 to 60 characters")
        return tidy


def now() -> str:
    """Return the time of an answer."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
