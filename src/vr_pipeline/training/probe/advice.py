"""Advice from the cells of a probe: which settings are healthy, and which one to use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from vr_pipeline.training.config import SafeguardParameters
from vr_pipeline.training.probe.measure import Cell


class Health(NamedTuple):
    """Limits beyond which a short training counts as failed.

    Attributes:
        winner_rise: largest rise of the winners' error, as a share of the original's.
        norm_ratio: largest ratio of norms to the original's, and the inverse of the smallest.
    """

    winner_rise: float = 1.0
    norm_ratio: float = 2.0

    @staticmethod
    def of(guard: SafeguardParameters) -> Health:
        """Return the limits below which the automatic stop considers weights healthy."""
        rise, ratio = guard.max_winner_change, guard.max_norm_ratio
        limits = {"winner_rise": rise and rise / 2, "norm_ratio": ratio and ratio**0.5}
        return Health(**{name: limit for name, limit in limits.items() if limit is not None})

    def trouble(self, cell: Cell) -> list[str]:
        """Return what is wrong with a training; empty if it is healthy."""
        found = [cell.stopped] if cell.stopped else []
        if cell.winner_rise is not None and cell.winner_rise > self.winner_rise:
            found.append(f"the winners' error rose by {cell.winner_rise:.0%} of the original's")
        if cell.norm_ratio is not None and not 1 / self.norm_ratio <= cell.norm_ratio <= self.norm_ratio:
            found.append(f"the norm of predictions is {cell.norm_ratio:.2f} times the original's")
        if cell.gain_high is not None and cell.gain_high < 0:
            found.append(f"the reward fell by {-(cell.gain or 0):.2g}")
        return found


class Advice(NamedTuple):
    """Recommended settings (None without a recommendation) and the reason, in sentences."""

    learning_rate: float | None
    beta: float | None
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return self._asdict()


def value_of(cell: Cell) -> float | None:
    """Return the ranking value of a cell: the gain in reward, or without a reward the accuracy on held-out pairs."""
    return cell.gain if cell.gain is not None else cell.accuracy


def advise(cells: Sequence[Cell], health: Health, steps: int) -> Advice:
    """Recommend the healthy combination with the highest gain; among similar ones, the one that changed winners least.

    A longer training changes the policy further than the probe, so the smaller change is safer.

    Args:
        cells: all measured combinations.
        health: limits of a healthy training.
        steps: of the probe's trainings.
    """
    healthy = [cell for cell in cells if not health.trouble(cell) and value_of(cell) is not None]
    broken = [cell for cell in cells if health.trouble(cell)]
    if not healthy:
        lowest = min(cells, key=lambda cell: (cell.learning_rate, -cell.beta))
        return Advice(
            None,
            None,
            f"none of {len(cells)} combinations stayed healthy, not even learning rate {lowest.learning_rate:g} with "
            f"beta {lowest.beta:g} ({health.trouble(lowest)[0] if health.trouble(lowest) else 'nothing measured'}): "
            "probe lower learning rates, or enable safeguards",
        )
    best = max(healthy, key=lambda cell: (value_of(cell) or 0.0, -cell.learning_rate))
    if best.gain is not None and best.gain <= 0:
        return Advice(
            None,
            None,
            f"no healthy combination raised the reward in {steps} steps; the best, learning rate "
            f"{best.learning_rate:g} with beta {best.beta:g}, gained {best.gain:+.3g}: probe more steps, or inspect "
            "the pairs",
        )
    chosen = min(
        (cell for cell in healthy if _may_equal(cell, best)),
        key=lambda cell: (cell.winner_rise or 0.0, cell.learning_rate),
    )
    return Advice(chosen.learning_rate, chosen.beta, " ".join(_reasons(chosen, best, healthy, broken, health, steps)))


def _may_equal(cell: Cell, best: Cell) -> bool:
    """Return whether a cell's value is not clearly below the best: within its interval, or without one within 10 %."""
    ours, theirs = value_of(cell) or 0.0, value_of(best) or 0.0
    if best.gain is not None and best.gain_low is not None:
        return ours >= max(best.gain_low, 0.9 * theirs)
    # Accuracy counts from one half.
    return ours >= theirs - 0.1 * abs(theirs - (0.0 if best.gain is not None else 0.5))


def _reasons(
    chosen: Cell, best: Cell, healthy: Sequence[Cell], broken: Sequence[Cell], health: Health, steps: int
) -> list[str]:
    kind = "gain in validation reward" if chosen.gain is not None else "accuracy on held-out pairs"
    rank = (
        "the highest" if chosen == best else f"as good as the highest ({value_of(best):.3g}), with winners changed less"
    )
    said = [f"Its {kind} after {steps} steps is {value_of(chosen):.3g}, {rank} of {len(healthy)} healthy combinations."]
    above = sorted(
        (cell for cell in broken if cell.beta == chosen.beta and cell.learning_rate > chosen.learning_rate),
        key=lambda cell: cell.learning_rate,
    )
    if above:
        factor = above[0].learning_rate / chosen.learning_rate
        said.append(
            f"With this beta it breaks at a learning rate {factor:.3g} times as high: {health.trouble(above[0])[0]}."
        )
    elif not broken:
        said.append("Nothing broke on this grid; higher learning rates may gain more.")
    return said
