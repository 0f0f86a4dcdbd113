"""Decide what a repetition may run: anyone who can write to the store could have changed a record.

Every run adds a hash to a file that never leaves the project. The content that a repetition would execute (commit,
changes, parameters) is trusted as one's own if its hash is there.
"""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from vr_pipeline.errors import InputError
from vr_pipeline.lineage.record import CONFIGURATION, PATCH, RECORD_FOLDER
from vr_pipeline.lineage.repository import Git, GitTrouble, in_own_history, patch_hash, patched_files
from vr_pipeline.lineage.runs import Run, RunStore
from vr_pipeline.lineage.tracking import records_folder
from vr_pipeline.terminal import one_line

logger = logging.getLogger(__name__)

_OWN_RECORDS = Path("logs") / "records.sha256"
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?|")
_NAME = re.compile(r"\w[\w.-]*")


def fingerprint(record: Mapping[str, Any]) -> str:
    """Return the SHA-256 of everything that a repetition of the run would execute or set."""
    code = record["code"]
    executed = [code["commit"], code.get("patch_sha256", ""), record["environment"], record["parameters"]]
    return hashlib.sha256(json.dumps(executed, sort_keys=True).encode()).hexdigest()


def remember(project: Path, mark: str) -> None:
    """Record the hash of a record written here."""
    file = records_folder(project) / _OWN_RECORDS
    if is_own(project, mark):
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="ascii") as stream:
            stream.write(f"{mark}\n")
    except OSError as error:
        logger.debug("The hash of the record cannot be kept: %s", error)


def is_own(project: Path, mark: str) -> bool:
    """Return whether the record was written here."""
    try:
        return mark in (records_folder(project) / _OWN_RECORDS).read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return False


def check_record(run: Run) -> None:
    """Reject names and paths in a record that are options of commands or lead out of the project.

    Raises:
        InputError: there is one.
    """
    for what, text in _strange(run):
        raise InputError(
            f"the record of run {run.short} has {what} '{one_line(text)}', which no run would record",
            remedy="nothing was run; find out who wrote it",
        )


def _strange(run: Run) -> Iterator[tuple[str, str]]:
    code = run.record["code"]
    if not _COMMIT.fullmatch(str(code["commit"])):
        yield "the commit", str(code["commit"])
    if not _NAME.fullmatch(str(run.record["environment"])):
        yield "the environment", str(run.record["environment"])
    if not _is_place(str(code.get("folder", ""))) or PurePosixPath(str(code.get("folder", ""))).is_absolute():
        yield "the folder", str(code["folder"])
    for name, stage in run.stages().items():
        if not _NAME.fullmatch(name):
            yield "the stage", name
        # Models may be outside of the project; results never are.
        for kind in ("deps", "outs"):
            for entry in stage[kind]:
                place = str(entry["path"])
                if not _is_place(place) or (kind == "outs" and PurePosixPath(place).is_absolute()):
                    yield "the place", place


def _is_place(path: str) -> bool:
    return ".." not in PurePosixPath(path).parts and not path.startswith("-")


def recorded_patch(store: RunStore, run: Run) -> str:
    """Return the changes that a run recorded.

    Raises:
        InputError: the store has others, or files of the record were changed.
    """
    for name, recorded in (
        (PATCH, run.record["code"].get("patch_sha256")),
        (CONFIGURATION, run.record.get("configuration_sha256")),
    ):
        found = patch_hash(store.file(run, name))
        if recorded is not None and found != recorded:
            raise InputError(
                f"{RECORD_FOLDER}/{name} of run {run.short} was changed after the run (its SHA-256 is "
                f"{found[:12] or 'none'}, that of the record {recorded[:12] or 'none'})",
                remedy="nothing was run; find out who changed it, or name another run",
            )
    patch = store.file(run, PATCH)
    if patch and run.record["code"].get("patch_sha256") is None and not run.record["code"]["dirty"]:
        raise InputError(f"run {run.short} recorded no changes, but its store has some", remedy="nothing was run")
    return patch


def require_trust(project: Path, run: Run, patch: str, *, trust: bool, say: Callable[[str], None]) -> bool:
    """Check that everything that would run is the user's own or trusted; show the files that a patch would change.

    Returns:
        whether the recorded parameters are trusted too.

    Raises:
        InputError: something is not trusted.
    """
    commit = str(run.record["code"]["commit"])
    try:
        files = patched_files(patch) if patch else []
    except GitTrouble as trouble:
        raise InputError(
            f"the recorded changes are not a patch ({trouble})", remedy=f"look at {RECORD_FOLDER}/{PATCH} of the run"
        ) from trouble
    if files:
        say(f"Recorded changes of {len(files)} file(s), not committed: {', '.join(map(one_line, files))}")
    if is_own(project, fingerprint(run.record)):
        return True
    reasons = []
    if commit and not in_own_history(Git(project), commit):
        reasons.append(f"commit {commit[:12]} is on none of your branches")
    if files:
        reasons.append("it would apply the changes above, which were not recorded here")
    if not reasons:
        return trust
    if not trust:
        raise InputError(
            f"run {run.short} is not one of yours: {' and '.join(reasons)}",
            remedy="inspect the run's files, and use --trust to run its code with your permissions",
        )
    say(f"Trusted: {' and '.join(reasons)}.")
    return True
