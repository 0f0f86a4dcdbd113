"""Scores and comparisons of clips, read from a model's likelihoods with a template.

Each clip is encoded once, and questions with the same beginning share it
(:class:`~vr_pipeline.vlm.likelihood.SharedReader`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from vr_pipeline.errors import InputError
from vr_pipeline.rewards.unifiedreward.forms import Reasons
from vr_pipeline.rewards.unifiedreward.lines import Lines, read_lines
from vr_pipeline.rewards.unifiedreward.points import (
    PairScore,
    PointScore,
    pair_score,
    point_score,
    shares_score,
)
from vr_pipeline.rewards.unifiedreward.reasons import write_reasons
from vr_pipeline.rewards.unifiedreward.rendering import Keys
from vr_pipeline.rewards.unifiedreward.template import UnifiedTemplate
from vr_pipeline.video.sampled import SampledClip
from vr_pipeline.vlm.families.base import Family
from vr_pipeline.vlm.likelihood import SharedReader
from vr_pipeline.vlm.media import Piece, Request, Visual


@dataclass(frozen=True)
class Point:
    """A clip to score, or a response about it."""

    clip: str
    prompt: str
    response: str | None = None


@dataclass(frozen=True)
class Pair:
    """Two clips of a prompt to compare in this order, or two responses about one clip (then b is None)."""

    a: str
    b: str | None
    prompt: str
    responses: tuple[str, str] | None = None

    @property
    def swapped(self) -> Pair:
        """The other order."""
        if self.responses is not None:
            return Pair(self.a, self.b, self.prompt, (self.responses[1], self.responses[0]))
        assert self.b is not None
        return Pair(self.b, self.a, self.prompt)


class ClipReader:
    """Asks a model about clips.

    Args:
        family: the model.
        template: how it is asked.
        clips: by the names in :class:`Point` and :class:`Pair`.
        batch: requests per batch, halved when memory runs out.

    Raises:
        ValueError: a clip is too elongated.
        InputError: the model cannot process a clip.
    """

    def __init__(
        self, family: Family, template: UnifiedTemplate, clips: Mapping[str, SampledClip], *, batch: int = 16
    ) -> None:
        self.family, self.template = family, template
        self.keys: dict[str, Keys] = {}
        self.visuals: dict[str, Visual] = {}
        for name, clip in clips.items():
            visuals = visuals_of(family, template, name, clip)
            self.keys[name] = name if list(visuals) == [name] else tuple(visuals)
            self.visuals |= visuals
        self._reader = SharedReader(family, self.visuals, batch=batch)

    def points(self, task: str, points: Sequence[Point]) -> list[PointScore | InputError]:
        """Return the score of each clip, or response about it, in order, or the error.

        Raises:
            InputError: the template has no score for the task, or memory runs out on one question.
        """
        asked = self.template.point(task)
        lines = asked.lines[: max(asked.read_lines) + 1]
        questions: list[list[tuple[Piece, ...]] | InputError] = []
        reasons = [""] * len(points)
        for at, point in enumerate(points):
            try:
                own = [self._point_question(task, point, line) for line in range(len(lines) if asked.separate else 1)]
                if asked.reasons is not None:
                    reasons[at], own[0] = self._with_reasons(own[0], asked.reasons)
                questions.append(own)
            except InputError as error:
                questions.append(error)
        what = Lines(lines, partial(self.template.line_request, self.family, task), asked.separate)
        wanted = {asked.lines[line].dimension for line in asked.read_lines}
        return [
            one
            if isinstance(one, InputError)
            else point_score({name: score for name, score in one.items() if name in wanted}, asked, why)
            for one, why in zip(read_lines(self._reader, what, questions), reasons, strict=True)
        ]

    def pairs(self, task: str, pairs: Sequence[Pair]) -> list[PairScore | InputError]:
        """Return the comparison of each pair in the given order, or the error.

        Raises:
            InputError: the template has no comparison for the task, or memory runs out on one question.
        """
        if not self.template.has(task, "pair") and self.template.has(task, "shares"):
            return self._by_shares(task, pairs)
        asked = self.template.pair(task)
        found: list[PairScore | InputError | None] = [None] * len(pairs)
        places: list[tuple[int, str]] = []
        requests: list[Request] = []
        for at, pair in enumerate(pairs):
            try:
                request, why = self._pair_request(task, pair), ""
                if asked.reasons is not None:
                    why, pieces = self._with_reasons(request.pieces, asked.reasons)
                    request = Request(pieces, request.answers)
                requests.append(request)
                places.append((at, why))
            except InputError as error:
                found[at] = error
        for (at, why), read in zip(places, self._reader.read(requests), strict=True):
            try:
                found[at] = pair_score(read, why)
            except InputError as error:
                found[at] = error
        return [one for one in found if one is not None]

    def _by_shares(self, task: str, pairs: Sequence[Pair]) -> list[PairScore | InputError]:
        """Compare by relative scores, line by line as :meth:`points` reads them."""
        lines = self.template.shares(task).lines
        questions: list[list[tuple[Piece, ...]] | InputError] = []
        for pair in pairs:
            try:
                questions.append([self._pair_question(task, pair)])
            except InputError as error:
                questions.append(error)
        what = Lines(lines, partial(self.template.share_request, self.family, task))
        return [
            one if isinstance(one, InputError) else shares_score(one, lines)
            for one in read_lines(self._reader, what, questions)
        ]

    def _point_question(self, task: str, point: Point, line: int) -> tuple[Piece, ...]:
        return self.template.point_question(
            self.family, task, self.keys[point.clip], point.prompt, line=line, response=point.response
        )

    def _pair_question(self, task: str, pair: Pair) -> tuple[Piece, ...]:
        return self.template.pair_question(self.family, task, *self._pair_arguments(pair))

    def _pair_request(self, task: str, pair: Pair) -> Request:
        return self.template.pair_request(self.family, task, *self._pair_arguments(pair))

    def _pair_arguments(self, pair: Pair) -> tuple[Keys, Keys | None, str, str | None, str | None]:
        second = self.keys[pair.b] if pair.b is not None else None
        return self.keys[pair.a], second, pair.prompt, *(pair.responses or (None, None))

    def _with_reasons(self, question: tuple[Piece, ...], asked: Reasons) -> tuple[str, tuple[Piece, ...]]:
        reasons, tokens = write_reasons(self.family, self.visuals, question, asked, self.template.end)
        return reasons, (*question, tokens)


def visuals_of(family: Family, template: UnifiedTemplate, name: str, clip: SampledClip) -> dict[str, Visual]:
    """Return the visuals of a clip by key: the clip, or its frames as images if the template says so.

    Raises:
        ValueError: the clip is too elongated.
        InputError: the model cannot process it.
    """
    if not template.frames.as_images:
        return {name: family.visual(clip.frames, clip.frames_per_second)}
    frames = [clip.frames[at : at + 1] for at in range(len(clip.frames))]
    return {f"{name}#{at}": family.visual(frame, None) for at, frame in enumerate(frames)}
