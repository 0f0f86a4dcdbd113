"""Comparison of policies with the original and the baseline, by source of rewards."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from vr_pipeline.evaluation.metrics import gain_over
from vr_pipeline.evaluation.report.wording import as_number, signed
from vr_pipeline.generators.policy import ORIGINAL
from vr_pipeline.statistics.clustered import simultaneous

Verdict = Literal["above", "below", "unclear", "unknown"]

SOURCES = {"judge": "Judge", "oracle": "Oracle", "auditor": "Auditor"}


def witness(sources: Collection[str]) -> str | None:
    """Return the source that decides whether clips became better: the least dependent on the training that there is."""
    return next((name for name in ("auditor", "oracle") if name in sources), None)


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval, NaN with too few prompts."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, record: Mapping[str, Any], key: str = "mean") -> Interval:
        """Read the interval in a record of the metrics (null as NaN)."""
        return cls(*(as_number(record.get(name)) for name in (key, "ci_low", "ci_high")))

    def verdict(self, reference: float = 0.0) -> Verdict:
        """Return on which side of a reference the whole interval is."""
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            return "unknown"
        if self.low > reference:
            return "above"
        return "below" if self.high < reference else "unclear"

    def __str__(self) -> str:
        """Write a difference with its interval, for a sentence."""
        if not math.isfinite(self.mean):
            return "unknown"
        if self.verdict() == "unknown":
            return f"{signed(self.mean)} (no interval)"
        return f"{signed(self.mean)} (95 % interval {signed(self.low)} to {signed(self.high)})"


@dataclass(frozen=True)
class Comparison:
    """One policy compared with another by one source.

    Attributes:
        total: difference of total rewards.
        dimensions: difference by dimension; intervals are joint for ``together`` comparisons.
        effect: difference of totals in standard deviations of the prompts' differences, comparable between sources;
            NaN if prompts do not differ.
    """

    total: Interval
    dimensions: dict[str, Interval]
    effect: Interval
    together: int = 1


Comparisons = Mapping[str, Mapping[str, Comparison]]
"""Policy -> source -> comparison."""


def compare(rewards: pd.DataFrame, policy: str, baseline: str, *, policies: int = 1) -> Comparison:
    """Compare two policies, with 95 % intervals over prompts: single for the total, joint for dimensions (Bonferroni).

    Args:
        rewards: one row per clip: prompt_id, policy, total, dim_<name>.
        policy, baseline: names of the policies.
        policies: number of policies compared together.
    """
    ours, theirs = (rewards[rewards["policy"] == name] for name in (policy, baseline))
    dimensions = dimensions_of(rewards)
    together = policies * len(dimensions)

    def difference(column: str) -> Interval:
        gain = gain_over(ours, theirs, column, simultaneous(together))
        return Interval(gain.mean, gain.ci_low, gain.ci_high)

    total = gain_over(ours, theirs)
    return Comparison(
        total=Interval(total.mean, total.ci_low, total.ci_high),
        dimensions={name: difference(f"dim_{name}") for name in dimensions},
        effect=Interval(*total.effect()),
        together=together,
    )


def compare_all(rewards: Mapping[str, pd.DataFrame], policies: Sequence[str]) -> tuple[Comparisons, Comparisons]:
    """Compare every trained policy with the original, and with the baseline, the first trained policy.

    Args:
        rewards: by source, see :func:`vr_pipeline.evaluation.metrics.rewards_by_source`.
        policies: the original and the trained policies, in order.
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


def dimensions_of(rewards: pd.DataFrame) -> list[str]:
    """Return the names of the dimensions of rewards in order."""
    return [str(name).removeprefix("dim_") for name in rewards.columns if str(name).startswith("dim_")]
