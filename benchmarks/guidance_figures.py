"""What the clips of benchmarks/guidance.py say: gains, claims with intervals and verdicts, the picture of weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from flow_claims import over_seeds, verdict
from vr_pipeline.statistics.clustered import Gain, paired_gain

Cells = Sequence[Mapping[str, Any]]
"""Scores of clips, a table a seed."""

ORACLE = {"visual": ("quality", "preservation"), "motion": ("dynamics", "stability"), "text": ("alignment",)}
"""Dimensions of the VideoReward as sums of the oracle's."""

SIMPLEX: dict[str, tuple[float, float, float]] = {
    "visual": (1.0, 0.0, 0.0),
    "motion": (0.0, 1.0, 0.0),
    "text": (0.0, 0.0, 1.0),
    "visual + motion": (0.5, 0.5, 0.0),
    "visual + text": (0.5, 0.0, 0.5),
    "motion + text": (0.0, 0.5, 0.5),
    "equal": (1 / 3, 1 / 3, 1 / 3),
}
"""Weights of visual, motion and text."""

NO_GUIDANCE, BEST = "unguided", "best of n"


def gain(ours: Cells, theirs: Cells, column: str) -> dict[str, Any]:
    """Difference of two settings over all seeds, with the interval by prompt and Student's over the seeds."""

    def of(some: Cells, other: Cells) -> Gain:
        a, b = (pd.concat([pd.DataFrame(cell) for cell in cells]) for cells in (some, other))
        return paired_gain(a[column], a["prompt_id"], b[column], b["prompt_id"])

    pooled = of(ours, theirs)
    by_seed = over_seeds([of([a], [b]).mean for a, b in zip(ours, theirs, strict=True)])
    return {
        "gain": pooled.mean,
        "by_prompt": [pooled.ci_low, pooled.ci_high],
        "by_seed": by_seed,
        "verdict": verdict(pooled, by_seed),
    }


def mixed(*settings: Cells) -> list[dict[str, Any]]:
    """The mean of several settings, seed by seed and clip by clip."""
    made: list[dict[str, Any]] = []
    for of_seed in zip(*settings, strict=True):
        tables = [pd.DataFrame(one) for one in of_seed]
        means = {
            name: np.mean([one[name].to_numpy() for one in tables], axis=0).tolist() for name in (*ORACLE, "total")
        }
        made.append({"prompt_id": tables[0]["prompt_id"].tolist(), **means})
    return made


def claims(cells: Mapping[str, Cells]) -> list[dict[str, Any]]:
    """Every claim with its difference, its intervals and the verdict."""
    rows = []
    for name in ORACLE:
        rest = mixed(*(cells[other] for other in ORACLE if other != name))
        rows.append((f"a weight on {name} raises {name}", gain(cells[name], cells[NO_GUIDANCE], name)))
        rows.append(
            (f"a weight on {name} raises {name} more than weights on the others do", gain(cells[name], rest, name))
        )
    for name in ("equal", "motion"):
        column = "total" if name == "equal" else name
        ours, clean = cells[name], cells[f"{name}, clean-trained"]
        rows.append((f"noisy-trained beats clean-trained, {name}, by {column}", gain(ours, clean, column)))
        rows.append((f"clean-trained beats no guidance, {name}, by {column}", gain(clean, cells[NO_GUIDANCE], column)))
    rows.append(("guidance raises the total", gain(cells["equal"], cells[NO_GUIDANCE], "total")))
    rows.append(("DPO raises the total", gain(cells["DPO"], cells[NO_GUIDANCE], "total")))
    rows.append(("guidance raises the total of the DPO policy", gain(cells["DPO + equal"], cells["DPO"], "total")))
    rows.append(("both together beat guidance", gain(cells["DPO + equal"], cells["equal"], "total")))
    # (both - DPO) - (guidance - neither), halved to be a difference of means of two.
    both, apart = mixed(cells["DPO + equal"], cells[NO_GUIDANCE]), mixed(cells["DPO"], cells["equal"])
    rows.append(("together they gain more than the sum (twice this)", gain(both, apart, "total")))
    rows.append(("guidance beats the best of n at equal compute", gain(cells["equal"], cells[BEST], "total")))
    return [{"claim": text, **found} for text, found in rows]


def draw_simplex(gains: Mapping[str, Mapping[str, dict[str, Any]]], path: Path) -> None:
    """Draw the gain of every dimension over the triangle of weights."""
    matplotlib.rcParams.update({"svg.hashsalt": "guidance", "svg.fonttype": "none"})
    corners = {"visual": (0.0, 0.0), "motion": (1.0, 0.0), "text": (0.5, math.sqrt(3) / 2)}
    figure = Figure(figsize=(10.5, 3.7), layout="constrained")
    for axes, column in zip(figure.subplots(1, 3), ORACLE, strict=True):
        axes.fill(*zip(*corners.values(), strict=True), facecolor="none", edgecolor="#999999", linewidth=1)
        x, y, values = [], [], []
        for name, weights in SIMPLEX.items():
            row, column_place = (
                float(sum(w * corner[axis] for w, corner in zip(weights, corners.values(), strict=True)))
                for axis in (0, 1)
            )
            place = (row, column_place)
            found = gains[name][column]
            x.append(place[0])
            y.append(place[1])
            values.append(found["gain"])
            sure = found["by_prompt"][0] > 0 or found["by_prompt"][1] < 0
            axes.annotate(
                f"{found['gain']:+.2f}{'*' if sure else ''}",
                place,
                (0, -19),
                textcoords="offset points",
                ha="center",
                fontsize=9,
            )
        axes.scatter(x, y, c=values, cmap="YlGnBu", s=230, edgecolors="#444444", zorder=2)
        for name, place in corners.items():
            axes.annotate(name, place, (0, 14), textcoords="offset points", ha="center", fontsize=9, color="#444444")
        axes.set_title(f"gain in {column}", fontsize=11)
        axes.set(xlim=(-0.2, 1.2), ylim=(-0.22, 1.08), aspect="equal")
        axes.axis("off")
    figure.supxlabel(
        "weights of the guidance: a corner is one dimension alone; colours from the least to the largest gain of a "
        "triangle; * the 95 % interval by prompt excludes 0",
        fontsize=9,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None})


def shown(found: Mapping[str, Any]) -> str:
    low, high = found["by_prompt"]
    return f"{found['gain']:+.2f} [{low:+.2f}, {high:+.2f}]"
