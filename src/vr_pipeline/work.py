"""Long work over many independent items, described apart from where its results are kept and where it runs.

A node that makes thousands of clips does not make them: it returns a :class:`WorkPlan`. The catalog entry that
receives the plan (:class:`vr_pipeline.datasets.manifest.ManifestFolderDataset`) knows which items are already on
disk, and asks a :data:`WorkLoop` for the rest. So a node stays a pure function, a killed run loses at most one
batch, and the loop can be replaced by one that spreads batches over workers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class WorkItem:
    """One item to make.

    Args:
        key: names the item within its folder, unique within the plan; usually an identifier such as a video_id.
        identity: content hash of everything that determines the item (model, settings, seed, inputs). An item on
            disk is taken for finished only if it was made under the same identity.
        metadata: scalars that are recorded beside the item and become columns of the folder's records.
    """

    key: str
    identity: str
    metadata: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True)
class ItemFailure:
    """Stands in a batch's results for an item that could not be made: recorded with its reason, the rest continues.

    Failed items are tried again by the next run.
    """

    reason: str


def _no_setup() -> None:
    return None


@dataclass(frozen=True)
class WorkPlan:
    """Items to make and how to make them.

    Batches are fixed chunks of ``items`` in this order. A batch of which some items are missing is computed whole, so
    that results do not depend on what was there before: another batch size can move floating point results.

    Args:
        items: all items of the folder, in the order in which they are batched.
        make_batch: called as ``make_batch(context, items_of_one_batch)``; returns one content or
            :class:`ItemFailure` an item, in the same order. Exceptions stop the run, finished items are kept.
        batch_size: items a batch; part of what determines the results, so it belongs into the identities.
        description: what the items are, a plural noun for the progress bar and for messages.
        setup: called once, and only if something is missing; returns the context (a loaded model).
        batch_sizes: items of each batch in turn, where they differ; together they are all items.
        ahead: called as ``ahead(context, batch)`` with the batch that probably comes next, while another is made. It
            starts to read what that batch needs, returns at once and raises nothing; results do not depend on it.
    """

    items: Sequence[WorkItem]
    make_batch: Callable[[Any, Sequence[WorkItem]], Sequence[Any]]
    batch_size: int = 1
    description: str = "items"
    setup: Callable[[], Any] = _no_setup
    batch_sizes: Sequence[int] | None = None
    ahead: Callable[[Any, Sequence[WorkItem]], None] | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")

    def batches(self) -> list[Sequence[WorkItem]]:
        """Return the items in fixed chunks of ``batch_size``, the last one possibly shorter."""
        if self.batch_sizes is not None:
            ends = list(accumulate(self.batch_sizes))
            return [self.items[end - size : end] for size, end in zip(self.batch_sizes, ends, strict=True)]
        return [self.items[start : start + self.batch_size] for start in range(0, len(self.items), self.batch_size)]

    def without_items(self) -> "WorkPlan":
        """Return what a worker needs of the plan: batches bring their items."""
        return replace(self, items=(), batch_sizes=None)


def joined_plan(
    plans: Mapping[str, WorkPlan], description: str, close: Callable[[str], None] | None = None
) -> WorkPlan:
    """Join plans into one folder: keys begin with the name of the plan, models are loaded when their turn comes.

    Args:
        plans: by a name of letters and digits; their batches stay as they are.
        description: what the items are.
        close: called with the name of a plan whose model makes room for the next.
    """
    items: list[WorkItem] = []
    own: dict[str, tuple[str, WorkItem]] = {}
    for name, plan in plans.items():
        for item in plan.items:
            joined = replace(item, key=f"{name}-{item.key}", metadata={**item.metadata, "part": name})
            items.append(joined)
            own[joined.key] = (name, item)

    def make(contexts: dict[str, Any], batch: Batch) -> Sequence[Any]:
        name = own[batch[0].key][0]
        if name not in contexts:
            # One model at a time is in memory.
            for finished in list(contexts):
                del contexts[finished]
                if close is not None:
                    close(finished)
            contexts[name] = plans[name].setup()
        return plans[name].make_batch(contexts[name], [own[item.key][1] for item in batch])

    sizes = [len(batch) for plan in plans.values() for batch in plan.batches()]
    return WorkPlan(items, make, description=description, setup=dict, batch_sizes=sizes)


Batch = Sequence[WorkItem]
WorkLoop = Callable[[WorkPlan, Sequence[Batch]], Iterator[tuple[Batch, Sequence[Any]]]]


def run_in_process(plan: WorkPlan, batches: Sequence[Batch]) -> Iterator[tuple[Batch, Sequence[Any]]]:
    """Make one batch after the other in one context: the plain loop.

    Yields:
        each batch with its contents, as soon as it is made. A loop over several workers may yield in any order.
    """
    if not batches:
        return
    yield from made_in_turn(plan, plan.setup(), batches)


def made_in_turn(
    plan: WorkPlan, context: Any, batches: Sequence[Batch], following: Batch | None = None
) -> Iterator[tuple[Batch, Sequence[Any]]]:
    """Make one batch after the other; what the next one reads may be read while one is made.

    Args:
        plan: says how.
        context: what the plan's setup returned.
        batches: to make, in this order.
        following: the batch that comes after these, if it is known.
    """
    for batch, after in zip(batches, [*batches[1:], following], strict=True):
        if plan.ahead is not None and after is not None:
            plan.ahead(context, after)
        yield batch, plan.make_batch(context, batch)


_current_loop: ContextVar[WorkLoop] = ContextVar("vr_pipeline_work_loop", default=run_in_process)


def current_loop() -> WorkLoop:
    """Return the loop that executes plans: :func:`run_in_process` unless :func:`use_loop` says otherwise."""
    return _current_loop.get()


@contextmanager
def use_loop(loop: WorkLoop) -> Iterator[None]:
    """Execute plans by ``loop`` within the block; runners use it to spread batches over workers."""
    token = _current_loop.set(loop)
    try:
        yield
    finally:
        _current_loop.reset(token)
