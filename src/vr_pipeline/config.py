"""The base of every parameter block."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Parameters(BaseModel):
    """A parameter block of conf/<env>/parameters: unknown keys are rejected, values do not change after loading.

    Every field carries a description with its unit and a range, because the parameter reference in the
    documentation is generated from these models.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, protected_namespaces=())
