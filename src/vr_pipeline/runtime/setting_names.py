"""Dotted names of settings, with suggestions for misspelt ones."""

import difflib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from vr_pipeline.errors import InputError

NO_SETTING = "there is no such setting"

Model = TypeVar("Model", bound=BaseModel)


def names_in(schema: dict[str, Any], within: str = "", root: dict[str, Any] | None = None) -> Iterator[str]:
    """Return the dotted names of all settings in a JSON schema."""
    root = root or schema
    schema = root["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    for name, inner in schema.get("properties", {}).items():
        yield f"{within}{name}"
        yield from names_in(inner, f"{within}{name}.", root)
    if isinstance(entry := schema.get("additionalProperties"), dict):
        yield from names_in(entry, f"{within}<name>.", root)
    for alternative in (*schema.get("anyOf", []), *schema.get("oneOf", [])):
        yield from names_in(alternative, within, root)


def perhaps_setting(field: str, known: Sequence[str]) -> str:
    """Return a suggestion: a similar name, or the same name in another block."""
    if (rest := field.partition(".")[2]) in known:  # it has a block of its own
        return f" (perhaps '{rest}' is meant)"
    place, _, name = field.rpartition(".")
    near = difflib.get_close_matches(name, sorted({one.rpartition(".")[2] for one in known}), n=1)
    places = [one.rpartition(".")[0] for one in known if near and one.rpartition(".")[2] == near[0]]
    if not places:
        return ""
    meant = near[0] if place in places else ".".join(filter(None, (places[0], near[0])))
    return f" (perhaps '{meant}' is meant)"


def setting_trouble(error: ValidationError, model: type[BaseModel]) -> tuple[str, str]:
    """Return the dotted name of the first invalid setting and its error, without the value."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        near = perhaps_setting(".".join(place), sorted(set(names_in(model.model_json_schema()))))
        return ".".join(place), f"{NO_SETTING}{near}"
    return ".".join(place), first["msg"].removeprefix("Value error, ")


def validated(
    model: type[Model], content: Any, *, remedy: str, file: Path | None = None, field: str | None = None, what: str = ""
) -> Model:
    """Return content as a model.

    Args:
        model: its class.
        content: values by name.
        remedy: what to do about a wrong value.
        file: file of the content.
        field: reported if the problem has no field.
        what: beginning of the message.

    Raises:
        InputError: a value is missing, unknown or wrong.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        name, problem = setting_trouble(error, model)
        raise InputError(what + problem, remedy=remedy, file=file, field=name or field) from error


def read_settings(path: Path, model: type[Model], *, remedy: str) -> Model:
    """Return a JSON file as a model. Raises :class:`InputError` if it cannot be read or is not valid."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"the file cannot be read as JSON ({error})", remedy=remedy, file=path) from error
    return validated(model, content, remedy=remedy, file=path)
