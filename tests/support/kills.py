"""What a kill can leave: the states of a folder before every operation that changes a file, each exactly once.

A process that is killed (SIGKILL, out of memory) leaves what the kernel has at that moment: everything before the
moment, nothing after it, no ``finally`` block, and not what lies in the buffers of the process. :func:`explore` runs
some work once and copies the folder before each of its operations on files: opening for writing, every write (whole and
half), truncating, forcing to disk, renaming, linking, removing, making and removing folders, changing rights, and every
statement of a database. That depends on no clock. From each state that a kill can leave the work is then run again, and
killed again at each point, until no new state appears.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

Tree = dict[str, tuple[int, bytes]]
"""Relative path to access rights with kind, and content: of a link where it leads to, of a folder nothing."""

_OF_ONE = ("unlink", "remove", "mkdir", "rmdir", "truncate", "chmod", "ftruncate", "write")
_OF_TWO = ("replace", "rename", "link", "symlink")
_PIECE = 32
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def read_tree(folder: Path) -> Tree:
    """Everything below a folder."""
    found: Tree = {}
    for path in sorted(folder.rglob("*")) if folder.exists() else ():
        status = path.lstat()
        content = b""
        if stat.S_ISLNK(status.st_mode):
            content = os.fsencode(os.readlink(path))
        elif stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        found[path.relative_to(folder).as_posix()] = (status.st_mode, content)
    return found


def write_tree(tree: Tree, folder: Path) -> None:
    """Make a folder what it was."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, (mode, content) in sorted(tree.items()):
        path = folder / name
        if stat.S_ISLNK(mode):
            path.symlink_to(os.fsdecode(content))
            continue
        if stat.S_ISDIR(mode):
            path.mkdir()
        else:
            path.write_bytes(content)
        path.chmod(stat.S_IMODE(mode))


def shown(tree: Tree) -> dict[str, tuple[int, bytes]]:
    """What counts of a tree: not locks, which stay, nor what is known of times."""
    return {name: entry for name, entry in tree.items() if not name.endswith(".lock")}


class _Watched(io.FileIO):
    """A file that stops before every write, and in the middle of it."""

    def __init__(self, place: Any, mode: str, stop: Callable[[], None]) -> None:
        stop()
        super().__init__(place, mode)
        self._stop = stop

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._stop()
        half = len(view) // 2
        if half:
            super().write(view[:half])
            self._stop()
        return half + (super().write(view[half:]) or 0)

    def truncate(self, size: int | None = None) -> int:
        self._stop()
        return super().truncate(size)


@contextlib.contextmanager
def watched(folder: Path, stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` before each operation that changes a file below a folder."""
    inside, real_open, real_sendfile = os.fsencode(folder.resolve()), io.open, os.sendfile
    busy = False

    def before() -> None:
        nonlocal busy
        if not busy:
            busy = True
            try:
                stop()
            finally:
                busy = False

    def concerns(place: Any) -> bool:
        if isinstance(place, int):
            with contextlib.suppress(OSError):
                return os.fsencode(os.readlink(f"/proc/self/fd/{place}")).startswith(inside)
            return True
        return os.fsencode(os.path.abspath(place)).startswith(inside)

    def opened(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **options: Any) -> Any:
        plain = not set(mode) & set("wax+") or isinstance(file, int) or busy or not concerns(file)
        if plain or options.get("opener"):
            return real_open(file, mode, buffering, *rest, **options)
        raw: Any = _Watched(file, mode.replace("b", "").replace("t", ""), before)
        if buffering != 0:
            raw = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
        if "b" in mode:
            return raw
        names = ("encoding", "errors", "newline")
        return io.TextIOWrapper(raw, **dict(zip(names, rest, strict=False)), **options)

    def one(real: Callable[..., Any]) -> Callable[..., Any]:
        def called(place: Any, *rest: Any, **options: Any) -> Any:
            if options.get("dir_fd") is not None or concerns(place):
                before()
            return real(place, *rest, **options)

        return called

    def two(real: Callable[..., Any]) -> Callable[..., Any]:
        def called(source: Any, target: Any, *rest: Any, **options: Any) -> Any:
            if concerns(target) or concerns(source):
                before()
            return real(source, target, *rest, **options)

        return called

    def os_open(real: Callable[..., Any]) -> Callable[..., Any]:
        def called(place: Any, flags: int, *rest: Any, **options: Any) -> Any:
            if flags & _WRITING and (options.get("dir_fd") is not None or concerns(place)):
                before()
            return real(place, flags, *rest, **options)

        return called

    with contextlib.ExitStack() as stack:
        for target, name, stand_in in (
            (io, "open", opened),
            (builtins, "open", opened),
            (os, "open", os_open(os.open)),
            *((os, name, one(getattr(os, name))) for name in _OF_ONE),
            # A kill takes nothing from the kernel; forcing to the disk would only take time.
            (os, "fsync", one(lambda _: None)),
            # How shutil copies; piece by piece, so that there is a middle.
            (os, "sendfile", one(lambda to, of, at, count: real_sendfile(to, of, at, min(count, _PIECE)))),
            *((os, name, two(getattr(os, name))) for name in _OF_TWO),
        ):
            stack.enter_context(mock.patch.object(target, name, stand_in))
        _watch_tensors(stack, opened)
        _watch_statements(stack, before)
        yield


def _watch_tensors(stack: contextlib.ExitStack, opened: Callable[..., Any]) -> None:
    """safetensors writes in Rust; here the same bytes go through a watched file."""
    import safetensors.numpy
    import safetensors.torch

    for module in (safetensors.numpy, safetensors.torch):

        def save_file(tensors: Any, filename: Any, metadata: Any = None, save: Any = module.save) -> None:
            with opened(filename, "wb") as file:
                file.write(save(tensors, metadata))

        stack.enter_context(mock.patch.object(module, "save_file", save_file))


def _watch_statements(stack: contextlib.ExitStack, before: Callable[[], None]) -> None:
    """SQLite writes in C; what it leaves changes with its statements and commits only."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def stop(*arguments: Any) -> None:
        before()

    for name in ("before_cursor_execute", "after_cursor_execute", "commit"):
        event.listen(Engine, name, stop)
        stack.callback(event.remove, Engine, name, stop)


@dataclass
class Exploration:
    """What :func:`explore` found.

    Attributes:
        points: operations at which the work was stopped, over all runs.
        states: what a kill can leave, each once.
        final: what undisturbed work leaves.
    """

    points: int = 0
    states: list[Tree] = field(default_factory=list)
    final: Tree = field(default_factory=dict)


def explore(work: Callable[[], None], folder: Path, *, start: Tree | None = None, kills: int | None = 1) -> Exploration:
    """Run work undisturbed, then again from every state that a kill can leave, and compare the ends.

    Args:
        work: changes files below the folder.
        folder: is emptied.
        start: what the folder holds at first.
        kills: so many kills may follow each other; None continues until there is no new state.

    Raises:
        AssertionError: from some state the work fails, or ends otherwise than without a kill.
    """
    found, known = Exploration(), set()
    begin: Tree = {".": (0, b""), **(start or {})}

    def run(state: Tree, generation: int) -> Tree:
        new: list[tuple[Tree, int]] = []

        def stop() -> None:
            found.points += 1
            left = read_tree(folder)
            # Two states that differ in their locks are one: a process that dies gives them back.
            key = frozenset(shown(left).items())
            if key not in known:
                known.add(key)
                found.states.append(left)
                new.append((left, generation + 1))

        write_tree({name: entry for name, entry in state.items() if name != "."}, folder)
        with watched(folder, stop) if kills is None or generation < kills else contextlib.nullcontext():
            work()
        waiting.extend(new)
        return shown(read_tree(folder))

    waiting: list[tuple[Tree, int]] = []
    found.final = run(begin, 0)
    while waiting:
        state, generation = waiting.pop()
        try:
            final = run(state, generation)
        except Exception as error:
            raise AssertionError(f"after a kill that left {sorted(state)} the work fails: {error}") from error
        differing = sorted(name for name in {*final, *found.final} if final.get(name) != found.final.get(name))
        assert not differing, f"after a kill that left {sorted(state)} these differ: {differing}"
    return found
