"""The state of the code at the start of a run: the commit, and the changes since, according to git."""

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
"""Time limit of git at the start of a run: changes of a huge repository are not recorded."""

LARGEST_FILE, LARGEST_PATCH = 1 << 20, 4 << 20
"""Bytes: files beyond these limits are named in the record but not included."""

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
"""Options by which ``git apply`` accepts the patch, whatever the user has configured."""


class GitTrouble(Exception):
    """Git fails in an existing repository; the text gives the reason as a clause."""


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
        """Return the output of a command.

        Raises:
            GitTrouble: it failed.
        """
        # One language, so that messages can be recognised.
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
    """Return the output of a git command in a folder; None if it fails."""
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
    """The project's files compared with git.

    Args:
        commit: the commit that is checked out; empty outside a repository, or if unknown.
        prefix: the project's folder relative to the repository's root, with a slash at the end; empty at the root.
        changes: a patch from the commit to the current files, relative to the project; empty without changes.
        changed: paths in the patch.
        left_out: changed files that are not in the patch, with the reason.
        troubles: sentences on what is unknown or not recorded.
    """

    commit: str = ""
    prefix: str = ""
    changes: str = ""
    changed: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    troubles: tuple[str, ...] = ()

    @property
    def dirty(self) -> bool:
        """Whether files are known to differ from the commit."""
        return bool(self.changed or self.left_out)

    @property
    def patch_hash(self) -> str:
        """SHA-256 of the patch; empty without one."""
        return patch_hash(self.changes)

    @property
    def tags(self) -> dict[str, str]:
        """The state as tags of a run; empty outside a repository."""
        if not self.commit:
            return {"git.trouble": " ".join(self.troubles)} if self.troubles else {}
        unknown = not self.dirty and self.troubles
        return {"git.commit": self.commit, "git.dirty": "unknown" if unknown else str(self.dirty).lower()}


def patch_hash(patch: str) -> str:
    """Return the SHA-256 of a patch; empty for none."""
    return sha256(patch.encode("utf-8", errors="surrogateescape")).hexdigest() if patch else ""


def code_state(project: Path, results: Iterable[str] = (), *, seconds: float = SECONDS) -> Code:
    """Return the commit and the changes since, including new files that git does not ignore.

    Not counted as changes: ``results``, which runs write themselves, dvc.lock, and new files below data/, which are
    tracked by hashes. The patch contains only code and configuration, never files of credentials or keys, and anything
    that looks like a secret is removed from it.
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
    """Return whether a repository exists, even if git rejects it."""
    if os.environ.get("GIT_DIR"):
        return True
    return any((folder / ".git").exists() for folder in (project.resolve(), *project.resolve().parents))


def _against(call: Git, project: Path, commit: str, prefix: str, own: set[str]) -> Code:
    """Divide the changes into those in the patch and those left out."""
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
        # Leave out the largest first, until the rest may fit.
        excess = len(changes) - LARGEST_PATCH
        largest = max(taken, key=lambda path: _size(project / path))
        for path in sorted(taken, key=lambda path: -_size(project / path)):
            if path == largest or excess > 0:
                left_out[path] = f"all changes together exceed {LARGEST_PATCH >> 20} MiB"
                taken.remove(path)
                excess -= _size(project / path)
        changes = _patch(call, taken) if taken else ""
    changes, kinds = redaction(changes, code=True)
    troubles = [f"Removed from the recorded changes, as possible secrets: {', '.join(kinds)}."] if kinds else []
    if left_out:
        listed = [f"{path} ({reason})" for path, reason in list(left_out.items())[:8]]
        more = f", and {len(left_out) - 8} more" if len(left_out) > 8 else ""
        troubles.append(f"Changed files that are not recorded: {', '.join(listed)}{more}.")
    return Code(commit, prefix, changes, tuple(taken), left_out, tuple(troubles))


def _size(file: Path) -> int:
    try:
        return file.lstat().st_size
    except OSError:
        return 0


def _not_for_patch(file: Path, path: str) -> str | None:
    """Return why a file is left out of the patch; None if it is not."""
    name = PurePosixPath(path).name
    if path.endswith("/") or file.is_dir():
        return "a repository within this one"
    if is_secret_file(path):
        return "a file of credentials or keys"
    if not _CODE.fullmatch(PurePosixPath(path).suffix) and not _CODE_NAMES.fullmatch(name):
        return "neither code nor configuration"
    if _size(file) > LARGEST_FILE:
        return f"larger than {LARGEST_FILE >> 20} MiB"
    return None


def _differing(call: Git, project: Path) -> list[str]:
    """Return tracked files of the project whose content differs from the commit.

    Git considers a file unchanged if its size and times match the index. In the copies that DVC makes for experiments
    they also match for changed files, because DVC writes index and parameters within a second. Git reads every file if
    the index is older than the files, so it gets a copy of the index with an old date.
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
    """Return the patch, made with a separate index, so that the user's does not change."""
    with tempfile.TemporaryDirectory() as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index"), "GIT_LITERAL_PATHSPECS": "1"}
        call("read-tree", "HEAD", **index)
        # In portions, because command lines have a limit.
        for start in range(0, len(paths), 500):
            call("-c", "core.safecrlf=false", "add", "--all", "--force", "--", *paths[start : start + 500], **index)
        return call("diff", "--cached", "--binary", "--relative", *_PLAIN_PATCH, "HEAD", **index)


def patched_files(patch: str) -> list[str]:
    """Return the files that a patch changes, in its order, according to git.

    Raises:
        GitTrouble: git does not accept it as a patch.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "changes.patch"
        file.write_bytes(patch.encode("utf-8", errors="surrogateescape"))
        # Outside of any repository, where git ignores no path.
        listing = Git(Path(folder))(
            "apply", "--numstat", "-z", file.name, GIT_CEILING_DIRECTORIES=str(Path(folder).parent)
        )
    return list(dict.fromkeys(re.split(r"\t", entry)[2] for entry in listing.split("\0") if entry.count("\t") == 2))


def in_own_history(call: Callable[..., str], commit: str) -> bool:
    """Return whether HEAD or a local branch contains a commit; commits of remotes only may be other people's."""
    try:
        if call("branch", "--list", "--contains", commit).strip():
            return True
        call("merge-base", "--is-ancestor", commit, "HEAD")
    except GitTrouble:
        return False
    return True
