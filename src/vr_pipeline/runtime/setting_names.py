"""Names of settings as people write them: dotted, with the right one for a misspelt one."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

NO_SETTING = "there is no such setting"


def names_in(schema: dict[str, Any], within: str = "", root: dict[str, Any] | None = None) -> Iterator[str]:
    """Dotted names of the settings in a JSON schema, at any depth."""
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
    """Return a guess at what was meant: a name that is spelt nearly so, with its place where it belongs elsewhere."""
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
    """Return the dotted name of the first setting that is wrong, and what is wrong with it, without its value."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        near = perhaps_setting(".".join(place), sorted(set(names_in(model.model_json_schema()))))
        return ".".join(place), f"{NO_SETTING}{near}"
    return ".".join(place), first["msg"].removeprefix("Value error, ")
