"""Bound for checkpoints: no dimension of the reward below the original on the validation prompts."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vr_pipeline.statistics.clustered import MINIMUM_PROMPTS, paired_gain, simultaneous

logger = logging.getLogger(__name__)

BELOW = "dimensions_below"
"""Column of the training log: the number of dimensions in which a checkpoint is below the original."""

Means = Mapping[str, Mapping[str, float]]
"""Mean reward of clips by column and prompt; see :func:`~vr_pipeline.training.reward_hacking.prompt_means`."""

_EQUAL = 1e-9


@dataclass(frozen=True)
class Bound:
    """The bound of a training; see ``ValidationParameters.bound``."""

    kind: Literal["none", "mean", "interval"]

    @property
    def acts(self) -> bool:
        """Whether it can reject checkpoints."""
        return self.kind != "none"

    @property
    def depends_on(self) -> list[str]:
        """All that decisions depend on."""
        return [f"bound {self.kind}"] if self.acts else []

    def report_absence(self, prompts: int) -> None:
        """Log that so many prompts give no interval, if one is needed."""
        if self.kind == "interval" and prompts < MINIMUM_PROMPTS:
            text = "No checkpoint can be rejected: an interval needs %d validation prompts, there are %d (bound)"
            logger.warning(text, MINIMUM_PROMPTS, prompts)

    def below(self, row: Mapping[str, Any], original: Mapping[str, Any]) -> list[str]:
        """Return the dimensions of a checkpoint's record that are below the original's, and log them."""
        found = dimensions_below(row["means"], original["means"], self.kind)
        if found:
            text = "The checkpoint after step %d is not chosen: %s below the original (bound: %s)"
            logger.warning(text, row["step"], ", ".join(found), self.kind)
        return found


def dimensions_below(means: Means, original: Means, kind: str) -> list[str]:
    """Return the dimensions in which a checkpoint is below the original on the prompts of both.

    Args:
        means: of the checkpoint.
        original: of the original.
        kind: ``mean``: the mean over prompts is lower; ``interval``: its 95 % interval is, jointly for all dimensions
            (Bonferroni); none is with too few prompts.
    """
    columns = [name for name in means if name in original and name.startswith("dim_")]
    found = []
    for name in columns:
        prompts = sorted(means[name].keys() & original[name].keys())
        sides = [[side[name][prompt] for prompt in prompts] for side in (means, original)]
        gain = paired_gain(sides[0], prompts, sides[1], prompts, level=simultaneous(len(columns)))
        if (gain.ci_high if kind == "interval" else gain.mean) < -_EQUAL:
            found.append(name.removeprefix("dim_"))
    return found
