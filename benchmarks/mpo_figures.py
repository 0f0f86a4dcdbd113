"""Table, picture and figures of the benchmark of MPO against DPO, from its stored trainings."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from vr_pipeline.storage.atomic import write_text

JUDGES = {"as is": "as it is", "errors": "10 % errors", "biased": "flicker is motion"}
MODELS = ("oracle", "auditor")
PLACES = {"shipped": "in the shipped world", "trade_offs": "where dimensions trade off"}
DIMENSIONS = ("alignment", "quality", "dynamics", "preservation", "stability")


def over_seeds(values: npt.ArrayLike) -> tuple[float, float, float]:
    """Mean over seeds and Student's interval of 95 %; NaN for the ends with fewer than three seeds."""
    found = np.asarray(values, dtype=np.float64)
    count, mean = len(found), float(found.mean())
    if count < 3:
        return mean, math.nan, math.nan
    half = float(stats.t.ppf(0.975, count - 1) * found.std(ddof=1) / math.sqrt(count))
    return mean, mean - half, mean + half


def shown(values: npt.ArrayLike) -> str:
    """Mean and interval as the pages write them."""
    mean, low, high = over_seeds(values)
    return f"{mean:+.2f}" if math.isnan(low) else f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def flat(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per training: its cell, and gains of the last checkpoint by model and dimension (``oracle_total``)."""
    table = []
    for row in rows:
        last = row["records"][-1]
        gains = {
            f"{model}_{name.removeprefix('dim_')}": value for model in MODELS for name, value in last[model].items()
        }
        kept = {name: row[name] for name in ("cell", "world", "judge", "weights", "factor", "rule", "seed", "pairs")}
        table.append({**kept, "right": row["right"], "gap": row["gap"], **gains})
    return pd.DataFrame(table)


def leads(table: pd.DataFrame, cell: str, column: str) -> np.ndarray:
    """MPO's minus DPO's, one value per seed that has both, in the order of the seeds."""
    own = table[table["cell"] == cell].pivot(index="seed", columns="rule", values=column)
    return (own["mpo"] - own["dpo"]).dropna().to_numpy() if {"mpo", "dpo"} <= set(own) else np.empty(0)


def by_cell(table: pd.DataFrame) -> list[str]:
    """Gains of both rules in every cell, and what their pairs are worth, in Markdown."""
    lines = [
        "| world | judge | weights | pairs | right order, DPO and MPO | DPO's gain, oracle | MPO's gain, oracle "
        "| MPO - DPO, oracle | MPO - DPO, auditor | seeds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for cell in table["cell"].unique():
        own = table[table["cell"] == cell]
        of = {rule: own[own["rule"] == rule] for rule in ("dpo", "mpo")}
        first = own.iloc[0]
        weights = f"{first['weights']}, dynamics x{first['factor']}" if first["factor"] > 1 else first["weights"]
        lines.append(
            f"| {first['world']} | {JUDGES[first['judge']]} | {weights} | {own['pairs'].mean():.0f} "
            f"| {of['dpo']['right'].mean():.2f}, {of['mpo']['right'].mean():.2f} "
            f"| {shown(of['dpo']['oracle_total'])} | {shown(of['mpo']['oracle_total'])} "
            f"| {shown(leads(table, cell, 'oracle_total'))} | {shown(leads(table, cell, 'auditor_total'))} "
            f"| {own['seed'].nunique()} |"
        )
    return lines


def by_dimension(table: pd.DataFrame, cells: Sequence[str]) -> list[str]:
    """Gains in every dimension by the oracle, in Markdown."""
    lines = ["| cell | rule | " + " | ".join(DIMENSIONS) + " |", "|---|---|" + "---|" * len(DIMENSIONS)]
    for cell in cells:
        for rule in ("dpo", "mpo"):
            own = table[(table["cell"] == cell) & (table["rule"] == rule)]
            gains = " | ".join(shown(own[f"oracle_{name}"]) for name in DIMENSIONS)
            lines.append(f"| {cell} | {rule.upper()} | {gains} |")
    return lines


def worst(table: pd.DataFrame) -> pd.Series:
    """The smallest gain of a training in any dimension, by the oracle."""
    return table[[f"oracle_{name}" for name in DIMENSIONS]].min(axis=1)


def chosen_against_last(rows: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """By seed: oracle's gain of the checkpoint of highest judged reward minus that of the last, mean over trainings."""
    found: dict[int, list[float]] = {}
    for row in rows:
        records = row["records"]
        if len(records) > 1:
            best = max(records, key=lambda record: record["validation"])
            found.setdefault(row["seed"], []).append(best["oracle"]["total"] - records[-1]["oracle"]["total"])
    return {seed: float(np.mean(values)) for seed, values in sorted(found.items())}


def claims(table: pd.DataFrame, rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Differences by seed; a positive one supports the claim that names it. Fewer than three seeds are left out."""
    table = table.assign(oracle_worst=worst(table))
    found: dict[str, np.ndarray] = {}
    for world, place in PLACES.items():

        def lead(cell: str, column: str = "oracle_total", world: str = world) -> np.ndarray:
            return leads(table, f"{world}, {cell}", column)

        strong, weak = lead("biased, true, x4"), lead("biased, true, x1")
        both = min(len(strong), len(weak))
        found |= {
            f"MPO gains more than DPO {place}": lead("as is, fitted, x1"),
            f"MPO's worst dimension gains more than DPO's {place}": lead("as is, fitted, x1", "oracle_worst"),
            f"MPO gains more than DPO {place}, 10 % errors, true weights": lead("errors, true, x1"),
            f"MPO gains more than DPO {place}, flicker is motion, true weights": weak,
            f"MPO gains more than DPO {place}, flicker is motion, dynamics x4": strong,
            f"MPO's lead grows {place}, flicker is motion, dynamics x4 against x1": strong[:both] - weak[:both],
            f"removing negative weights raises the gain {place}, flicker is motion": removal(table, world),
        }
    chosen = list(chosen_against_last(rows).values())
    found["the checkpoint that the judge with errors likes best gains more than the last"] = np.array(chosen)
    return {name: values for name, values in found.items() if len(values) >= 3}


def removal(table: pd.DataFrame, world: str) -> np.ndarray:
    """Gain with negative weights removed minus that with them kept, mean of both rules, one value per seed."""
    removed, kept = (
        table[table["cell"] == f"{world}, biased, {weights}, x1"].groupby("seed")["oracle_total"].mean()
        for weights in ("fitted", "signed")
    )
    return (removed - kept).dropna().to_numpy()


def claims_table(found: Mapping[str, np.ndarray]) -> list[str]:
    """Claims with their intervals, in Markdown."""
    lines = ["| claim | difference, oracle, 95 % over seeds | seeds |", "|---|---|---|"]
    return lines + [f"| {name} | {shown(values)} | {len(values)} |" for name, values in found.items()]


def draw(table: pd.DataFrame, path: Path) -> None:
    """Draw the oracle's gain of both rules in every cell, a point for every seed."""
    matplotlib.rcParams.update({"svg.hashsalt": "mpo claims", "svg.fonttype": "none"})
    cells = list(table["cell"].unique())
    figure = Figure(figsize=(7.2, 1.0 + 0.42 * len(cells)), layout="constrained")
    axes = figure.subplots()
    for offset, rule in ((-0.16, "dpo"), (0.16, "mpo")):
        for place, cell in enumerate(cells):
            values = table[(table["cell"] == cell) & (table["rule"] == rule)]["oracle_total"]
            mean, low, high = over_seeds(values)
            colour = "C0" if rule == "dpo" else "C1"
            label = rule.upper() if place == 0 else None
            ends = [[0.0], [0.0]] if math.isnan(low) else [[mean - low], [high - mean]]
            axes.errorbar([mean], [place + offset], xerr=ends, color=colour, marker="o", capsize=3, label=label)
            axes.scatter(values, [place + offset] * len(values), color=colour, s=8, alpha=0.5)
    axes.axvline(0, color="0.6", linewidth=0.8)
    axes.set_yticks(range(len(cells)), cells)
    axes.invert_yaxis()
    axes.set_xlabel("gain by the oracle over the original; mean, 95 % over seeds, and seeds")
    axes.legend(loc="upper left", fontsize=8)
    figure.savefig(path, format="svg", metadata={"Date": None})


def report(rows: Sequence[Mapping[str, Any]], store: Path) -> None:
    """Print and write tables, picture and figures of all trainings."""
    if not rows:
        print("no training is stored")
        return
    table = flat(rows)
    found = claims(table, rows)
    plain = [name for name in table["cell"].unique() if "as is" in name or name.endswith("x4")]
    text = "\n".join([*by_cell(table), "", *by_dimension(table, plain), "", *claims_table(found)]) + "\n"
    store.mkdir(parents=True, exist_ok=True)
    write_text(store / "mpo_claims.md", text)
    draw(table, store / "mpo_claims.svg")
    print(text)
    differences = {name: [round(float(value), 3) for value in over_seeds(values)] for name, values in found.items()}
    seconds = sum(row["seconds"] for row in rows)
    print(json.dumps({"benchmark": "mpo_claims", "trainings": len(rows), "seconds": seconds, "claims": differences}))
