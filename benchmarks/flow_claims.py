"""What the literature says of objectives for rectified flows, asked of the micro-world's tiny Wan: seeds, intervals.

Every training starts from the shipped flow generator and has as many steps. Flow-DPO sees 16 pairs a step; the
objectives of single clips see 32 clips, which is the same work: the winners of these pairs (supervised), or all judged
clips, weighted by their rewards (reward-weighted regression). Clips that are judged and paired are new for every seed.
Policies are compared by the oracle, on clips of held-out prompts from the same seeds as the original's. Differences
have two intervals of 95 %: by prompt over the clips of all seeds, and Student's over the seeds. A claim holds if both
are on its side of 0.

Every training is stored as soon as it is evaluated; started again, only those that are missing are done.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from kedro.framework.project import settings as project
from kedro.framework.startup import bootstrap_project
from scipy import stats

from demo_seeds import ROOT
from robustness import (
    MODELS,
    Bench,
    evaluate_original,
    pooled_gain,
    prepare,
    train_cell,
)
from vr_pipeline.checklist import load_checklist
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import Generator
from vr_pipeline.identifiers import content_hash, pair_id, sample_seed
from vr_pipeline.micro_world.oracle import Oracle
from vr_pipeline.micro_world.reward import OracleReward
from vr_pipeline.micro_world.world import FRAMES_PER_SECOND
from vr_pipeline.pairs.selection import select_pairs
from vr_pipeline.rewards.checklist.model import ChecklistReward
from vr_pipeline.rewards.checklist.weights import RewardWeights
from vr_pipeline.rewards.contract import RewardModel
from vr_pipeline.runtime.progress import progress_bar
from vr_pipeline.statistics.clustered import Gain, paired_gain
from vr_pipeline.storage.atomic import write_text
from vr_pipeline.training.pairs import PairData, TrainingPair
from vr_pipeline.vlm.config import JudgeParameters

ENVIRONMENT = "flow"


class Arm(NamedTuple):
    """A way of training: what it sets, and whether it learns from all judged clips instead of pairs."""

    settings: Mapping[str, Any]
    of_clips: bool = False


class Claim(NamedTuple):
    """One way of training is said to beat another in a column of the rewards."""

    text: str
    better: str
    worse: str
    column: str = "total"


def arms(generator: Generator, beta: float) -> dict[str, Arm]:
    """All ways of training; a falling beta also at the strength that it has on average at the times of training."""
    times = generator.draw_timesteps(100_000, torch.Generator().manual_seed(0))
    share_left = float(((1.0 - generator.noise_share(times)) ** 2).mean())
    falling = {"loss": "flow_dpo", "beta_falls_with_noise": True}
    return {
        "constant": Arm({"loss": "flow_dpo"}),
        "falling": Arm(falling),
        "falling_same_mean": Arm(falling | {"beta": beta / share_left}),
        "reward_weighted": Arm({"loss": "reward_weighted", "batch_size": 32}, of_clips=True),
        "supervised": Arm({"loss": "supervised", "batch_size": 32}),
    }


CLAIMS = (
    Claim("constant beta beats (1 - t)^2 beta", "constant", "falling"),
    Claim("constant beta beats (1 - t)^2 beta in alignment", "constant", "falling", "dim_alignment"),
    Claim("constant beta beats (1 - t)^2 beta of the same mean", "constant", "falling_same_mean"),
    Claim("the same in alignment", "constant", "falling_same_mean", "dim_alignment"),
    Claim("Flow-DPO beats reward-weighted regression", "constant", "reward_weighted"),
    Claim("Flow-DPO beats supervised training on winners", "constant", "supervised"),
)


@dataclass(frozen=True)
class World:
    """What the clips of a seed are made from and judged by."""

    prompts: pd.DataFrame
    reward: RewardModel
    clips_per_prompt: int
    group_size: int


def load(arguments: argparse.Namespace) -> tuple[Bench, World]:
    bootstrap_project(ROOT)
    loader = project.CONFIG_LOADER_CLASS(str(ROOT / "conf"), env=ENVIRONMENT, **project.CONFIG_LOADER_ARGS)
    parameters = loader["parameters"]
    made = prepare(arguments.store, 0, ENVIRONMENT, "reward_weights,filtered_prompts") / loader["globals"]["data"]
    training = parameters["dpo_training"]["training"]
    training |= {"steps": arguments.steps, "checkpoint_every": 0, "warmup_steps": min(25, arguments.steps // 8)}
    # Nothing stops a training, and the last step is the policy.
    training |= {"collapse_loss": 0.0, "safeguard": {"max_winner_change": None, "max_norm_ratio": None}}
    generator, judge = (
        parameters[name] | {"path": str(ROOT / parameters[name]["path"])} for name in ("generator", "judge")
    )
    checklist = load_checklist(ROOT / "conf/base/checklist.yml")
    oracle = OracleReward(Oracle.load(MODELS / "oracle.safetensors"), checklist)
    prompts = pd.read_parquet(next(made.rglob("filtered_prompts.parquet")))
    weights = RewardWeights.from_json(json.loads(next(made.rglob("reward_weights.json")).read_text(encoding="utf-8")))
    held_out = prompts[prompts["split"] == "test"].sort_values("prompt_id", ignore_index=True)
    bench = Bench(
        arguments.store,
        load_generator(GeneratorParameters.model_validate(generator)),
        oracle,
        held_out,
        arguments.clips,
        training,
    )
    world = World(
        prompts[prompts["split"] == "train"].sort_values("prompt_id", ignore_index=True),
        ChecklistReward(checklist, weights, JudgeParameters.model_validate(judge)),
        int(parameters["video_generation"]["videos_per_prompt"]),
        int(parameters["pair_selection"]["group_size"]),
    )
    return bench, world


def learned_from(bench: Bench, world: World, seed: int) -> tuple[PairData, PairData]:
    """Make clips of the training prompts, judge them, select pairs by total reward, encode: pairs, and single clips."""
    each = [
        (str(name), str(text), number)
        for name, text in world.prompts[["prompt_id", "prompt"]].itertuples(index=False, name=None)
        for number in range(world.clips_per_prompt)
    ]
    table = pd.DataFrame(each, columns=["prompt_id", "prompt", "sample_index"])
    seeds = [sample_seed(1000 + seed, prompt, number) for prompt, _, number in each]
    table["video_id"] = [f"{prompt}-{number:03d}" for prompt, _, number in each]
    bench.generator.load_policy(None)
    frames = bench.generator.sample(table["prompt"].tolist(), seeds)
    scores = world.reward.score(list(frames), table["prompt"].tolist(), FRAMES_PER_SECOND)
    columns = [str(name) for name in scores if str(name) == "total" or str(name).startswith("dim_")]
    table[columns] = scores[columns].to_numpy()
    chosen = select_pairs(table, "dpo", max_pairs_per_prompt=1, group_size=world.group_size)
    encoded = torch.cat([bench.generator.encode_frames(frames[at : at + 128]) for at in range(0, len(frames), 128)])
    latents = dict(zip(table["video_id"], encoded, strict=True))
    texts = bench.generator.encode_prompts(world.prompts["prompt"].tolist())
    conditions = {
        prompt: {name: value[row : row + 1] for name, value in texts.items()}
        for row, prompt in enumerate(world.prompts["prompt_id"])
    }
    total = dict(zip(table["video_id"], table["total"], strict=True))
    pairs = [
        TrainingPair(pair_id(prompt, winner, loser), prompt, winner, loser, total[winner], total[loser])
        for prompt, winner, loser in chosen[["prompt_id", "winner_video_id", "loser_video_id"]].itertuples(
            index=False, name=None
        )
    ]
    clips = [
        TrainingPair(pair_id(prompt, clip, ""), prompt, clip, "", total[clip])
        for prompt, clip in zip(table["prompt_id"], table["video_id"], strict=True)
    ]
    return PairData(pairs, latents, conditions), PairData(clips, latents, conditions)


def run_seed(bench: Bench, world: World, ways: Mapping[str, Arm], seed: int) -> dict[str, dict[str, Any]]:
    """Train in every way on the clips of a seed, which are made if something has to be trained."""
    made = cache(lambda: learned_from(bench, world, seed))
    shape = (world.clips_per_prompt, world.group_size, *world.prompts["prompt_id"])
    contents = content_hash(bench.generator.identity, seed, *shape, *world.reward.depends_on)
    return {
        name: train_cell(
            bench,
            f"{name}-seed{seed}",
            {**bench.settings, **arm.settings, "seed": seed},
            contents,
            lambda of_clips=arm.of_clips: made()[of_clips],  # type: ignore[misc]
        )
        for name, arm in ways.items()
    }


def over_seeds(differences: list[float]) -> tuple[float, float] | None:
    """Student's interval of the mean; none of fewer than three."""
    if len(differences) < 3:
        return None
    mean, error = float(pd.Series(differences).mean()), float(stats.sem(differences))
    low, high = stats.t.interval(0.95, len(differences) - 1, loc=mean, scale=error)
    return float(low), float(high)


def difference(better: list[dict[str, Any]], worse: list[dict[str, Any]], column: str) -> Gain:
    """Difference of two ways of training on the clips of several seeds, with the interval by prompt."""
    ours, theirs = (pd.concat([pd.DataFrame(cell["rewards"]) for cell in cells]) for cells in (better, worse))
    return paired_gain(ours[column], ours["prompt_id"], theirs[column], theirs["prompt_id"])


def verdict(by_prompt: Gain, by_seed: tuple[float, float] | None) -> str:
    if by_seed is None:
        return "too few seeds"
    if by_prompt.ci_low > 0 and by_seed[0] > 0:
        return "holds"
    if by_prompt.ci_high < 0 and by_seed[1] < 0:
        return "the opposite holds"
    return "undecided"


def judge(claim: Claim, cells: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Both intervals of a claim's difference, and the verdict."""
    better, worse = cells[claim.better], cells[claim.worse]
    pooled = difference(better, worse, claim.column)
    single = [difference([one], [other], claim.column).mean for one, other in zip(better, worse, strict=True)]
    seeds = over_seeds(single)
    return {
        "claim": claim.text,
        "column": claim.column,
        "difference": pooled.mean,
        "by_prompt": [pooled.ci_low, pooled.ci_high],
        "by_seed": seeds,
        "seeds_in_favour": sum(value > 0 for value in single),
        "verdict": verdict(pooled, seeds),
    }


def gains(bench: Bench, cells: Mapping[str, list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """Gains over the original of every way of training, in total and by dimension."""
    columns = [column for column in next(iter(cells.values()))[0]["rewards"] if column.startswith("dim_")]
    for name, of_arm in cells.items():
        row: dict[str, Any] = {"arm": name}
        for column in ("total", *columns):
            gain = pooled_gain(bench, of_arm, column)
            row[column.removeprefix("dim_")] = [gain.mean, gain.ci_low, gain.ci_high]
        seconds = [cell["training_processor_seconds"] for cell in of_arm]
        yield row | {"training_processor_seconds": round(sum(seconds) / len(seconds), 1)}


def print_tables(rows: list[dict[str, Any]], claims: list[dict[str, Any]]) -> None:
    columns = [name for name in rows[0] if name not in {"arm", "training_processor_seconds"}]
    print("oracle gain over the original, 95 % by prompt")
    for row in rows:
        texts = [f"{name} {row[name][0]:+.2f} [{row[name][1]:+.2f}, {row[name][2]:+.2f}]" for name in columns]
        print(f"{row['arm']:>18}: {'; '.join(texts)}")
    for claim in claims:
        low, high = claim["by_prompt"]
        seeds = claim["by_seed"] or (float("nan"), float("nan"))
        print(
            f"{claim['claim']}: {claim['difference']:+.3f}, by prompt [{low:+.3f}, {high:+.3f}], by seed "
            f"[{seeds[0]:+.3f}, {seeds[1]:+.3f}], {claim['seeds_in_favour']} seeds in favour: {claim['verdict']}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each kind")
    parser.add_argument("--only", type=int, nargs="+", help="only these seeds")
    parser.add_argument("--steps", type=int, default=100, help="steps of a training")
    parser.add_argument("--clips", type=int, default=8, help="clips of each held-out prompt and seed")
    parser.add_argument("--store", type=Path, default=ROOT / "data/flow/08_reporting/claims", help="folder of results")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    bench, world = load(arguments)
    ways = arms(bench.generator, float(bench.settings["beta"]))
    seeds = arguments.only or range(arguments.seeds)
    made = [run_seed(bench, world, ways, seed) for seed in progress_bar(seeds, description="seeds", unit="seed")]
    cells = {name: [of_seed[name] for of_seed in made] for name in ways}
    rows, claims = list(gains(bench, cells)), [judge(claim, cells) for claim in CLAIMS]
    print_tables(rows, claims)
    original = pd.concat([pd.DataFrame(evaluate_original(bench, seed)["rewards"]) for seed in seeds])
    result = {
        "benchmark": "flow_claims",
        "seeds": len(seeds),
        "steps": arguments.steps,
        "pairs": cells["constant"][0]["pairs"],
    }
    result |= {"original": round(float(original["total"].mean()), 3)}
    constant, supervised = (rows[list(ways).index(name)]["total"][0] for name in ("constant", "supervised"))
    result["ratio"] = round(constant / supervised, 2) if supervised > 0 else None
    write_text(arguments.store / "result.json", json.dumps(result | {"gains": rows, "claims": claims}, indent=1))
    print(json.dumps(result | {"verdicts": {claim["claim"]: claim["verdict"] for claim in claims}}))


if __name__ == "__main__":
    main()
