"""The state of the code at the start of a run: the commit, and what differs from it, as far as git says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path, PurePosixPath
from time import monotonic

from vr_pipeline.lineage.secrets import is_secret_file, redaction

SECONDS = 60.0
"""All that git may take at the start of a run: of a huge repository the changes are not recorded."""

LARGEST_FILE, LARGEST_PATCH = 1 << 20, 4 << 20
"""Bytes: larger files, and what exceeds the whole, are named in the record and not held by it."""

_CODE = re.compile(
    r"\.(?:py[ixd]?|pyx|c|h|cc|cpp|cuh?|rs|ipynb|sh|bash|ya?ml|toml|cfg|ini|json|j2|jinja2?|html|css|js|sql|md|rst|txt|dvc)",
    re.IGNORECASE,
)
_CODE_NAMES = re.compile(
    r"Makefile|Dockerfile|Containerfile|LICENSE|\.(?:git|dvc|docker)ignore|\.git(?:attributes|modules|keep)|\.telemetry"
)
_DATA = "data/"
_LONG_AGO = 1
_PLAIN_PATCH = ("--no-color", "--no-ext-diff", "--no-textconv", "--no-renames", "--src-prefix=a/", "--dst-prefix=b/")
"""Whatever the user has configured, the patch is one that ``git apply`` takes."""


class GitTrouble(Exception):
    """Git says nothing of a repository that is there; the text says why, as a clause."""


class Git:
    """Git commands in a folder.

    Args:
        seconds: for all commands together; None sets no limit.
    """

    def __init__(self, folder: Path, seconds: float | None = None) -> None:
        self.folder = folder
        self._end = None if seconds is None else monotonic() + seconds
        self._seconds = seconds

    def __call__(self, *arguments: str, **environment: str) -> str:
        """Return what a command prints.

        Raises:
            GitTrouble: it failed.
        """
        # One language, so that its complaints can be distinguished.
        own = {**os.environ, "LC_ALL": "C", "LANGUAGE": "C", "GIT_TERMINAL_PROMPT": "0", **environment}
        left = None if self._end is None else max(self._end - monotonic(), 0.01)
        try:
            done = subprocess.run(
                ["git", *arguments],
                cwd=self.folder,
                capture_output=True,
                timeout=left,
                env=own,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired as error:
            raise GitTrouble(f"git takes longer than {self._seconds:g} s") from error
        except FileNotFoundError as error:
            raise GitTrouble("git is not installed" if self.folder.is_dir() else "the folder is gone") from error
        except OSError as error:
            raise GitTrouble(f"git cannot be started ({error.strerror})") from error
        if done.returncode:
            raise GitTrouble(_complaint(done.stderr.decode("utf-8", errors="replace"), self.folder))
        return done.stdout.decode("utf-8", errors="surrogateescape")


def git(folder: Path, *arguments: str, **environment: str) -> str | None:
    """Return what a git command prints in a folder; None where it fails."""
    try:
        return Git(folder)(*arguments, **environment)
    except GitTrouble:
        return None


def _complaint(said: str, folder: Path) -> str:
    if "dubious ownership" in said or "unsafe repository" in said:
        return (
            "git does not read a repository of another user; "
            f"'git config --global --add safe.directory {folder}' allows it"
        )
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    fatal = next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[0] if lines else "no message")
    return f"git fails ({fatal.removeprefix('fatal: ').removeprefix('error: ')[:300]})"


@dataclass(frozen=True)
class Code:
    """The project's files against git.

    Args:
        commit: the commit that is checked out; empty outside a repository, or if git does not say.
        prefix: the project's folder from the repository's root, with a slash at the end; empty at the root.
        changes: a patch from the commit to the files as they are, relative to the project; empty if there are none.
        changed: paths that the patch is about.
        left_out: changed files that the patch does not hold, with the reason.
        troubles: in sentences, what could not be found out, or is not recorded as it was.
    """

    commit: str = ""
    prefix: str = ""
    changes: str = ""
    changed: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    troubles: tuple[str, ...] = ()

    @property
    def dirty(self) -> bool:
        """Whether files differ from the commit, as far as is known."""
        return bool(self.changed or self.left_out)

    @property
    def patch_hash(self) -> str:
        """SHA-256 of the patch as it is kept; empty without one."""
        return patch_hash(self.changes)

    @property
    def tags(self) -> dict[str, str]:
        """As tags of a run; empty outside a repository."""
        if not self.commit:
            return {"git.trouble": " ".join(self.troubles)} if self.troubles else {}
        unknown = not self.dirty and self.troubles
        return {"git.commit": self.commit, "git.dirty": "unknown" if unknown else str(self.dirty).lower()}


def patch_hash(patch: str) -> str:
    """SHA-256 of a patch; empty for none."""
    return sha256(patch.encode("utf-8", errors="surrogateescape")).hexdigest() if patch else ""


def code_state(project: Path, results: Iterable[str] = (), *, seconds: float = SECONDS) -> Code:
    """Commit, and what differs from it, with new files that git does not ignore.

    Not counted as changes: ``results``, which runs write themselves, dvc.lock, and new files below data/, whose
    content is followed by hashes. The patch holds code and configuration only, never files of credentials or keys, and
    what looks like a secret is taken out of it.
    """
    call, commit, prefix = Git(project, seconds), "", ""
    try:
        if call("rev-parse", "--is-inside-work-tree").strip() != "true":
            return Code()
    except GitTrouble as trouble:
        troubles = (f"Commit and changes are not recorded: {trouble}.",) if _in_repository(project) else ()
        return Code(troubles=troubles)
    try:
        prefix = call("rev-parse", "--show-prefix").rstrip("\n")
        try:
            commit = call("rev-parse", "--verify", "HEAD^{commit}").strip()
        except GitTrouble:
            return Code(prefix=prefix, troubles=("The code is not recorded: the repository has no commit yet.",))
        return _against(call, project, commit, prefix, {*results, "dvc.lock"})
    except GitTrouble as trouble:
        what = "Changes since the commit" if commit else "Commit and changes"
        return Code(commit, prefix, troubles=(f"{what} are not recorded: {trouble}.",))


def _in_repository(project: Path) -> bool:
    """Whether a repository is there, whatever git says of it."""
    if os.environ.get("GIT_DIR"):
        return True
    return any((folder / ".git").exists() for folder in (project.resolve(), *project.resolve().parents))


def _against(call: Git, project: Path, commit: str, prefix: str, own: set[str]) -> Code:
    """Sort what differs into what the patch takes and what it does not."""
    known = _differing(call, project)
    new = [path for path in call("ls-files", "--others", "--exclude-standard", "-z").split("\0") if path]
    new = [path for path in new if not path.startswith(_DATA)]
    candidates = sorted({path for path in (*known, *new) if path not in own and PurePosixPath(path).name != "dvc.lock"})
    left_out: dict[str, str] = {}
    taken = []
    for path in candidates:
        if (reason := _not_for_patch(project / path, path)) is None:
            taken.append(path)
        else:
            left_out[path] = reason
    changes = _patch(call, taken) if taken else ""
    while len(changes) > LARGEST_PATCH:
        # The largest first, until the rest may fit.
        excess = len(changes) - LARGEST_PATCH
        largest = max(taken, key=lambda path: _size(project / path))
        for path in sorted(taken, key=lambda path: -_size(project / path)):
            if path == largest or excess > 0:
                left_out[path] = f"the changes are larger than {LARGEST_PATCH >> 20} MiB together"
                taken.remove(path)
                excess -= _size(project / path)
        changes = _patch(call, taken) if taken else ""
    changes, kinds = redaction(changes, code=True)
    troubles = [f"Of the recorded changes was taken out what looks like a secret: {', '.join(kinds)}."] if kinds else []
    if left_out:
        listed = [f"{path} ({reason})" for path, reason in list(left_out.items())[:8]]
        more = f", and {len(left_out) - 8} more" if len(left_out) > 8 else ""
        troubles.append(f"Changed files that the record does not hold: {', '.join(listed)}{more}.")
    return Code(commit, prefix, changes, tuple(taken), left_out, tuple(troubles))


def _size(file: Path) -> int:
    try:
        return file.lstat().st_size
    except OSError:
        return 0


def _not_for_patch(file: Path, path: str) -> str | None:
    """Why the patch does not take a file; None if it does."""
    name = PurePosixPath(path).name
    if path.endswith("/") or file.is_dir():
        return "a repository inside of this one"
    if is_secret_file(path):
        return "a file of credentials or keys"
    if not _CODE.fullmatch(PurePosixPath(path).suffix) and not _CODE_NAMES.fullmatch(name):
        return "neither code nor configuration"
    if _size(file) > LARGEST_FILE:
        return f"larger than {LARGEST_FILE >> 20} MiB"
    return None


def _differing(call: Git, project: Path) -> list[str]:
    """Tracked files of the project that differ from the commit, by content.

    Git takes a file of unchanged size whose times fit its index for unchanged. In the copies of the project that DVC
    makes for experiments they fit too often: it writes index and parameters within a second. Git looks into every file
    where the index is older than the files, so it gets a copy of the index with a date of long ago.
    """
    listing = ("-c", "core.quotePath=false", "diff", "HEAD", "--name-only", "--no-renames", "--relative", "-z")
    place = call("rev-parse", "--git-path", "index").removesuffix("\n")
    with tempfile.TemporaryDirectory() as folder:
        own: dict[str, str] = {}
        if (index := project / place).is_file():
            copy = Path(folder) / "index"
            shutil.copyfile(index, copy)
            os.utime(copy, (_LONG_AGO, _LONG_AGO))
            own["GIT_INDEX_FILE"] = str(copy)
        return [path for path in call(*listing, "--", ".", **own).split("\0") if path]


def _patch(call: Git, paths: list[str]) -> str:
    """Return the patch, made in an index of its own: that of the user stays as it is."""
    with tempfile.TemporaryDirectory() as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index"), "GIT_LITERAL_PATHSPECS": "1"}
        call("read-tree", "HEAD", **index)
        # In portions: a command line has a limit.
        for start in range(0, len(paths), 500):
            call("-c", "core.safecrlf=false", "add", "--all", "--force", "--", *paths[start : start + 500], **index)
        return call("diff", "--cached", "--binary", "--relative", *_PLAIN_PATCH, "HEAD", **index)


def patched_files(patch: str) -> list[str]:
    """Return the files that a patch is really about, in its order, as git reads it; relative to where it is applied.

    Raises:
        GitTrouble: git does not take it for a patch.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "changes.patch"
        file.write_bytes(patch.encode("utf-8", errors="surrogateescape"))
        # Outside of any repository, so that nothing is left out for its place.
        listing = Git(Path(folder))(
            "apply", "--numstat", "-z", file.name, GIT_CEILING_DIRECTORIES=str(Path(folder).parent)
        )
    return list(dict.fromkeys(re.split(r"\t", entry)[2] for entry in listing.split("\0") if entry.count("\t") == 2))


def in_own_history(call: Callable[..., str], commit: str) -> bool:
    """Whether a commit is behind HEAD, a branch or a tag of this clone; those of remotes alone are other people's."""
    try:
        if call("branch", "--list", "--contains", commit).strip():
            return True
        call("merge-base", "--is-ancestor", commit, "HEAD")
    except GitTrouble:
        return False
    return True
