"""Machine profiles, ``conf/machines/<name>.yml``: how to use a machine, selected in addition to the environment.

An environment says what is computed, a profile where and how much at a time. Any profile goes over any environment.
"""

import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from vr_pipeline.config import Parameters
from vr_pipeline.errors import InputError

VARIABLE = "VR_PIPELINE_MACHINE"
"""Names the profile; ``--machine`` of the commands sets it."""
FOLDER = "machines"

SETTABLE = frozenset(
    {
        *("clip_batch", "compile", "device", "generator_batch_size", "gradient_checkpointing", "keep_judge"),
        *("micro_batch_size", "offload", "question_chunk_size", "reader_threads", "sharding", "threads", "vae_tiling"),
    }
)
"""Names of the parameters that a profile may set: none changes what is learned or measured."""


class Gpu(Parameters):
    """A GPU of the machine, for ``kedro plan``."""

    name: str = Field(description="What it is called.")
    memory_gib: float = Field(gt=0, description="Its memory, GiB.")
    tflops: float = Field(gt=0, description="Assumed sustained throughput in bfloat16, 10^12 operations per second.")
    price_per_hour: float | None = Field(None, ge=0, description="Price of one GPU per hour; null: not known.")
    currency: str = Field("USD", description="Currency of the price.")


class MachineProfile(Parameters):
    """The content of a profile."""

    description: str = Field(min_length=1, description="Description of the machine in one line.")
    gpu: Gpu | None = Field(None, description="Its GPUs, all of one kind; only for kedro plan.")
    runner: dict[str, Any] = Field({}, description="Overrides runner.yml of the environment.")
    parameters: dict[str, Any] = Field({}, description="Overrides the parameters of the environment.")


def chosen_machine() -> str | None:
    """Return the name of the profile that the environment variable selects."""
    return os.environ.get(VARIABLE) or None


def machine_names(conf: Path) -> list[str]:
    """Return the names of all profiles, sorted."""
    return sorted(path.stem for path in (conf / FOLDER).glob("*.yml"))


@cache
def read_machine(conf: Path, name: str) -> MachineProfile:
    """Read a profile.

    Raises:
        InputError: there is none of this name, it cannot be read, or it sets what is not the machine's business.
    """
    import yaml

    names = machine_names(conf)
    if name not in names:
        raise InputError(
            f"there is no machine profile '{name}'",
            remedy=f"use one of {', '.join(names) or 'none yet'}, or write conf/{FOLDER}/{name}.yml",
            field=f"--machine or {VARIABLE}",
        )
    file = conf / FOLDER / f"{name}.yml"
    try:
        profile = MachineProfile.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (ValidationError, yaml.YAMLError, UnicodeDecodeError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        place = ".".join(map(str, first["loc"])) if first else ""
        raise InputError(
            f"the machine profile cannot be read ({first['msg'] if first else error})",
            remedy="correct the file; docs/gpu_and_clusters.md shows one",
            file=file,
            field=place or None,
        ) from error
    for place in _leaves(profile.parameters):
        if place.rpartition(".")[2] not in SETTABLE:
            raise InputError(
                "the machine profile sets parameters that do not depend on the machine",
                remedy=f"put it into the environment; a profile may set {', '.join(sorted(SETTABLE))}",
                file=file,
                field=f"parameters.{place}",
            )
    return profile


def laid_over(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Merge ``top`` over ``base`` by block; a route with another backend replaces the lower one."""
    result = dict(base)
    for key, value in top.items():
        below = result.get(key)
        if (
            isinstance(value, Mapping)
            and isinstance(below, Mapping)
            and value.get("backend", below.get("backend")) == below.get("backend")
        ):
            result[key] = laid_over(below, value)
        else:
            result[key] = value
    return result


def _leaves(block: Mapping[str, Any], place: str = "") -> Iterator[str]:
    for name, value in block.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{place}{name}.")
        else:
            yield f"{place}{name}"
