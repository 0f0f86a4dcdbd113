"""A checkout of a recorded run's code beside the project, with the run's data and parameters."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from vr_pipeline.errors import InputError
from vr_pipeline.lineage.chain import Content, Execution
from vr_pipeline.lineage.compare import Change, changes
from vr_pipeline.lineage.figures import numbers
from vr_pipeline.lineage.hashes import Digest, digest, ignored_names
from vr_pipeline.lineage.project import LOCK_FILE, STAGES_FILE, configuration_files, stages_file
from vr_pipeline.lineage.repository import Git, GitTrouble, git, patched_files
from vr_pipeline.lineage.runs import Run
from vr_pipeline.lineage.secrets import holds_redaction
from vr_pipeline.project.configuration import SteadyConfigLoader, layers
from vr_pipeline.terminal import one_line

_TAIL = 25


@dataclass(frozen=True)
class StageOutcome:
    """The result of a repeated stage.

    Args:
        different: outputs that differ or are missing.
        failure: the end of its output, if it failed.
        metrics: figures of the stage that changed.
    """

    stage: str
    different: tuple[str, ...] = ()
    failure: str = ""
    metrics: tuple[Change, ...] = ()

    @property
    def same(self) -> bool:
        return not self.different and not self.failure


class Worktree:
    """A checkout of a run's code, with the project's DVC cache.

    Args:
        top: the checkout; the project has the same relative path in it as in the repository.
        trusted: whether the record is the user's own or trusted.
    """

    def __init__(self, project: Path, top: Path, run: Run, say: Callable[[str], None], trusted: bool) -> None:
        self.project, self.top, self.run, self.say, self.trusted = project, top, run, say, trusted
        self.commit = str(run.record["code"]["commit"])
        # Records without a folder are of the project's current one.
        recorded = run.record["code"].get("folder")
        self.prefix = recorded if recorded is not None else _printed(project, "rev-parse", "--show-prefix")
        self.folder = top / self.prefix
        self.environment = str(run.record["environment"])
        self.ignored = ignored_names(project)

    def check_out(self, patch: str) -> None:
        """Check out code, apply the recorded changes and derive the stages."""
        if not self.commit:
            raise InputError(
                f"run {self.run.short} was recorded outside a git repository", remedy="name a run with a commit"
            )
        short = self.commit[:12]
        if git(self.project, "cat-file", "-e", f"{self.commit}^{{commit}}") is None:
            raise InputError(f"commit {short} is not in this repository", remedy="fetch the branch that it was made on")
        self.say(f"Checking out {short} to {self.top} ...")
        try:
            Git(self.project)("worktree", "add", "--detach", "--force", str(self.top), self.commit)
        except GitTrouble as trouble:
            raise InputError(
                f"git could not make a worktree there ({trouble})", remedy="name another folder", file=self.top
            ) from trouble
        if not self.folder.is_dir():
            raise InputError(
                f"commit {short} has no folder {self.prefix}", remedy="name a run of a commit that has the project"
            )
        if patch:
            self._apply(patch)
        # A repetition is not recorded in MLflow.
        for name in layers(self.folder / "conf", self.environment):
            if (file := self.folder / "conf" / name / "mlflow.yml").is_file():
                file.write_text("enabled: false\n", encoding="utf-8")
        self._share_cache()
        done = self._run([sys.executable, "-m", "kedro", "lineage", "sync", f"--env={self.environment}"])
        if done.returncode and not self._file("").is_file():
            raise InputError(
                f"the stages of that commit cannot be derived ({_last_line(done.stderr)})",
                remedy=f"choose a run of a commit that has {STAGES_FILE}",
            )
        # Data of single .dvc files, from the cache or the remote.
        listed = _printed(self.folder, "ls-files", "*.dvc").split("\n")
        files = [name for name in listed if name and not name.startswith(".dvc/")]
        if files and self._dvc("checkout", *files).returncode:
            self._dvc("pull", *files)

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
        self.say(f"Applied the changes that were not committed: {', '.join(map(one_line, patched_files(patch)))}")

    def _share_cache(self) -> None:
        """Use the project's current cache and remotes, with absolute paths; the commit may have others, or none."""
        from dvc.config import Config
        from dvc.exceptions import NotDvcRepoError
        from dvc.repo import Repo

        root = Path(_printed(self.project, "rev-parse", "--show-toplevel")).resolve()
        try:
            # DVC's folder of the project, or of a parent in the same repository.
            here = Path(Repo.find_dvc_dir(str(self.project))).resolve()
            there = self.top / here.relative_to(root)
        except (NotDvcRepoError, ValueError):
            here = there = Path()
        if not there.is_dir() or there == Path():
            raise InputError(
                "the commit of the run was not one of a DVC project",
                remedy="name a run of a commit that has .dvc/config",
            )
        settings = Config(str(here))
        cache = self._dvc("cache", "dir", folder=self.project).stdout.strip()
        with Config(str(there)).edit("local") as own:
            own["cache"] = {**settings["cache"], "dir": str((self.project / cache).resolve())}
            own["remote"] = {name: dict(remote) for name, remote in settings["remote"].items()}
            own["core"] = {key: value for key, value in settings["core"].items() if key == "remote"}

    def write_lock(self, chain: Iterable[Execution]) -> None:
        """Write a dvc.lock with the content of the stages, so that DVC can restore it."""
        recorded = {execution.stage: execution.run.stages()[execution.stage] for execution in chain}
        stages = {
            name: {key: stage[key] for key in ("cmd", "deps", "params", "outs") if stage.get(key)}
            for name, stage in recorded.items()
        }
        for file in {self._file(name) for name in stages}:
            held = {name: stage for name, stage in stages.items() if self._file(name) == file}
            text = yaml.safe_dump({"schema": "2.0", "stages": held}, sort_keys=False)
            file.with_name(LOCK_FILE).write_text(text, encoding="utf-8")

    def _file(self, stage: str) -> Path:
        return stages_file(self.folder, self.environment, stage)

    def obtain(self, content: Content) -> bool:
        """Copy ``content`` to the worktree from git, the project, DVC's cache or remote; return whether it is there."""
        if self._is_in(self.folder, content):
            return True
        if self._is_in(self.project, content):
            self._copy(self.project, content)
            return True
        return any(
            self._dvc(command, "--force", content.path).returncode == 0 and self._is_in(self.folder, content)
            for command in ("checkout", "pull")
        )

    def take_over(self, content: Content, other: Worktree) -> None:
        """Copy the new result of a stage from another worktree."""
        if other is not self and (other.folder / content.path).exists():
            self._copy(other.folder, content)

    def _copy(self, origin: Path, content: Content) -> None:
        source, target = origin / content.path, self.folder / content.path
        if not target.resolve().is_relative_to(self.top.resolve()):
            raise InputError("the record names a path outside the project", remedy="do not trust it", file=target)
        if target.is_dir():
            shutil.rmtree(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, target)

    def _is_in(self, folder: Path, content: Content) -> bool:
        found = digest(folder / content.path, self.ignored)
        return found is not None and found.md5 == content.md5

    def run_stage(self, execution: Execution) -> StageOutcome:
        """Run a stage with DVC, without its caches, and compare its outputs."""
        self._set_parameters(execution.run)
        name = execution.stage
        where = self._file(name).relative_to(self.folder).as_posix()
        target = name if where == STAGES_FILE else f"{where}:{name}"
        done = self._dvc("repro", "--single-item", "--force", "--no-run-cache", "--no-commit", target)
        if done.returncode:
            return StageOutcome(name, failure="\n".join((done.stdout + done.stderr).splitlines()[-_TAIL:]))
        recorded = execution.run.stages()[name]
        different, moved = [], list[Change]()
        for entry in sorted(recorded["outs"], key=lambda entry: str(entry["path"])):
            path = str(entry["path"])
            dataset, file = recorded["datasets"].get(path, path), self.folder / path
            if digest(file, self.ignored) != Digest.from_lock(entry):
                different.append(dataset)
            before = execution.run.record.get("metrics", {}).get(dataset)
            if before and file.is_file():
                after = dict(numbers(json.loads(file.read_text(encoding="utf-8")), dataset))
                moved += changes(before, {figure: after.get(figure) for figure in before})
        return StageOutcome(name, tuple(different), metrics=tuple(moved))

    def _set_parameters(self, run: Run) -> None:
        """Write parameters that the command line or personal configuration had changed into the parameter files."""
        from kedro.framework.project import settings

        conf = self.folder / "conf"
        configured = SteadyConfigLoader(str(conf), env=self.environment, **settings.CONFIG_LOADER_ARGS)["parameters"]
        folders = [conf / name for name in layers(conf, self.environment)]
        files = configuration_files(self.folder, folders, "parameters")
        for block, value in run.record["parameters"].items():
            if holds_redaction(value):
                self.say(f"Parameters of {block} contain a secret that was not recorded; using those of the commit")
                continue
            holders = [file for file, content in files.items() if block in content]
            if not holders or configured.get(block) == value:
                continue
            if not self.trusted:
                raise InputError(
                    f"run {run.short} was recorded elsewhere and has other parameters of {block} than its commit",
                    remedy="inspect them, and use --trust to run with them",
                )
            text = yaml.safe_dump({**files[holders[-1]], block: value}, sort_keys=False)
            (self.folder / holders[-1]).write_text(text, encoding="utf-8")
            self.say(f"Set the run's parameters of {block}")

    def _dvc(self, *arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        return self._run([sys.executable, "-m", "dvc", *arguments], folder)

    def _run(self, command: list[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command with the worktree's code before the installed one."""
        where = folder or self.folder
        given = os.environ.get("PYTHONPATH", "")
        source = os.pathsep.join([str(where / "src"), str(where), *([given] if given else [])])
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        environment = {**os.environ, "PYTHONPATH": source, "PATH": path, "NO_COLOR": "1"}
        return subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True)


def _printed(folder: Path, *arguments: str) -> str:
    return (git(folder, *arguments) or "").strip("\n")


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "no message").strip()
