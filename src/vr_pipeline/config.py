"""The base of every parameter block."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Parameters(BaseModel):
    """A parameter block of conf/<env>/parameters: unknown keys are rejected, values do not change after loading.

    Every field carries a description with its unit and a range, because the parameter reference in the
    documentation is generated from these models.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, protected_namespaces=())


class TrainedHere(Parameters):
    """A block that names a model: the one in 'path', or the one that was trained here.

    The choice is not part of the settings' identity; the model is, by its files.
    """

    of_the_given: ClassVar[frozenset[str]] = frozenset()
    """Settings that apply to the model in 'path' only, not to the trained one."""

    origin: Literal["given", "trained"] = Field(
        "given",
        alias="from",
        exclude=True,
        description="Which model: 'given' (the one in 'path') or 'trained' (the one in the folder 'trained').",
    )
    trained: str | None = Field(
        None, exclude=True, description="Folder to which this environment's training writes the model."
    )

    @model_validator(mode="before")
    @classmethod
    def _take_the_trained(cls, values: Any) -> Any:
        return cls._chosen(values) if isinstance(values, Mapping) else values

    @classmethod
    def taken(cls, block: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of the model that a block chooses, without the choice itself.

        Raises:
            ValueError: the trained model is chosen, and its folder is not given.
        """
        return {name: value for name, value in cls._chosen(block).items() if name not in ("from", "trained")}

    @classmethod
    def _chosen(cls, block: Mapping[str, Any]) -> dict[str, Any]:
        values = {name: value for name, value in block.items() if (name, value) != ("from", None)}
        if values.get("from") != "trained":
            return values
        if not values.get("trained"):
            raise ValueError("'from: trained' needs 'trained', the folder of that model")
        kept = {name: value for name, value in values.items() if name not in cls.of_the_given}
        return kept | {"path": values["trained"]}
