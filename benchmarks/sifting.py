"""Which rule finds the truly better pairs among N candidates, and does the policy gain by it? Asked of the micro-world.

Every seed makes new clips of 32 prompts, in groups of N candidates, by the embedded generator. All rules choose one
pair of every group from the same clips: sifting (neighbours compared in both orders, then points), points alone, ranks
alone, the checklist by total reward and by dominance, and the oracle as the most that can be had. The margin of a pair
is the oracle's; intervals are by prompt, the clips of all seeds together, and the differences to sifting are those of
groups in which both rules have a pair. Policies are trained by a few steps of DPO on the pairs of some rules, and
scored by the oracle on held-out prompts against the original, from the same seeds. Seeds share models and prompts.

Clips of the original generator, and what checklist and oracle say of them, are kept in a folder, so that another reward
is asked about the same ones.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from safetensors.numpy import load_file, save_file

from vr_pipeline.checklist import load_checklist
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import Generator
from vr_pipeline.identifiers import content_hash, pair_id, prompt_id, sample_seed
from vr_pipeline.items.video_index import index_given_clips
from vr_pipeline.judges.config import ChecklistInferenceParameters
from vr_pipeline.micro_world.oracle import Oracle
from vr_pipeline.micro_world.reward import OracleReward
from vr_pipeline.micro_world.world import FRAMES_PER_SECOND, all_prompts
from vr_pipeline.pairs.config import PairRankingParameters
from vr_pipeline.pairs.schedule import scheduled_pairs
from vr_pipeline.pairs.selection import select_pairs
from vr_pipeline.rewards.checklist.fit import fit_weights
from vr_pipeline.rewards.checklist.model import ChecklistReward
from vr_pipeline.rewards.checklist.tables import answers_matrix
from vr_pipeline.rewards.contract import Ranker, RewardModel
from vr_pipeline.rewards.registry import load_reward_model, ranker_of
from vr_pipeline.statistics.clustered import Gain, clustered_mean, paired_gain
from vr_pipeline.training.config import PreferenceTrainingParameters
from vr_pipeline.training.pairs import PairData, TrainingPair
from vr_pipeline.training.preference_trainer import train_on_pairs
from vr_pipeline.video.sampled import SampledClip
from vr_pipeline.vlm.config import ChecklistJudgeParameters

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "data/06_models/micro_world"
RULES = ("sift", "points only", "ranks only", "checklist, dpo", "checklist, mpo", "oracle")
TRAINED = ("sift", "points only", "ranks only")
HELD_OUT = 16


@dataclass(frozen=True)
class World:
    """What all seeds share."""

    store: Path
    generator: Generator
    points: RewardModel
    ranker: Ranker
    checklist: ChecklistReward
    oracle: OracleReward
    train: list[str]
    test: list[str]


def configuration(name: str) -> dict[str, Any]:
    """A parameter file of the embedded default."""
    return yaml.safe_load((ROOT / f"conf/base/parameters/{name}.yml").read_text(encoding="utf-8"))[name]  # type: ignore[no-any-return]


def fitted_checklist() -> ChecklistReward:
    """The checklist reward with weights fitted on the shipped preferences, answered by the shipped judge."""
    raw = ROOT / "data/01_raw/micro_world"
    checklist = load_checklist(ROOT / "conf/base/checklist.yml")
    judge = ChecklistJudgeParameters.model_validate(configuration("judge") | {"path": str(MODELS / "judge")})
    judging = ChecklistInferenceParameters.model_validate(configuration("checklist_inference"))
    folder = {path.name: path for path in (raw / "preference_videos").iterdir()}
    clips = pd.read_csv(raw / "preference_clips.csv").rename(columns={"path": "file"})
    index = index_given_clips(clips, folder, source="preference_clips")
    answers = ChecklistReward(checklist, None, judge, judging).measured(folder, index)
    pairs = pd.read_csv(raw / "human_preferences.csv")
    first, second = (
        answers_matrix(answers, pairs[name].tolist(), checklist.question_ids, kind="binary")
        for name in ("video_id_a", "video_id_b")
    )
    weights = fit_weights(
        first,
        second,
        pairs["preference"].tolist(),
        groups=pairs["prompt"].tolist(),
        question_ids=checklist.question_ids,
        answers="binary",
        bootstrap_samples=0,
        checklist_hash=checklist.hash,
    )
    return ChecklistReward(checklist, weights, judge, judging)


def load_world(reward: str, store: Path) -> World:
    settings = configuration("generator") | {"path": str(MODELS / "generator")}
    checklist = fitted_checklist()
    named = configuration(reward)
    points = load_reward_model(named, folder=ROOT)
    prompts = sorted(all_prompts(), key=lambda prompt: content_hash("sifting", prompt))
    return World(
        store,
        load_generator(GeneratorParameters.model_validate(settings)),
        points,
        ranker_of(points),
        checklist,
        OracleReward(Oracle.load(MODELS / "oracle.safetensors"), checklist.checklist),
        prompts[HELD_OUT:],
        prompts[:HELD_OUT],
    )


def sample(
    generator: Generator, prompts: list[str], clips: int, seed: int, store: Path | None = None
) -> tuple[pd.DataFrame, list[SampledClip]]:
    """Clips of every prompt: their index, and the clips; those of the original generator are kept."""
    rows: list[dict[str, Any]] = [
        {"prompt": prompt, "prompt_id": prompt_id(prompt), "sample_index": number, "status": "ok"}
        for prompt in prompts
        for number in range(clips)
    ]
    seeds = [sample_seed(seed, row["prompt_id"], row["sample_index"]) for row in rows]
    texts = [row["prompt"] for row in rows]
    if store is None:
        made = generator.sample(texts, seeds)
    else:
        path = store / f"clips-{content_hash(generator.identity, *texts, *seeds)}.safetensors"
        if not path.is_file():
            store.mkdir(parents=True, exist_ok=True)
            save_file({"frames": np.ascontiguousarray(generator.sample(texts, seeds))}, path)
        made = load_file(path)["frames"]
    index = pd.DataFrame(rows).assign(video_id=[f"{at:05d}" for at in range(len(rows))])
    shown = [
        SampledClip(name, prompt, frames, list(range(len(frames))), FRAMES_PER_SECOND)
        for name, prompt, frames in zip(index["video_id"], index["prompt"], made, strict=True)
    ]
    return index, shown


def scored(model: RewardModel, index: pd.DataFrame, clips: list[SampledClip]) -> pd.DataFrame:
    """Rewards with the columns that rules need."""
    parts = [model.score_sampled(clips[at : at + 64]) for at in range(0, len(clips), 64)]
    table = pd.concat(parts, ignore_index=True)
    rewards = table[["video_id", "total", *(name for name in table if str(name).startswith("dim_"))]]
    return index[["video_id", "prompt_id", "sample_index"]].merge(rewards, on="video_id", validate="one_to_one")


def kept(store: Path, model: RewardModel, index: pd.DataFrame, clips: list[SampledClip]) -> pd.DataFrame:
    """The same, from the folder where it is there."""
    frames = content_hash(*(clip.frames.tobytes() for clip in clips))
    path = store / f"scores-{content_hash(model.identity, frames, *index['prompt'])}.parquet"
    if not path.is_file():
        scored(model, index, clips).to_parquet(path)
    return pd.read_parquet(path)


def compared(world: World, index: pd.DataFrame, clips: list[SampledClip], n: int, pairs: str) -> pd.DataFrame:
    """Comparisons within groups of n candidates."""
    listed = scheduled_pairs(index, PairRankingParameters(pairs=pairs), n)  # type: ignore[arg-type]
    by_name = {clip.video_id: clip for clip in clips}
    tables = []
    for _, of_prompt in listed.groupby("prompt_id", sort=True):
        names = [tuple(pair) for pair in of_prompt[["video_id_a", "video_id_b"]].to_numpy().tolist()]
        shown = {name: by_name[name] for name in sorted({name for pair in names for name in pair})}
        said = world.ranker.compare_group(shown, names, next(iter(shown.values())).prompt)  # type: ignore[arg-type]
        tables.append(pd.concat([of_prompt.reset_index(drop=True), said], axis=1))
    return pd.concat(tables, ignore_index=True)


def by_ranks(comparisons: pd.DataFrame, index: pd.DataFrame, n: int) -> pd.DataFrame:
    """Of every group the winner and the loser of the surest comparison."""
    sure = (comparisons["p_a"] - comparisons["p_b"]).to_numpy()
    first = sure > 0
    table = comparisons.assign(
        sure=-np.abs(sure).round(9),
        winner_video_id=np.where(first, comparisons["video_id_a"], comparisons["video_id_b"]),
        loser_video_id=np.where(first, comparisons["video_id_b"], comparisons["video_id_a"]),
    )
    block = index.set_index("video_id")["sample_index"] // n
    table = table[table["better"] != "tie"].assign(block=lambda part: part["video_id_a"].map(block))
    ordered = table.sort_values(["prompt_id", "block", "sure", "winner_video_id"], kind="stable")
    return ordered.groupby(["prompt_id", "block"], as_index=False).first()


def choose(world: World, seed: int, n: int, groups: int, pairs: str) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Pairs of every rule from the clips of a seed, with margins by the oracle; and the clips and what they cost."""
    index, clips = sample(world.generator, world.train, n * groups, 1000 + seed, world.store)
    clock = [time.process_time()]
    points = _timed(clock, scored, world.points, index, clips)
    comparisons = _timed(clock, compared, world, index, clips, n, pairs)
    seconds = dict(zip(("points", "comparisons"), np.diff(clock).tolist(), strict=True))
    checklist, oracle = (kept(world.store, model, index, clips) for model in (world.checklist, world.oracle))
    chosen = {
        "sift": select_pairs(points, "sift", comparisons=comparisons, group_size=n),
        "points only": select_pairs(points, "dpo", group_size=n),
        "ranks only": by_ranks(comparisons, index, n),
        "checklist, dpo": select_pairs(checklist, "dpo", group_size=n),
        "checklist, mpo": select_pairs(checklist, "mpo", group_size=n),
        "oracle": select_pairs(oracle, "dpo", group_size=n),
    }
    true = oracle.set_index("video_id")["total"]
    block = index.set_index("video_id")["sample_index"] // n
    made = {}
    for rule, table in chosen.items():
        winner, loser = table["winner_video_id"], table["loser_video_id"]
        made[rule] = pd.DataFrame(
            {
                "prompt_id": table["prompt_id"],
                "group": table["prompt_id"] + f"/{seed}/" + winner.map(block).astype(str),
                "winner": winner,
                "loser": loser,
                "margin": winner.map(true) - loser.map(true),
            }
        )
    return made, {"clips": clips, "comparisons": comparisons, "seconds": seconds}


def _timed(clock: list[float], function: Callable[..., pd.DataFrame], *arguments: Any) -> pd.DataFrame:
    table = function(*arguments)
    clock.append(time.process_time())
    return table


def margins(pairs: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, Any]]:
    """By rule: pairs, margin with its interval, share of pairs in the right order, and the difference to sifting."""
    sifted = pairs["sift"].set_index("group")["margin"]
    result: dict[str, dict[str, Any]] = {}
    for rule, table in pairs.items():
        both = table[table["group"].isin(sifted.index)]
        ahead = clustered_mean(both["margin"].to_numpy() - sifted.loc[both["group"]].to_numpy(), both["prompt_id"])
        result[rule] = {
            "pairs": len(table),
            "right": float((table["margin"] > 0).mean()),
            "margin": clustered_mean(table["margin"], table["prompt_id"]).to_json(),
            "ahead_of_sift": ahead.to_json(),
        }
    return result


def train(world: World, pairs: pd.DataFrame, clips: list[SampledClip], seed: int, steps: int) -> None:
    """Train the generator, from its original, on pairs."""
    world.generator.load_policy(None)
    frames, prompt_of = {clip.video_id: clip.frames for clip in clips}, {clip.video_id: clip.prompt for clip in clips}
    names = sorted({*pairs["winner"], *pairs["loser"]})
    latents = dict(zip(names, world.generator.encode_frames(np.stack([frames[name] for name in names])), strict=True))
    prompts = sorted({prompt_of[name] for name in names})
    encoded = world.generator.encode_prompts(prompts)
    conditions = {
        prompt_id(prompt): {kind: value[row : row + 1].clone() for kind, value in encoded.items()}
        for row, prompt in enumerate(prompts)
    }
    rows = pairs[["prompt_id", "winner", "loser"]].itertuples(index=False, name=None)
    data = PairData([TrainingPair(pair_id(*row), *row) for row in rows], latents, conditions)
    settings = configuration("dpo_training")["training"] | {"steps": steps, "seed": seed, "checkpoint_every": 0}
    parameters = PreferenceTrainingParameters.model_validate(settings | {"warmup_steps": steps // 8})
    train_on_pairs(world.generator, data, parameters, description=f"seed {seed}")


def evaluate(world: World, seed: int, clips: int, store: Path | None = None) -> pd.DataFrame:
    """Oracle's rewards of clips of held-out prompts."""
    index, made = sample(world.generator, world.test, clips, 2000 + seed, store)
    return scored(world.oracle, index, made)


def gain(ours: list[pd.DataFrame], theirs: list[pd.DataFrame]) -> Gain:
    """Gain on the clips of all seeds, with the interval by prompt."""
    one, other = pd.concat(ours), pd.concat(theirs)
    return paired_gain(one["total"], one["prompt_id"], other["total"], other["prompt_id"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="seeds of clips")
    parser.add_argument("--trained", type=int, default=3, help="how many of them policies are trained on")
    parser.add_argument("--candidates", type=int, default=10, help="clips of a group")
    parser.add_argument("--groups", type=int, default=2, help="groups of every prompt and seed")
    parser.add_argument("--pairs", choices=["adjacent", "all", "random"], default="adjacent", help="what is compared")
    parser.add_argument("--steps", type=int, default=80, help="steps of a training")
    parser.add_argument("--clips", type=int, default=8, help="clips of each held-out prompt and seed")
    parser.add_argument("--reward", default="unified_reward_model", help="parameters that name the reward")
    parser.add_argument("--store", type=Path, default=ROOT / "data/08_reporting/sifting", help="folder of clips")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    began, world = time.process_time(), load_world(arguments.reward, arguments.store)
    parts: dict[str, list[pd.DataFrame]] = {rule: [] for rule in RULES}
    rewards: dict[str, list[pd.DataFrame]] = {name: [] for name in ("original", *TRAINED)}
    comparisons, seconds, clips = [], [], 0
    for seed in range(arguments.seeds):
        chosen, known = choose(world, seed, arguments.candidates, arguments.groups, arguments.pairs)
        comparisons.append(known["comparisons"])
        seconds.append(known["seconds"])
        clips += len(known["clips"])
        for rule, table in chosen.items():
            parts[rule].append(table)
        if seed >= arguments.trained:
            continue
        world.generator.load_policy(None)
        rewards["original"].append(evaluate(world, seed, arguments.clips, arguments.store))
        done: dict[str, pd.DataFrame] = {}
        for rule in TRAINED:
            # The same pairs are the same policy.
            same = content_hash(*chosen[rule]["winner"], *chosen[rule]["loser"])
            if same not in done:
                train(world, chosen[rule], known["clips"], seed, arguments.steps)
                done[same] = evaluate(world, seed, arguments.clips)
            rewards[rule].append(done[same])
        world.generator.load_policy(None)
    found = margins({rule: pd.concat(tables, ignore_index=True) for rule, tables in parts.items()})
    for rule in RULES:
        by_seed = [round(float(table["margin"].mean()), 2) for table in parts[rule]]
        one, ahead = found[rule]["margin"], found[rule]["ahead_of_sift"]
        print(
            f"{rule:16} {found[rule]['pairs']:4d} pairs  margin {_interval(one)}  right {found[rule]['right']:.3f}  "
            f"against sift {_interval(ahead)}  seeds {by_seed}"
        )
    said = pd.concat(comparisons)
    result: dict[str, Any] = {
        "benchmark": "sifting",
        "reward": world.points.kind,
        "seeds": arguments.seeds,
        "candidates": arguments.candidates,
        "comparisons": len(said),
        "ties": round(float((said["better"] == "tie").mean()), 4),
        "position_bias": round(float(said["position_bias"].abs().mean()), 4),
        # Models were loaded before; the first seed warms them up and is left out where there are others.
        "processor_ms": {
            name: round(1000 * float(np.mean([one[name] for one in seconds[1:] or seconds])) / number, 2)
            for name, number in (
                ("points", clips / arguments.seeds),
                ("comparisons", len(said) / arguments.seeds),
            )
        },
        "rules": found,
    }
    if arguments.trained:
        gains = {rule: gain(rewards[rule], rewards["original"]).to_json() for rule in TRAINED}
        for rule in TRAINED[1:]:
            gains[f"sift against {rule}"] = gain(rewards["sift"], rewards[rule]).to_json()
        for name, one in gains.items():
            print(f"policy of {name:26} gain {_interval(one)}")
        result["policies"] = {"seeds": arguments.trained, "steps": arguments.steps, **gains}
    best = max(found[rule]["margin"]["mean"] for rule in RULES if rule != "oracle")
    result["behind_best"] = round(best - found["sift"]["margin"]["mean"], 3)
    result["ratio"] = round(found["sift"]["margin"]["mean"] / best, 3)
    result["processor_seconds"] = round(time.process_time() - began, 1)
    print(json.dumps(result))


def _interval(one: Mapping[str, Any]) -> str:
    if one["ci_low"] is None:
        return f"{one['mean']:+.2f} [no interval]"
    return f"{one['mean']:+.2f} [{one['ci_low']:+.2f}, {one['ci_high']:+.2f}]"


if __name__ == "__main__":
    main()
