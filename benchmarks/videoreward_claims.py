"""What VideoReward's paper says of losses, ties, tokens and heads, asked of the micro-world: five seeds, intervals.

Every training starts from the embedded judge; its vision tower is frozen and read once, the language model, tokens and
head are trained. Seeds differ in pairs, labels, held-out prompts, first weights and order; the generated clips are the
same. Labels: comparisons by criterion with logistic noise and ties (theta about 5); grades of 1 to 5 are fifths of the
same utility, with noise that makes differences of two as noisy as a comparison. Held-out prompts have clips of their
own; tie thresholds are from a third of these prompts, figures from the others.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from scipy import stats

from vr_pipeline.checklist import load_checklist
from vr_pipeline.engine.config import LoopParameters
from vr_pipeline.engine.determinism import deterministic
from vr_pipeline.engine.groups import Group
from vr_pipeline.engine.loop import Task, train
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.identifiers import sample_seed
from vr_pipeline.micro_world.build import load_micro_generator
from vr_pipeline.micro_world.config import ComparisonParameters
from vr_pipeline.micro_world.oracle import Oracle
from vr_pipeline.micro_world.preferences import CRITERIA, utilities_by_criterion
from vr_pipeline.micro_world.recogniser import answer_from
from vr_pipeline.micro_world.reward_pairs import GeneratedClips, compare_pairs, draw_pairs, sample_clips
from vr_pipeline.micro_world.world import FRAMES_PER_SECOND, all_prompts
from vr_pipeline.rewards.videoreward.losses import Targets, summed_loss
from vr_pipeline.rewards.videoreward.network import VideoRewardNetwork, new_network
from vr_pipeline.rewards.videoreward.settings import DimensionSettings, NetworkSettings
from vr_pipeline.statistics.agreement import pairwise_accuracy
from vr_pipeline.vlm.config import JudgeParameters
from vr_pipeline.vlm.families.base import Family, PreparedClip
from vr_pipeline.vlm.loading import load_family

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "data/06_models/micro_world"
NAMES = tuple(CRITERIA)
SIGN = {"a": 1.0, "tie": 0.0, "b": -1.0}
STEPS = {0.01: 30, 0.03: 50, 0.1: 90, 0.3: 160, 1.0: 250}
"""Share of the training pairs -> optimiser steps of 32 pairs."""
CROSSED, BATCH = 0.6, 32


@dataclass(frozen=True)
class Pairs:
    """Pairs of clips: what is shown, what people said, and the third that tie thresholds are chosen on."""

    ends: np.ndarray
    prompts: list[str]
    label: np.ndarray
    grades: np.ndarray
    for_thresholds: np.ndarray

    def __len__(self) -> int:
        return len(self.prompts)


@dataclass(frozen=True)
class Pool:
    """Clips with the oracle's view of them, ready for the language model."""

    clips: GeneratedClips
    recognised: Mapping[str, np.ndarray]
    prepared: list[PreparedClip]


class CachedVision:
    """The embedded judge with a frozen vision tower, whose features come with the clips."""

    def __init__(self) -> None:
        parameters = JudgeParameters(family="qwen2_vl", path=str(MODELS / "judge"), device="cpu")
        self.family: Family = load_family(parameters)
        self.start = {name: weight.clone() for name, weight in self.family.model.state_dict().items()}
        self.vision = self.family.vision_features
        cached: Any = lambda clips: torch.cat([clip.vision["features"] for clip in clips])  # noqa: E731
        self.family.vision_features = cached  # type: ignore[method-assign]

    def prepare(self, frames: np.ndarray) -> list[PreparedClip]:
        prepared = [self.family.prepare(clip, FRAMES_PER_SECOND) for clip in frames]
        with torch.inference_mode():
            parts = [self.vision(prepared[at : at + 64]) for at in range(0, len(prepared), 64)]
        features = torch.cat(parts).clone().view(len(prepared), -1, parts[0].shape[-1])
        for clip, own in zip(prepared, features, strict=True):
            clip.vision.clear()
            clip.vision["features"] = own  # type: ignore[assignment]
        return prepared

    def network(self, settings: NetworkSettings, seed: int) -> VideoRewardNetwork:
        self.family.model.load_state_dict(self.start)
        return new_network(self.family, settings, seed)


def settings_of(pooling: str, head: str, *, late: bool = False) -> NetworkSettings:
    """The embedded VideoReward's texts; ``late`` puts all tokens behind the prompt."""
    rubrics = {"visual": "the picture", "motion": "the motion", "text": "is the shape right ?"}
    dimensions = tuple(
        DimensionSettings(name=name, rubric=rubrics[name], sees_prompt=late or name == "text") for name in NAMES
    )
    return NetworkSettings(dimensions=dimensions, prompt_text="[[prompt]] :", head=head, pooling=pooling)  # type: ignore[arg-type]


VARIANTS: dict[str, tuple[str, NetworkSettings, Sequence[float]]] = {
    "bt": ("bt", settings_of("special", "shared"), tuple(STEPS)),
    "regression": ("regression", settings_of("special", "shared"), tuple(STEPS)),
    "btt": ("btt", settings_of("special", "shared"), (1.0,)),
    "btt, separate heads": ("btt", settings_of("special", "separate"), (1.0,)),
    "btt, last token": ("btt", settings_of("last", "separate"), (1.0,)),
    "btt, tokens behind the prompt": ("btt", settings_of("special", "shared", late=True), (1.0,)),
}
"""Name -> loss, network, shares of the training pairs."""


def utilities_of_ends(pairs: pd.DataFrame, pool: Pool, checklist: Any) -> np.ndarray:
    """Hidden utility of both clips under the pair's prompt, [pairs, 2, criteria]."""
    ends = []
    for end in ("a", "b"):
        shown = {name: classes[pairs[end].to_numpy()] for name, classes in pool.recognised.items()}
        said = answer_from(shown, pairs["prompt"].tolist(), checklist.question_ids)
        ends.append(np.stack(list(utilities_by_criterion(said, checklist).values()), axis=1))
    return np.stack(ends, axis=1)


def label(pairs: pd.DataFrame, pool: Pool, checklist: Any, people: ComparisonParameters, seed: int) -> Pairs:
    table = compare_pairs(pairs, pool.clips, pool.recognised, checklist, people, seed=seed)
    said = np.stack([table[f"preference_{name}"].map(SIGN).to_numpy() for name in NAMES], axis=1)
    hidden = utilities_of_ends(pairs, pool, checklist)
    random = np.random.default_rng(sample_seed(seed, "grades", 0))
    felt = hidden + random.logistic(scale=people.criteria.temperature / np.sqrt(2), size=hidden.shape)
    fifths = np.quantile(hidden, [0.2, 0.4, 0.6, 0.8], axis=(0, 1))
    grades = 1.0 + (felt[..., None] > fifths.T).sum(axis=-1)
    asked = sorted(set(pairs["prompt"]))
    third = set(np.random.default_rng(seed).permutation(asked)[: len(asked) // 3])
    chosen = pairs["prompt"].isin(third).to_numpy()
    return Pairs(pairs[["a", "b"]].to_numpy(), pairs["prompt"].tolist(), said, grades, chosen)


class PairTask(Task):
    """Trains language model, tokens and head on pairs."""

    description = "train"

    def __init__(
        self, network: VideoRewardNetwork, pool: Pool, pairs: Pairs, loss: str, steps: int, count: int, seed: int
    ) -> None:
        super().__init__(
            LoopParameters(
                steps=steps, batch_size=BATCH, learning_rate=3e-3, warmup_steps=min(30, steps // 3), beta2=0.98
            )
        )
        self.network, self.pool, self.pairs, self.loss = network, pool, pairs, loss
        random = np.random.default_rng(seed)
        # BT learns nothing from pairs that are tied in all dimensions: the others take their place.
        usable = np.flatnonzero((pairs.label[:count] != 0).any(axis=1)) if loss == "bt" else np.arange(count)
        epochs = 1 + steps * BATCH // len(usable)
        self.order = np.concatenate([random.permutation(usable) for _ in range(epochs)])

    def weights(self) -> Sequence[torch.Tensor]:
        self.network.family.model.requires_grad_(False)
        trained = list(self.network.family.language_model.parameters())
        for weight in trained:
            weight.requires_grad_(True)
        return [*trained, *self.network.own_weights.values()]

    def step(self, step: int, group: Group) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        rows = self.order[(step - 1) * BATCH : step * BATCH]
        targets = Targets(*(torch.from_numpy(values[rows]).float() for values in (self.pairs.label, self.pairs.grades)))
        scores = score_pairs(self.network, self.pool, self.pairs, rows, one_pass=True)
        loss = summed_loss(self.loss, scores, targets) / max(int(targets.present(self.loss).sum()), 1)
        loss.backward()
        return loss.detach(), {}


def score_pairs(
    network: VideoRewardNetwork, pool: Pool, pairs: Pairs, rows: np.ndarray, *, one_pass: bool = False
) -> torch.Tensor:
    """Raw scores of both clips, [pairs, 2, dimensions]."""
    clips = [pool.prepared[at] for at in pairs.ends[rows].ravel()]
    prompts = [pairs.prompts[row] for row in rows for _ in range(2)]
    return network.scores(clips, prompts, one_pass=one_pass).view(len(rows), 2, -1)


def figures(network: VideoRewardNetwork, pool: Pool, pairs: Pairs) -> dict[str, float]:
    """Accuracy, what ties look like, and what a swapped prompt changes, on held-out prompts."""
    network.family.model.eval()
    with torch.inference_mode():
        parts = [
            score_pairs(network, pool, pairs, rows) for rows in np.array_split(np.arange(len(pairs)), len(pairs) // 100)
        ]
        shown = all_prompts()[::8]
        swapped = network.scores_of_prompts(pool.prepared[::8], [shown] * len(pool.prepared[::8]))
    scores = torch.cat(parts).double().numpy()
    difference = scores[:, 0] - scores[:, 1]
    said = np.select([pairs.label > 0, pairs.label < 0], ["a", "b"], "tie")
    chosen, tested = pairs.for_thresholds, ~pairs.for_thresholds
    found: dict[str, float] = {}
    for at, name in enumerate(NAMES):
        epsilon = pairwise_accuracy(difference[chosen, at], said[chosen, at]).epsilon
        agreement = pairwise_accuracy(difference[tested, at], said[tested, at], epsilon=epsilon)
        size, tied = np.abs(difference[tested, at]), said[tested, at] == "tie"
        found |= {
            f"diff_{name}": agreement.diff,
            f"tau_{name}": agreement.tau,
            f"tied_{name}": float(size[tied].mean() / size[~tied].mean()),
        }
    for kind in ("diff", "tau", "tied"):
        found[kind] = float(np.mean([found[f"{kind}_{name}"] for name in NAMES]))
    values = swapped.double().numpy().reshape(-1, len(shown), len(NAMES))
    for at, name in enumerate(NAMES):
        over_prompts = (values[..., at] - values[:, :1, at]).var(axis=1).mean()
        found[f"leak_{name}"] = float(over_prompts / values[..., at].mean(axis=1).var())
    return found


def worlds(seeds: Sequence[int], num_pairs: int) -> Iterator[tuple[int, CachedVision, Pool, Pairs, Pool, Pairs]]:
    """For each seed the pairs to learn from, and the held-out ones."""
    checklist = load_checklist(ROOT / "conf/base/checklist.yml")
    given = yaml.safe_load((ROOT / "conf/base/parameters/generator.yml").read_text(encoding="utf-8"))["generator"]
    generator = load_micro_generator(MODELS / "generator", GeneratorParameters(**given))
    oracle = Oracle.load(MODELS / "oracle.safetensors")
    judge, people = CachedVision(), ComparisonParameters()

    def pool(each: int, purpose: str) -> Pool:
        clips = sample_clips(generator, each, seed=0, purpose=purpose)
        return Pool(clips, oracle.recognise(clips.frames), judge.prepare(clips.frames))

    learned, tested = pool(40, "claims training"), pool(12, "claims held out")
    for seed in seeds:
        held_out = set(np.random.default_rng(seed).permutation(all_prompts())[:14])
        pairs = []
        for of_part, count, prompts in (
            (learned, num_pairs, set(all_prompts()) - held_out),
            (tested, 1500, held_out),
        ):
            drawn = draw_pairs(of_part.clips, count, CROSSED, prompts=prompts, seed=seed, purpose="claims")
            drawn = drawn.sample(frac=1.0, random_state=seed, ignore_index=True)
            pairs.append(label(drawn, of_part, checklist, people, seed))
        yield seed, judge, learned, pairs[0], tested, pairs[1]


def measure(seeds: Sequence[int], num_pairs: int, store: Path | None, show: Callable[[dict[str, Any]], None]) -> Any:
    """Train every variant for every seed; what a store has already is not done again."""
    known = (
        [json.loads(line) for line in store.read_text(encoding="utf-8").splitlines()]
        if store and store.exists()
        else []
    )
    done = {(row["variant"], row["share"], row["seed"]) for row in known}
    trainings = [(variant, share) for variant, (_, _, shares) in VARIANTS.items() for share in shares]
    left = [seed for seed in seeds if any((*training, seed) not in done for training in trainings)]
    for seed, judge, learned, training, tested, held_out in worlds(left, num_pairs) if left else ():
        for variant, (loss, settings, shares) in VARIANTS.items():
            for share in shares:
                if (variant, share, seed) in done:
                    continue
                started = time.process_time()
                torch.manual_seed(seed)
                network = judge.network(settings, seed)
                network.family.model.train()
                count = round(share * len(training))
                task = PairTask(network, learned, training, loss, STEPS[share], count, seed)
                train(task, task.settings, group=Group())
                row = {"variant": variant, "share": share, "seed": seed, "pairs": count}
                row |= figures(network, tested, held_out) | {"seconds": time.process_time() - started}
                known.append(row)
                show(row)
                if store:
                    with store.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
    return pd.DataFrame(known)


def interval(values: Sequence[float]) -> dict[str, float]:
    """Mean and Student's t interval (95 %) over seeds; of one seed the mean alone."""
    mean, count = float(np.mean(values)), len(values)
    half = float(stats.t.ppf(0.975, count - 1) * np.std(values, ddof=1) / np.sqrt(count)) if count > 1 else 0.0
    return {"mean": mean, "low": mean - half, "high": mean + half}


def summarise(table: pd.DataFrame) -> dict[str, Any]:
    """Figures by variant, and paired differences of what the paper compares."""
    by_variant: dict[str, Any] = {}
    columns = [name for name in table.columns if name.startswith(("diff", "tau", "tied", "leak"))]
    for (variant, share), rows in table.groupby(["variant", "share"]):
        by_variant.setdefault(str(variant), {})[f"{share:g}"] = {
            name: interval(rows[name].to_list()) for name in columns
        }

    def paired(first: str, second: str, column: str, share: float = 1.0) -> dict[str, float]:
        rows = table[table["share"] == share].pivot(index="seed", columns="variant", values=column)
        return interval((rows[first] - rows[second]).to_list())

    compared = {
        **{f"bt - regression, diff, {share:g}": paired("bt", "regression", "diff", share) for share in STEPS},
        "btt - bt, tau": paired("btt", "bt", "tau"),
        "btt - bt, diff": paired("btt", "bt", "diff"),
        "btt - bt, tied": paired("btt", "bt", "tied"),
        "tokens behind the prompt - btt, diff": paired("btt, tokens behind the prompt", "btt", "diff"),
        "last token - btt, diff": paired("btt, last token", "btt", "diff"),
        "last token - btt, leak of visual": paired("btt, last token", "btt", "leak_visual"),
        "separate - shared, diff": paired("btt, separate heads", "btt", "diff"),
    }
    return {"by_variant": by_variant, "compared": compared}


def draw(table: pd.DataFrame, path: Path) -> None:
    """Accuracy by share of the data; size of tied differences; leakage of the prompt."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    axes = figure.subplots(1, 3)
    for variant, label_of in (("bt", "Bradley-Terry"), ("regression", "regression")):
        rows = table[table["variant"] == variant].groupby("share")["diff"]
        spread = rows.apply(lambda values: interval(values.to_list()))
        mean = rows.mean()
        low = [mean[share] - spread[share]["low"] for share in mean.index]
        axes[0].errorbar(mean.index * 100, mean, yerr=low, marker="o", capsize=3, label=label_of)
    axes[0].set(xscale="log", xlabel="training pairs in %", ylabel="right order, untied pairs")
    axes[0].legend()
    whole = table[table["share"] == 1.0]
    for axis, column, variants, title in (
        (axes[1], "tied", ("bt", "btt"), "size of tied pairs' differences\nas a share of untied pairs'"),
        (
            axes[2],
            "leak_visual",
            ("btt", "btt, tokens behind the prompt", "btt, last token"),
            "variance of visual over swapped prompts\nas a share of that over clips",
        ),
    ):
        found = [interval(whole[whole["variant"] == variant][column].to_list()) for variant in variants]
        means = [one["mean"] for one in found]
        error = [one["mean"] - one["low"] for one in found]
        axis.bar([name.replace(", ", ",\n") for name in variants], means, yerr=error, capsize=4, width=0.5)
        axis.set_title(title, fontsize=10)
        axis.tick_params(axis="x", labelsize=8)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else {"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=8000, help="training pairs at 100 %%")
    parser.add_argument("--store", type=Path, help="file of finished trainings, which are not done again")
    parser.add_argument("--picture", type=Path, help="where to draw the figures (svg or png)")
    arguments = parser.parse_args()

    def show(row: Mapping[str, Any]) -> None:
        print(
            f"{row['variant']:<30} {100 * row['share']:>4.0f} %  seed {row['seed']}  diff {row['diff']:.3f}  "
            f"tau {row['tau']:.3f}  tied {row['tied']:.2f}  leak {row['leak_visual']:.3f}  {row['seconds']:.0f} s",
            flush=True,
        )

    with deterministic(1):
        table = measure(range(arguments.seeds), arguments.pairs, arguments.store, show)
    if arguments.picture:
        draw(table, arguments.picture)
    found = summarise(table)
    for name, values in found["compared"].items():
        print(f"{name:<44} {values['mean']:+.3f} [{values['low']:+.3f}, {values['high']:+.3f}]")
    print(
        json.dumps(
            {
                "benchmark": "videoreward_claims",
                "seeds": arguments.seeds,
                "seconds": float(table["seconds"].sum()),
                **found,
            }
        )
    )


if __name__ == "__main__":
    main()
