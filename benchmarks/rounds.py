"""Do three rounds of online MPO gain more than one, at equal numbers of judged clips and of steps?

For each seed, one arm makes 8 clips per prompt in each of three rounds and trains 60 steps per round; the other makes
24 clips per prompt at once and trains 180 steps. Checkpoints are not judged, so both arms judge the same number of
clips, and the last step of each arm is its policy. Both have the settings that were best for them on seeds that are not
reported. Prints the oracle's and the auditor's gain over the original on held-out prompts, the ratio of the two arms,
and its interval over seeds. All seeds share judge, weights and prompts.

An arm is stored when it is done; started again, only those that are missing are run.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats

from alarm import Bench, encoded, load_bench, rewards_of
from sifting import ROOT, configuration, kept, sample
from vr_pipeline.generators.policy import Adapter, Start
from vr_pipeline.identifiers import content_hash, pair_id, sample_seed
from vr_pipeline.pairs.selection import select_pairs
from vr_pipeline.statistics.clustered import paired_gain
from vr_pipeline.storage.atomic import write_text
from vr_pipeline.training.config import DpoTrainingParameters
from vr_pipeline.training.online import ROUND, OnlineParameters, replayed, settings_of_round
from vr_pipeline.training.pairs import PairData, TrainingPair
from vr_pipeline.training.preference_trainer import train_on_pairs
from vr_pipeline.training.table import PAIR

ARMS: dict[str, dict[str, Any]] = {
    "three": {"rounds": 3, "videos_per_prompt": 8, "training": {"steps": 60, "learning_rate": 1e-3}},
    "one": {"rounds": 1, "videos_per_prompt": 24, "training": {"steps": 180, "learning_rate": 5e-4}},
}
"""Settings of the arms, as those of ``online_mpo``."""
LATER: dict[str, Any] = {"replay": 1.0, "learning_rate_decay": 0.5}
"""Settings of later rounds."""
JUDGES = ("oracle", "auditor")


def settings_of(arm: str, seed: int) -> OnlineParameters:
    """Settings of an arm; no checkpoint is judged."""
    named = LATER | ARMS[arm]
    training = {"warmup_steps": 10, "checkpoint_every": 0} | named["training"]
    return OnlineParameters.model_validate(named | {"training": training, "seed": 1000 + seed, "validation": None})


def policy_gains(bench: Bench, seed: int, original: dict[str, pd.DataFrame]) -> dict[str, dict[str, Any]]:
    """Gains of the generator's current policy, by the oracle and the auditor, on held-out prompts."""
    rewards = held_out_rewards(bench, seed)
    return {
        name: paired_gain(table["total"], table["prompt_id"], first["total"], first["prompt_id"]).to_json()
        for name, table, first in ((name, rewards[name], original[name]) for name in JUDGES)
    }


def held_out_rewards(bench: Bench, seed: int, store: Path | None = None) -> dict[str, pd.DataFrame]:
    """Rewards of clips of held-out prompts by the generator's current policy; a store keeps clips of the original."""
    index, clips = sample(bench.generator, bench.test, bench.arguments.clips, 2000 + seed, store)
    models = {"oracle": bench.hold_outs["oracle"], "auditor": bench.auditor}
    return {name: rewards_of(models[name], index, clips) for name in JUDGES}


def run_arm(bench: Bench, arm: str, seed: int) -> dict[str, Any]:
    """Run the rounds of an arm and compare the policy of each with the original, unless the result is stored."""
    parameters, options = settings_of(arm, seed), bench.arguments
    dpo = DpoTrainingParameters.model_validate({"training": configuration("dpo_training")["training"] | {"seed": seed}})
    identity = content_hash(
        *(parameters.model_dump_json(), dpo.model_dump_json(), str(options.clips)),
        *(bench.generator.identity, bench.judge.identity),
    )
    path = options.store / f"{arm}-seed{seed}.json"
    if path.is_file():
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if known["identity"] == identity:
            return known
    began, generator = time.process_time(), bench.generator
    generator.load_policy(None)
    original = held_out_rewards(bench, seed, options.store)
    tables: list[pd.DataFrame] = []
    latents: dict[str, torch.Tensor] = {}
    judged, gains, policy = 0, [], None
    for number in range(1, parameters.rounds + 1):
        base = sample_seed(parameters.seed, "round", number)
        index, clips = sample(
            generator, bench.train, parameters.videos_per_prompt, base, None if policy else options.store
        )
        judged += len(clips)
        # Clips of another round are other clips.
        index = index.assign(video_id=f"{number}-" + index["video_id"])
        clips = [replace(clip, video_id=f"{number}-{clip.video_id}") for clip in clips]
        pairs = select_pairs(kept(options.store, bench.judge, index, clips), "mpo", group_size=4).assign(
            **{ROUND: number}
        )
        old = replayed(tables, round(parameters.replay * len(pairs)), parameters, number) if tables else pairs.head(0)
        tables.append(pd.concat([pairs, old], ignore_index=True))
        generator.load_policy(None)
        new = encoded(generator, training_pairs(pairs), index, clips)
        latents |= new.latents
        generator.start = Start(policy, renewed=parameters.reference == "renewed") if policy else None
        data = PairData(training_pairs(tables[-1]), latents, conditions_of(bench, tables[-1], index))
        train_on_pairs(generator, data, settings_of_round(dpo, parameters, number).training)
        made = generator.policy()
        assert isinstance(made, Adapter)
        policy, generator.start = made, None
        generator.load_policy(policy)
        gains.append(policy_gains(bench, seed, original))
    known = {
        "identity": identity,
        "judged_clips": judged,
        "pairs": [int((table[ROUND] == number).sum()) for number, table in enumerate(tables, start=1)],
        "rounds": gains,
        "processor_seconds": round(time.process_time() - began, 1),
    }
    write_text(path, json.dumps(known, indent=1) + "\n")
    return known


def training_pairs(table: pd.DataFrame) -> list[TrainingPair]:
    """Pairs of a table."""
    return [TrainingPair(pair_id(*row), *row) for row in table[PAIR].itertuples(index=False, name=None)]


def conditions_of(bench: Bench, table: pd.DataFrame, index: pd.DataFrame) -> dict[str, dict[str, torch.Tensor]]:
    """Conditions of the prompts of a table."""
    texts = dict(zip(index["prompt_id"], index["prompt"], strict=True))
    return {name: bench.generator.encode_prompts([texts[name]]) for name in sorted(set(table["prompt_id"]))}


def ratio_over_seeds(ratios: Sequence[float]) -> dict[str, Any]:
    """Geometric mean of the ratios with Student's interval (95 %) over seeds, of two or more, all above 0."""
    found: dict[str, Any] = {"at_least_1.3_in": sum(ratio >= 1.3 for ratio in ratios)}
    if len(ratios) < 2 or min(ratios) <= 0:
        return found | {"geometric_mean": None, "interval": None}
    mean, half = mean_and_half(np.log(ratios))
    return found | {"geometric_mean": math.exp(mean), "interval": [math.exp(mean - half), math.exp(mean + half)]}


def mean_and_half(values: np.ndarray) -> tuple[float, float]:
    """Mean, and half of Student's interval (95 %) over seeds."""
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean()), float(half)


def report(results: Sequence[dict[str, Any]], judge: str) -> dict[str, Any]:
    """Print a row of every seed for the page of rounds, and return the summary by one judge."""
    last = {arm: np.array([one[arm]["rounds"][-1][judge]["mean"] for one in results]) for arm in ARMS}
    for at, one in enumerate(results):
        cells = [
            f"{last[arm][at]:.2f} ({found['ci_low']:.2f} to {found['ci_high']:.2f})"
            for arm in ("one", "three")
            for found in [one[arm]["rounds"][-1][judge]]
        ]
        earlier = ", ".join(f"{found[judge]['mean']:.2f}" for found in one["three"]["rounds"][:-1])
        print(f"| {one['seed']} | {' | '.join(cells)} | {last['three'][at] / last['one'][at]:.2f} | {earlier} |")
    summary: dict[str, Any] = {f"gain_of_{arm}": float(values.mean()) for arm, values in last.items()}
    if len(results) > 1:
        mean, half = mean_and_half(last["three"] - last["one"])
        summary |= {"difference": mean, "difference_interval": [mean - half, mean + half]}
    return summary | ratio_over_seeds((last["three"] / last["one"]).tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--clips", type=int, default=12, help="clips of each held-out prompt")
    parser.add_argument("--store", type=Path, default=ROOT / "data/08_reporting/rounds", help="folder of results")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    arguments.store.mkdir(parents=True, exist_ok=True)
    bench = load_bench(arguments)
    results: list[dict[str, Any]] = []
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        results.append({"seed": seed} | {arm: run_arm(bench, arm, seed) for arm in ARMS})
        print(json.dumps(results[-1]), flush=True)
    summary = {"benchmark": "rounds", "seeds": len(results), "judged_clips": results[0]["one"]["judged_clips"]}
    print(json.dumps(summary | {judge: report(results, judge) for judge in JUDGES}))


if __name__ == "__main__":
    main()
