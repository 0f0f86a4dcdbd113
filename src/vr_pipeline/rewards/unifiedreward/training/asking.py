"""Requests of training items, with all answers and the index of the right one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vr_pipeline.rewards.unifiedreward.reading import visuals_of
from vr_pipeline.rewards.unifiedreward.rendering import Keys
from vr_pipeline.rewards.unifiedreward.template import UnifiedTemplate
from vr_pipeline.rewards.unifiedreward.training.items import MIRRORED, PAIR_ANSWERS
from vr_pipeline.video.clip import Frames
from vr_pipeline.video.sampled import SampledClip
from vr_pipeline.vlm.families.base import Family
from vr_pipeline.vlm.media import Piece, Request, Visual


@dataclass(frozen=True)
class ReadyClip:
    """A prepared clip: one visual, or one per frame if frames are shown as images."""

    visuals: tuple[Visual, ...]

    @property
    def vision(self) -> dict[str, NDArray[Any]]:
        """Inputs of the vision tower, for their size."""
        named = ((f"{at}.{name}", value) for at, one in enumerate(self.visuals) for name, value in one.vision.items())
        return dict(named)


def clip_maker(family: Family, template: UnifiedTemplate) -> Callable[[Frames, float | None], ReadyClip]:
    """Return a function that prepares frames for a template."""

    def make(frames: Frames, frames_per_second: float | None) -> ReadyClip:
        clip = SampledClip("", "", frames, list(range(len(frames))), frames_per_second or 1.0)
        return ReadyClip(tuple(visuals_of(family, template, "", clip).values()))

    return make


def keys_of(clip: str, ready: ReadyClip) -> Keys:
    """Return the keys of a clip in requests."""
    return clip if len(ready.visuals) == 1 else [f"{clip}/{at}" for at in range(len(ready.visuals))]


def all_visuals(clips: Mapping[str, ReadyClip]) -> dict[str, Visual]:
    """Return all visuals by key."""
    found: dict[str, Visual] = {}
    for name, ready in clips.items():
        keys = keys_of(name, ready)
        found |= dict(zip([keys] if isinstance(keys, str) else keys, ready.visuals, strict=True))
    return found


def request_length(visuals: Mapping[str, Visual], request: Request) -> int:
    """Return the number of tokens of a request with its longest answer."""
    pieces = (len(visuals[piece].token_ids) if isinstance(piece, str) else len(piece) for piece in request.pieces)
    return sum(pieces) + max(map(len, request.answers))


def alike(lengths: Sequence[int]) -> list[list[int]]:
    """Group the indices of lengths, ascending, so that the longest of a group is at most twice the shortest.

    Requests of a group are padded to the longest.
    """
    groups: list[list[int]] = []
    for at in sorted(range(len(lengths)), key=lambda place: (lengths[place], place)):
        if groups and lengths[at] <= 2 * lengths[groups[-1][0]]:
            groups[-1].append(at)
        else:
            groups.append([at])
    return groups


class Asked(NamedTuple):
    """A request with the index of its right answer."""

    request: Request
    right: int


class ItemRequests:
    """Makes requests from the table of :class:`~vr_pipeline.rewards.unifiedreward.training.labelled.LabelledItems`."""

    def __init__(self, family: Family, template: UnifiedTemplate, table: pd.DataFrame) -> None:
        self.family, self.template = family, template
        columns = ("task", "form", "video_id_a", "video_id_b", "prompt", "response_a", "response_b", "answer")
        self.columns = {name: table[name].tolist() for name in (*columns, "line", "right", "earlier")}
        # Cached, since a scale has dozens of texts.
        self._answering: dict[tuple[object, ...], Request] = {}

    def is_pair(self, row: int) -> bool:
        """Return whether an item is a pair."""
        return bool(self.columns["form"][row] == "pair")

    def clips(self, row: int) -> list[str]:
        """Return the clips of an item."""
        return [name for name in (self.columns["video_id_a"][row], self.columns["video_id_b"][row]) if name]

    def pair(self, row: int, clips: Mapping[str, ReadyClip], *, turned: bool = False) -> Asked:
        """Return the request of a pair, with the answers first, second and perhaps tie.

        Args:
            row: of the table.
            clips: prepared clips by identifier.
            turned: whether the second of the pair is shown first.
        """
        of = {name: values[row] for name, values in self.columns.items()}
        answer = MIRRORED[of["answer"]] if turned else of["answer"]
        shown = [keys_of(name, clips[name]) for name in self.clips(row)]
        texts = [of["response_a"], of["response_b"]]
        if of["video_id_b"]:
            keys = shown[::-1] if turned else shown
            question = self.template.pair_question(self.family, of["task"], keys[0], keys[1], of["prompt"])
        else:
            responses = texts[::-1] if turned else texts
            question = self.template.pair_question(self.family, of["task"], shown[0], None, of["prompt"], *responses)
        return Asked(self._with(question, self._pair_answers(of["task"])), PAIR_ANSWERS.index(answer))

    def point(self, row: int, clips: Mapping[str, ReadyClip]) -> Asked:
        """Return the request of a point, with all values of the scale as answers."""
        of = {name: values[row] for name, values in self.columns.items()}
        question = self.template.point_question(
            self.family,
            of["task"],
            keys_of(of["video_id_a"], clips[of["video_id_a"]]),
            of["prompt"],
            line=of["line"],
            response=of["response_a"] or None,
        )
        return Asked(self._with(question, self._line(of["task"], of["line"], of["earlier"])), of["right"])

    def _with(self, question: Sequence[Piece], answering: Request) -> Request:
        """Return a request from its question, and the ending of all requests of its kind."""
        return Request((*question, *answering.pieces), answering.answers)

    def _pair_answers(self, task: str) -> Request:
        texts = self.template.pair(task).answers.texts
        if (task,) not in self._answering:
            answers = tuple(tuple(self.family.text_ids(text + self.template.end)) for text in texts)
            self._answering[(task,)] = Request((), answers)
        return self._answering[(task,)]

    def _line(self, task: str, line: int, earlier: tuple[str, ...]) -> Request:
        key = (task, line, earlier)
        if key not in self._answering:
            self._answering[key] = self.template.line_request(self.family, task, (), line=line, earlier=earlier)
        return self._answering[key]

    def to_learn(self, row: int, clips: Mapping[str, ReadyClip], *, turned: bool) -> Asked:
        """Return the request of an item for training: a pair with all answers, a point with the right one only."""
        if self.is_pair(row):
            return self.pair(row, clips, turned=turned)
        asked = self.point(row, clips)
        return Asked(replace(asked.request, answers=(asked.request.answers[asked.right],)), 0)

    def values(self, row: int) -> NDArray[np.float64]:
        """Return the numbers of a point's answers, [answers]."""
        point = self.template.point(self.columns["task"][row])
        return point.lines[self.columns["line"][row]].values
