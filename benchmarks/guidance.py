"""What does guidance by a latent reward do in the micro-world? Seeds, intervals, and an oracle that steers nothing.

For every seed: new clips of the shipped generator for training prompts, scored by the shipped VideoReward; a latent
reward trained on them at all levels of noise, another on clean latents; a policy trained by DPO on pairs of the same
clips. Then clips of held-out prompts from the same seeds under every setting, scored by the oracle: visual is quality
and preservation, motion is dynamics and stability, text is alignment, total is their sum. Gains have two intervals of
95 %: by prompt over the clips of all seeds, and Student's over the seeds. A claim holds if both are on its side of 0.

The scale of guidance was chosen with --pilot, on training prompts of a seed that is not reported. Every seed is stored
when it is done; started again, only those that are missing are done.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml

from demo_seeds import ROOT
from guidance_figures import BEST, NO_GUIDANCE, ORACLE, SIMPLEX, claims, draw_simplex, gain, shown
from vr_pipeline.checklist import load_checklist
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.config import GeneratorParameters, GuidanceReward
from vr_pipeline.generators.diffusers_pipeline import PipelineGenerator
from vr_pipeline.generators.guidance import Guidance, NoisedReward
from vr_pipeline.generators.latent_reward import LatentReward
from vr_pipeline.generators.samples import latent_scores
from vr_pipeline.identifiers import content_hash, pair_id, prompt_id, sample_seed
from vr_pipeline.micro_world.oracle import Oracle
from vr_pipeline.micro_world.reward import OracleReward
from vr_pipeline.rewards.contract import RewardModel
from vr_pipeline.rewards.registry import load_reward_model
from vr_pipeline.storage.atomic import write_text
from vr_pipeline.training.config import PreferenceTrainingParameters
from vr_pipeline.training.latent_reward.config import LatentRewardTrainingParameters
from vr_pipeline.training.latent_reward.data import LatentPairs
from vr_pipeline.training.latent_reward.labels import pairs_of_own_clips
from vr_pipeline.training.latent_reward.training import train_latent_reward
from vr_pipeline.training.pairs import PairData, TrainingPair
from vr_pipeline.training.preference_trainer import train_on_pairs
from vr_pipeline.video.sampled import SampledClip

MODELS = ROOT / "data/06_models/micro_world"
GENERATORS = {
    "flow": {"family": "micro_wan", "path": str(MODELS / "flow_generator")},
    "cogvideox": {"family": "micro_world", "path": str(MODELS / "generator")},
}


@dataclass(frozen=True)
class Bench:
    """What all seeds share."""

    generator: PipelineGenerator
    reward: RewardModel
    oracle: OracleReward
    prompts: Mapping[str, list[str]]
    """Texts to train on, and held out ones."""
    arguments: argparse.Namespace


def configuration(name: str) -> dict[str, Any]:
    """A parameter file of the embedded default."""
    return yaml.safe_load((ROOT / f"conf/base/parameters/{name}.yml").read_text(encoding="utf-8"))[name]  # type: ignore[no-any-return]


def load_bench(arguments: argparse.Namespace) -> Bench:
    parameters = configuration("generator") | GENERATORS[arguments.generator]
    generator = load_generator(GeneratorParameters.model_validate(parameters))
    assert isinstance(generator, PipelineGenerator)
    reward = load_reward_model(configuration("reward_model") | {"path": str(MODELS / "videoreward")})
    checklist = load_checklist(ROOT / "conf/base/checklist.yml")
    oracle = OracleReward(Oracle.load(MODELS / "oracle.safetensors"), checklist)
    texts = sorted(pd.read_csv(ROOT / "data/01_raw/prompts.csv")["prompt"].unique(), key=prompt_id)
    return Bench(generator, reward, oracle, {"train": texts[:32], "test": texts[32:48]}, arguments)


def sample(bench: Bench, split: str, clips: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Make clips of all prompts of a split: their index, and uint8 frames."""
    rows: list[dict[str, Any]] = [
        {"prompt_id": prompt_id(text), "prompt": text, "sample_index": number, "video_id": f"{place:03d}-{number:03d}"}
        for place, text in enumerate(bench.prompts[split])
        for number in range(clips)
    ]
    seeds = [sample_seed(seed, row["prompt_id"], row["sample_index"]) for row in rows]
    frames = bench.generator.sample([row["prompt"] for row in rows], seeds)
    index = pd.DataFrame(rows).assign(status="ok", error="", seed=seeds)
    return index.assign(sha256=[content_hash(one.tobytes()) for one in frames]), frames


def scored(model: RewardModel, index: pd.DataFrame, frames: np.ndarray) -> pd.DataFrame:
    """Rewards of clips by a model: prompt_id, total, dim_*."""
    shown = [
        SampledClip(name, text, clip, list(range(len(clip))), 8.0)
        for name, text, clip in zip(index["video_id"], index["prompt"], frames, strict=True)
    ]
    tables = []
    for name, found in zip(index["video_id"], model.look(model.loaded(), shown), strict=True):
        if isinstance(found, Exception):
            raise found
        tables.append(found.assign(video_id=name))
    return model.rewards(pd.concat(tables, ignore_index=True), index)


def oracle_dimensions(bench: Bench, index: pd.DataFrame, frames: np.ndarray) -> pd.DataFrame:
    """The oracle's scores of clips: prompt_id, visual, motion, text, total."""
    found = scored(bench.oracle, index, frames)
    table = pd.DataFrame({"prompt_id": found["prompt_id"]})
    for name, parts in ORACLE.items():
        table[name] = found[[f"dim_{part}" for part in parts]].sum(axis=1)
    return table.assign(total=table[list(ORACLE)].sum(axis=1))


def encoded(bench: Bench, index: pd.DataFrame, frames: np.ndarray) -> tuple[dict[str, Any], dict[str, Any]]:
    """Latents of clips by video_id, and text conditions by prompt_id."""
    latents = torch.cat([bench.generator.encode_frames(frames[at : at + 64]) for at in range(0, len(frames), 64)])
    conditions = {
        name: bench.generator.encode_prompts([text])
        for name, text in index[["prompt_id", "prompt"]].drop_duplicates().itertuples(index=False)
    }
    return dict(zip(index["video_id"], latents, strict=True)), conditions


def train_reward(bench: Bench, data: LatentPairs, seed: int, *, clean: bool) -> LatentReward:
    """Train a latent reward at all levels of noise, or on clean latents."""
    settings = configuration("latent_reward_training") | {"seed": seed, "steps": bench.arguments.steps}
    settings |= {"checkpoint_folder": None, "times": (0.0, 0.0) if clean else (0.0, 1.0)}
    parameters = LatentRewardTrainingParameters.model_validate(settings)
    return train_latent_reward(data, bench.generator.parameters, parameters).reward


def labelled(index: pd.DataFrame, rewards: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Pairs of clips of one prompt, with a label in every dimension."""
    names = [{"name": name} for name in ORACLE]
    settings = configuration("latent_reward_training") | {"seed": seed, "dimensions": names}
    return pairs_of_own_clips(rewards, index, LatentRewardTrainingParameters.model_validate(settings))


def preference_pairs(index: pd.DataFrame, rewards: pd.DataFrame) -> list[TrainingPair]:
    """The best against the worst of every four clips of a prompt, by total reward."""
    totals = rewards.set_index("video_id")["total"]
    pairs = []
    for (prompt, _), rows in index.groupby(["prompt_id", index["sample_index"] // 4]):
        ordered = sorted(rows["video_id"], key=lambda name: (totals[name], name))
        best, worst = ordered[-1], ordered[0]
        name = pair_id(str(prompt), best, worst)
        pairs.append(TrainingPair(name, str(prompt), best, worst, float(totals[best]), float(totals[worst])))
    return pairs


def train_policy(bench: Bench, data: PairData, seed: int) -> Any:
    """Train by DPO and return the policy; the generator goes back to its original weights."""
    flow = bench.generator.prediction_type == "flow"
    settings = configuration("dpo_training")["training"] | {"seed": seed, "steps": 100, "checkpoint_every": 0}
    settings |= {"warmup_steps": 12, "loss": "flow_dpo" if flow else "diffusion_dpo"}
    train_on_pairs(bench.generator, data, PreferenceTrainingParameters.model_validate(settings))
    policy = bench.generator.policy()
    bench.generator.load_policy(None)
    return policy


def steer(bench: Bench, reward: NoisedReward | None, weights: Sequence[float] = (), scale: float | None = None) -> None:
    """Have the generator steered by a reward, or not."""
    if reward is None:
        bench.generator.guidance = None
        return
    chosen = {
        "model": "in memory",
        "weights": dict(zip(ORACLE, weights, strict=True)),
        "scale": bench.arguments.scale if scale is None else scale,
        "clip": bench.arguments.clip,
    }
    settings = GuidanceReward.model_validate(chosen)
    bench.generator.guidance = Guidance(reward, settings, bench.generator.training_timesteps)


def best_of(bench: Bench, reward: NoisedReward, clips: int, seed: int, n: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Make n times as many clips, and keep of every n the one that the latent reward finds best."""
    steer(bench, None)
    index, frames = sample(bench, "test", clips * n, seed)
    kept: list[int] = []
    for text in bench.prompts["test"]:
        rows = np.flatnonzero(index["prompt"] == text)
        found = latent_scores(bench.generator, reward, list(frames[rows]), text).mean(axis=1).to_numpy()
        kept += [int(group[found[np.isin(rows, group)].argmax()]) for group in rows.reshape(clips, n)]
    return index.iloc[kept].reset_index(drop=True), frames[kept]


def prepare(bench: Bench, seed: int) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any], dict[str, Any]]:
    """Clips of training prompts, their rewards, latents and conditions."""
    steer(bench, None)
    index, frames = sample(bench, "train", bench.arguments.training_clips, 1000 + seed)
    return index, scored(bench.reward, index, frames), *encoded(bench, index, frames)


def run_seed(bench: Bench, seed: int) -> dict[str, Any]:
    """Every setting of one seed, unless it is stored: name -> the oracle's scores."""
    asked = {name: value for name, value in vars(bench.arguments).items() if name not in {"store", "seeds", "pilot"}}
    identity = content_hash(bench.generator.identity, seed, json.dumps(asked, sort_keys=True))
    path = bench.arguments.store / f"{bench.arguments.generator}-seed{seed}.json"
    if path.is_file() and (known := json.loads(path.read_text(encoding="utf-8")))["identity"] == identity:
        return known  # type: ignore[no-any-return]
    started = time.process_time()
    index, rewards, latents, conditions = prepare(bench, seed)
    data = LatentPairs(labelled(index, rewards, seed), latents, conditions)
    noisy = train_reward(bench, data, seed, clean=False)
    clips, found = bench.arguments.clips, {}

    def keep(name: str) -> None:
        found[name] = oracle_dimensions(bench, *sample(bench, "test", clips, 2000 + seed)).to_dict("list")

    steer(bench, None)
    keep(NO_GUIDANCE)
    simplex = SIMPLEX if not bench.arguments.short else {"equal": SIMPLEX["equal"]}
    for name, weights in simplex.items():
        steer(bench, noisy, weights)
        keep(name)
    if not bench.arguments.short:
        clean = train_reward(bench, data, seed, clean=True)
        for name in ("equal", "motion"):
            steer(bench, clean, SIMPLEX[name])
            keep(f"{name}, clean-trained")
        found[BEST] = oracle_dimensions(
            bench, *best_of(bench, noisy, clips, 2000 + seed, bench.arguments.best_of)
        ).to_dict("list")
        steer(bench, None)
        policy = train_policy(bench, PairData(preference_pairs(index, rewards), latents, conditions), seed)
        bench.generator.load_policy(policy)
        keep("DPO")
        steer(bench, noisy, SIMPLEX["equal"])
        keep("DPO + equal")
        bench.generator.load_policy(None)
    known = {"identity": identity, "cells": found, "processor_seconds": time.process_time() - started}
    bench.arguments.store.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(known))
    return known


def cost(bench: Bench, reward: LatentReward) -> dict[str, Any]:
    """Processor seconds of a denoising step with and without guidance, and the memory that a gradient keeps."""
    prompts, steps = [bench.prompts["test"][0]] * 64, bench.generator.parameters.num_inference_steps
    seconds: dict[str, list[float]] = {"unguided": [], "guided": []}
    for _ in range(3):
        for name, used in (("unguided", None), ("guided", reward)):
            steer(bench, used, SIMPLEX["equal"])
            started = time.process_time()
            bench.generator.sample(prompts, list(range(64)))
            seconds[name].append((time.process_time() - started) / steps)
    steer(bench, reward, SIMPLEX["equal"])
    guidance = bench.generator.guidance
    assert guidance is not None
    latents = bench.generator.encode_frames(bench.generator.sample(prompts[:1], [0])).repeat_interleave(64, dim=0)
    times = bench.generator.time_at(0.5).expand(64)
    condition = bench.generator.encode_prompts(prompts)
    early = saved_bytes(lambda: guidance.gradient(latents, times, condition))
    asked = latents.clone().requires_grad_()
    whole = saved_bytes(lambda: bench.generator.predict(asked, times, condition).sum().backward())
    steer(bench, None)
    return {
        "seconds_a_step": {name: min(values) for name, values in seconds.items()},
        "ratio": min(seconds["guided"]) / min(seconds["unguided"]),
        "kept_bytes_a_clip": {"early blocks": early // 64, "whole denoiser": whole // 64},
    }


def saved_bytes(compute: Any) -> int:
    """Bytes of the distinct tensors that a backward pass keeps."""
    sizes: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        compute()
    return sum(sizes.values())


def pilot(bench: Bench, scales: Sequence[float]) -> None:
    """Print gains at several scales, on training prompts of a seed that is not reported."""
    seed = 90
    index, rewards, latents, conditions = prepare(bench, seed)
    data = LatentPairs(labelled(index, rewards, seed), latents, conditions)
    reward = train_reward(bench, data, seed, clean=False)
    print(json.dumps(cost(bench, reward)), flush=True)
    steer(bench, None)
    base = oracle_dimensions(bench, *sample(bench, "train", 3, 2000 + seed))
    for scale in scales:
        for name in ("equal", "motion"):
            steer(bench, reward, SIMPLEX[name], scale)
            made = oracle_dimensions(bench, *sample(bench, "train", 3, 2000 + seed))
            found = {
                column: round(float(made[column].mean() - base[column].mean()), 3) for column in [*ORACLE, "total"]
            }
            print(scale, name, found, bench.generator.guidance.counts, flush=True)  # type: ignore[union-attr]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generator", choices=list(GENERATORS), default="flow")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=120, help="training steps of a latent reward")
    parser.add_argument("--training-clips", type=int, default=16, help="clips of each training prompt and seed")
    parser.add_argument("--clips", type=int, default=4, help="clips of each held-out prompt and seed")
    parser.add_argument("--scale", type=float, default=3.0, help="w of the formula")
    parser.add_argument("--clip", type=float, default=10.0, help="largest t / (1 - t)")
    parser.add_argument("--best-of", type=int, default=2, help="n of the comparison at equal compute")
    parser.add_argument("--short", action="store_true", help="equal weights only")
    parser.add_argument("--pilot", type=float, nargs="+", metavar="SCALE", help="try scales, and nothing else")
    parser.add_argument("--store", type=Path, default=ROOT / "data/08_reporting/guidance", help="folder of results")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    bench = load_bench(arguments)
    if arguments.pilot:
        pilot(bench, arguments.pilot)
        return
    by_seed = [run_seed(bench, seed) for seed in range(arguments.seeds)]
    cells = {name: [one["cells"][name] for one in by_seed] for name in by_seed[0]["cells"]}
    gains = {
        name: {column: gain(cells[name], cells[NO_GUIDANCE], column) for column in [*ORACLE, "total"]}
        for name in cells
        if name != NO_GUIDANCE
    }
    for name, found in gains.items():
        print(f"{name:>22}: " + "; ".join(f"{column} {shown(one)}" for column, one in found.items()))
    result: dict[str, Any] = {"benchmark": "guidance", "generator": arguments.generator, "seeds": arguments.seeds}
    result |= {"processor_seconds": round(sum(one["processor_seconds"] for one in by_seed), 1)}
    if not arguments.short:
        asked = claims(cells)
        for one in asked:
            low, high = one["by_seed"] or (float("nan"), float("nan"))
            print(f"{one['claim']}: {shown(one)}, by seed [{low:+.2f}, {high:+.2f}]: {one['verdict']}")
        draw_simplex(gains, arguments.store / f"simplex-{arguments.generator}.svg")
        result["verdicts"] = {one["claim"]: one["verdict"] for one in asked}
    write_text(arguments.store / f"result-{arguments.generator}.json", json.dumps(result | {"gains": gains}, indent=1))
    guided, best = gains["equal"]["total"]["gain"], gains.get(BEST, gains["equal"])["total"]["gain"]
    print(json.dumps(result | {"ratio": round(guided / best, 2) if best else None}))


if __name__ == "__main__":
    main()
