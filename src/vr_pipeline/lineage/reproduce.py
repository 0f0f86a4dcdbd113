"""Running an old run again: its code, changes, parameters and data in a separate worktree, then a comparison."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from vr_pipeline.errors import InputError
from vr_pipeline.lineage.chain import Content, Execution, executions, trace
from vr_pipeline.lineage.compare import Change, by_weight, changes, environment_changes, listed
from vr_pipeline.lineage.figures import numbers
from vr_pipeline.lineage.hashes import Digest, digest, ignored_names
from vr_pipeline.lineage.project import LOCK_FILE, STAGES_FILE, stages_file
from vr_pipeline.lineage.provenance import all_packages, machine
from vr_pipeline.lineage.repository import Git, GitTrouble, git, patched_files
from vr_pipeline.lineage.runs import Run, RunStore
from vr_pipeline.lineage.secrets import holds_redaction
from vr_pipeline.lineage.trust import check_record, recorded_patch, require_trust
from vr_pipeline.project.configuration import SteadyConfigLoader, layers
from vr_pipeline.terminal import one_line

_TAIL = 25


@dataclass(frozen=True)
class StageOutcome:
    """What a stage gave the second time.

    Args:
        stage: its name.
        different: outputs whose content differs, or that are missing.
        failure: the end of what it printed, if it failed.
        metrics: figures of the stage that moved.
    """

    stage: str
    different: tuple[str, ...] = ()
    failure: str = ""
    metrics: tuple[Change, ...] = ()

    @property
    def same(self) -> bool:
        return not self.different and not self.failure


@dataclass(frozen=True)
class Reproduction:
    """The comparison.

    Args:
        run: the old run.
        folder: the worktree.
        outcomes: by stage, in order.
        again: upstream stages that had to run too, because their results are kept nowhere.
        environment: differences of machine and packages that could explain others.
        troubles: what the record of the old run lacks, in sentences.
    """

    run: Run
    folder: Path
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
    tell: Callable[[str], None],
) -> Reproduction:
    """Run the stages of ``run`` again and compare every hash.

    Args:
        store: has the run and those that its inputs came from.
        run: a run with a record.
        project: the project, at the root of its repository or below.
        folder: where the worktree is made; it must not exist.
        stop_early: leave out what follows the first stage that differs.
        trust: also run code, changes and parameters that others have recorded.
        tell: is told what happens.

    Raises:
        InputError: the code or the data of the run cannot be had any more, the store has other changes than the run
            recorded, or they are of others and not trusted.
    """
    wanted = {(run.id, name) for name, stage in run.stages().items() if stage["complete"]}
    if not wanted:
        raise InputError(
            f"run {run.short} ({run.name}) finished no whole stage", remedy="name a run that did: 'kedro lineage show'"
        )
    chain = executions(trace(store, run))
    for behind in {execution.run.id: execution.run for execution in chain}.values():
        check_record(behind)
    trees = _Worktrees(store, project, folder, chain, tell, trust)
    trees.of(run)
    again = _supply(chain, wanted, trees)
    if again:
        tell(f"Results of {', '.join(execution.stage for execution in again)} are in no cache: they run again, too.")
    running = {execution.key: execution for execution in chain if execution.key in wanted or execution in again}
    outcomes = []
    for execution in running.values():
        tree = trees.of(execution.run)
        for content, maker in execution.inputs.items():
            if maker.key in running:
                tree.take_over(content, trees.of(maker.run))
        tell(f"Running {execution.stage} ...")
        outcomes.append(tree.run_stage(execution))
        if outcomes[-1].failure or (stop_early and not outcomes[-1].same):
            break
    now = {"machine": machine(), "packages": all_packages()}
    return Reproduction(
        run=run,
        folder=folder,
        outcomes=outcomes,
        again=[execution.stage for execution in again],
        environment=environment_changes(run.record, now),
        troubles=tuple(run.record.get("troubles", ())),
    )


class _Worktrees:
    """Worktrees by code: stages of several runs share one if commit, changes and environment are the same."""

    def __init__(
        self,
        store: RunStore,
        project: Path,
        folder: Path,
        chain: list[Execution],
        tell: Callable[[str], None],
        trust: bool,
    ) -> None:
        self.store, self.project, self.folder, self.chain, self.tell = store, project, folder, chain, tell
        self.trust = trust
        self.found: dict[tuple[str, str, str], Worktree] = {}

    def of(self, run: Run) -> Worktree:
        """The worktree of a run's code, checked out when first asked for."""
        patch = recorded_patch(self.store, run)
        key = (str(run.record["code"]["commit"]), patch, str(run.record["environment"]))
        if key not in self.found:
            place = self.folder if not self.found else self.folder.with_name(f"{self.folder.name}-{run.short}")
            trusted = require_trust(self.project, run, patch, trust=self.trust, tell=self.tell)
            tree = Worktree(self.project, place, run, self.tell, trusted)
            tree.check_out(patch)
            tree.write_lock(self.chain)
            self.found[key] = tree
        return self.found[key]


def _supply(chain: list[Execution], wanted: set[tuple[str, str]], trees: _Worktrees) -> list[Execution]:
    """Bring the data that the stages begin with.

    Args:
        chain: all executions behind the run, makers first.
        wanted: executions that run anyway.
        trees: where they run.

    Returns:
        further executions that have to run, because what they made is kept nowhere; makers first.

    Raises:
        InputError: data that no stage makes is nowhere to be had.
    """
    again: set[tuple[str, str]] = set()
    # From the end to the beginning: a stage that has to run needs its own inputs in turn.
    for execution in reversed(chain):
        if execution.key not in wanted | again:
            continue
        tree = trees.of(execution.run)
        missing = [content for content in execution.raw if not tree.obtain(content)]
        if missing:
            raise InputError(
                f"data that stage {execution.stage} read is kept nowhere: {missing[0].path} with the hash "
                f"{missing[0].md5}",
                remedy="bring it back, or pull it into DVC's cache from where it is",
                file=missing[0].path,
            )
        for content, maker in execution.inputs.items():
            if maker.key not in wanted | again and not tree.obtain(content):
                again.add(maker.key)
    return [execution for execution in chain if execution.key in again]


class Worktree:
    """A checkout of a run's code beside the project, with the project's DVC cache.

    Args:
        project: the project, at the root of its repository or below.
        top: the checkout; the project lies in it where it lies in the repository.
        run: the run.
        tell: is told what happens.
        trusted: whether the record is the user's own or trusted.
    """

    def __init__(self, project: Path, top: Path, run: Run, tell: Callable[[str], None], trusted: bool) -> None:
        self.project, self.top, self.run, self.tell, self.trusted = project, top, run, tell, trusted
        # Runs from before folders were recorded lie where the project is now.
        recorded = run.record["code"].get("folder")
        self.prefix = (
            recorded if recorded is not None else (git(project, "rev-parse", "--show-prefix") or "").strip("\n")
        )
        self.folder = top / self.prefix
        self.environment = str(run.record["environment"])
        self.ignored = ignored_names(project)

    def check_out(self, patch: str) -> None:
        """Code, recorded changes, stages."""
        commit = str(self.run.record["code"]["commit"])
        if not commit:
            raise InputError(
                f"run {self.run.short} was recorded outside a git repository", remedy="name a run with a commit"
            )
        if git(self.project, "cat-file", "-e", f"{commit}^{{commit}}") is None:
            raise InputError(
                f"commit {commit[:12]} is not in this repository", remedy="fetch the branch that it was made on"
            )
        self.tell(f"Checking out {commit[:12]} to {self.top} ...")
        try:
            Git(self.project)("worktree", "add", "--detach", "--force", str(self.top), commit)
        except GitTrouble as trouble:
            raise InputError(
                f"git could not make a worktree there ({trouble})", remedy="name another folder", file=self.top
            ) from trouble
        if not self.folder.is_dir():
            raise InputError(
                f"commit {commit[:12]} has no folder {self.prefix}",
                remedy="name a run of a commit that has the project",
            )
        if patch:
            self._apply(patch)
        self._keep_quiet()
        self._share_cache()
        self._derive_stages()
        self._dvc_files()

    def _apply(self, patch: str) -> None:
        done = subprocess.run(
            ["git", "apply", "--whitespace=nowarn", *([f"--directory={self.prefix}"] if self.prefix else []), "-"],
            cwd=self.top,
            input=patch.encode("utf-8", errors="surrogateescape"),
            capture_output=True,
        )
        if done.returncode:
            raise InputError(
                f"the recorded changes do not apply ({done.stderr.decode(errors='replace').strip()})",
                remedy="look at lineage/changes.patch of the run",
            )
        self.tell(f"Applied the changes that were not committed: {', '.join(map(one_line, patched_files(patch)))}")

    def _keep_quiet(self) -> None:
        """What is done again is no run of its own: nothing goes to MLflow."""
        for name in layers(self.folder / "conf", self.environment):
            file = self.folder / "conf" / name / "mlflow.yml"
            if file.is_file():
                file.write_text("enabled: false\n", encoding="utf-8")

    def _set_parameters(self, run: Run) -> None:
        """Write what the command line or personal configuration had changed into the parameter files."""
        from kedro.framework.project import settings

        conf = self.folder / "conf"
        configured = SteadyConfigLoader(str(conf), env=self.environment, **settings.CONFIG_LOADER_ARGS)["parameters"]
        for block, value in run.record["parameters"].items():
            if holds_redaction(value):
                self.tell(f"Parameters of {block} hold a secret that was not recorded: those of the commit are used")
                continue
            files = [
                file
                for name in reversed(layers(conf, self.environment))
                for pattern in ("parameters*.y*ml", "parameters*/**/*.y*ml")
                for file in sorted((conf / name).glob(pattern))
            ]
            holders = [file for file in files if block in (yaml.safe_load(file.read_text(encoding="utf-8")) or {})]
            if holders and configured.get(block) != value:
                if not self.trusted:
                    raise InputError(
                        f"run {run.short} was recorded elsewhere and sets other parameters of {block} than its commit",
                        remedy="look at them, and say --trust to run with them",
                    )
                content = yaml.safe_load(holders[0].read_text(encoding="utf-8"))
                content[block] = value
                holders[0].write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
                self.tell(f"Set parameters as the run had them: {block}")

    def _share_cache(self) -> None:
        """Use the project's cache and remotes as they are now: the commit may have known others, or none.

        In the project's settings folders may be named from where those stand; here they are whole.
        """
        from dvc.config import Config

        cache = self._dvc("cache", "dir", folder=self.project).stdout.strip()
        here, there = self._dvc_folders()
        settings = Config(str(here))
        with Config(str(there)).edit("local") as own:
            own["cache"] = {**settings["cache"], "dir": str((self.project / cache).resolve())}
            own["remote"] = {name: dict(remote) for name, remote in settings["remote"].items()}
            own["core"] = {key: value for key, value in settings["core"].items() if key == "remote"}

    def _dvc_folders(self) -> tuple[Path, Path]:
        """DVC's folder of the project and that of the worktree: theirs, or one above in the same repository."""
        root = Path((git(self.project, "rev-parse", "--show-toplevel") or str(self.project)).removesuffix("\n"))
        for place in (self.project, *self.project.parents):
            if (place / ".dvc").is_dir():
                there = self.top / place.resolve().relative_to(root.resolve()) / ".dvc"
                if there.is_dir():
                    return place / ".dvc", there
                break
            if place.resolve() == root.resolve():
                break
        raise InputError(
            "the commit of the run was not one of a DVC project", remedy="name a run of a commit that has .dvc/config"
        )

    def _derive_stages(self) -> None:
        done = self._run([sys.executable, "-m", "kedro", "lineage", "sync", f"--env={self.environment}"])
        if done.returncode and not self.stages_file.is_file():
            raise InputError(
                f"the stages of that commit cannot be derived ({_last_line(done.stderr)})",
                remedy=f"choose a run of a commit that has {STAGES_FILE}",
            )

    @property
    def stages_file(self) -> Path:
        """The worktree's dvc.yaml of the run's environment."""
        return stages_file(self.folder, self.environment)

    def _dvc_files(self) -> None:
        """What single .dvc files follow, from the cache or the remote."""
        listed = git(self.folder, "ls-files", "*.dvc") or ""
        files = [name for name in listed.split("\n") if name and not name.startswith(".dvc/")]
        if files and self._dvc("checkout", *files, check=False).returncode:
            self._dvc("pull", *files, check=False)

    def write_lock(self, chain: Iterable[Execution]) -> None:
        """A dvc.lock that says which content the stages had, so that DVC can bring it."""
        stages = {
            execution.stage: {
                key: value
                for key, value in execution.run.stages()[execution.stage].items()
                if key in {"cmd", "deps", "params", "outs"} and value
            }
            for execution in chain
        }
        text = yaml.safe_dump({"schema": "2.0", "stages": stages}, sort_keys=False)
        self.stages_file.with_name(LOCK_FILE).write_text(text, encoding="utf-8")

    def obtain(self, content: Content) -> bool:
        """Have ``content`` in the worktree: from git, the project's own folder, DVC's cache or its remote."""
        if self._is_there(content):
            return True
        source = self.project / content.path
        present = digest(source, self.ignored)
        if present is not None and present.md5 == content.md5:
            self._copy(source, content)
            return True
        return any(
            self._dvc(command, "--force", content.path, check=False).returncode == 0 and self._is_there(content)
            for command in ("checkout", "pull")
        )

    def take_over(self, content: Content, other: Worktree) -> None:
        """Have what a stage has just made in another worktree, whatever it is."""
        if other is not self and (other.folder / content.path).exists():
            self._copy(other.folder / content.path, content)

    def _copy(self, source: Path, content: Content) -> None:
        target = self.folder / content.path
        if not target.resolve().is_relative_to(self.top.resolve()):
            raise InputError("the record names a place outside of the project", remedy="do not trust it", file=target)
        if target.is_dir():
            shutil.rmtree(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, target)

    def _is_there(self, content: Content) -> bool:
        found = digest(self.folder / content.path, self.ignored)
        return found is not None and found.md5 == content.md5

    def run_stage(self, execution: Execution) -> StageOutcome:
        """Run a stage by DVC, whatever the caches hold, and compare what it wrote."""
        self._set_parameters(execution.run)
        name = execution.stage
        where = self.stages_file.relative_to(self.folder).as_posix()
        target = name if where == STAGES_FILE else f"{where}:{name}"
        options = ("--single-item", "--force", "--no-run-cache", "--no-commit")
        done = self._dvc("repro", *options, target, check=False)
        if done.returncode:
            return StageOutcome(name, failure="\n".join((done.stdout + done.stderr).splitlines()[-_TAIL:]))
        recorded = execution.run.stages()[name]
        outputs = {str(entry["path"]): Digest.from_lock(entry) for entry in recorded["outs"]}
        found = {path: digest(self.folder / path, self.ignored) for path in outputs}
        different = sorted(path for path, before in outputs.items() if found[path] != before)
        names = recorded["datasets"]
        return StageOutcome(
            stage=name,
            different=tuple(names.get(path, path) for path in different),
            metrics=tuple(self._moved(execution, {path: names.get(path, path) for path in outputs})),
        )

    def _moved(self, execution: Execution, outputs: Mapping[str, str]) -> list[Change]:
        moved: list[Change] = []
        for path, dataset in outputs.items():
            before = execution.run.record.get("metrics", {}).get(dataset)
            file = self.folder / path
            if before and file.is_file():
                after = dict(numbers(json.loads(file.read_text(encoding="utf-8")), dataset))
                moved += changes(before, {name: after.get(name) for name in before})
        return moved

    def _dvc(self, *arguments: str, check: bool = True, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        done = self._run([sys.executable, "-m", "dvc", *arguments], folder)
        if check and done.returncode:
            raise InputError(
                f"'dvc {' '.join(arguments)}' failed ({_last_line(done.stderr)})", remedy="see 'dvc doctor'"
            )
        return done

    def _run(self, command: list[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run with the worktree's own code in front of the installed one."""
        where = folder or self.folder
        given = os.environ.get("PYTHONPATH", "")
        source = os.pathsep.join([str(where / "src"), str(where), *([given] if given else [])])
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        environment = {**os.environ, "PYTHONPATH": source, "PATH": path, "NO_COLOR": "1"}
        return subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True)


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "no message").strip()


def report_lines(result: Reproduction, most: int = 8) -> list[str]:
    """The comparison for people, the verdict last."""
    shown = []
    for outcome in result.outcomes:
        if outcome.failure:
            shown.append(f"{outcome.stage}: failed\n{outcome.failure}")
            continue
        verdict = "the same" if outcome.same else f"differs in {', '.join(outcome.different)}"
        supplied = "  (ran again to supply data)" if outcome.stage in result.again else ""
        shown.append(f"{outcome.stage}: {verdict}{supplied}")
        shown += listed(by_weight(outcome.metrics), most)
    shown += [f"Not recorded: {trouble}" for trouble in result.troubles]
    first = result.first_difference
    if first is None:
        return [*shown, f"Reproduced: every hash of {len(result.outcomes)} stage(s) is equal."]
    if result.environment:
        shown += ["Differences of the environment that could explain it:", *listed(result.environment, most)]
    else:
        shown.append("The environment is the same.")
    verdict = "failed" if first.failure else "is the first stage that differs"
    return [*shown, f"NOT reproduced: {first.stage} {verdict}."]
