"""In how many settings does preference training help, and in how many does it do harm, with safeguards and without?

Trains the embedded default's generator on plain pairs by total reward with every combination of learning rate and beta
and several seeds, once as plain DPO and once with safeguards, and scores clips of held-out prompts by the oracle,
against clips of the original generator from the same seeds. The clips that are paired for training are new for every
seed. A setting (learning rate, beta) is above 0 if the 95 % interval of its gain over the clips of all seeds, by
prompt, is above 0; the seeds share judge, weights and prompts.

Every training is stored in a file of its own as soon as it is evaluated; started again, only those that are missing are
done. Delete the folder after changes of the code.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import torch
import yaml
from matplotlib.figure import Figure

from demo_seeds import ROOT, copy_project
from vr_pipeline.checklist import load_checklist
from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import Generator
from vr_pipeline.identifiers import content_hash, sample_seed
from vr_pipeline.items.folder import open_folder
from vr_pipeline.items.formats import item_format
from vr_pipeline.micro_world.oracle import Oracle
from vr_pipeline.micro_world.reward import OracleReward
from vr_pipeline.runtime.progress import progress_bar
from vr_pipeline.statistics.clustered import Gain, paired_gain
from vr_pipeline.storage.atomic import write_text
from vr_pipeline.training.config import PreferenceTrainingParameters
from vr_pipeline.training.pairs import PairData
from vr_pipeline.training.policies import pair_data
from vr_pipeline.training.preference_trainer import train_on_pairs
from vr_pipeline.training.probe.plot import around_centre, draw_map
from vr_pipeline.video.sampled import SampledClip

LEARNING_RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
BETAS = (3.0, 12.0, 50.0, 200.0, 800.0, 3000.0)
COLUMNS: dict[str, dict[str, Any]] = {
    # Nothing stops it, and the last step is the policy.
    "plain": {"collapse_loss": 0.0, "safeguard": {"max_winner_change": None, "max_norm_ratio": None}},
    "safeguarded": {"safeguard": {"sdpo_mu": 0.6, "max_winner_change": 2.0, "window": 3}},
    "mild": {"safeguard": {"sdpo_mu": 0.3, "max_winner_change": 2.0, "window": 3}},
}
"""What each way of training sets beside learning rate, beta and seed."""

TITLES = {"plain": "Plain DPO", "safeguarded": "With safeguards", "mild": "With safeguards, mu 0.3"}

ORIGINAL = "original"
MODELS = ROOT / "data/06_models/micro_world"


@dataclass(frozen=True)
class Cell:
    """One training."""

    column: str
    learning_rate: float
    beta: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.column}-{self.learning_rate:g}-{self.beta:g}-seed{self.seed}"


@dataclass(frozen=True)
class Bench:
    """What all trainings share: the generator, the oracle, the held-out prompts, and settings."""

    store: Path
    generator: Generator
    oracle: OracleReward
    prompts: pd.DataFrame
    clips: int
    settings: Mapping[str, Any]


def configuration(name: str) -> dict[str, Any]:
    """A parameter file of the embedded default."""
    return yaml.safe_load((ROOT / f"conf/base/parameters/{name}.yml").read_text(encoding="utf-8"))[name]  # type: ignore[no-any-return]


def prepare(store: Path, seed: int, environment: str = "base", outputs: str = "latents,prompt_conditions") -> Path:
    """Make clips, rewards, pairs, latents and text conditions of a seed in a scratch copy of the project.

    Args:
        outputs: datasets that are made, with all that they need.
    """
    folder = store / f"seed{seed}"
    if (folder / "prepared").is_file():
        return folder
    if not (folder / "conf").exists():
        folder.mkdir(parents=True, exist_ok=True)
        copy_project(folder)
    result = subprocess.run(
        [
            *(sys.executable, "-m", "kedro", "run", f"--env={environment}", "--pipeline=mpo_dpo"),
            *(f"--to-outputs={outputs}", f"--params=video_generation.seed={1000 + seed}"),
        ],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        sys.exit(f"the clips of seed {seed} could not be prepared:\n{result.stderr[-4000:]}")
    write_text(folder / "prepared", "")
    return folder


def held_out_prompts(folder: Path) -> pd.DataFrame:
    prompts = pd.read_parquet(next(folder.glob("data/**/filtered_prompts.parquet")))
    return prompts[prompts["split"] == "test"].sort_values("prompt_id", ignore_index=True)


def clip_rewards(bench: Bench, seed: int) -> pd.DataFrame:
    """Sample from the generator as it is for the held-out prompts, and ask the oracle: prompt_id, total and dim_*."""
    items = [
        (prompt_id, prompt, sample_seed(2000 + seed, prompt_id, number))
        for number in range(bench.clips)
        for prompt_id, prompt in zip(bench.prompts["prompt_id"], bench.prompts["prompt"], strict=True)
    ]
    made = bench.generator.sample([prompt for _, prompt, _ in items], [seed for _, _, seed in items])
    names = [f"{place:06d}" for place in range(len(items))]
    shown = [
        SampledClip(name, prompt, frames, list(range(len(frames))), 8.0)
        for name, (_, prompt, _), frames in zip(names, items, made, strict=True)
    ]
    tables = []
    for name, answers in zip(names, bench.oracle.look(None, shown), strict=True):
        if isinstance(answers, Exception):
            raise answers
        tables.append(answers.assign(video_id=name))
    index = pd.DataFrame({"video_id": names, "prompt_id": [prompt_id for prompt_id, _, _ in items]})
    return bench.oracle.rewards(pd.concat(tables, ignore_index=True), index).drop(columns="video_id")


def stored(path: Path, identity: str) -> dict[str, Any] | None:
    """What a file holds, if it was made for the same question."""
    if not path.is_file():
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content if content["identity"] == identity else None


def evaluate_original(bench: Bench, seed: int) -> dict[str, Any]:
    """Rewards of the untrained generator's clips."""
    path = bench.store / "cells" / f"{ORIGINAL}-seed{seed}.json"
    identity = content_hash(bench.generator.identity, bench.clips, *bench.prompts["prompt_id"])
    known = stored(path, identity)
    if known is None:
        bench.generator.load_policy(None)
        known = {"identity": identity, "rewards": clip_rewards(bench, seed).to_dict("list")}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(known))
    return known


def run_cell(bench: Bench, cell: Cell) -> dict[str, Any]:
    """Train and evaluate, unless it is stored."""
    folder = prepare(bench.store, cell.seed) / "data/05_model_input"
    own = {"learning_rate": cell.learning_rate, "beta": cell.beta, "seed": cell.seed}
    pairs = pd.read_parquet(folder / "training_pairs.parquet")
    pairs = pairs[pairs["recipe"] == "dpo"].reset_index(drop=True)
    tensors = item_format({"type": "safetensors", "framework": "torch"})
    latents, conditions = (open_folder(folder / name, tensors) for name in ("latents", "prompt_conditions"))
    contents = content_hash(*pairs["winner_sha256"], *pairs["loser_sha256"])
    settings = {**bench.settings, **COLUMNS[cell.column], **own}
    known = train_cell(bench, cell.name, settings, contents, lambda: pair_data(pairs, latents, conditions, contents))
    return asdict(cell) | known


def train_cell(
    bench: Bench, name: str, settings: Mapping[str, Any], contents: str, data: Callable[[], PairData]
) -> dict[str, Any]:
    """Train on pairs and evaluate, unless it is stored.

    Args:
        contents: hash of all that the pairs are made from.
        data: makes them.
    """
    identity = content_hash(
        json.dumps(settings, sort_keys=True),
        bench.generator.identity,
        bench.clips,
        *bench.prompts["prompt_id"],
        contents,
    )
    path = bench.store / "cells" / f"{name}.json"
    known = stored(path, identity)
    if known is not None:
        return known
    pairs = data()
    started, processor = time.perf_counter(), time.process_time()
    parameters = PreferenceTrainingParameters.model_validate(settings)
    log = train_on_pairs(bench.generator, pairs, parameters, description=name)
    trained = time.process_time()
    known = {
        "identity": identity,
        "seed": settings["seed"],
        "settings": settings,
        "pairs": len(pairs.pairs),
        "rewards": clip_rewards(bench, settings["seed"]).to_dict("list"),
        "seconds": time.perf_counter() - started,
        "processor_seconds": time.process_time() - processor,
        "training_processor_seconds": trained - processor,
        "log": {str(name): [_short(value) for value in log[name]] for name in log},
    }
    write_text(path, json.dumps(known))
    return known


def _short(value: float) -> float | None:
    """Five digits; nothing where a step has no such figure."""
    return float(f"{value:.5g}") if np.isfinite(value) else None


def pooled_gain(bench: Bench, cells: list[dict[str, Any]], column: str = "total") -> Gain:
    """Gain over the original on the clips of several seeds, with the interval by prompt."""
    ours = pd.concat([pd.DataFrame(cell["rewards"]) for cell in cells])
    theirs = pd.concat([pd.DataFrame(evaluate_original(bench, cell["seed"])["rewards"]) for cell in cells])
    return paired_gain(ours[column], ours["prompt_id"], theirs[column], theirs["prompt_id"])


def settings_of(bench: Bench, column: str, seeds: int) -> Iterator[dict[str, Any]]:
    """Every combination of learning rate and beta with its gain over all seeds."""
    for rate, beta in product(LEARNING_RATES, BETAS):
        cells = [run_cell(bench, Cell(column, rate, beta, seed)) for seed in range(seeds)]
        gain = pooled_gain(bench, cells)
        yield {
            "learning_rate": rate,
            "beta": beta,
            "gain": gain.mean,
            "ci_low": gain.ci_low,
            "ci_high": gain.ci_high,
            "by_seed": [pooled_gain(bench, [cell]).mean for cell in cells],
        }


def print_map(title: str, rows: list[dict[str, Any]]) -> None:
    """Gains with a sign where the interval excludes 0."""
    print(f"\n{title}: oracle gain, by learning rate (down) and beta (across); + above 0, - below 0, 95 %")
    print(" " * 8 + "".join(f"{beta:>9g}" for beta in BETAS))
    for rate in LEARNING_RATES:
        texts = []
        for row in rows:
            if row["learning_rate"] == rate:
                sign = "+" if row["ci_low"] > 0 else "-" if row["ci_high"] < 0 else " "
                texts.append(f"{row['gain']:>+8.2f}{sign}")
        print(f"{rate:>8g}" + "".join(texts), flush=True)


def draw(maps: Mapping[str, list[dict[str, Any]]], path: Path) -> None:
    """Draw a map for each way of training, on one scale of colours; signs where the interval excludes 0."""
    matplotlib.rcParams.update({"svg.hashsalt": "robustness", "svg.fonttype": "none"})
    figure = Figure(figsize=(5.8, 3.3 * len(maps)), layout="constrained")
    values = {
        column: np.array([row["gain"] for row in rows]).reshape(len(LEARNING_RATES), len(BETAS))
        for column, rows in maps.items()
    }
    norm = around_centre(np.concatenate(list(values.values())), 0.0)
    for axes, (column, rows) in zip(figure.subplots(len(maps), 1, squeeze=False)[:, 0], maps.items(), strict=True):
        texts = [f"{row['gain']:+.2f}{' ' if not _sign(row) else ' ' + _sign(row)}" for row in rows]
        lines = [texts[start : start + len(BETAS)] for start in range(0, len(texts), len(BETAS))]
        draw_map(axes, values[column], LEARNING_RATES, BETAS, texts=lines, norm=norm, colours="RdBu")
        above, below = count(rows)
        axes.set_title(f"{TITLES[column]}: {above} above 0, {below} below", fontsize=11)
    figure.supxlabel("gain by the oracle; ▲ ▼ the 95 % interval is above or below 0", fontsize=9)
    figure.savefig(path, format="svg", metadata={"Date": None})


def _sign(row: Mapping[str, Any]) -> str:
    return "▲" if row["ci_low"] > 0 else "▼" if row["ci_high"] < 0 else ""


def count(rows: list[dict[str, Any]]) -> tuple[int, int]:
    """Settings whose interval is above 0, and below."""
    return sum(row["ci_low"] > 0 for row in rows), sum(row["ci_high"] < 0 for row in rows)


def load_bench(arguments: argparse.Namespace) -> Bench:
    first = prepare(arguments.store, 0)
    settings = configuration("generator") | {"path": str(MODELS / "generator")}
    checklist: Checklist = load_checklist(ROOT / "conf/base/checklist.yml")
    training = configuration("dpo_training")["training"]
    training |= {"steps": arguments.steps, "checkpoint_every": 0, "warmup_steps": min(25, arguments.steps // 8)}
    return Bench(
        arguments.store,
        load_generator(GeneratorParameters.model_validate(settings)),
        OracleReward(Oracle.load(MODELS / "oracle.safetensors"), checklist),
        held_out_prompts(first),
        arguments.clips,
        training,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each setting")
    parser.add_argument("--steps", type=int, default=100, help="steps of a training")
    parser.add_argument("--clips", type=int, default=8, help="clips of each held-out prompt and seed")
    parser.add_argument("--columns", nargs="+", choices=list(COLUMNS), default=list(COLUMNS)[:2])
    parser.add_argument("--store", type=Path, default=ROOT / "data/08_reporting/robustness", help="folder of results")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    bench = load_bench(arguments)
    cells = [
        Cell(column, rate, beta, seed)
        for column, rate, beta, seed in product(arguments.columns, LEARNING_RATES, BETAS, range(arguments.seeds))
    ]
    # All parts of the grid early, each seed after the other: an unfinished run shows the whole.
    cells.sort(key=lambda cell: (cell.seed, content_hash(cell.name)))
    for cell in progress_bar(cells, description="trainings", unit="training"):
        run_cell(bench, cell)
    maps = {column: list(settings_of(bench, column, arguments.seeds)) for column in arguments.columns}
    for column, rows in maps.items():
        print_map(column, rows)
    counts = {column: dict(zip(("above", "below"), count(rows), strict=True)) for column, rows in maps.items()}
    result: dict[str, Any] = {"benchmark": "robustness", "seeds": arguments.seeds, "steps": arguments.steps, **counts}
    if {"plain", "safeguarded"} <= counts.keys():
        result["ratio"] = round(counts["safeguarded"]["above"] / max(counts["plain"]["above"], 1), 2)
    draw(maps, arguments.store / "robustness.svg")
    write_text(arguments.store / "result.json", json.dumps(result | {"maps": maps}, indent=1))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
