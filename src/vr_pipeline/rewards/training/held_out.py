"""Held-out prompts: validation prompts choose the checkpoint, test prompts are only reported."""

from typing import Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from vr_pipeline.config import Parameters
from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash
from vr_pipeline.statistics.clustered import linked_prompts

SPLITS = ("train", "validation", "test")


class SplitParameters(Parameters):
    """Which rows are held out. Prompts are drawn by a hash, so that all rows of a prompt are on one side."""

    validation_share: float = Field(
        0.1, gt=0, lt=1, description="Share of prompts that choose checkpoint and calibration."
    )
    test_share: float = Field(
        0.1, ge=0, lt=1, description="Share of prompts used for the report only; 0 reports on validation prompts."
    )
    seed: int = Field(0, description="Seed of the hash.")

    @model_validator(mode="after")
    def _something_is_left(self) -> Self:
        if self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share and test_share must add up to less than 1, to leave training prompts")
        return self


class HeldOutParameters(SplitParameters):
    """The split, and the intervals of the report."""

    bootstrap_samples: int = Field(500, ge=0, description="Bootstrap replicates over prompts; 0 for no intervals.")


def split_by_unit(units: pd.Series, parameters: SplitParameters, *, table: str = "human_preferences") -> pd.Series:
    """Return 'train', 'validation' or 'test' for each row, by a hash of its unit.

    A unit keeps its side when others are added. An otherwise empty side gets the unit with the nearest hash.

    Args:
        units: unit of each row, such as its prompt; units are never split.
        parameters: shares and seed.
        table: name of the table, for messages.

    Raises:
        InputError: there are fewer units than sides.
    """
    sides = SPLITS if parameters.test_share else SPLITS[:2]
    unique = sorted(set(units))
    if len(unique) < len(sides):
        raise InputError(
            f"there are {len(unique)} prompt(s), but {' and '.join(sides)} need one each",
            remedy="Give rows for more prompts" + (", or set test_share to 0" if parameters.test_share else ""),
            file=table,
            field="prompt",
        )
    place = {unit: int(content_hash("reward split", parameters.seed, unit), 16) / 2.0**64 for unit in unique}
    ordered = sorted(unique, key=lambda unit: (place[unit], unit))
    ends = np.cumsum([parameters.test_share, parameters.validation_share])
    first = sum(place[unit] < ends[0] for unit in unique)
    second = sum(place[unit] < ends[1] for unit in unique)
    if parameters.test_share:
        first = min(max(first, 1), len(unique) - 2)
    second = min(max(second, first + 1), len(unique) - 1)
    side = dict(zip(ordered, ["test"] * first + ["validation"] * (second - first), strict=False))
    return units.map(lambda unit: side.get(unit, "train"))


def kept_together(prompts: pd.Series, first: pd.Series, second: pd.Series) -> list[str]:
    """Return for each pair a unit that must not be split: prompts that share a compared clip.

    If shared clips link more than half of the pairs, units are single prompts.

    Args:
        prompts: identifier of the prompt, [pairs].
        first, second: the clips, [pairs].
    """
    linked = linked_prompts(prompts.to_numpy(), first.to_numpy(), second.to_numpy())
    _, sizes = np.unique(linked, return_counts=True)
    together = len(sizes) > len(SPLITS) and sizes.max() <= len(prompts) / 2
    return [str(unit) for unit in (linked if together else prompts)]
