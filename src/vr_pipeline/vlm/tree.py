"""Requests and their answers as a tree: what several begin with is there once, and is computed once.

A step of the tree is a token of text or a whole visual; steps without a branch between them form a run. Several
subtrees are laid out in one row of a batch, run after run. A token sees what is before it in its own run, the runs
above that one, and what was read earlier, and it stands where it would stand alone. So every request computes exactly
what it would compute alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vr_pipeline.vlm.media import Request, Visual
from vr_pipeline.vlm.packing import IntArray

Step = int | str
"""A token of text, or the key of a visual."""


@dataclass(frozen=True)
class Read:
    """A token of an answer whose probability is read at the step before it.

    Attributes:
        request, answer: their numbers.
        place: which token of the answer.
        token: its number in the vocabulary.
    """

    request: int
    answer: int
    place: int
    token: int


@dataclass
class _Branch:
    """A step of a tree while it grows: what may follow it, and what is read after it."""

    children: dict[Step, _Branch] = field(default_factory=dict)
    reads: list[Read] = field(default_factory=list)

    def grow(self, steps: Sequence[Step]) -> _Branch:
        """Return the end of a path from here, which is made where it is missing."""
        at = self
        for step in steps:
            at = at.children.setdefault(step, _Branch())
        return at


@dataclass
class Run:
    """Steps in a row without a branch between them.

    Attributes:
        steps: tokens of text, and keys of visuals.
        reads: what is read, and after which of the steps.
        start: position of the first token, on all axes.
        tokens: number of tokens, those of visuals included.
        children: runs that may follow.
        all_tokens: number of tokens of this run and all below it.
    """

    steps: list[Step]
    reads: list[tuple[int, Read]]
    start: int
    tokens: int
    children: list[Run] = field(default_factory=list)
    all_tokens: int = 0

    def and_below(self) -> Iterator[tuple[Run, Run | None]]:
        """Yield this run and all below it, each with the one above it (None for this one), from top to bottom."""
        waiting: list[tuple[Run, Run | None]] = [(self, None)]
        while waiting:
            run, above = waiting.pop()
            yield run, above
            waiting.extend((child, run) for child in reversed(run.children))


def grown(visuals: Mapping[str, Visual], requests: Sequence[Request], numbers: Sequence[int]) -> list[Run]:
    """Return the runs with which requests begin, what follows below them.

    The last token of an answer is in no run unless another answer continues after it: nothing is read after it.

    Args:
        visuals: by key.
        requests: see :class:`~vr_pipeline.vlm.media.Request`.
        numbers: of the requests, as reads name them.

    Raises:
        ValueError: a request has no pieces, an answer has no tokens, or there is no visual of a key.
    """
    root = _Branch()
    for number, request in zip(numbers, requests, strict=True):
        steps = _steps(visuals, request)
        end = root.grow(steps)
        for which, answer in enumerate(request.answers):
            if not answer:
                raise ValueError(f"answer {which} of request {number} has no tokens")
            at = end
            for place, token in enumerate(answer):
                at.reads.append(Read(number, which, place, token))
                if place + 1 < len(answer):
                    at = at.grow([token])
    return _in_runs(visuals, root)


def _steps(visuals: Mapping[str, Visual], request: Request) -> list[Step]:
    steps: list[Step] = []
    for piece in request.pieces:
        if isinstance(piece, str):
            if piece not in visuals:
                raise ValueError(f"there is no visual '{piece}'")
            steps.append(piece)
        else:
            steps.extend(piece)
    if not steps:
        raise ValueError("a request has no pieces")
    return steps


def _in_runs(visuals: Mapping[str, Visual], root: _Branch) -> list[Run]:
    first: list[Run] = []
    every: list[tuple[Run, Run | None]] = []
    waiting: list[tuple[Step, _Branch, int, Run | None]] = [
        (step, branch, 0, None) for step, branch in reversed(root.children.items())
    ]
    while waiting:
        step, branch, start, above = waiting.pop()
        run, position = Run([], [], start, 0), start
        while True:
            run.reads.extend((len(run.steps), read) for read in branch.reads)
            run.steps.append(step)
            run.tokens += len(visuals[step].token_ids) if isinstance(step, str) else 1
            position += visuals[step].span if isinstance(step, str) else 1
            if len(branch.children) != 1:
                break
            ((step, branch),) = branch.children.items()
        (first if above is None else above.children).append(run)
        every.append((run, above))
        waiting.extend((step, child, position, run) for step, child in reversed(branch.children.items()))
    for run, above in reversed(every):
        run.all_tokens += run.tokens
        if above is not None:
            above.all_tokens += run.all_tokens
    return first


@dataclass(frozen=True)
class Layout:
    """Runs as arrays.

    Attributes:
        token_ids: [batch, length], 0 where padded.
        positions: [axes, batch, length].
        lengths: tokens of each row, [batch].
        visuals: keys of the visuals, row by row, in the order of their tokens.
        mask: who sees whom, [batch, 1, length, behind + length]; None where every token sees all before it.
        rows, columns: places that are read.
        reads: what is read there.
    """

    token_ids: IntArray
    positions: IntArray
    lengths: IntArray
    visuals: list[str]
    mask: NDArray[np.bool_] | None
    rows: list[int]
    columns: list[int]
    reads: list[Read]


def lay_out(
    visuals: Mapping[str, Visual], rows: Sequence[Sequence[Run]], *, axes: int, behind: int = 0, alone: bool = False
) -> Layout:
    """Lay runs out in rows.

    Args:
        visuals: by key.
        rows: the runs of each row, one after the other; what is below them comes too, unless ``alone``.
        axes: axes of positions.
        behind: number of tokens that were read earlier, which all of these see.
        alone: whether runs come without those below them.
    """
    placed = [_placed(row, alone) for row in rows]
    lengths = np.array([of_row[-1].place.stop for of_row in placed])
    shape = (len(rows), int(lengths.max()))
    token_ids, positions = np.zeros(shape, np.int64), np.zeros((axes, *shape), np.int64)
    found = Layout(token_ids, positions, lengths, [], _mask(placed, shape, behind), [], [], [])
    for row, of_row in enumerate(placed):
        for one in of_row:
            ends = _put(visuals, one.run, token_ids[row, one.place], positions[:, row, one.place])
            found.visuals.extend(step for step in one.run.steps if isinstance(step, str))
            for at, read in one.run.reads:
                found.rows.append(row)
                found.columns.append(one.place.start + ends[at] - 1)
                found.reads.append(read)
    return found


@dataclass(frozen=True)
class _Placed:
    """A run in a row: where it stands, and the last place of the run above it, if there is one."""

    run: Run
    place: slice
    above: int | None


def _placed(row: Sequence[Run], alone: bool) -> list[_Placed]:
    found: list[_Placed] = []
    start = 0
    for root in row:
        of_root: dict[int, _Placed] = {}
        for run, above in [(root, None)] if alone else root.and_below():
            last = None if above is None else of_root[id(above)].place.stop - 1
            of_root[id(run)] = _Placed(run, slice(start, start + run.tokens), last)
            start += run.tokens
        found.extend(of_root.values())
    return found


def _mask(placed: Sequence[Sequence[_Placed]], shape: tuple[int, int], behind: int) -> NDArray[np.bool_] | None:
    if not behind and all(len(of_row) == 1 for of_row in placed):
        return None
    batch, length = shape
    mask = np.zeros((batch, 1, length, behind + length), bool)
    mask[..., :behind] = True
    # Padding sees itself, so that no row of the attention is empty; nothing sees padding.
    mask[..., behind:] = np.eye(length, dtype=bool)
    earlier = np.tri(max(one.run.tokens for of_row in placed for one in of_row), dtype=bool)
    for row, of_row in enumerate(placed):
        for one in of_row:
            seen = mask[row, 0, one.place, behind:]
            seen[:] = False if one.above is None else mask[row, 0, one.above, behind:]
            seen[:, one.place] = earlier[: one.run.tokens, : one.run.tokens]
    return mask


def _put(visuals: Mapping[str, Visual], run: Run, token_ids: IntArray, positions: IntArray) -> list[int]:
    """Write tokens [tokens] and positions [axes, tokens] of a run, and return how many there are up to each step."""
    column, position = 0, run.start
    ends: list[int] = []
    for is_visual, steps in itertools.groupby(run.steps, key=lambda step: isinstance(step, str)):
        of_kind = list(steps)
        if not is_visual:
            place = slice(column, column + len(of_kind))
            token_ids[place] = of_kind
            positions[:, place] = np.arange(position, position + len(of_kind))
            ends.extend(range(column + 1, place.stop + 1))
            column, position = place.stop, position + len(of_kind)
            continue
        for visual in (visuals[str(key)] for key in of_kind):
            place = slice(column, column + len(visual.token_ids))
            token_ids[place] = visual.token_ids
            positions[:, place] = visual.positions + position
            ends.append(place.stop)
            column, position = place.stop, position + visual.span
    return ends
