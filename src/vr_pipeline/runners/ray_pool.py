"""Batches of work over a pool of Ray actors, each with its own model."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Any

from vr_pipeline.errors import PipelineError
from vr_pipeline.runners.config import Execution
from vr_pipeline.runners.ray_worker import Call, PoolWorker
from vr_pipeline.work import Batch, WorkLoop, WorkPlan

logger = logging.getLogger(__name__)

_CALLS_AHEAD = 2
_CALL_SECONDS = 0.5
_DEATHS_OF_A_BATCH = 3
_FAILED_STARTS = 5
"""Workers that may die before their first batch, one after the other, while no batch is finished."""


def pool_loop(execution: Execution) -> WorkLoop:
    """Return a loop over ``execution.workers`` Ray actors, each of which gets new batches after finishing some.

    Batches that take a fraction of a second are sent together. A worker that dies is replaced and its batches are made
    again, unless a batch keeps killing its worker, or workers keep dying while they load the plan; an error of the work
    itself stops the run.
    """
    idle: list[Any] = []

    def loop(plan: WorkPlan, batches: Sequence[Batch]) -> Iterator[tuple[Batch, Sequence[Any]]]:
        if batches:
            yield from _Pool(execution, plan, batches, idle).run()

    return loop


class _Pool:
    """One plan on its way through the workers."""

    def __init__(self, execution: Execution, plan: WorkPlan, batches: Sequence[Batch], idle: list[Any]) -> None:
        import ray

        self._execution, self._plan, self._idle = execution, plan, idle
        self._class = ray.remote(
            num_cpus=execution.num_cpus, num_gpus=execution.num_gpus, resources=execution.resources or None
        )(PoolWorker)
        self._functions = ray.put(plan.without_items())
        self._waiting = deque(batches)
        self._running: dict[Any, tuple[int, Call]] = {}
        """Answers that are awaited: of the worker with this number, to this call; to none while it loads the plan."""
        self._workers = [self._start(number) for number in range(min(execution.workers, len(batches)))]
        self._failed_starts = 0
        self._reserved: dict[int, Call] = {}
        self._deaths: Counter[str] = Counter()
        self._seconds = _CALL_SECONDS
        """Estimate of the time that a batch takes."""

    def run(self) -> Iterator[tuple[Batch, Sequence[Any]]]:
        """Yield each batch with its contents as it is finished."""
        import ray

        try:
            # In turns, so that a short plan is distributed evenly.
            for ahead in range(1, _CALLS_AHEAD + 1):
                for number in range(len(self._workers)):
                    self._feed(number, ahead)
            while any(call for _, call in self._running.values()):
                [finished], _ = ray.wait(list(self._running), num_returns=1)
                yield from self._finish(finished)
            if not self._execution.fresh_workers:
                for worker in self._workers:
                    worker.forget.remote()
                self._idle.extend(self._workers)
                self._workers.clear()
        finally:
            for worker in self._workers:
                ray.kill(worker)

    def _start(self, number: int) -> Any:
        """Return a worker that loads the plan."""
        worker = self._idle.pop() if self._idle else self._class.remote()
        self._running[worker.prepare.remote([self._functions])] = (number, [])
        return worker

    def _finish(self, reference: Any) -> Iterator[tuple[Batch, Sequence[Any]]]:
        import ray

        number, call = self._running[reference]
        try:
            made = ray.get(reference)
        except ray.exceptions.RayActorError as error:
            self._replace(number, error)
        except ray.exceptions.RayTaskError as error:
            raise error.as_instanceof_cause() from None
        else:
            del self._running[reference]
            if not call:
                return
            contents, seconds = made
            self._seconds = (self._seconds + seconds / len(call)) / 2
            self._failed_starts = 0
            self._feed(number)
            yield from zip(call, contents, strict=True)

    def _feed(self, number: int, ahead: int = _CALLS_AHEAD) -> None:
        """Send batches to a worker; the next ones are already with it while it makes some."""
        while sum(owner == number and bool(call) for owner, call in self._running.values()) < ahead:
            call = self._reserved.pop(number, None) or self._take()
            if not call:
                return
            # What comes next is known where files can be read ahead; at the end it would be unevenly distributed.
            if self._plan.ahead is not None and len(self._waiting) > 2 * len(self._workers):
                self._reserved[number] = self._take()
            following = self._reserved[number][0] if number in self._reserved else None
            reference = self._workers[number].make.remote([list(one) for one in call], following)
            self._running[reference] = (number, call)

    def _take(self) -> Call:
        """Return batches that take about half a second, fewer towards the end; one that killed a worker is alone."""
        share = len(self._waiting) // (_CALLS_AHEAD * len(self._workers))
        count = max(1, min(int(_CALL_SECONDS / max(self._seconds, 1e-6)), share))
        call: Call = []
        while self._waiting and len(call) < count:
            suspect = self._deaths[self._waiting[0][0].key] > 0
            if suspect and call:
                break
            call.append(self._waiting.popleft())
            if suspect:
                break
        return call

    def _replace(self, number: int, error: Exception) -> None:
        """Start another worker for what one that died was making."""
        lost = [reference for reference, (owner, _) in self._running.items() if owner == number]
        calls = [self._running.pop(reference)[1] for reference in lost]
        # Calls run in the order in which they were sent.
        if calls[0]:
            self._blame(calls[0], error)
        else:
            self._failed_starts += 1
            if self._failed_starts > _FAILED_STARTS:
                raise PipelineError(
                    f"Workers that are to make {self._plan.description} die while they load what that needs, "
                    f"{self._failed_starts} times in a row: {error}"
                ) from error
        logger.warning("A worker that makes %s died and is replaced", self._plan.description)
        self._waiting.extendleft([batch for call in reversed(calls) for batch in reversed(call)])
        self._workers[number] = self._start(number)
        self._feed(number)

    def _blame(self, call: Call, error: Exception) -> None:
        """Note that a worker died while it made a call.

        Raises:
            PipelineError: one of the batches has been there too often.
        """
        for batch in call:
            self._deaths[batch[0].key] += 1
            if self._deaths[batch[0].key] > _DEATHS_OF_A_BATCH:
                raise PipelineError(
                    f"Workers that make {self._plan.description} keep dying, {self._deaths[batch[0].key]} times while "
                    f"they made '{batch[0].key}': {error}"
                ) from error
