"""How many preferences does a checklist reward need if the pairs are chosen, compared with random pairs?

Simulated people of the micro-world compare generated clips in rounds. After each round the weights are fitted to all
answers, and the strategy chooses the pairs of the next round. The reward is tested on pairs of other prompts. Per
strategy, the number of preferences at which the mean accuracy (tau) reaches that of random pairs at the last round is
divided by the number that random pairs need; the interval draws seeds with replacement (paired). Seeds change clips of
the pool, split of prompts and answers; generator, judge and people are the same.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

from demo_seeds import ROOT
from vr_pipeline import judges
from vr_pipeline.annotation.active import covariance_of_weights, disagreement, most_informative
from vr_pipeline.checklist import load_checklist
from vr_pipeline.generators import load_generator
from vr_pipeline.identifiers import prompt_id, sample_seed
from vr_pipeline.micro_world.config import AnnotatorParameters
from vr_pipeline.micro_world.oracle import Oracle
from vr_pipeline.micro_world.preferences import perceive, utilities
from vr_pipeline.micro_world.world import all_prompts
from vr_pipeline.rewards.checklist.fit import fit_weights
from vr_pipeline.rewards.registry import load_reward_model
from vr_pipeline.statistics.agreement import pairwise_accuracy
from vr_pipeline.video.sampled import sample_clip
from vr_pipeline.vlm.config import JudgeParameters

MODELS = ROOT / "data/06_models/micro_world"
STRATEGIES = {
    "random": "random pairs, prompts in turn",
    "margin": "smallest predicted margin (order informative)",
    "disagreement": "disagreement of checklist and VideoReward",
    "active": "expected information (order active)",
}
COLOURS = {"random": "#555555", "margin": "#D55E00", "disagreement": "#CC79A7", "active": "#0072B2"}
HELD_OUT_PROMPTS = 16
TEST_PAIRS = 4416


@dataclass(frozen=True)
class Pool:
    """Clips with the judge's answers, hidden utility and VideoReward's total, arrays [prompts, clips, ...]."""

    answers: np.ndarray
    utility: np.ndarray
    video_reward: np.ndarray


def make_pool(store: Path, clips: int) -> Pool:
    """Sample clips of all prompts and measure them; stored, since only this needs minutes."""
    path = store / f"pool-{clips}.npz"
    if not path.is_file():
        settings = yaml.safe_load((ROOT / "conf/base/parameters/generator.yml").read_text(encoding="utf-8"))[
            "generator"
        ]
        prompts = [prompt for prompt in all_prompts() for _ in range(clips)]
        seeds = [sample_seed(0, prompt_id(prompt), at % clips) for at, prompt in enumerate(prompts)]
        generator = load_generator(settings | {"path": str(MODELS / "generator")})
        frames = generator.sample(prompts, seeds)
        checklist = load_checklist(ROOT / "conf/base/checklist.yml")
        judge = judges.load_judge(JudgeParameters(family="qwen2_vl", path=str(MODELS / "judge"), clip_batch=32))
        texts = [question.text for question in checklist.questions]
        answers, _ = judge.answer(list(frames), texts, prompts, frames_per_second=[8.0] * len(frames))
        oracle = Oracle.load(MODELS / "oracle.safetensors")
        utility = utilities(oracle.probabilities(frames, prompts, checklist.question_ids), checklist.question_ids)
        reward = load_reward_model({"type": "videoreward", "path": str(MODELS / "videoreward"), "device": "cpu"})
        sampling = reward.sampling(reward.loaded())
        shown = [
            sample_clip(clip, prompt, sampling, video_id=str(at), fps=8.0)
            for at, (clip, prompt) in enumerate(zip(frames, prompts, strict=True))
        ]
        table = reward.score_sampled(shown).set_index("video_id")["total"]
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            path,
            answers=answers.reshape(-1, clips, answers.shape[1]).astype(np.float64),
            utility=utility.reshape(-1, clips),
            video_reward=table.loc[[str(at) for at in range(len(frames))]].to_numpy().reshape(-1, clips),
        )
    with np.load(path) as arrays:
        return Pool(**{name: arrays[name] for name in ("answers", "utility", "video_reward")})


@dataclass(frozen=True)
class Candidates:
    """Pairs of the clips of one prompt with the answer that people would give."""

    z: np.ndarray
    label: np.ndarray
    prompt: np.ndarray
    other_margin: np.ndarray


def draw_pairs(pool: Pool, prompts: np.ndarray, per_prompt: int, random: np.random.Generator) -> Candidates:
    """Draw different pairs of clips of each prompt, and the answers of simulated people."""
    clips = pool.answers.shape[1]
    rows = []
    for prompt in prompts:
        every = np.array([(a, b) for a in range(clips) for b in range(a)])
        rows += [(prompt, *random.permuted(every[at])) for at in random.permutation(len(every))[:per_prompt]]
    p, a, b = np.array(rows).T
    gap = pool.utility[p, a] - pool.utility[p, b]
    return Candidates(
        z=pool.answers[p, a] - pool.answers[p, b],
        label=np.array([perceive(float(value), random, AnnotatorParameters()) for value in gap]),
        prompt=p.astype(str),
        other_margin=pool.video_reward[p, a] - pool.video_reward[p, b],
    )


def in_turn(prompts: np.ndarray, order: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Sort stably by the number of earlier pairs of the prompt."""
    turn = {name: int((prompts[asked] == name).sum()) for name in set(prompts)}
    turns = []
    for at in order:
        turns.append(turn[prompts[at]])
        turn[prompts[at]] += 1
    return order[np.argsort(turns, kind="stable")]


def choose(
    name: str, pairs: Candidates, asked: np.ndarray, weights: np.ndarray, number: int, random: np.random.Generator
) -> np.ndarray:
    """Return positions of the next pairs."""
    left = np.setdiff1d(np.arange(len(pairs.z)), asked)
    left = left[random.permutation(len(left))]
    known = bool(weights.any())
    if name == "active":
        covariance = covariance_of_weights(pairs.z[asked], weights)
        found = most_informative(
            pairs.z[left],
            weights,
            covariance,
            prompts=pairs.prompt[left],
            number=number,
            asked=list(pairs.prompt[asked]),
            pool=pairs.z,
        )
        return left[found]
    margin = pairs.z[left] @ weights
    if name == "margin" and known:
        return left[np.argsort(np.abs(margin), kind="stable")[:number]]
    if name == "disagreement" and known:
        score = disagreement(np.stack([margin, pairs.other_margin[left]]))
        return left[np.argsort(-score, kind="stable")[:number]]
    return in_turn(pairs.prompt, left, asked)[:number]


def curve(name: str, pool: Pool, seed: int, sizes: list[int], per_prompt: int) -> list[float]:
    """Return tau on held-out prompts after each round."""
    split = np.random.default_rng([seed, 0])
    prompts = split.permutation(len(pool.answers))
    test = draw_pairs(pool, np.sort(prompts[:HELD_OUT_PROMPTS]), TEST_PAIRS // HELD_OUT_PROMPTS, split)
    pairs = draw_pairs(pool, np.sort(prompts[HELD_OUT_PROMPTS:]), per_prompt, split)
    random = np.random.default_rng([seed, 1])
    asked = np.array([], dtype=np.int64)
    weights = np.zeros(pool.answers.shape[2])
    found = []
    for size in sizes:
        asked = np.r_[asked, choose(name, pairs, asked, weights, size - len(asked), random)]
        weights = fit(pairs.z[asked], pairs.label[asked])
        found.append(pairwise_accuracy(test.z @ weights, test.label).tau)
    return found


def fit(z: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Weights under the prior of the choice: a penalty of 1 over all pairs with a preference."""
    decided = int((label != "tie").sum())
    if not decided:
        return np.zeros(z.shape[1])
    fitted = fit_weights(z, np.zeros_like(z), label, penalty=1.0 / decided, bootstrap_samples=0)
    return np.array(fitted.weights)


def needed(sizes: list[int], mean: np.ndarray, target: float) -> float:
    """Return the number of preferences at which a curve first reaches a target, interpolated; infinite if never."""
    above = np.flatnonzero(mean >= target)
    if not len(above):
        return float("inf")
    k = int(above[0])
    if k == 0:
        return float(sizes[0])
    return float(np.interp(target, mean[k - 1 : k + 1], sizes[k - 1 : k + 1]))


def ratios(
    sizes: list[int], curves: dict[str, np.ndarray], place: int, draws: int = 2000
) -> dict[str, tuple[float, float, float, float]]:
    """Return preferences needed, their ratio to random pairs, and the ratio's 95 % interval over seeds.

    Args:
        sizes: preferences after each round.
        curves: tau by strategy, [seeds, rounds].
        place: the round up to which the best mean tau of random pairs is the target.
    """

    def target(base: np.ndarray) -> float:
        return float(base[: place + 1].max())

    seeds = len(curves["random"])
    random = np.random.default_rng(0)
    samples = random.integers(seeds, size=(draws, seeds))
    found = {}
    for name, values in curves.items():

        def ratio(rows: np.ndarray, values: np.ndarray = values) -> float:
            base = curves["random"][rows].mean(axis=0)
            level = target(base)
            return needed(sizes, values[rows].mean(axis=0), level) / needed(sizes, base, level)

        every = np.arange(seeds)
        drawn = np.array([ratio(rows) for rows in samples])
        level = target(curves["random"].mean(axis=0))
        low, high = np.quantile(drawn, [0.025, 0.975], method="nearest")
        found[name] = (needed(sizes, values.mean(axis=0), level), ratio(every), float(low), float(high))
    return found


def finite(value: float) -> float | None:
    """JSON has no infinity: None for a tau that was never reached."""
    return value if np.isfinite(value) else None


def draw(sizes: list[int], curves: dict[str, np.ndarray], path: Path) -> None:
    """Draw mean tau by number of preferences, with 95 % intervals over seeds."""
    from scipy.stats import t

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for name, values in curves.items():
        mean = values.mean(axis=0)
        half = t.ppf(0.975, len(values) - 1) * values.std(axis=0, ddof=1) / np.sqrt(len(values))
        axes.plot(sizes, mean, color=COLOURS[name], marker="o", markersize=3, label=STRATEGIES[name])
        axes.fill_between(sizes, mean - half, mean + half, color=COLOURS[name], alpha=0.15, linewidth=0)
    axes.set_xlabel("preferences")
    axes.set_ylabel("tau on pairs of other prompts")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, format="svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=ROOT / "data/active_annotation")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--clips", type=int, default=24, help="clips per prompt")
    parser.add_argument("--round", type=int, default=10, dest="batch", help="preferences per round")
    parser.add_argument("--most", type=int, default=240, help="preferences at the end")
    parser.add_argument("--per-prompt", type=int, default=40, help="candidate pairs per prompt")
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES))
    arguments = parser.parse_args()
    sizes = list(range(arguments.batch, arguments.most + 1, arguments.batch))
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    pool = make_pool(arguments.store, arguments.clips)
    with threadpool_limits(limits=1):
        curves = {
            name: np.array([curve(name, pool, seed, sizes, arguments.per_prompt) for seed in seeds])
            for name in arguments.strategies
        }
    results = {}
    print(f"{'strategy':<14}{'tau at':>8}{'':>10}   needed for the tau of random pairs at")
    for share in (0.25, 0.5, 1.0):
        place = round(share * len(sizes)) - 1
        for name, found in ratios(sizes, curves, place).items():
            tau = float(curves[name][:, place].mean())
            results[f"{name} {sizes[place]}"] = {
                "tau": tau,
                **dict(zip(("needed", "ratio", "low", "high"), map(finite, found), strict=True)),
            }
            interval = f"ratio {found[1]:.2f} [{found[2]:.2f}, {found[3]:.2f}]"
            print(f"{name:<14}{sizes[place]:>8}{tau:>10.4f}   {found[0]:6.0f}  {interval}")
    draw(sizes, curves, arguments.store / "active_annotation.svg")
    print(json.dumps({"benchmark": "active_annotation", "seeds": arguments.seeds, "results": results}))


if __name__ == "__main__":
    main()
