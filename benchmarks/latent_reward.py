"""A reward trained on noised latents against one trained on clean latents, asked of the micro-world: accuracy by noise.

Both start from the generator's first blocks and see the same pairs, labels, batches and first weights; they differ in
the times that are drawn, from 0 to 1 or always 0. Each keeps the checkpoint that is best on validation pairs at its own
times. Labels: comparisons by criterion with logistic noise and ties (micro_world.reward_pairs). Seeds differ in pairs,
labels, held-out prompts, first weights and order; the generated clips are the same. Held-out prompts have clips of
their own. Accuracy is that of pairs that are no ties, once with one noise for both clips, as in training, and once with
a noise for each, which is what the score of a single clip is worth.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from scipy import stats

from vr_pipeline.checklist import load_checklist
from vr_pipeline.engine.determinism import deterministic
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.identifiers import prompt_id
from vr_pipeline.micro_world.config import ComparisonParameters
from vr_pipeline.micro_world.oracle import Oracle
from vr_pipeline.micro_world.reward_pairs import GeneratedClips, compare_pairs, draw_pairs, sample_clips
from vr_pipeline.micro_world.world import all_prompts
from vr_pipeline.training.latent_reward.config import LatentRewardTrainingParameters
from vr_pipeline.training.latent_reward.data import LatentPairs
from vr_pipeline.training.latent_reward.labels import pairs_of_people
from vr_pipeline.training.latent_reward.report import ALL
from vr_pipeline.training.latent_reward.training import train_latent_reward

ROOT = Path(__file__).resolve().parents[1]
TIMES = {"noised": (0.0, 1.0), "clean": (0.0, 0.0)}
CROSSED, HELD_OUT = 0.5, 12
"""Share of pairs whose second clip was made for a similar prompt; prompts that are tested on."""


@dataclass(frozen=True)
class World:
    """Clips of two pools, one to learn from, with what the oracle sees in them and their latents."""

    generator: GeneratorParameters
    clips: dict[str, GeneratedClips]
    recognised: dict[str, Any]
    latents: dict[str, torch.Tensor]
    conditions: dict[str, dict[str, torch.Tensor]]


def blocks(environment: str, name: str) -> dict[str, Any]:
    """A block of parameters of an environment, over that of base."""
    block: dict[str, Any] = {}
    for path in (ROOT / f"conf/base/parameters/{name}.yml", ROOT / f"conf/{environment}/parameters.yml"):
        block |= (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get(name, {}) if path.exists() else {}
    return block


def make_world(environment: str, clips_per_prompt: dict[str, int]) -> World:
    """Sample and encode the clips of both pools."""
    settings = GeneratorParameters(**blocks(environment, "generator"))
    generator = load_generator(settings)
    oracle = Oracle.load(ROOT / "data/06_models/micro_world/oracle.safetensors")
    clips = {part: sample_clips(generator, each, seed=0, purpose=part) for part, each in clips_per_prompt.items()}
    latents: dict[str, torch.Tensor] = {}
    for pool in clips.values():
        encoded = torch.cat(
            [generator.encode_frames(pool.frames[at : at + 64]) for at in range(0, len(pool.frames), 64)]
        )
        latents |= dict(zip(pool.video_ids, encoded, strict=True))
    conditions = {prompt_id(prompt): generator.encode_prompts([prompt]) for prompt in all_prompts()}
    recognised = {part: oracle.recognise(pool.frames) for part, pool in clips.items()}
    return World(settings, clips, recognised, latents, conditions)


def labelled(world: World, parameters: LatentRewardTrainingParameters, counts: dict[str, int]) -> LatentPairs:
    """Draw and label pairs of a seed; those of held-out prompts are tested on."""
    seed, checklist = parameters.seed, load_checklist(ROOT / "conf/base/checklist.yml")
    held_out = set(np.random.default_rng(seed).permutation(all_prompts())[:HELD_OUT])
    tables = []
    for part, prompts in (("learned", set(all_prompts()) - held_out), ("tested", held_out)):
        pool = world.clips[part]
        drawn = draw_pairs(pool, counts[part], CROSSED, prompts=prompts, seed=seed, purpose="latent reward")
        said = compare_pairs(drawn, pool, world.recognised[part], checklist, ComparisonParameters(), seed=seed)
        index = pd.DataFrame({"video_id": pool.video_ids, "content": pool.video_ids, "status": "ok", "error": ""})
        table = pairs_of_people(said, index, parameters)
        tables.append(table.assign(split="test") if part == "tested" else table)
    return LatentPairs(pd.concat(tables, ignore_index=True), world.latents, world.conditions)


def measure(world: World, environment: str, seeds: Sequence[int], counts: dict[str, int], steps: int) -> pd.DataFrame:
    """Train both for every seed; a row a bin of time and dimension."""
    tables = []
    for seed in seeds:
        for name, times in TIMES.items():
            given = blocks(environment, "latent_reward_training") | {"times": times, "seed": seed, "steps": steps}
            given |= {
                "checkpoint_folder": None,
                "held_out": {"validation_share": 0.15, "test_share": 0.0, "seed": seed},
            }
            parameters = LatentRewardTrainingParameters(**given)
            started = time.process_time()
            trained = train_latent_reward(labelled(world, parameters, counts), world.generator, parameters)
            spent = time.process_time() - started
            tables.append(trained.report.assign(trained_on=name, seed=seed, seconds=spent))
            whole = trained.report[trained.report["dimension"] == ALL]
            print(
                f"seed {seed}  {name:<7}  one noise {whole['accuracy'].mean():.3f}  "
                f"a noise each {whole['accuracy_apart'].mean():.3f}  {spent:.0f} s",
                flush=True,
            )
    return pd.concat(tables, ignore_index=True)


def interval(values: Sequence[float]) -> dict[str, float]:
    """Mean and Student's t interval (95 %) over seeds; of one seed the mean alone."""
    mean, count = float(np.mean(values)), len(values)
    half = float(stats.t.ppf(0.975, count - 1) * np.std(values, ddof=1) / np.sqrt(count)) if count > 1 else 0.0
    return {"mean": mean, "low": mean - half, "high": mean + half}


def summarise(table: pd.DataFrame) -> dict[str, Any]:
    """Accuracies by bin of time, and the paired differences of noised and clean."""
    found: dict[str, Any] = {}
    for dimension in dict.fromkeys(table["dimension"]):
        for kind in ("accuracy", "accuracy_apart"):
            rows = table[table["dimension"] == dimension]
            wide = rows.pivot(index=["seed", "time_from"], columns="trained_on", values=kind)
            wide["noised - clean"] = wide["noised"] - wide["clean"]
            by_bin = {
                f"{start:.1f}": {name: interval(part[name].to_list()) for name in wide.columns}
                for start, part in wide.groupby("time_from")
            }
            means = wide.groupby("seed").mean()
            by_bin["mean"] = {name: interval(means[name].to_list()) for name in means.columns}
            found.setdefault(dimension, {})[kind] = by_bin
    return found


def draw(table: pd.DataFrame, path: Path) -> None:
    """Accuracy by time, trained on noised and on clean latents, with one noise for both clips and one for each."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    whole = table[table["dimension"] == ALL]
    for axis, kind, title in (
        (axes[0], "accuracy", "one noise for both clips"),
        (axes[1], "accuracy_apart", "a noise for each clip"),
    ):
        for at, name in enumerate(TIMES):
            rows = whole[whole["trained_on"] == name].groupby("time_from")[kind]
            spread = [interval(part.to_list()) for _, part in rows]
            middle = np.array([start for start, _ in rows]) + 0.05 + 0.008 * (at - 0.5)
            ends = np.array([[one["mean"] - one["low"], one["high"] - one["mean"]] for one in spread]).T
            label = f"trained on {name} latents"
            axis.errorbar(middle, [one["mean"] for one in spread], yerr=ends, marker="o", capsize=3, label=label)
        axis.axhline(0.5, color="0.4", linewidth=1, linestyle=":")
        axis.set(title=title, xlabel="time, from the clip (0) to noise alone (1)", xlim=(0, 1))
    axes[0].set_ylabel("right order, untied pairs")
    axes[0].legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else {"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environment", default="base", help="base (v-prediction) or flow")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=4000, help="pairs to learn from, those of validation included")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--picture", type=Path, help="where to draw the figures (svg or png)")
    arguments = parser.parse_args()

    with deterministic(1):
        world = make_world(arguments.environment, {"learned": 24, "tested": 8})
        counts = {"learned": arguments.pairs, "tested": 400}
        table = measure(world, arguments.environment, range(arguments.seeds), counts, arguments.steps)
    if arguments.picture:
        draw(table, arguments.picture)
    found = summarise(table)
    for kind, by_bin in found[ALL].items():
        for start, values in by_bin.items():
            shown = "  ".join(
                f"{name} {v['mean']:+.3f} [{v['low']:+.3f}, {v['high']:+.3f}]" for name, v in values.items()
            )
            print(f"{kind:<15} {start:>5}  {shown}")
    mean = found[ALL]["accuracy"]["mean"]
    print(
        json.dumps(
            {
                "benchmark": "latent_reward",
                "environment": arguments.environment,
                "seeds": arguments.seeds,
                "steps": arguments.steps,
                "ratio": mean["noised"]["mean"] / mean["clean"]["mean"],
                "seconds": float(table.groupby(["seed", "trained_on"])["seconds"].first().sum()),
                "accuracy": found,
            }
        )
    )


if __name__ == "__main__":
    main()
