"""Errors that come from the machine or the shell, not from data or program: memory, threads, the working directory."""

import errno
import os
import re
import traceback

try:  # at once: where memory is short, nothing more can be imported
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]

_NO_MEMORY = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|failed to map segment|not enough memory"
    r"|std::bad_alloc|unable to allocate|DefaultCPUAllocator",
    re.IGNORECASE,
)
# What the interpreter raises where a C function failed and could not allocate the exception that says so.
_NO_EXCEPTION = re.compile(r"without (setting an )?exception( set)?$")
_NO_THREADS = re.compile(
    r"can't start new thread|resource temporarily unavailable|pthread_create failed", re.IGNORECASE
)
_PARSERS = ("yaml", "omegaconf", "json")
_PLACES = ("config_filepath", "filepath", "path", "file")


def surroundings_account(error: BaseException) -> str | None:
    """Return advice on an error of the machine or the shell; None for other errors."""
    text = str(error)
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return _memory_account()
    if isinstance(error, SystemError) and _NO_EXCEPTION.search(text) and _limit():
        return _memory_account()
    if isinstance(error, OSError | ImportError | RuntimeError) and not isinstance(error, RecursionError):
        if _NO_MEMORY.search(text):
            return _memory_account()
        if _NO_THREADS.search(text):
            return (
                "No further thread or process can be started. Raise the limits (ulimit -u, ulimit -v), or set "
                "OMP_NUM_THREADS to a small number."
            )
    if isinstance(error, RecursionError) and (place := _parsed_file(error)) is not None:
        return f"{place}: it is nested too deeply to be read. Write it with fewer levels."
    if isinstance(error, FileNotFoundError) and error.filename is None and not working_directory_is_there():
        return WORKING_DIRECTORY_GONE
    return None


WORKING_DIRECTORY_GONE = "The working directory no longer exists. Change to the project's folder and try again."


def working_directory_is_there() -> bool:
    """Return whether the working directory still exists."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _memory_account() -> str:
    return (
        f"There is not enough memory{_limit()}. Close other programs or raise the limit, or lower batch_size and the "
        "number of workers."
    )


def _limit() -> str:
    """Return the limit of this process on its address space, in words; empty without one."""
    if resource is None:
        return ""
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return "" if soft == resource.RLIM_INFINITY else f" (ulimit -v allows {soft / 2**30:.2f} GiB)"


def _parsed_file(error: BaseException) -> str | None:
    """Return the file that a parser was reading, as the frames of the error show; None for other recursion."""
    parsing, place = False, None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if not parsing:
            for name in _PLACES:
                value = frame.f_locals.get(name)
                if isinstance(value, str | os.PathLike) and "\n" not in str(value):
                    place = f"file {value}"
                elif isinstance(getattr(value, "name", None), str):
                    place = f"file {getattr(value, 'name', '')}"
        parsing = parsing or module in _PARSERS
    return (place or "a file of the configuration") if parsing else None
