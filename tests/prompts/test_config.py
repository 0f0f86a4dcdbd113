"""Parameter blocks: what conf/base gives is valid, mistakes are rejected."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from vr_pipeline.prompts.config import PromptFilteringParameters


def test_every_field_is_described() -> None:
    def fields(model: type[BaseModel], path: str = "") -> list[str]:
        missing = []
        for name, field in model.model_fields.items():
            if not field.description:
                missing.append(path + name)
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                missing += fields(field.annotation, f"{path}{name}.")
        return missing

    assert fields(PromptFilteringParameters) == []


@pytest.mark.parametrize(
    "block",
    [
        {"rouge": {"treshold": 0.5}},
        {"rouge": {"threshold": 0.0}},
        {"semantic": {"threshold": 1.2}},
        {"cleaning": {"min_words": 9, "max_words": 3}},
        {"diversity": {"count": 0}},
        {"language_model": {"rewrite": True}},
        {"unknown": {}},
    ],
)
def test_mistakes_are_rejected(block: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PromptFilteringParameters(**block)
