"""Output of the commands that score single files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vr_pipeline.terminal import aligned, echo, one_line

if TYPE_CHECKING:
    from vr_pipeline.rewards.checklist.scoring import ScoredFile
    from vr_pipeline.rewards.contract import RewardModel


def dominates(first: ScoredFile, second: ScoredFile) -> bool:
    """Return whether a file is at least as good as another in every dimension."""
    return all(first.dimensions[name] >= second.dimensions[name] - 1e-9 for name in first.dimensions)


def how_much_better(first: ScoredFile, second: ScoredFile) -> str:
    """Return in how many dimensions the better of two files is ahead; an empty text if it is worse in any."""
    better, worse = (first, second) if first.total > second.total else (second, first)
    if not dominates(better, worse):
        return ""
    ahead = sum(better.dimensions[name] > worse.dimensions[name] + 1e-9 for name in better.dimensions)
    if ahead == len(better.dimensions):
        return " in every dimension"
    return f" in {ahead} of {len(better.dimensions)} dimensions and equal in the others"


def print_table(scored: Sequence[ScoredFile]) -> None:
    """Print rewards and dimensions, one row per file."""
    public = scored[0].visionreward_score is not None
    columns = [*(["visionreward_score"] if public else []), "total", *scored[0].dimensions]
    rows = [["file", *columns]]
    for one in scored:
        values = [*([one.visionreward_score] if public else []), one.total, *one.dimensions.values()]
        rows.append([one_line(one.path), *(f"{value:.4f}" for value in values)])
    echo("\n".join(aligned(rows, left={0})))


def question_text(model: Any, question: str, prompt: str) -> str:
    """Return the text of a question of a checklist's reward."""
    return str(model.checklist.question(question).ask(prompt))


def print_movers(scored: ScoredFile, model: Any, count: int, prompt: str) -> None:
    """Print the questions with the largest effect on a checklist's reward; nothing for another reward."""
    from vr_pipeline.rewards.checklist.scoring import movers

    if not scored.contributions:
        return
    echo(f"\n{one_line(scored.path)}: largest effects on the score (relative to an undecided answer)")
    for question, moved in movers(scored, model.weights, count):
        p_yes = scored.p_yes[question]
        answer = "yes" if p_yes > 0.5 else "no"
        echo(f"  {moved:+.4f}  {question_text(model, question, prompt)}  {answer} ({p_yes:.2f})")


def probabilities(model: RewardModel, first: Path, second: Path, prompt: str) -> dict[str, Any] | None:
    """Return the probability that either of two files is preferred, overall and by dimension.

    Returns:
        ``better`` (first, second or tie) and the probabilities of first, tie and second, also under ``dimensions``;
        ``position_bias`` and ``outside_mass`` of a ranker that reads answers; None for a reward that ranks by totals.
    """
    from vr_pipeline.rewards import contract
    from vr_pipeline.rewards.registry import ranker_of

    if model.ranks_by == contract.RewardModel.ranks_by:
        return None
    (row,) = ranker_of(model).compare([first], [second], [prompt]).to_dict("records")
    sides = {"first": "p_a", "tie": "p_tie", "second": "p_b"}

    def of(end: str) -> dict[str, float]:
        return {side: float(row[f"{column}{end}"]) for side, column in sides.items()}

    named = [name for name in model.dimensions if f"p_a_{name}" in row]
    better = {"a": "first", "b": "second"}.get(str(row.get("better")), "tie")
    read = {name: float(row[name]) for name in ("position_bias", "outside_mass") if "outside_mass" in row}
    return {"better": better, **of(""), **read, "dimensions": {name: of(f"_{name}") for name in named}}


def print_probabilities(found: dict[str, Any]) -> None:
    """Print the probabilities of :func:`probabilities`, one row per dimension."""
    sides = ("first", "tie", "second")
    of_names = {"overall": found, **found["dimensions"]}.items()
    rows = [("probability", *sides), *((name, *(f"{row[side]:.3f}" for side in sides)) for name, row in of_names)]
    echo("\n" + "\n".join(aligned(rows, left={0})))
    if "outside_mass" in found:
        echo(
            f"position bias {found['position_bias']:+.3f} (half the effect of swapping), probability of other answers "
            f"{found['outside_mass']:.3f}"
        )
