"""Settings of a model that a family's code relies on, checked from its files before any weights are read.

A relative of a known model (another prediction, image conditions, a second denoiser) often loads and samples, and only
training or the clips go wrong. Each family therefore lists what it takes for granted in a table, :data:`Relied`.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from vr_pipeline.errors import InputError

PIPELINE = "pipeline"
"""Name under which settings of the pipeline itself are listed; its parts have those of model_index.json."""

_INDEX = "model_index.json"
_WEIGHTLESS = {"feature_extractor", "image_processor", "safety_checker", "guider", "processor"}

Settings = Mapping[str, Mapping[str, Any]]
"""Settings by part and name; what a file leaves to its class has the class's default."""

Wanted = Callable[[Any, Settings], bool]


Relied = dict[str, dict[str, tuple[Wanted, str]]]
"""Part of the pipeline, or :data:`PIPELINE` -> setting, or several with spaces between -> whether a value suits, given
all other settings, and what the code takes for granted, to follow "but". A setting that its class lacks is None."""


def one_of(*values: object) -> Wanted:
    """Return a check for one of these values, of the same type."""
    return lambda value, _: any(type(value) is type(known) and value == known for known in values)


def of_class(names: str, because: str) -> dict[str, tuple[Wanted, str]]:
    """Return what is taken for granted of a part, or of the pipeline: its class, one of names with spaces between."""
    return {"_class_name": (one_of(*names.split()), because)}


def equal_to(value_of: Callable[[Settings], Any]) -> Wanted:
    """Return a check for a value that follows from all settings."""
    return lambda value, settings: bool(value == value_of(settings))


def none_or(wanted: Wanted) -> Wanted:
    """Return a check for None, or for what another check accepts."""
    return lambda value, settings: value is None or wanted(value, settings)


def same_as(part: str, name: str) -> Wanted:
    """Return a check for the value of another setting."""
    return lambda value, settings: value == settings[part].get(name)


def positive(value: Any, _: Settings) -> bool:
    """Return whether a value is a finite number above 0."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def share(value: Any, settings: Settings) -> bool:
    """Return whether a value is a number between 0 and 1, both excluded."""
    return positive(value, settings) and value < 1


def whole(value: Any, settings: Settings) -> bool:
    """Return whether a value is a whole number above 0."""
    return isinstance(value, int) and positive(value, settings)


SCALED_LATENTS: Final[dict[str, tuple[Wanted, str]]] = {
    "scaling_factor": (positive, "latents are multiplied by it"),
    "shift_factor": (one_of(None), "latents are scaled, not shifted"),
    "latents_mean latents_std": (one_of(None), "latents are scaled by one number, not by their statistics"),
}
"""What families take for granted whose autoencoder's latents are multiplied by one number."""


def check_settings(
    folder: Path,
    pipeline: type,
    parts: Sequence[str],
    relied_on: Relied,
    *,
    own_classes: Mapping[str, type],
    field: str,
    optional: Collection[str] = (),
) -> dict[str, type]:
    """Check a model's settings; nothing but its configurations is read.

    Args:
        folder: the model in diffusers layout.
        pipeline: class of the pipeline that will be made of it.
        parts: names of the parts it has to have; others that hold weights are rejected.
        own_classes: classes of parts that are not from diffusers or transformers.
        optional: those of the parts that a model may lack.

    Returns:
        the class of each part that has settings.

    Raises:
        InputError: a part is missing, unreadable, unknown or superfluous, or a setting is not what the code relies on.
    """
    index = _read(folder / _INDEX, field)
    parts_of_index = {name: value for name, value in index.items() if isinstance(value, list) and len(value) == 2}
    present = {name: (library, kind) for name, (library, kind) in parts_of_index.items() if library is not None}
    absent = dict.fromkeys(parts_of_index.keys() - present.keys())
    of_pipeline = _defaults(pipeline) | index | absent
    settings: dict[str, Mapping[str, Any]] = {PIPELINE: of_pipeline}
    _check([PIPELINE], relied_on, settings, folder)
    missing = sorted(set(parts) - set(optional) - present.keys())
    if missing or (further := sorted(present.keys() - set(parts) - _WEIGHTLESS)):
        problem = (
            f"the model lacks the part '{missing[0]}'" if missing else f"the model has a further part, '{further[0]}'"
        )
        raise InputError(
            f"{problem}; this family consists of {', '.join(parts)}",
            remedy="choose a model of the kind that the family reads, or the family that reads this model",
            file=folder / _INDEX,
            field=field,
        )
    # Tokenizers have no settings that matter here; pipelines find their classes in their own way.
    described = [part for part in relied_on if part != PIPELINE and (part in present or part not in optional)]
    classes = {name: _class_of(name, present[name], own_classes.get(name), folder) for name in described}
    settings |= {name: _settings_of(folder / name, classes[name], field) for name in described}
    _check(described, relied_on, settings, folder)
    return classes


def _check(parts: Sequence[str], relied_on: Relied, settings: Settings, folder: Path) -> None:
    suits = [(part, name, *suit) for part in parts for names, suit in relied_on[part].items() for name in names.split()]
    # Parts of another class have other settings.
    for part, name, wanted, because in sorted(suits, key=lambda one: one[1] != "_class_name"):
        value = settings[part].get(name)
        if not wanted(value, settings):
            raise InputError(
                f"the model is a relative that this family does not read: {part} has {value!r}, but {because}",
                remedy="choose another model: this one would be sampled or trained wrongly",
                file=_file(folder, part),
                field=name,
            )


def _file(folder: Path, part: str) -> Path:
    if part == PIPELINE:
        return folder / _INDEX
    return folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json")


def _read(path: Path, field: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise TypeError("it is no table of settings")
        return content
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise _unreadable(path, error, field) from error


def _unreadable(path: Path, error: Exception, field: str) -> InputError:
    return InputError(
        f"this is no configuration of a model in diffusers layout ({' '.join(str(error).split())})",
        remedy="give the folder of a whole model, with model_index.json and one folder for each part",
        file=path,
        field=field,
    )


def _class_of(part: str, origin: Sequence[str], own: type | None, folder: Path) -> type:
    """Return the class that model_index.json names: our own, or one of diffusers or transformers, and nothing else."""
    import importlib

    from diffusers import pipelines

    library, name = origin
    if own is not None and own.__name__ == name:
        return own
    known = library in {"diffusers", "transformers"}
    # Parts of one pipeline alone are named by its folder in diffusers.
    home = importlib.import_module(library) if known else getattr(pipelines, library, None)
    found = getattr(home, name, None)
    if not isinstance(found, type) or not found.__module__.startswith(("diffusers.", "transformers.")):
        raise InputError(
            f"the model's {part} is of the class {library}.{name}, which the installed diffusers and transformers lack",
            remedy="choose a model whose parts they know, or install the version that its model card names",
            file=folder / _INDEX,
            field=part,
        )
    return found


def _settings_of(place: Path, of_class: type, field: str) -> Mapping[str, Any]:
    """Return a part's settings, with the defaults of its class and the class's name."""
    path = _file(place.parent, place.name)
    content = _read(path, field)
    named = {"_class_name": of_class.__name__}
    if (config_class := getattr(of_class, "config_class", None)) is not None:  # of transformers
        from huggingface_hub.errors import StrictDataclassError

        try:
            return config_class.from_dict(content).to_dict() | named
        except (ValueError, TypeError, AttributeError, KeyError, StrictDataclassError) as error:
            raise _unreadable(path, error, field) from error
    # The class that is loaded is the one in model_index.json, whatever the part's file names.
    return _defaults(of_class) | content | named


def _defaults(of_class: type) -> dict[str, Any]:
    arguments = inspect.signature(of_class.__init__).parameters  # type: ignore[misc]
    return {name: one.default for name, one in arguments.items() if one.default is not inspect.Parameter.empty}
