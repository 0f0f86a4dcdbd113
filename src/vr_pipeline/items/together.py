"""Work plans executed by all processes that train together, of which only the main one writes.

A batch gives the same result in every process (:class:`~vr_pipeline.work.WorkPlan` fixes the batches), so the number of
processes does not matter.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from vr_pipeline.engine.groups import Group
from vr_pipeline.work import Batch, WorkLoop, WorkPlan


def shared_loop(group: Group) -> WorkLoop:
    """Return the loop of the main process, which gives every process a batch at a time and collects their contents.

    The others must be in :func:`follow` with the same plan; :func:`release` ends that.
    """

    def loop(plan: WorkPlan, batches: Sequence[Batch]) -> Iterator[tuple[Batch, Sequence[Any]]]:
        places = {batch[0].key: place for place, batch in enumerate(plan.batches())}
        work = _Work(plan)
        for start in range(0, len(batches), group.size):
            some = batches[start : start + group.size]
            group.from_main([places[batch[0].key] for batch in some])
            made = group.to_main(work.batch(some[0]))
            yield from zip(some, made, strict=False)

    return loop


def follow(group: Group, plan: WorkPlan) -> None:
    """Make the batches that the main process assigns to this one, until there are no more."""
    batches, work = plan.batches(), _Work(plan)
    none: list[int] = []
    while places := group.from_main(none):
        mine = places[group.rank : group.rank + 1]
        group.to_main(work.batch(batches[mine[0]]) if mine else None)


def release(group: Group) -> None:
    """Let the other processes, which :func:`follow`, know that the plan is finished."""
    group.from_main([])


class _Work:
    """Makes batches of a plan, whose context is set up before the first one."""

    def __init__(self, plan: WorkPlan) -> None:
        self._plan = plan
        self._context: list[Any] = []

    def batch(self, batch: Batch) -> Sequence[Any]:
        if not self._context:
            self._context.append(self._plan.setup())
        return self._plan.make_batch(self._context[0], batch)
