"""How good is the alarm for reward hacking? Trainings by a judge with a planted flaw, and by the same judge without it.

Every seed makes clips of 32 prompts by the embedded generator. The embedded checklist judge scores them, once as it is
and once with a flaw: it also likes a pattern of pixels, such as blur. The best and the worst of every four
clips are a pair, DPO trains on the pairs for some steps, and every few steps the same judge scores clips of held-out
prompts, as do the hold-outs. The alarm sees nothing else. The truth is the auditor, which scores more clips of the same
prompts. A training with a flaw has a deadline: the first checkpoint after the auditor's peak at which it has lost a
tenth of its peak gain. A unimodal curve is fitted to the auditor's means first, because a tenth of the gain is close to
their noise.

Every training is stored when it is done; started again, only those that are missing are done. The alarm is computed
from what is stored, at many levels.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from alarm_figures import report
from sifting import MODELS, ROOT, configuration, fitted_checklist, kept, sample
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import Generator
from vr_pipeline.identifiers import content_hash, pair_id
from vr_pipeline.micro_world.auditor import Auditor, AuditorReward
from vr_pipeline.micro_world.oracle import Oracle
from vr_pipeline.micro_world.reward import OracleReward
from vr_pipeline.micro_world.world import all_prompts
from vr_pipeline.pairs.selection import select_pairs
from vr_pipeline.rewards.contract import RewardModel
from vr_pipeline.rewards.registry import load_reward_model
from vr_pipeline.storage.atomic import write_text
from vr_pipeline.training.config import PreferenceTrainingParameters
from vr_pipeline.training.pairs import PairData, TrainingPair
from vr_pipeline.training.preference_trainer import Validation, train_on_pairs
from vr_pipeline.video.sampled import SampledClip

HELD_OUT = 16
HONEST = "none"
Pattern = Callable[[np.ndarray], np.ndarray]


def _values(frames: np.ndarray) -> np.ndarray:
    return frames.astype(np.float64) / 255.0


def smooth(frames: np.ndarray) -> np.ndarray:
    """Blur: minus the mean difference of neighbouring pixels, as a share of the deviation of the pixels, by clip."""
    values = _values(frames)
    steps = np.abs(np.diff(values, axis=2)).mean(axis=(1, 2, 3, 4)) + np.abs(np.diff(values, axis=3)).mean(
        axis=(1, 2, 3, 4)
    )
    return -steps / np.maximum(values.std(axis=(1, 2, 3, 4)), 1e-3)


def flickering(frames: np.ndarray) -> np.ndarray:
    """Change of brightness from frame to frame, by clip."""
    return np.abs(np.diff(_values(frames).mean(axis=(2, 3, 4)), axis=1)).mean(axis=1)


def still(frames: np.ndarray) -> np.ndarray:
    """Little change: minus the mean difference of a pixel from frame to frame, by clip."""
    return -np.abs(np.diff(_values(frames), axis=1)).mean(axis=(1, 2, 3, 4))


class Flaw(NamedTuple):
    """A flaw of the judge.

    Attributes:
        pattern: what the judge likes, [clips, frames, height, width, 3] to [clips].
        dimension: of the judge, which the flaw raises.
        strength: deviations of the judge's total that a deviation of the pattern adds.
    """

    pattern: Pattern
    dimension: str
    strength: float


FLAWS = {
    "smooth": Flaw(smooth, "quality", 1.0),
    "flickering": Flaw(flickering, "dynamics", 1.0),
    "still": Flaw(still, "stability", 0.8),
}
"""By name. With these strengths the auditor rises first and loses a tenth of its gain later (pilot, not reported)."""


@dataclass(frozen=True)
class Bench:
    """What all trainings share."""

    generator: Generator
    judge: RewardModel
    hold_outs: Mapping[str, RewardModel]
    auditor: AuditorReward
    train: list[str]
    test: list[str]
    arguments: argparse.Namespace


@dataclass(frozen=True)
class Judge:
    """The judge's rewards, with a flaw or without, on the scale of clips of the original generator."""

    model: RewardModel
    flaw: Flaw | None = None
    deviation: float = 1.0
    centre: float = 0.0
    spread: float = 1.0

    @classmethod
    def fit(cls, model: RewardModel, name: str, totals: pd.Series, clips: Sequence[SampledClip]) -> Judge:
        """Measure the scale on clips of the original generator and the judge's totals of them."""
        if name == HONEST:
            return cls(model)
        values = FLAWS[name].pattern(np.stack([clip.frames for clip in clips]))
        return cls(model, FLAWS[name], float(totals.std(ddof=0)), float(values.mean()), float(values.std()))

    def flawed(self, rewards: pd.DataFrame, clips: Sequence[SampledClip]) -> pd.DataFrame:
        """Add what the flaw adds to total and dimension."""
        if self.flaw is None:
            return rewards
        values = self.flaw.pattern(np.stack([clip.frames for clip in clips]))
        bonus = self.flaw.strength * self.deviation * (values - self.centre) / self.spread
        raised = {name: rewards[name] + bonus for name in ("total", f"dim_{self.flaw.dimension}")}
        return rewards.assign(**raised)


def load_bench(arguments: argparse.Namespace) -> Bench:
    settings = configuration("generator") | {"path": str(MODELS / "generator")}
    judge = fitted_checklist()
    prompts = sorted(all_prompts(), key=lambda prompt: content_hash("alarm", prompt))
    return Bench(
        load_generator(GeneratorParameters.model_validate(settings)),
        judge,
        {
            "oracle": OracleReward(Oracle.load(MODELS / "oracle.safetensors"), judge.checklist),
            "videoreward": load_reward_model(configuration("reward_model"), folder=ROOT),
        },
        AuditorReward(Auditor.load(MODELS / "auditor.safetensors"), judge.checklist),
        prompts[HELD_OUT:],
        prompts[:HELD_OUT],
        arguments,
    )


def rewards_of(model: RewardModel, index: pd.DataFrame, clips: Sequence[SampledClip]) -> pd.DataFrame:
    """Rewards of clips by a model, in the order of the index (tables of answers are sorted by prompt)."""
    measured = []
    for name, found in zip(index["video_id"], model.look(model.loaded(), clips), strict=True):
        if isinstance(found, Exception):
            raise found
        measured.append(found.assign(video_id=name))
    rewards = model.rewards(model.arrange(pd.concat(measured, ignore_index=True), index), index)
    return rewards.set_index("video_id").loc[index["video_id"]].reset_index()


def checkpoint(bench: Bench, judge: Judge, step: int, seed: int) -> dict[str, Any]:
    """Sample from the generator's current weights, and score the clips by all models."""
    options = bench.arguments
    index, clips = sample(
        bench.generator, bench.test, options.truth_clips, 2000 + seed, None if step else options.store
    )
    truth = rewards_of(bench.auditor, index, clips)
    first = (index["sample_index"] < options.clips).to_numpy()
    seen, shown = index[first].reset_index(drop=True), [clip for clip, own in zip(clips, first, strict=True) if own]
    judged = judge.flawed(rewards_of(judge.model, seen, shown), shown)
    held_out = {name: rewards_of(model, seen, shown) for name, model in bench.hold_outs.items()}
    return {
        "step": step,
        "judge": columns(judged),
        "held_out": {name: columns(rewards) for name, rewards in held_out.items()},
        "truth": columns(truth),
    }


def columns(rewards: pd.DataFrame) -> dict[str, list[Any]]:
    """Return prompts, total and dimensions of clips."""
    names = [name for name in rewards if name in ("prompt_id", "total") or str(name).startswith("dim_")]
    table = rewards[names].round(5)
    return {str(name): table[name].tolist() for name in names}


def run_training(bench: Bench, flaw: str, seed: int) -> dict[str, Any]:
    """Train with a judge and score the checkpoints, unless it is stored."""
    options = bench.arguments
    settings = configuration("dpo_training")["training"] | {
        "seed": seed,
        "steps": options.steps,
        "checkpoint_every": options.every,
        "warmup_steps": options.steps // 10,
        "learning_rate": options.learning_rate,
        "beta": options.beta,
    }
    facts = {name: getattr(options, name) for name in ("train_clips", "clips", "truth_clips")}
    facts |= {"flaw": flaw, "strength": FLAWS[flaw].strength if flaw != HONEST else 0.0, "training": settings}
    identity = content_hash(json.dumps(facts, sort_keys=True), bench.generator.identity, bench.judge.identity)
    path = options.store / "trainings" / f"{flaw}-seed{seed}.json"
    if path.is_file():
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if known["identity"] == identity:
            return known
    began = time.process_time()
    bench.generator.load_policy(None)
    index, clips = sample(bench.generator, bench.train, options.train_clips, 1000 + seed, options.store)
    judged = kept(options.store, bench.judge, index, clips)
    judge = Judge.fit(bench.judge, flaw, judged["total"], clips)
    chosen = select_pairs(judge.flawed(judged, clips), "dpo", group_size=4)
    pairs = [
        TrainingPair(pair_id(prompt, winner, loser), prompt, winner, loser)
        for prompt, winner, loser in zip(
            chosen["prompt_id"], chosen["winner_video_id"], chosen["loser_video_id"], strict=True
        )
    ]
    records = [checkpoint(bench, judge, 0, seed)]

    def validate(step: int) -> float:
        with bench.generator.encoders():
            records.append(checkpoint(bench, judge, step, seed))
        return float(np.mean(records[-1]["judge"]["total"]))

    data = encoded(bench.generator, pairs, index, clips)
    parameters = PreferenceTrainingParameters.model_validate(settings)
    train_on_pairs(bench.generator, data, parameters, validation=Validation(validate, chooses=False))
    bench.generator.load_policy(None)
    seconds = round(time.process_time() - began, 1)
    known = {"identity": identity, "seed": seed, **facts, "pairs": len(pairs), "seconds": seconds, "records": records}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(known))
    return known


def encoded(
    generator: Generator, pairs: Sequence[TrainingPair], index: pd.DataFrame, clips: Sequence[SampledClip]
) -> PairData:
    """Pairs with the latents of their clips, and the conditions of their prompts."""
    used = {name for pair in pairs for name in pair.clips}
    shown = [clip for clip in clips if clip.video_id in used]
    latents = generator.encode_frames(np.stack([clip.frames for clip in shown]))
    texts = dict(zip(index["prompt_id"], index["prompt"], strict=True))
    conditions = {prompt: generator.encode_prompts([texts[prompt]]) for prompt in {pair.prompt_id for pair in pairs}}
    return PairData(pairs, dict(zip((clip.video_id for clip in shown), latents, strict=True)), conditions)


def planned(flaws: Sequence[str], seeds: Sequence[int]) -> list[tuple[str, int]]:
    """Both trainings of every seed: without a flaw, and with the seed's."""
    return [(flaw, seed) for seed in seeds for flaw in (flaws[seed % len(flaws)], HONEST)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="trainings with a flaw, and as many without")
    parser.add_argument("--first-seed", type=int, default=41)
    parser.add_argument("--flaws", nargs="+", choices=list(FLAWS), default=list(FLAWS), help="in turn, by seed")
    parser.add_argument("--train-clips", type=int, default=16, help="clips of each training prompt")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--every", type=int, default=10, help="steps between checkpoints")
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--beta", type=float, default=30.0)
    parser.add_argument(
        "--clips", type=int, default=8, help="clips of each held-out prompt that judge and hold-outs score"
    )
    parser.add_argument("--truth-clips", type=int, default=12, help="clips that the auditor scores")
    parser.add_argument("--store", type=Path, default=ROOT / "data/08_reporting/alarm", help="folder of results")
    parser.add_argument("--report", action="store_true", help="train nothing, report all that is stored")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    if arguments.report:
        paths = sorted((arguments.store / "trainings").glob("*.json"))
        report([json.loads(path.read_text(encoding="utf-8")) for path in paths], arguments.store)
        return
    torch.set_num_threads(1)
    bench = load_bench(arguments)
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    done = []
    for flaw, seed in planned(arguments.flaws, seeds):
        done.append(run_training(bench, flaw, seed))
        print(f"{flaw} seed {seed}: {done[-1]['seconds']:.0f} s", flush=True)
    report(done, arguments.store)


if __name__ == "__main__":
    main()
