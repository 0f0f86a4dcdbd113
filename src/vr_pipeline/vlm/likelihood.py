"""Likelihood of whole answers to requests with several clips and images.

Nothing is generated. The answers of a request stand behind it as a tree, so that what several begin with is computed
once, and a scale of 0 to 100 costs little more than one answer.

:func:`log_likelihoods` is one pass, for training. :class:`SharedReader` is for inference: a visual goes through the
vision tower once, and what several requests begin with is read once.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vr_pipeline.errors import InputError
from vr_pipeline.runtime.memory import free_memory
from vr_pipeline.vlm.families.base import Family
from vr_pipeline.vlm.media import Request, Visual
from vr_pipeline.vlm.prefix import decode, unless_out_of_memory
from vr_pipeline.vlm.states import State, cache_from, new_cache, state_of_row
from vr_pipeline.vlm.tree import Layout, Read, Run, grown, lay_out

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

ROW_TOKENS = 512
"""Requests that continue differently share a row of a batch, up to so many tokens and as many as they have in common:
rows of their own would each copy the keys and values that they have in common."""

READS_AT_A_TIME = 256
"""Places whose scores over the vocabulary are held at a time, at inference."""


def log_likelihoods(family: Family, visuals: Mapping[str, Visual], requests: Sequence[Request]) -> list[torch.Tensor]:
    """Return the log-probability of every token of every answer, from one pass; differentiable.

    Args:
        family: the model.
        visuals: by key, as :meth:`~vr_pipeline.vlm.families.base.Family.visual` gives them; those that requests name
            go through the vision tower once each.
        requests: of any lengths and sizes.

    Returns:
        for each request, float32 [answers, tokens of the longest answer], 0 where padded. Each is the logarithm of the
        probability of the token given the request and the answer's tokens before it.

    Raises:
        InputError: the family cannot read the pieces of a request in their order.
        ValueError: a request has no pieces, an answer has no tokens, or there is no visual of a key.
    """
    if not requests:
        return []
    if family.recurrent and any(len(request.answers) > 1 for request in requests):
        # No mask keeps the answers of one row from each other there.
        alone = [replace(request, answers=(answer,)) for request in requests for answer in request.answers]
        found = iter(log_likelihoods(family, visuals, alone))
        return [_padded([next(found)[0] for _ in request.answers]) for request in requests]
    rows = [_grown(family, visuals, [request], [number]) for number, request in enumerate(requests)]
    layout = lay_out(visuals, rows, axes=family.position_axes)
    features = _features_of(family, visuals, list(dict.fromkeys(layout.visuals)))
    hidden = _hidden(family, layout, features)
    return _by_request(requests, layout, _log_probabilities(family, hidden, layout))


def _padded(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    import torch

    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True) if rows else torch.zeros(0, 0)


class SharedReader:
    """Reads answers' likelihoods for inference: every visual once, and once what several requests begin with.

    Features of visuals are kept as long as the reader, keys and values of a common beginning until all that continues
    behind it is read.

    Args:
        family: the model, in evaluation mode.
        visuals: by key, as :meth:`~vr_pipeline.vlm.families.base.Family.visual` gives them.
        batch: rows that are read, and visuals that are encoded, at a time; halved when memory runs out.
    """

    def __init__(self, family: Family, visuals: Mapping[str, Visual], *, batch: int = 16) -> None:
        self.family, self.visuals = family, visuals
        self._rows, self._encoded = batch, batch
        self._features: dict[str, torch.Tensor] = {}

    def read(self, requests: Sequence[Request]) -> list[NDArray[np.float64]]:
        """Return the log-likelihood of every answer to every request.

        Args:
            requests: of any lengths and sizes; those that begin alike, with the same visuals, share what they begin
                with if they are read in one call.

        Returns:
            for each request, [answers]: the sum over an answer's tokens. All are NaN where the model gave no finite
            numbers, as float16 does where it overflows: that is no answer, and the other requests have theirs.

        Raises:
            InputError: the family cannot read the pieces of a request in their order, or memory runs out on one alone.
            ValueError: a request has no pieces, an answer has no tokens, or there is no visual of a key.
        """
        import torch

        with torch.inference_mode():
            found = self._read(requests)
            for number, sums in enumerate(found):
                if np.isfinite(sums).all():
                    continue
                # It spoils all that shares a row with it: alone, each request shows whether it is the one.
                (alone,) = self._read([requests[number]])
                found[number] = alone if np.isfinite(alone).all() else np.full_like(alone, np.nan)
        return found

    def _read(self, requests: Sequence[Request]) -> list[NDArray[np.float64]]:
        sums = [np.zeros(len(request.answers)) for request in requests]
        runs = _grown(self.family, self.visuals, requests, range(len(requests)))
        waiting = _tasks(runs, None, 0, apart=self.family.recurrent)
        while waiting:
            task = waiting.pop()
            now, later = task.rows[: self._rows], task.rows[self._rows :]
            if later:
                waiting.append(replace(task, rows=later))
            task = replace(task, rows=now)
            done = unless_out_of_memory(partial(self._done, task))
            if done is None:
                waiting.append(self._smaller(task))
                continue
            reads, values, behind = done
            for read, value in zip(reads, values, strict=True):
                sums[read.request][read.answer] += value
            waiting.extend(behind)
        return sums

    def _done(self, task: _Task) -> tuple[list[Read], list[float], list[_Task]]:
        """Return what was read in the rows of a task, and what is to be read behind them."""
        layout = lay_out(
            self.visuals, task.rows, axes=self.family.position_axes, behind=task.behind, alone=task.goes_on
        )
        self._encode(layout.visuals)
        cache = None
        if task.state is not None:
            cache = cache_from(task.state, len(task.rows))
        elif task.goes_on:
            cache = new_cache(self.family)
        hidden = _hidden(self.family, layout, self._features, cache)
        values = _log_probabilities(self.family, hidden, layout, READS_AT_A_TIME).tolist()
        behind: list[_Task] = []
        if task.goes_on and cache is not None:
            for row, (run,) in enumerate(task.rows):
                count = task.behind + int(layout.lengths[row])
                behind += _tasks(run.children, state_of_row(cache, row, count), count, apart=self.family.recurrent)
        return layout.reads, values, behind

    def _smaller(self, task: _Task) -> _Task:
        """Return a task that needs less memory at a time; rows are halved, then what shares a row is read apart."""
        free_memory(anyway=True)
        rows = task.rows
        if len(rows) > 1:
            self._rows = len(rows) // 2
            logger.warning("Memory ran out: now reading %d rows at a time.", self._rows)
            return task
        if len(rows[0]) == 1:
            tokens = task.behind + (rows[0][0].tokens if task.goes_on else rows[0][0].all_tokens)
            raise _too_large(f"a request and its answers, {tokens} tokens")
        half = len(rows[0]) // 2
        return replace(task, rows=[rows[0][:half], rows[0][half:]])

    def _encode(self, keys: Sequence[str]) -> None:
        """Have the vision tower read the visuals that it has not read yet, those of one size together."""
        missing = [key for key in dict.fromkeys(keys) if key not in self._features]
        missing.sort(key=lambda key: _size(self.visuals[key]))
        while missing:
            size = _size(self.visuals[missing[0]])
            now = [key for key in missing[: self._encoded] if _size(self.visuals[key]) == size]
            found = unless_out_of_memory(partial(_features_of, self.family, self.visuals, now))
            if found is None:
                free_memory(anyway=True)
                if len(now) == 1:
                    raise _too_large(f"one clip or image of {len(self.visuals[now[0]].token_ids)} tokens")
                self._encoded = len(now) // 2
                logger.warning("Memory ran out: now encoding %d clips at a time.", self._encoded)
                continue
            self._features |= found
            missing = missing[len(now) :]


@dataclass(frozen=True)
class _Task:
    """Rows to be read behind what was read before.

    Attributes:
        rows: runs of each row.
        state: what the decoder keeps of what was read before; None where nothing was.
        behind: number of tokens that were read before.
        goes_on: whether each row is one run without those below it, which are read behind its own state.
    """

    rows: list[list[Run]]
    state: State | None
    behind: int
    goes_on: bool


def _tasks(runs: Sequence[Run], state: State | None, behind: int, *, apart: bool) -> list[_Task]:
    """Return what is to be read of runs that stand behind the same tokens.

    With ``apart`` no mask can keep runs of one row from each other, as in recurrent layers. Each is then a row, and
    those with others below them are read with those of the same length, as padding would change their states.
    """
    long = [run for run in runs if run.children and (apart or run.all_tokens > ROW_TOKENS)]
    short = [run for run in runs if not run.children or not (apart or run.all_tokens > ROW_TOKENS)]
    # Rows of about the same length are read together, with little padding.
    long.sort(key=lambda run: run.tokens, reverse=True)
    short.sort(key=lambda run: run.all_tokens, reverse=True)
    rows = [[run] for run in short] if apart else _rows(short, min(ROW_TOKENS, behind))
    parts = [list(part) for _, part in itertools.groupby(long, key=lambda run: run.tokens)] if apart else [long]
    tasks = [_Task(rows, state, behind, goes_on=False)]
    tasks += [_Task([[run] for run in part], state, behind, goes_on=True) for part in parts]
    return [task for task in tasks if task.rows]


def _rows(runs: Sequence[Run], most: int) -> list[list[Run]]:
    """Return runs in rows of at most so many tokens, or of one run."""
    rows: list[list[Run]] = []
    room = 0
    for run in runs:
        if run.all_tokens > room:
            rows.append([])
            room = most
        rows[-1].append(run)
        room -= run.all_tokens
    return rows


def _too_large(what: str) -> InputError:
    return InputError(
        f"memory runs out on {what}",
        remedy="Take fewer frames (num_frames) or smaller ones (max_pixels), or a quantised model",
    )


def _size(visual: Visual) -> list[tuple[str, tuple[int, ...]]]:
    return sorted((name, array.shape) for name, array in visual.vision.items())


def _grown(
    family: Family, visuals: Mapping[str, Visual], requests: Sequence[Request], numbers: Sequence[int]
) -> list[Run]:
    runs = grown(visuals, requests, numbers)
    for request in requests:
        family.check_order([visuals[piece] if isinstance(piece, str) else piece for piece in request.pieces])
    return runs


def _features_of(family: Family, visuals: Mapping[str, Visual], keys: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return visual tokens by key, [tokens, hidden] each, from one call of the vision tower."""
    if not keys:
        return {}
    features = family.vision_features([visuals[key] for key in keys])
    counts = [int(family.is_visual(visuals[key].token_ids).sum()) for key in keys]
    return dict(zip(keys, features.split(counts), strict=True))


def _hidden(family: Family, layout: Layout, features: Mapping[str, torch.Tensor], cache: Any = None) -> torch.Tensor:
    """Return the decoder's last hidden states of a layout, [batch, length, hidden]."""
    import torch

    inside = np.arange(layout.token_ids.shape[1])[None, :] < layout.lengths[:, None]
    visual = family.is_visual(layout.token_ids) & inside
    shown = torch.cat([features[key] for key in layout.visuals]) if layout.visuals else None
    return decode(family, family.embed_mixed(layout.token_ids, visual, shown), layout.positions, layout.mask, cache)


def _log_probabilities(
    family: Family, hidden: torch.Tensor, layout: Layout, at_a_time: int | None = None
) -> torch.Tensor:
    """Return the log-probability of every read, float32 [reads], of hidden states [batch, length, hidden].

    Scores over the vocabulary are held for so many reads at a time; None for all.
    """
    import torch

    parts = [hidden.new_zeros(0, dtype=torch.float32)]
    count = len(layout.reads)
    for start in range(0, count, at_a_time or max(count, 1)):
        some = slice(start, start + (at_a_time or count))
        places: dict[tuple[int, int], int] = {}
        which = [places.setdefault(at, len(places)) for at in zip(layout.rows[some], layout.columns[some], strict=True)]
        rows, columns = torch.tensor(list(places), device=hidden.device).unbind(dim=1)
        over_vocabulary = torch.log_softmax(family.logits(hidden[rows, columns]), dim=-1)
        tokens = torch.tensor([read.token for read in layout.reads[some]], device=hidden.device)
        parts.append(over_vocabulary[torch.tensor(which, device=hidden.device), tokens])
    return torch.cat(parts)


def _by_request(requests: Sequence[Request], layout: Layout, values: torch.Tensor) -> list[torch.Tensor]:
    """Return values of reads as [answers, longest answer] for each request."""
    import torch

    places: list[list[tuple[int, int, int]]] = [[] for _ in requests]
    for number, read in enumerate(layout.reads):
        places[read.request].append((read.answer, read.place, number))
    found = []
    for request, of_request in zip(requests, places, strict=True):
        shape = (len(request.answers), max(map(len, request.answers), default=0))
        empty = values.new_zeros(shape)
        if of_request:
            answers, columns, numbers = torch.tensor(of_request, device=values.device).unbind(dim=1)
            empty = empty.index_put((answers, columns), values[numbers])
        found.append(empty)
    return found
