"""Requests as a tree: nothing is there twice, and every token sees and stands as in its own request."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vr_pipeline.vlm.media import Request, Visual
from vr_pipeline.vlm.tree import grown, lay_out

AXES = 3
PLACEHOLDER = 99


def _visual(tokens: int, span: int) -> Visual:
    positions = np.random.default_rng(tokens).integers(0, span, (AXES, tokens))
    return Visual(np.full(tokens, PLACEHOLDER), positions, span)


# More tokens than positions and the other way round, as clips of many rows or many frames have.
VISUALS = {"a": _visual(1, 1), "b": _visual(4, 2), "c": _visual(3, 7)}

texts = st.lists(st.integers(0, 2), min_size=1, max_size=4).map(tuple)
pieces = st.lists(texts | st.sampled_from(sorted(VISUALS)), min_size=1, max_size=4).map(tuple)
requests_of_any_shape = st.lists(
    st.builds(Request, pieces, st.lists(texts, min_size=1, max_size=4).map(tuple)), min_size=1, max_size=6
)


def _alone(request: Request, answer: tuple[int, ...]) -> tuple[list[int], list[tuple[int, ...]]]:
    """Tokens and positions of a request and an answer, one after the other."""
    tokens: list[int] = []
    positions: list[tuple[int, ...]] = []
    start = 0
    for piece in (*request.pieces, answer):
        if isinstance(piece, str):
            visual = VISUALS[piece]
            tokens += visual.token_ids.tolist()
            positions += [tuple(column) for column in (visual.positions.T + start).tolist()]
            start += visual.span
        else:
            tokens += piece
            positions += [(start + at,) * AXES for at in range(len(piece))]
            start += len(piece)
    return tokens, positions


def _prefixes(request: Request) -> set[tuple[Any, ...]]:
    """What the model has to read for a request: each beginning of it, and of its answers but for their last tokens."""
    steps = [step for piece in request.pieces for step in ([piece] if isinstance(piece, str) else piece)]
    paths = [(*steps, *answer[:-1]) for answer in request.answers]
    return {path[:count] for path in paths for count in range(1, len(path) + 1)}


@given(requests_of_any_shape, st.integers(1, 3), st.integers(0, 2))
def test_every_token_sees_and_stands_as_alone_and_nothing_is_there_twice(
    requests: list[Request], rows: int, behind: int
) -> None:
    runs = grown(VISUALS, requests, range(len(requests)))
    layout = lay_out(VISUALS, [runs[at::rows] for at in range(min(rows, len(runs)))], axes=AXES, behind=behind)

    every = {path for request in requests for path in _prefixes(request)}
    tokens = sum(len(VISUALS[path[-1]].token_ids) if isinstance(path[-1], str) else 1 for path in every)
    assert layout.lengths.sum() == tokens == sum(run.all_tokens for run in runs)

    read = {(one.request, one.answer, one.place): one.token for one in layout.reads}
    expected = {
        (number, which, place): token
        for number, request in enumerate(requests)
        for which, answer in enumerate(request.answers)
        for place, token in enumerate(answer)
    }
    assert read == expected
    length = layout.token_ids.shape[1]
    mask = np.tril(np.ones((len(layout.lengths), 1, length, length), bool)) if layout.mask is None else layout.mask
    for row, column, one in zip(layout.rows, layout.columns, layout.reads, strict=True):
        request = requests[one.request]
        seen = np.flatnonzero(mask[row, 0, column, behind:])
        assert column < layout.lengths[row]
        found = [tuple(place) for place in layout.positions[:, row, seen].T.tolist()]
        assert (layout.token_ids[row, seen].tolist(), found) == _alone(
            request, request.answers[one.answer][: one.place]
        )
        # What is read early is seen by all; and those that are seen see the same, as far as they are before.
        assert mask[row, 0, column, :behind].all()
        for at, place in enumerate(seen):
            assert np.flatnonzero(mask[row, 0, place, behind:]).tolist() == seen[: at + 1].tolist()
    assert mask.any(axis=-1).all()


@given(requests_of_any_shape)
def test_runs_alone_leave_out_what_is_below(requests: list[Request]) -> None:
    runs = grown(VISUALS, requests, range(len(requests)))
    layout = lay_out(VISUALS, [[run] for run in runs], axes=AXES, alone=True)
    assert layout.lengths.tolist() == [run.tokens for run in runs]
    assert layout.mask is None
    assert [one for run in runs for _, one in run.reads] == layout.reads
    # A run ends where requests part, or where they end.
    assert all(len(run.children) != 1 for run in runs)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request((), ((1,),)), "no pieces"),
        (Request(((),), ((1,),)), "no pieces"),
        (Request(((1,),), ((1,), ())), "answer 1 of request 4 has no tokens"),
        (Request(("z",), ((1,),)), "no visual 'z'"),
    ],
)
def test_requests_that_cannot_be_read(request_: Request, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grown(VISUALS, [request_], [4])
