"""Checks that the files of a model can be read safely, and contain the whole model."""

import json
import logging
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vr_pipeline.errors import InputError
from vr_pipeline.storage.atomic import CHECKSUMS, damaged_file

_PICKLED = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
_INDEX = ".safetensors.index.json"


def check_model_files(folder: Path, *, field: str) -> None:
    """Reject weights that are not safetensors, whatever their names, before any library reads them.

    Pickled weights can run code when they are read. A pickle beside safetensors is never read.

    Args:
        folder: a model's folder, with its parts in it or in sub-folders.

    Raises:
        InputError: a part has only pickled weights, a file named safetensors is not one or is incomplete, weights of an
            index are missing, or a file has changed since this project saved the model.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    safe = [path for path in files if path.suffix == ".safetensors"]
    names = {path: _names_in(path, field) for path in safe}
    for path in files:
        if path.name.endswith(_INDEX):
            _check_index(path, names, field)
    with_safe_weights = {path.parent for path in safe}
    for path in files:
        if path.suffix in _PICKLED and path.parent not in with_safe_weights:
            raise InputError(
                "these weights are pickled, and reading them could run code; only safetensors are read",
                file=path,
                field=field,
                remedy="convert them on a machine where you trust them: load the model with its own library and save "
                "it again with save_pretrained",
            )
    damaged = damaged_file(folder)
    if damaged is not None:
        raise InputError(
            "the file is missing or damaged: its content is not what was recorded when the model was saved",
            file=damaged,
            field=field,
            remedy="run the pipeline that makes the model again, or restore the folder from a copy; after a change on "
            f"purpose delete {folder / CHECKSUMS}",
        )


def _names_in(path: Path, field: str) -> set[str]:
    """Return the names of the tensors in a file, checked by the format's own reader."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return set(file.keys())
    except (SafetensorError, OSError, ValueError, MemoryError) as error:
        raise InputError(
            f"this is no whole safetensors file, whatever its name says ({reason_in_short(error)})",
            file=path,
            field=field,
            remedy="fetch the model again; only safetensors are read, because pickled weights can run code",
        ) from error


def _check_index(index: Path, names: Mapping[Path, Collection[str]], field: str) -> None:
    """Check that the files of a model in several files have the weights of their index."""
    if index.with_name(index.name.removesuffix(".index.json")) in names:
        return  # One file has all weights.
    try:
        shards = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
        lost = sorted(name for name, file in shards.items() if name not in names.get(index.parent / file, ()))
        if not lost:
            return
        problem = f"{len(lost)} of its {len(shards)} weights are not in the files it names, such as '{lost[0]}'"
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        problem = f"this is no index of weights ({reason_in_short(error)})"
    raise InputError(problem, file=index, field=field, remedy="fetch or save the model again")


def reason_in_short(error: BaseException) -> str:
    """Return the text of an exception in one line of at most 200 characters."""
    return (" ".join(str(error).split()) or type(error).__name__)[:200]


def load_complete(model_class: Any, source: str | Path, *, field: str, **options: Any) -> Any:
    """Load a model of transformers or diffusers whose weights are complete.

    Both libraries replace missing weights by random numbers and continue.

    Args:
        model_class: class with ``from_pretrained``: a model or an ``Auto`` class of transformers, a model of diffusers.
        source: folder, or name on the hub.
        options: further arguments of ``from_pretrained``, such as ``subfolder``, ``revision`` and ``dtype``.

    Returns:
        the model.

    Raises:
        InputError: weights are missing, unexpected or of another shape.
    """
    # transformers can report other shapes by name; diffusers names the first in its exception.
    of_transformers = model_class.__module__.split(".")[0] == "transformers"
    reporting = {"ignore_mismatched_sizes": True} if of_transformers else {}
    name = "/".join(str(part) for part in (source, options.get("subfolder")) if part)
    try:
        with without_load_reports():
            model, loading = model_class.from_pretrained(
                str(source), use_safetensors=True, output_loading_info=True, **reporting, **options
            )
    except (ValueError, RuntimeError) as error:
        if not re.search(r"shape|size mismatch", str(error)):
            raise
        raise incomplete_weights(name, " ".join(str(error).split())[:300], field=field) from error
    # If files lack weights of their index, diffusers leaves tensors without data and reports nothing.
    shells = {key for key, value in model.state_dict().items() if value.is_meta}
    check_loading(loading | {"missing_keys": shells.union(loading.get("missing_keys", ()))}, name, field=field)
    return model


def check_loading(loading: Mapping[str, Any], name: str, *, field: str, unused: str | None = None) -> None:
    """Check the report of ``from_pretrained(..., output_loading_info=True)``.

    Weights that the class declares optional or tied are not reported.

    Args:
        loading: ``missing_keys``, ``unexpected_keys`` and ``mismatched_keys`` (name, shape found, shape wanted).
        unused: pattern of weights that may be missing because nothing reads them.

    Raises:
        InputError: weights are missing, unexpected or of another shape.
    """
    missing = [key for key in loading.get("missing_keys", ()) if unused is None or not re.search(unused, key)]
    mismatched = {key: (tuple(found), tuple(wanted)) for key, found, wanted in loading.get("mismatched_keys", ())}
    problems = []
    if missing:
        problems.append(f"{_counted(missing)} missing")
    if mismatched:
        first = min(mismatched)
        found, wanted = mismatched[first]
        problems.append(f"{_counted(mismatched)} of another shape ({list(found)} instead of {list(wanted)})")
    if unexpected := loading.get("unexpected_keys"):
        problems.append(f"{_counted(unexpected)} unknown to this kind of model")
    problems += [str(message) for message in loading.get("error_msgs") or ()]
    if problems:
        raise incomplete_weights(name, "; ".join(problems), field=field)


def _counted(keys: Collection[str]) -> str:
    first = min(keys)
    return f"the weight '{first}' is" if len(keys) == 1 else f"{len(keys)} weights, such as '{first}', are"


def incomplete_weights(name: str, problem: str, *, field: str) -> InputError:
    """Return the error for weights that are not a whole model."""
    return InputError(
        f"the weights in '{name}' do not make a whole model: {problem}",
        remedy="fetch or save the model again, and see that its config.json belongs to these weights",
        field=field,
    )


@contextmanager
def without_load_reports() -> Iterator[None]:
    """Suppress the libraries' own lists of weights and networks; errors are still raised."""

    def severe(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR

    names = [f"{library}.modeling_utils" for library in ("transformers", "diffusers.models")]
    loggers = [logging.getLogger(name) for name in (*names, "diffusers.pipelines.pipeline_loading_utils")]
    for logger in loggers:
        logger.addFilter(severe)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(severe)
