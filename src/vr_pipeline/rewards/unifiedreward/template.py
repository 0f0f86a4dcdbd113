"""Templates: texts, answers and scales of a checkpoint's tasks.

``conf/templates`` has one YAML file per checkpoint family; a saved model has its template in reward.json.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, Literal

from pydantic import Field, model_validator

from vr_pipeline.config import Parameters
from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash
from vr_pipeline.rewards.unifiedreward.forms import (
    DIMENSION,
    PairTemplate,
    PointTemplate,
    SharesTemplate,
    TaskTemplate,
)
from vr_pipeline.rewards.unifiedreward.forms import (
    TOTAL as TOTAL,
)
from vr_pipeline.rewards.unifiedreward.rendering import Keys, Tokens, number_ids, rendered, slots_of
from vr_pipeline.rewards.unifiedreward.scales import ScoreLine
from vr_pipeline.vlm.families.base import Family
from vr_pipeline.vlm.media import Piece, Request

TASKS: Final = ("image_generation", "video_generation", "image_understanding", "video_understanding")
Task = Literal["image_generation", "video_generation", "image_understanding", "video_understanding"]
Generation = Literal["image_generation", "video_generation"]
Form = Literal["pair", "point", "shares"]
FORMS: Final = ("pair", "point", "shares")

_SLOTS: Final = {
    ("generation", "pair"): ({"first", "second"}, {"prompt"}),
    ("generation", "shares"): ({"first", "second"}, {"prompt"}),
    ("generation", "point"): ({"clip"}, {"prompt", DIMENSION}),
    ("understanding", "shares"): ({"clip", "prompt", "response_a", "response_b"}, set()),
    ("understanding", "pair"): ({"clip", "prompt", "response_a", "response_b"}, set()),
    ("understanding", "point"): ({"clip", "prompt", "response"}, {DIMENSION}),
}
"""Placeholders that a text must and may have."""


class FrameSettings(Parameters):
    """How a clip is shown; null for the settings of the model's folder."""

    num_frames: int | None = Field(None, ge=1, description="Largest number of frames, evenly spread.")
    frames_per_second: float | None = Field(None, gt=0, description="Frames per second.")
    as_images: bool = Field(False, description="Whether frames are shown as single images.")
    between: str = Field("", description="Text between frames that are shown as images.")


class UnifiedTemplate(Parameters):
    """Template of a family of checkpoints."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$", description="Name of the checkpoint family.")
    opening: str = Field("", description="Text at the beginning, with the control tokens of the chat format.")
    closing: str = Field("", description="Text between the question and the answer.")
    end: str = Field(min_length=1, description="End of an answer.")
    frames: FrameSettings = Field(default=FrameSettings(), description="How clips are shown.")
    image_generation: TaskTemplate = Field(default=TaskTemplate(), description="Images made for a prompt.")
    video_generation: TaskTemplate = Field(default=TaskTemplate(), description="Clips made for a prompt.")
    image_understanding: TaskTemplate = Field(default=TaskTemplate(), description="Responses about an image.")
    video_understanding: TaskTemplate = Field(default=TaskTemplate(), description="Responses about a clip.")

    @model_validator(mode="after")
    def _right_placeholders(self) -> UnifiedTemplate:
        for task in TASKS:
            for form in FORMS:
                if (asked := getattr(getattr(self, task), form)) is None:
                    continue
                needed, allowed = _SLOTS[task.partition("_")[2], form]
                found = slots_of(asked.text)
                if len(found) != len(set(found)) or not needed <= set(found) <= needed | allowed:
                    must, may = (", ".join(f"[[{name}]]" for name in sorted(names)) for names in (needed, allowed))
                    also = f", and may contain {may}" if may else ""
                    raise ValueError(f"the text of {task}.{form} must contain {must} once each{also}")
        return self

    @property
    def identity(self) -> str:
        """Hash of the template."""
        return content_hash("template", json.dumps(self.model_dump(mode="json"), sort_keys=True))

    def pair(self, task: str) -> PairTemplate:
        """Return the comparison of a task. Raises :class:`InputError` if there is none."""
        found: PairTemplate = self._asked(task, "pair")
        return found

    def point(self, task: str) -> PointTemplate:
        """Return the score of a task. Raises :class:`InputError` if there is none."""
        found: PointTemplate = self._asked(task, "point")
        return found

    def has(self, task: str, form: Form) -> bool:
        """Return whether a task has this form."""
        return task in TASKS and getattr(getattr(self, task), form) is not None

    def shares(self, task: str) -> SharesTemplate:
        """Return the comparison by shares of a task. Raises :class:`InputError` if there is none."""
        found: SharesTemplate = self._asked(task, "shares")
        return found

    def _asked(self, task: str, form: Form) -> Any:
        if not self.has(task, form):
            there = [f"{one} ({known})" for one in TASKS for known in FORMS if self.has(one, known)]
            raise InputError(
                f"the template '{self.name}' has no {form} of the task '{task}'",
                remedy=f"Use one of {', '.join(there) or 'none'}, or another template",
                field="task",
            )
        return getattr(getattr(self, task), form)

    def pair_request(
        self,
        family: Family,
        task: str,
        first_key: Keys,
        second_key: Keys | None,
        prompt: str,
        response_a: str | None = None,
        response_b: str | None = None,
    ) -> Request:
        """Return the request that compares two clips of a prompt, or two responses about a clip.

        Args:
            family: has the tokenizer.
            task: one of :data:`TASKS`.
            first_key: key of the first clip, or of the clip of the responses.
            second_key: key of the second clip; None for understanding tasks.
            prompt: prompt of the clips, or the question.
            response_a, response_b: the responses of understanding tasks.

        Returns:
            a request with the answers first, second and perhaps tie.

        Raises:
            InputError: the template has no such comparison, or a text cannot be inserted.
        """
        answers = tuple(tuple(family.text_ids(text + self.end)) for text in self.pair(task).answers.texts)
        question = self.pair_question(family, task, first_key, second_key, prompt, response_a, response_b)
        return Request(question, answers)

    def pair_question(
        self,
        family: Family,
        task: str,
        first_key: Keys,
        second_key: Keys | None,
        prompt: str,
        response_a: str | None = None,
        response_b: str | None = None,
    ) -> tuple[Piece, ...]:
        """Return the pieces before the answer of a comparison, by shares if there are no whole answers."""
        by_shares = not self.has(task, "pair") and self.has(task, "shares")
        text = self.shares(task).text if by_shares else self.pair(task).text
        shown = {"clip": first_key} if second_key is None else {"first": first_key, "second": second_key}
        responses = {"response_a": response_a, "response_b": response_b}
        written = {"prompt": prompt, **{name: text for name, text in responses.items() if text is not None}}
        return self._question(family, text, shown, written)

    def point_request(
        self,
        family: Family,
        task: str,
        shown: Keys,
        prompt: str,
        *,
        line: int = 0,
        earlier: Sequence[str] = (),
        response: str | None = None,
    ) -> Request:
        """Return the request that reads one line of the score of a clip, or of a response about it.

        Args:
            family: has the tokenizer.
            task: one of :data:`TASKS`.
            shown: key of the clip.
            prompt: prompt of the clip, or the question.
            line: index of the line in the template.
            earlier: numbers of the earlier lines as text; not needed for separate lines.
            response: the response of an understanding task.

        Returns:
            a request whose answers are the values of the line's scale with their ending, ascending.

        Raises:
            InputError: the template has no such score, or a text cannot be inserted.
        """
        question = self.point_question(family, task, shown, prompt, line=line, response=response)
        return self.line_request(family, task, question, line=line, earlier=earlier)

    def point_question(
        self, family: Family, task: str, shown: Keys, prompt: str, *, line: int = 0, response: str | None = None
    ) -> tuple[Piece, ...]:
        """Return the pieces before the answer of a score; see :meth:`point_request`."""
        asked = self.point(task)
        own = asked.lines[line]
        written = {"prompt": prompt}
        if response is not None:
            written["response"] = response
        # Text of the template, in which control tokens are valid.
        text = asked.text.replace(f"[[{DIMENSION}]]", own.question or own.dimension)
        return self._question(family, text, {"clip": shown}, written)

    def line_request(
        self, family: Family, task: str, question: Sequence[Piece], *, line: int, earlier: Sequence[str] = ()
    ) -> Request:
        """Return the request that reads a line after a question; arguments as in :meth:`point_request`."""
        asked = self.point(task)
        if asked.separate:
            return _line_request(family, question, asked.lines[line : line + 1], (), self.end)
        return _line_request(family, question, asked.lines[: line + 1], earlier, self._ending(asked.lines, line))

    def share_request(
        self, family: Family, task: str, question: Sequence[Piece], *, line: int, earlier: Sequence[str] = ()
    ) -> Request:
        """Return the request that reads the first one's share in a line; see :meth:`line_request`."""
        lines = self.shares(task).lines
        return _line_request(family, question, lines[: line + 1], earlier, self._ending(lines, line))

    def _ending(self, lines: Sequence[ScoreLine], line: int) -> str:
        return self.end if line == len(lines) - 1 else lines[line].ending

    def _question(
        self, family: Family, text: str, shown: dict[str, Keys], written: dict[str, str]
    ) -> tuple[Piece, ...]:
        whole = self.opening + text + self.closing
        return rendered(family, whole, shown, written, between=self.frames.between)


def _line_request(
    family: Family, question: Sequence[Piece], lines: Sequence[ScoreLine], earlier: Sequence[str], ending: str
) -> Request:
    """Return the request that reads the last line, after a question and the earlier lines."""
    *before, own = lines
    if len(earlier) != len(before):
        raise ValueError(f"{len(earlier)} earlier numbers for line {len(before)}")
    above: Tokens = ()
    for line, number in zip(before, earlier, strict=True):
        above += tuple(family.text_ids(line.filled(number)))
    label, answers = number_ids(family, own.before, own.texts, "" if own.open else ending)
    return Request((*question, *((above + label,) if above + label else ())), answers)
