"""Does preference training help on held-out prompts, whatever the seed?

Runs the whole embedded default once for each seed, in a scratch copy of the project, and prints the oracle's and the
judge's gain over the original generator with 95 % intervals by prompt, the mean gains and the difference of MPO and DPO
over the runs, and the time and memory of each run. Runs share judge, weights and prompts: the intervals over runs say
what another seed of generation, training and evaluation would give, not what another judge or other prompts would.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import stats

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("conf", "pyproject.toml", "data/01_raw", "data/06_models/micro_world")


def copy_project(target: Path) -> None:
    """The configuration and the shipped data, without results."""
    # Kedro wants the folder to exist; the code comes from PYTHONPATH.
    (target / "src").mkdir()
    for part in PARTS:
        source = ROOT / part
        (target / part).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target / part)


def run_seed(seed: int) -> dict[str, float]:
    """One run of mpo_dpo with seeds that differ in generation, training and evaluation."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_project(folder)
        overrides = ",".join(
            [
                f"video_generation.seed={1000 + seed}",
                f"dpo_training.training.seed={seed}",
                f"evaluation.seed={2000 + seed}",
            ]
        )
        started = time.perf_counter()
        result = subprocess.run(
            [sys.executable, "-m", "kedro", "run", "--pipeline=mpo_dpo", f"--params={overrides}"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - started
        if result.returncode:
            sys.exit(f"seed {seed} failed:\n{result.stderr[-4000:]}")
        metrics = json.loads((folder / "data/08_reporting/evaluation_metrics.json").read_text())
    row: dict[str, float] = {"seed": seed, "seconds": seconds}
    for policy in ("dpo", "mpo"):
        for source in ("oracle", "judge"):
            gain = metrics["gain"][policy][source]
            row |= {
                f"{policy}_{source}": gain["mean"],
                f"{policy}_{source}_low": gain["ci_low"],
                f"{policy}_{source}_high": gain["ci_high"],
            }
        row[f"{policy}_pairs"] = metrics["pairs"][policy]["n"]
    row["tau"], row["diff"] = metrics["agreement"]["tau"], metrics["agreement"]["diff"]
    return row


def over_runs(values: list[float]) -> list[float] | None:
    """Student's t interval (95 %) of the mean over runs; none with fewer than three."""
    count = len(values)
    if count < 3:
        return None
    half = stats.t.ppf(0.975, count - 1) * np.std(values, ddof=1) / np.sqrt(count)
    return [float(np.mean(values) - half), float(np.mean(values) + half)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    arguments = parser.parse_args()
    count = arguments.seeds
    rows = []
    print(
        f"{'seed':>4}  {'MPO oracle gain':>24}  {'DPO oracle gain':>24}  {'MPO judge':>9}  {'DPO judge':>9}  {'s':>5}"
    )
    for seed in range(arguments.first, arguments.first + count):
        row = run_seed(seed)
        rows.append(row)
        texts = [
            f"{row[f'{policy}_oracle']:+.3f} [{row[f'{policy}_oracle_low']:+.3f}, {row[f'{policy}_oracle_high']:+.3f}]"
            for policy in ("mpo", "dpo")
        ]
        print(
            f"{seed:>4}  {texts[0]:>24}  {texts[1]:>24}  {row['mpo_judge']:>+9.3f}  {row['dpo_judge']:>+9.3f}"
            f"  {row['seconds']:>5.0f}",
            flush=True,
        )
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    differences = [row["mpo_oracle"] - row["dpo_oracle"] for row in rows]
    print(
        json.dumps(
            {
                "benchmark": "demo_seeds",
                "seeds": count,
                "mpo_above_original_in": sum(row["mpo_oracle_low"] > 0 for row in rows),
                "dpo_above_original_in": sum(row["dpo_oracle_low"] > 0 for row in rows),
                "mpo_oracle_gain": float(np.mean([row["mpo_oracle"] for row in rows])),
                "mpo_oracle_gain_interval": over_runs([row["mpo_oracle"] for row in rows]),
                "dpo_oracle_gain": float(np.mean([row["dpo_oracle"] for row in rows])),
                "dpo_oracle_gain_interval": over_runs([row["dpo_oracle"] for row in rows]),
                "mpo_minus_dpo_oracle": float(np.mean(differences)),
                "mpo_minus_dpo_oracle_interval": over_runs(differences),
                "seconds": max(row["seconds"] for row in rows),
                "peak_mb": round(peak),
                "rows": rows,
            }
        )
    )


if __name__ == "__main__":
    main()
