"""Several clips and images in one request, in any order with text, and the answers that may follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vr_pipeline.vlm.packing import IntArray


@dataclass(frozen=True)
class Visual:
    """One clip or image, cut and normalised, without a template's text around it.

    Attributes:
        token_ids: a placeholder for each visual token, and the family's own tokens around them, [tokens].
        positions: of these tokens for the language model's rotary embedding, from 0 on, [axes, tokens].
        span: by how much the position of what follows moves on, on all axes.
        vision: what the vision tower wants; arrays with the visual axis first.
    """

    token_ids: IntArray
    positions: IntArray
    span: int
    vision: dict[str, NDArray[Any]] = field(default_factory=dict)


def in_a_row(pieces: Sequence[Visual | Sequence[int]], axes: int) -> Visual:
    """Return text and visuals one after the other; each stands above all before it, on all axes.

    The pixels are those of the only piece that has some; with several, the caller keeps them in order.
    """
    start, token_ids, positions = 0, [np.zeros(0, np.int64)], [np.zeros((axes, 0), np.int64)]
    for piece in pieces:
        if isinstance(piece, Visual):
            token_ids.append(piece.token_ids)
            positions.append(piece.positions + start)
            start += piece.span
        else:
            token_ids.append(np.array(piece, np.int64))
            positions.append(text_positions(start, len(piece), axes))
            start += len(piece)
    vision = [piece.vision for piece in pieces if isinstance(piece, Visual) and piece.vision]
    row = np.concatenate(token_ids), np.concatenate(positions, axis=1), start
    return Visual(*row, vision[0] if len(vision) == 1 else {})


Piece = str | tuple[int, ...]
"""The key of a visual, or tokens of text."""


@dataclass(frozen=True)
class Request:
    """Text and visuals in order, and answers that may follow.

    Attributes:
        pieces: keys of visuals, and tokens of the text between them.
        answers: tokens of whole answers, one or more each. An answer that others begin with needs the token that ends
            it: without one, "1" is as likely as all that begin with it.
    """

    pieces: tuple[Piece, ...]
    answers: tuple[tuple[int, ...], ...]


def text_positions(start: int, count: int, axes: int) -> IntArray:
    """Return positions of tokens of text, [axes, count]: counted on by one, the same on all axes."""
    return np.broadcast_to(np.arange(start, start + count), (axes, count)).copy()
