"""Do three rounds of online MPO gain more than one, at equal numbers of judged clips?

For each seed, one arm makes 8 clips per prompt in each of three rounds and trains 60 steps per round; the other makes
24 clips per prompt at once and trains 180 steps. Checkpoints are not judged, so both arms judge the same number of
clips, and the last step of each arm is its policy. Prints the oracle's gain over the original on held-out prompts, the
ratio of the two gains, and its interval over seeds. All runs share judge, weights and prompts.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from scipy import stats

from demo_seeds import ROOT, copy_project
from vr_pipeline.evaluation.metrics import gain_over

ARMS: dict[str, dict[str, Any]] = {
    "three": {"rounds": 3, "videos_per_prompt": 8, "training": {"steps": 60, "warmup_steps": 10}},
    "one": {"rounds": 1, "videos_per_prompt": 24, "training": {"steps": 180, "warmup_steps": 10}},
}
EVALUATION_CLIPS = 8


def kedro(folder: Path, *arguments: str) -> None:
    """Run Kedro in a project folder, and exit with its messages if it fails."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "kedro", "run", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")


def configure(folder: Path, arm: str, seed: int, reference: str) -> None:
    """Write the settings of an arm."""
    path = folder / "conf/base/parameters/online_mpo.yml"
    block = yaml.safe_load(path.read_text())["online_mpo"] | ARMS[arm]
    block |= {"seed": 1000 + seed, "reference": reference, "validation": None}
    path.write_text(yaml.safe_dump({"online_mpo": block}))


def run_arm(start: Path, arm: str, seed: int, reference: str) -> dict[str, Any]:
    """Run the rounds and compare their policies with the original; the weights of the reward are there already."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "project"
        shutil.copytree(start, folder)
        configure(folder, arm, seed, reference)
        rounds = range(1, ARMS[arm]["rounds"] + 1)
        kedro(
            folder,
            "--pipeline=online_mpo",
            "--from-nodes=online_start.encode_online_prompts,online_round_1.choose_prompts_round_1",
            "--to-nodes=online_evaluation.consult_oracle",
            f"--params=dpo_training.training.seed={seed},evaluation.seed={2000 + seed},"
            f"evaluation.videos_per_prompt={EVALUATION_CLIPS}",
        )
        rewards = pd.read_parquet(folder / "data/07_model_output/evaluation_oracle_rewards.parquet")
        index = [pd.read_parquet(folder / f"data/03_primary/online/video_index_round_{one}.parquet") for one in rounds]
    original = rewards[rewards["policy"] == "original"]
    gains = [gain_over(rewards[rewards["policy"] == f"round_{one}"], original) for one in rounds]
    return {
        "judged_clips": sum(map(len, index)),
        "gains_by_round": [gain.mean for gain in gains],
        "gain": gains[-1].mean,
        "interval": [gains[-1].ci_low, gains[-1].ci_high],
    }


def interval_of_ratio(ratios: list[float]) -> list[float] | None:
    """Student's t interval (95 %) of the geometric mean of the ratios over seeds; None with fewer than three."""
    if len(ratios) < 3 or min(ratios) <= 0:
        return None
    logs = np.log(ratios)
    half = stats.t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / math.sqrt(len(logs))
    return [math.exp(logs.mean() - half), math.exp(logs.mean() + half)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--reference", choices=("renewed", "kept"), default="renewed", help="online_mpo.reference")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        start = Path(name) / "start"
        start.mkdir()
        copy_project(start)
        kedro(start, "--pipelines=prompt_filtering,online_start")
        for seed in range(arguments.first, arguments.first + arguments.seeds):
            began = time.perf_counter()
            row: dict[str, Any] = {"seed": seed}
            row |= {arm: run_arm(start, arm, seed, arguments.reference) for arm in ARMS}
            row |= {"ratio": row["three"]["gain"] / row["one"]["gain"], "seconds": time.perf_counter() - began}
            rows.append(row)
            print(json.dumps(row), flush=True)
    ratios = [row["ratio"] for row in rows]
    summary = {
        "benchmark": "rounds",
        "seeds": len(rows),
        "reference": arguments.reference,
        "judged_clips": rows[0]["one"]["judged_clips"],
        "gain_of_three": float(np.mean([row["three"]["gain"] for row in rows])),
        "gain_of_one": float(np.mean([row["one"]["gain"] for row in rows])),
        "ratio_geometric_mean": float(np.exp(np.mean(np.log(ratios)))) if min(ratios) > 0 else None,
        "ratio_interval": interval_of_ratio(ratios),
        "at_least_1.3_in": sum(ratio >= 1.3 for ratio in ratios),
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
