"""Explain exceptions to users."""

import ast
import difflib
import inspect
import re
import traceback
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kedro.pipeline import Pipeline
from pydantic import BaseModel, ValidationError

from vr_pipeline.errors import PipelineError, paragraph, storage_trouble
from vr_pipeline.runtime.setting_names import NO_SETTING, names_in, perhaps_setting
from vr_pipeline.runtime.surroundings import surroundings_account

_LISTED = 10
_QUOTES = "'\""


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and its causes, outermost first."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def explain(error: BaseException) -> str | None:
    """Return an explanation of an error that the user can fix; None for errors of the program itself.

    Frameworks wrap errors in errors of their own, so the chain of causes is searched for one that says most.
    """
    from kedro.config import MissingConfigException
    from kedro.io import DatasetError
    from kedro.validation.exceptions import DataValidationError, ParameterValidationError

    chain = list(causes(error))
    for kind, account in (
        (PipelineError, str),
        (ParameterValidationError, parameters_account),
        (DataValidationError, table_account),
        (MissingConfigException, configuration_account),
    ):
        for link in chain:
            if isinstance(link, kind):
                return account(link)
    for link in chain:
        if (text := surroundings_account(link) or file_account(link)) is not None:
            return text
    for link in chain:
        if isinstance(link, ValidationError):
            return f"Settings of {link.title} are not valid:\n{pydantic_account(link)}"
        if isinstance(link, FileNotFoundError) and link.filename:
            return f"file {link.filename}: it does not exist. Run the pipeline that creates it, or correct its path."
    for link in chain:
        if isinstance(link, DatasetError) and (text := dataset_account(link)) is not None:
            return text
    if isinstance(error, DatasetError | ValueError) and error.__traceback__ is not None:
        return _kedro_account(error)
    return None


def file_account(error: BaseException) -> str | None:
    """Explain a configuration file that cannot be parsed or has dangling references; None for other errors."""
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    if isinstance(error, YAMLError):
        return f"{' '.join(str(error).split())} Correct its indentation, brackets and quotation marks."
    if isinstance(error, OmegaConfBaseException):
        text = str(error).splitlines()[0]
        where = f" (at {error.full_key})" if getattr(error, "full_key", None) else ""
        return f"The configuration cannot be resolved: {text}{where}. Correct it in conf/<env>, or in --params."
    return None


def dataset_account(error: BaseException) -> str | None:
    """Explain a file that cannot be written or does not match its catalog entry; None for other errors."""
    reason = error.__cause__
    if reason is None or (failed := re.match(r"Failed while (loading|saving) data", str(error))) is None:
        return None
    # As Python writes texts, whatever quotation marks, commas and brackets a path has.
    place = re.search(r"""path=(?:\w+\()?('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^',)]+)""", str(error))
    where = f"file {ast.literal_eval(place[1]) if place[1][0] in _QUOTES else place[1]}: " if place else ""
    if (trouble := storage_trouble(reason)) is not None and (failed[1] == "saving" or isinstance(reason, OSError)):
        problem, remedy = trouble
        if failed[1] == "loading" and isinstance(reason, OSError):
            problem, remedy = f"it cannot be read ({reason.strerror})", "make it readable, or correct its path"
        return f"{where}{paragraph(problem, remedy)}"
    # What readers of tables and of JSON raise for files that are cut off or of another kind; a bug has other types.
    if failed[1] == "loading" and isinstance(reason, ValueError | OSError):
        text = str(reason).splitlines()[0] if str(reason) else type(reason).__name__
        return f"{where}it is damaged or contradicts its catalog entry ({text}). Run the pipeline that creates it."
    return None


def configuration_account(error: BaseException) -> str:
    """Explain missing configuration; for an environment, list the existing ones."""
    folder = re.search(r"not a valid directory: (.+)$", str(error))
    if folder is None:
        return str(error)
    path = Path(folder[1])
    with_files = {place.parent.name for name in ("catalog*", "globals.yml") for place in path.parent.glob(f"*/{name}")}
    known = sorted(with_files - {"real_models"})  # what environments of real models share is none itself
    return (
        f"There is no environment '{path.name}'{_perhaps(path.name, known)}: {path} does not exist. Choose among "
        f"{', '.join(known) or 'none'}, or create one from your files by 'kedro init-data --env {path.name} ...'."
    )


def parameters_account(error: BaseException) -> str:
    """Return the parameters that their models reject, one line each."""
    # Kedro keeps only the text of pydantic's errors: a field a line, and below it, indented, what is wrong.
    lines, block, field = [], "", ""
    for line in str(error).splitlines():
        if opening := re.match(r"- Parameter '([^']*)': (.*)", line):
            block, field = opening[1], ""
            if "validation error" not in opening[2]:
                lines.append(f"  {block}: {opening[2]}")
        elif complaint := re.match(r"  (.*?) \[type=(\w+), input_value=(.*), input_type=\w+\]$", line):
            given = "" if complaint[2] in {"missing", "extra_forbidden"} else f" (got {complaint[3]})"
            said = complaint[1]
            if complaint[2] == "extra_forbidden":
                moved = field.partition(".")[0] in all_blocks()
                said = NO_SETTING + (
                    f": '{field}' is a block of its own" if moved else perhaps_setting(field, settings_of(block))
                )
            lines.append(f"  {'.'.join(filter(None, (block, field)))}: {said}{given}")
        elif block and line and not line.startswith(" "):
            field = line
    listing = "\n".join(lines) if lines else f"  {error}"
    return f"Parameters are not valid (conf/<env>/parameters, --params):\n{listing}"


def blocks_of(pipelines: Iterable[Pipeline]) -> dict[str, list[type[BaseModel]]]:
    """Return the parameter blocks that nodes read: name to the pydantic models, none for plain values."""
    found: dict[str, list[type[BaseModel]]] = {}
    for node in {node for pipeline in pipelines for node in pipeline.nodes}:
        arguments = inspect.signature(node.func).parameters.values()
        for dataset, argument in zip(node.inputs, arguments, strict=False):
            if dataset.startswith("params:"):
                models = found.setdefault(dataset.removeprefix("params:"), [])
                kind = argument.annotation
                model = inspect.unwrap(node.func).__globals__.get(kind, kind) if isinstance(kind, str) else kind
                if hasattr(model, "model_json_schema") and model not in models:
                    models.append(model)
    return found


def all_blocks() -> dict[str, list[type[BaseModel]]]:
    """Return the parameter blocks of the project, as :func:`blocks_of` does."""
    from kedro.framework.project import pipelines

    return blocks_of(pipelines.values())


def settings_of(block: str) -> list[str]:
    """Return the dotted names of all settings of a parameter block, from its nodes' models."""
    models = all_blocks().get(block, [])
    return sorted({name for model in models for name in names_in(model.model_json_schema())})


def pydantic_account(error: ValidationError) -> str:
    """Return one line per wrong field: its name, the error and the given value."""
    lines = []
    for detail in error.errors()[:_LISTED]:
        place = ".".join(str(part) for part in detail["loc"]) or error.title
        given = "" if detail["type"] == "missing" else f" (got {_short(detail['input'])})"
        said = NO_SETTING if detail["type"] == "extra_forbidden" else detail["msg"]
        lines.append(f"  {place}: {said}{given}")
    hidden = error.error_count() - len(lines)
    return "\n".join([*lines, *([f"  and {hidden} more"] if hidden > 0 else [])])


def table_account(error: BaseException) -> str:
    """Explain a table that violates its schema: for each broken rule the number of rows and examples."""
    from kedro.validation.exceptions import DataValidationError

    assert isinstance(error, DataValidationError)
    moment = {"load": "when it was read", "save": "when it was to be written"}.get(error.mode or "", "")
    head = f"Table '{error.dataset_name}' does not fit its schema {moment}".rstrip()
    rows = failing_rows(error)
    lines = []
    for failure in error.failures[:_LISTED]:
        place = f"column '{failure.column}': " if failure.column else ""
        examples = f", for instance {', '.join(_short(value) for value in failure.failure_examples[:3])}"
        lines.append(
            f"  {place}{failure.check or failure.message} fails {failure.failure_count} time(s)"
            f"{examples if failure.failure_examples else ''}"
            f"{_rows_text(rows.get((failure.column, failure.check), ()))}"
        )
    if not lines:
        lines = [f"  {error.message}"]
    return "\n".join([f"{head}:", *lines])


def failing_rows(error: BaseException) -> dict[tuple[str | None, str | None], list[Any]]:
    """Return labels of the rows that broke a rule, by column and rule, if the schema library names them."""
    for link in causes(error):
        cases = getattr(link, "failure_cases", None)
        if cases is not None and {"column", "check", "index"} <= set(getattr(cases, "columns", ())):
            found: dict[tuple[str | None, str | None], list[Any]] = {}
            for column, check, index in zip(cases["column"], cases["check"], cases["index"], strict=True):
                if index is not None and index == index:
                    found.setdefault((column, check), []).append(index)
            return found
    return {}


def _rows_text(rows: Sequence[Any]) -> str:
    if not rows:
        return ""
    # Row 1 of a table as an editor shows it is the header.
    numbers = [str(int(row) + 2) if isinstance(row, int | float) else str(row) for row in rows[:3]]
    return f" (row {', '.join(numbers)}{', ...' if len(rows) > 3 else ''})"


def _kedro_account(error: BaseException) -> str | None:
    """Return Kedro's own messages for users: an unknown pipeline, a dataset that is not in the catalog."""
    if (text := _account_of_names(str(error))) is not None:
        return text
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    package = frame.f_globals.get("__name__", "").partition(".")[0]
    return str(error) if package == "kedro" and isinstance(error.__cause__, KeyError | None) else None


def _account_of_names(message: str) -> str | None:
    """Return Kedro's message about unknown pipelines, nodes or datasets, with similar known names."""
    from kedro.framework.project import pipelines

    if found := re.match(r"Failed to find the pipeline named '([^']*)'", message):
        names = sorted(name for name in pipelines if name != "__default__")
        return f"There is no pipeline '{found[1]}'{_perhaps(found[1], names)}. The pipelines are {', '.join(names)}."
    nodes = {node for pipeline in pipelines.values() for node in pipeline.nodes}
    if message.startswith("Pipeline contains no nodes after applying all provided filters"):
        tags = sorted({tag for node in nodes for tag in node.tags})
        return (
            "No node of the pipeline matches all of --tags, --nodes, --from-nodes, --to-outputs and similar options. "
            f"Omit some of them; the tags are {', '.join(tags)}."
        )
    found = re.match(r"Pipeline does not contain (nodes|datasets|data_sets) named \[(.*?)\]", message)
    if found is None:
        return None
    if found[1] == "nodes":
        kind, where, known = "node", "kedro registry describe NAME", {node.name for node in nodes}
    else:
        kind, where = "dataset", "kedro catalog describe-datasets"
        known = {name for pipeline in pipelines.values() for name in pipeline.datasets()}
    asked = [name.strip().strip("'") for name in found[2].split(",")]
    each = "; ".join(f"'{name}'{_perhaps(name, sorted(known))}" for name in asked)
    return f"This pipeline has no {kind} {each}. '{where}' lists them."


def _perhaps(name: str, known: Sequence[str]) -> str:
    """Return a suggestion: the same name within a pipeline, or a similar one."""
    same = [one for one in known if one.rpartition(".")[2] == name and one != name]
    near = same or difflib.get_close_matches(name, known, n=1)
    return f" (perhaps '{near[0]}' is meant)" if near else ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
