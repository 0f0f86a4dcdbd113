"""Repeat an old run with its code, changes, parameters and data in a separate worktree, and compare the results."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from vr_pipeline.errors import InputError
from vr_pipeline.lineage.chain import Execution, executions, trace
from vr_pipeline.lineage.compare import Change, by_weight, changes, environment, listed
from vr_pipeline.lineage.provenance import all_packages, machine
from vr_pipeline.lineage.runs import Run, RunStore
from vr_pipeline.lineage.trust import check_record, recorded_patch, require_trust
from vr_pipeline.lineage.worktree import StageOutcome, Worktree


@dataclass(frozen=True)
class Reproduction:
    """The comparison.

    Args:
        again: upstream stages that had to run too, because their results are not stored.
        environment: differences of machine and packages that could explain others.
        troubles: sentences on what the record of the old run lacks.
    """

    outcomes: list[StageOutcome]
    again: list[str] = field(default_factory=list)
    environment: list[Change] = field(default_factory=list)
    troubles: tuple[str, ...] = ()

    @property
    def first_difference(self) -> StageOutcome | None:
        return next((outcome for outcome in self.outcomes if not outcome.same), None)


def reproduce(
    store: RunStore,
    run: Run,
    project: Path,
    folder: Path,
    *,
    stop_early: bool = False,
    trust: bool = False,
    say: Callable[[str], None],
) -> Reproduction:
    """Run the stages of ``run`` again and compare every hash.

    Args:
        store: has the run and those that made its inputs.
        folder: of the worktree; it must not exist.
        stop_early: stop after the first stage that differs.
        trust: also run code, changes and parameters recorded by others.

    Raises:
        InputError: code or data of the run are no longer available, the store has other changes than the run
            recorded, or they come from others and are not trusted.
    """
    wanted = {(run.id, name) for name, stage in run.stages().items() if stage["complete"]}
    if not wanted:
        raise InputError(
            f"run {run.short} ({run.name}) completed no stage", remedy="name a run that did: 'kedro lineage show'"
        )
    chain = executions(trace(store, run))
    for behind in {execution.run.id: execution.run for execution in chain}.values():
        check_record(behind)
    found: dict[tuple[str, str, str], Worktree] = {}

    def tree_of(run: Run) -> Worktree:
        """Return the worktree of a run's code: runs share one if commit, changes and environment are the same."""
        patch = recorded_patch(store, run)
        key = (str(run.record["code"]["commit"]), patch, str(run.record["environment"]))
        if key not in found:
            place = folder if not found else folder.with_name(f"{folder.name}-{run.short}")
            tree = Worktree(project, place, run, say, require_trust(project, run, patch, trust=trust, say=say))
            tree.check_out(patch)
            tree.write_lock(chain)
            found[key] = tree
        return found[key]

    tree_of(run)
    again = _supply(chain, wanted, tree_of)
    if again:
        say(f"Results of {', '.join(execution.stage for execution in again)} are in no cache: these stages run too.")
    running = {execution.key: execution for execution in chain if execution.key in wanted or execution in again}
    outcomes: list[StageOutcome] = []
    for execution in running.values():
        tree = tree_of(execution.run)
        for content, maker in execution.inputs.items():
            if maker.key in running:
                tree.take_over(content, tree_of(maker.run))
        say(f"Running {execution.stage} ...")
        outcomes.append(tree.run_stage(execution))
        if outcomes[-1].failure or (stop_early and not outcomes[-1].same):
            break
    now = environment({"machine": machine(), "packages": all_packages()})
    return Reproduction(
        outcomes=outcomes,
        again=[execution.stage for execution in again],
        environment=changes(environment(run.record), now),
        troubles=tuple(run.record.get("troubles", ())),
    )


def _supply(
    chain: list[Execution], wanted: set[tuple[str, str]], tree_of: Callable[[Run], Worktree]
) -> list[Execution]:
    """Copy the inputs of the wanted executions into their worktrees.

    Returns:
        further executions that have to run, because their results are not stored; makers first.

    Raises:
        InputError: data that no stage makes are not available.
    """
    again: set[tuple[str, str]] = set()
    # Backwards, since a stage that has to run needs its inputs too.
    for execution in reversed(chain):
        if execution.key not in wanted | again:
            continue
        tree = tree_of(execution.run)
        for content in execution.raw:
            if not tree.obtain(content):
                raise InputError(
                    f"an input of stage {execution.stage} is not stored anywhere: {content.path} with the hash "
                    f"{content.md5}",
                    remedy="restore the file, or pull it into DVC's cache",
                    file=content.path,
                )
        for content, maker in execution.inputs.items():
            if maker.key not in wanted | again and not tree.obtain(content):
                again.add(maker.key)
    return [execution for execution in chain if execution.key in again]


def report_lines(result: Reproduction, most: int = 8) -> list[str]:
    """Return the comparison as text, the verdict last."""
    shown = []
    for outcome in result.outcomes:
        if outcome.failure:
            shown.append(f"{outcome.stage}: failed\n{outcome.failure}")
            continue
        verdict = "the same" if outcome.same else f"differs in {', '.join(outcome.different)}"
        supplied = "  (ran again to supply data)" if outcome.stage in result.again else ""
        shown += [f"{outcome.stage}: {verdict}{supplied}", *listed(by_weight(outcome.metrics), most)]
    shown += [f"Not recorded: {trouble}" for trouble in result.troubles]
    first = result.first_difference
    if first is None:
        return [*shown, f"Reproduced: every hash of {len(result.outcomes)} stage(s) is equal."]
    if result.environment:
        shown += ["Differences in the environment that could be the cause:", *listed(result.environment, most)]
    else:
        shown.append("The environment is the same.")
    verdict = "failed" if first.failure else "is the first stage that differs"
    return [*shown, f"NOT reproduced: {first.stage} {verdict}."]
