"""A process of the pool of Ray workers.

In a module of its own, which imports little: each worker loads it when it starts, also one that replaces another.
"""

from collections.abc import Sequence
from time import perf_counter
from typing import Any

from vr_pipeline.runtime.environment import prepare_environment
from vr_pipeline.work import Batch, WorkPlan, made_in_turn

Call = list[Batch]
"""Batches that a worker is sent together."""


class PoolWorker:
    """A process of the pool with its own context.

    A plan's functions are fetched by a call, not by the constructor, where Ray would report errors as a death.
    """

    def __init__(self) -> None:
        prepare_environment()
        self._plan: WorkPlan | None = None
        self._context: Any = None

    def prepare(self, plan: list[Any]) -> None:
        """Load a plan and what it needs; a call of its own, so that it shows whether a worker died before its batches.

        Args:
            plan: a list with the reference to the plan, whose items are left out.
        """
        import ray

        # Free the model of the last plan before the next is loaded.
        self.forget()
        made: WorkPlan = ray.get(plan[0])
        self._context, self._plan = made.setup(), made

    def make(self, batches: Call, following: Batch | None) -> tuple[list[Sequence[Any]], float]:
        """Make batches of the plan.

        Args:
            batches: to make, in this order.
            following: the batch that this worker will probably get next.

        Returns:
            contents of each batch, and the seconds that this took.
        """
        assert self._plan is not None
        start = perf_counter()
        in_turn = made_in_turn(self._plan, self._context, batches, following)
        return [contents for _, contents in in_turn], perf_counter() - start

    def forget(self) -> None:
        """Free the objects of a plan."""
        self._plan = self._context = None
