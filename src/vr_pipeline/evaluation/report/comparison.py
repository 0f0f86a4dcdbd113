"""Policies compared with the original and with the baseline, by every source of rewards."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from vr_pipeline.evaluation.metrics import gain_over
from vr_pipeline.evaluation.report.wording import as_number, signed
from vr_pipeline.generators.policy import ORIGINAL
from vr_pipeline.statistics.clustered import simultaneous

Verdict = Literal["above", "below", "unclear", "unknown"]

SOURCES = {"judge": "Judge", "oracle": "Oracle"}


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval; NaN where there were too few prompts for one."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, record: Mapping[str, Any], key: str = "mean") -> Interval:
        """Read the interval in a record of the metrics (null as NaN)."""
        return cls(*(as_number(record.get(name)) for name in (key, "ci_low", "ci_high")))

    def verdict(self, reference: float = 0.0) -> Verdict:
        """Say on which side of a reference the whole interval lies."""
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            return "unknown"
        if self.low > reference:
            return "above"
        return "below" if self.high < reference else "unclear"

    def __str__(self) -> str:
        """Write a difference with its interval, for a sentence."""
        if not math.isfinite(self.mean):
            return "not known"
        if self.verdict() == "unknown":
            return f"{signed(self.mean)} (no interval)"
        return f"{signed(self.mean)} (95 % interval {signed(self.low)} to {signed(self.high)})"


@dataclass(frozen=True)
class Comparison:
    """One policy against another by one source, over all and by dimension.

    Attributes:
        total: difference of total rewards.
        dimensions: difference by dimension; these intervals hold together for all ``together`` that are read at once.
        effect: difference of totals in standard deviations of the baseline's clips, which allows to set sources side
            by side although their rewards have different scales; NaN where the baseline never varies.
    """

    total: Interval
    dimensions: dict[str, Interval]
    effect: float
    together: int = 1


Comparisons = Mapping[str, Mapping[str, Comparison]]
"""Policy -> source -> how it compares."""


def compare(rewards: pd.DataFrame, policy: str, baseline: str, *, policies: int = 1) -> Comparison:
    """Compare two policies, with 95 % intervals over prompts.

    The interval of the total is for itself. Those of the dimensions hold together (Bonferroni): among many, some would
    be beyond 0 by chance.

    Args:
        rewards: one row per clip: prompt_id, policy, total, dim_<name>.
        policies: comparisons of policies that are read at once.
    """
    ours, theirs = (rewards[rewards["policy"] == name] for name in (policy, baseline))
    dimensions = dimensions_of(rewards)
    together = policies * len(dimensions)

    def difference(column: str, level: float = 0.95) -> Interval:
        gain = gain_over(ours, theirs, column, level)
        return Interval(gain.mean, gain.ci_low, gain.ci_high)

    total, deviation = difference("total"), float(theirs["total"].std(ddof=0))
    return Comparison(
        total=total,
        dimensions={name: difference(f"dim_{name}", simultaneous(together)) for name in dimensions},
        effect=total.mean / deviation if deviation > 1e-9 else math.nan,
        together=together,
    )


def compare_all(rewards: Mapping[str, pd.DataFrame], policies: Sequence[str]) -> tuple[Comparisons, Comparisons]:
    """Compare every trained policy with the original, and those after the first trained one, the baseline, with it.

    Args:
        rewards: by source, see :func:`rewards_by_source`.
        policies: the original and the trained ones, in their order.
    """
    trained = [name for name in policies if name != ORIGINAL]
    against_original = {
        policy: {source: compare(table, policy, ORIGINAL, policies=len(trained)) for source, table in rewards.items()}
        for policy in trained
    }
    between = {
        policy: {source: compare(table, policy, trained[0]) for source, table in rewards.items()}
        for policy in trained[1:]
    }
    return against_original, between


def rewards_by_source(judge: pd.DataFrame, oracle: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the rewards of both sources, those that there are: the judge's if there is a reward, then the oracle's."""
    return {source: table for source, table in (("judge", judge), ("oracle", oracle)) if len(table)}


def dimensions_of(rewards: pd.DataFrame) -> list[str]:
    """Return the names of the dimensions of rewards, in their order."""
    return [str(name).removeprefix("dim_") for name in rewards.columns if str(name).startswith("dim_")]
