"""Batches of work over a pool of Ray actors, each with its own model."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import Any

from vr_pipeline.errors import PipelineError
from vr_pipeline.runners.config import Execution
from vr_pipeline.runtime.environment import prepare_environment
from vr_pipeline.work import Batch, WorkLoop, WorkPlan, made_in_turn

logger = logging.getLogger(__name__)

_CALLS_AHEAD = 2
_CALL_SECONDS = 0.5
_DEATHS_OF_A_BATCH = 3

Call = list[Batch]
"""Batches that a worker is sent together."""


class _Worker:
    """A process of the pool with its own context.

    A plan's functions are fetched with its first batch, not at the start, where Ray would report errors as a death.
    """

    def __init__(self) -> None:
        prepare_environment()
        self._reference: Any = None
        self._plan: WorkPlan | None = None
        self._context: Any = None

    def make(self, plan: list[Any], batches: Call, following: Batch | None) -> tuple[list[Sequence[Any]], float]:
        """Make batches of a plan.

        Args:
            plan: a list with the reference to the plan, whose items are left out.
            batches: to make, in this order.
            following: the batch that this worker will probably get next.

        Returns:
            contents of each batch, and the seconds that this took.
        """
        import ray

        if self._plan is None or plan[0] != self._reference:
            # Free the model of the last plan before the next is loaded.
            self.forget()
            made: WorkPlan = ray.get(plan[0])
            self._context, self._plan, self._reference = made.setup(), made, plan[0]
        start = perf_counter()
        in_turn = made_in_turn(self._plan, self._context, batches, following)
        return [contents for _, contents in in_turn], perf_counter() - start

    def forget(self) -> None:
        """Free the objects of a plan."""
        self._reference = self._plan = self._context = None


def pool_loop(execution: Execution) -> WorkLoop:
    """Return a loop over ``execution.workers`` Ray actors, each of which gets new batches after finishing some.

    Batches that take a fraction of a second are sent together. A worker that dies is replaced and its batches are made
    again, unless a batch keeps killing its worker; an error of the work itself stops the run.
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
        )(_Worker)
        self._functions = ray.put(plan.without_items())
        self._waiting = deque(batches)
        self._workers = [self._start() for _ in range(min(execution.workers, len(batches)))]
        self._running: dict[Any, tuple[int, Call]] = {}
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
            while self._running:
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

    def _start(self) -> Any:
        return self._idle.pop() if self._idle else self._class.remote()

    def _finish(self, reference: Any) -> Iterator[tuple[Batch, Sequence[Any]]]:
        import ray

        number, call = self._running[reference]
        try:
            contents, seconds = ray.get(reference)
        except ray.exceptions.RayActorError as error:
            self._replace(number, error)
        except ray.exceptions.RayTaskError as error:
            raise error.as_instanceof_cause() from None
        else:
            del self._running[reference]
            self._seconds = (self._seconds + seconds / len(call)) / 2
            self._feed(number)
            yield from zip(call, contents, strict=True)

    def _feed(self, number: int, ahead: int = _CALLS_AHEAD) -> None:
        """Send batches to a worker; the next ones are already with it while it makes some."""
        while sum(owner == number for owner, _ in self._running.values()) < ahead:
            call = self._reserved.pop(number, None) or self._take()
            if not call:
                return
            # What comes next is known where files can be read ahead; at the end it would be unevenly distributed.
            if self._plan.ahead is not None and len(self._waiting) > 2 * len(self._workers):
                self._reserved[number] = self._take()
            following = self._reserved[number][0] if number in self._reserved else None
            reference = self._workers[number].make.remote([self._functions], [list(one) for one in call], following)
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
        for batch in calls[0]:
            self._deaths[batch[0].key] += 1
            if self._deaths[batch[0].key] > _DEATHS_OF_A_BATCH:
                raise PipelineError(
                    f"Workers that make {self._plan.description} keep dying, {self._deaths[batch[0].key]} times while "
                    f"they made '{batch[0].key}': {error}"
                ) from error
        logger.warning("A worker that makes %s died and is replaced", self._plan.description)
        self._waiting.extendleft([batch for call in reversed(calls) for batch in reversed(call)])
        self._workers[number] = self._start()
        self._feed(number)
