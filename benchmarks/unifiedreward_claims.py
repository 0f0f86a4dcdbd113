"""What UnifiedReward's paper says of joint training, order and sifting, asked of the micro-world: seeds, intervals.

Every training starts from the embedded judge with a frozen vision tower and has the same number of steps of 32 items:
pairs alone, points alone, or both together; and both together for a third of the steps, for what the order of a pair
does to a model that has only begun to compare. Seeds differ in labels, held-out prompts, weights of new words and
order; the generated clips are the same. Held-out prompts have clips of their own; figures are of the prompts of the
test side.

Sifting: of ten candidates of every held-out prompt one pair is taken, by comparisons of neighbours and points together
(the paper's), by points alone (best against worst) and by comparisons alone (the surest one); its margin is the
difference of the hidden utility.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from scipy import stats

from vr_pipeline.checklist import load_checklist
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.identifiers import prompt_id
from vr_pipeline.micro_world.build import load_micro_generator
from vr_pipeline.micro_world.config import UnifiedItemParameters
from vr_pipeline.micro_world.oracle import Oracle
from vr_pipeline.micro_world.preferences import utilities
from vr_pipeline.micro_world.recogniser import answer_from
from vr_pipeline.micro_world.reward_pairs import GeneratedClips, compare_pairs, draw_pairs, sample_clips
from vr_pipeline.micro_world.unified_items import grade_clips
from vr_pipeline.micro_world.world import FRAMES_PER_SECOND, all_prompts
from vr_pipeline.pairs.sifting import sift
from vr_pipeline.rewards.registry import load_reward_model, ranker_of
from vr_pipeline.rewards.training.held_out import HeldOutParameters, split_by_unit
from vr_pipeline.rewards.unifiedreward.training.config import UnifiedRewardTrainingParameters
from vr_pipeline.rewards.unifiedreward.training.items import items_from_preferences, items_from_ratings, mixed
from vr_pipeline.rewards.unifiedreward.training.task import train_unified_reward
from vr_pipeline.rewards.unifiedreward.training.trained import TrainedUnifiedReward
from vr_pipeline.video.sampled import SampledClip, Sampling, sample_clip

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "data/06_models/micro_world"
CANDIDATES = 10
VARIANTS = {"joint": ("pair", "point"), "pairs alone": ("pair",), "points alone": ("point",)}
HALF_TRAINED = "joint, a third of the steps"


@dataclass(frozen=True)
class Pool:
    """Generated clips with the oracle's view of them."""

    clips: GeneratedClips
    recognised: Mapping[str, np.ndarray]

    def read(self, video_id: str, sampling: Sampling) -> SampledClip:
        frames = self.clips.frames[self.clips.video_ids.index(video_id)]
        return sample_clip(frames, "", sampling, video_id=video_id, fps=FRAMES_PER_SECOND)

    def index(self) -> pd.DataFrame:
        table = pd.DataFrame(self.clips.metadata("micro_world")).assign(video_id=self.clips.video_ids)
        return table.assign(path="", sha256="", status="ok", error="")


class World:
    """Clips to learn from and to test on, and what simulated people say of them."""

    def __init__(self, clips_per_prompt: int) -> None:
        self.checklist = load_checklist(ROOT / "conf/base/checklist.yml")
        given = yaml.safe_load((ROOT / "conf/base/parameters/generator.yml").read_text(encoding="utf-8"))["generator"]
        generator = load_micro_generator(MODELS / "generator", GeneratorParameters(**given))
        oracle = Oracle.load(MODELS / "oracle.safetensors")
        self.pools = {}
        for purpose, count in (("claims training", clips_per_prompt), ("claims held out", CANDIDATES)):
            clips = sample_clips(generator, count, seed=0, purpose=purpose)
            self.pools[purpose] = Pool(clips, oracle.recognise(clips.frames))
        names = {name: pool for pool in self.pools.values() for name in pool.clips.video_ids}
        self.read = lambda name, sampling: names[name].read(name, sampling)
        self.index = pd.concat([pool.index() for pool in self.pools.values()], ignore_index=True)

    def items(self, seed: int, num_pairs: int, held_out: HeldOutParameters) -> pd.DataFrame:
        """Pairs and points; those of prompts that are not trained on are about held-out clips."""
        prompts, settings, parts = pd.Series(all_prompts()), UnifiedItemParameters(), []
        trained = split_by_unit(prompts.map(prompt_id), held_out) == "train"
        for (purpose, pool), asked, count in zip(
            self.pools.items(), (trained, ~trained), (num_pairs, num_pairs // 6), strict=True
        ):
            own = frozenset(prompts[asked])
            pairs = draw_pairs(pool.clips, count, settings.cross_prompt_share, prompts=own, seed=seed, purpose=purpose)
            said = compare_pairs(pairs, pool.clips, pool.recognised, self.checklist, settings, seed=seed)
            grades = grade_clips(pool.clips, pool.recognised, self.checklist, settings, prompts=own, seed=seed)
            parts += [items_from_preferences(said), items_from_ratings(grades, pairs=False).assign(weight=0.5)]
        return mixed(parts)

    def utility(self, pool: Pool) -> np.ndarray:
        """Hidden utility of a pool's clips under their own prompts."""
        said = answer_from(pool.recognised, pool.clips.prompts, self.checklist.question_ids)
        return utilities(said, self.checklist.question_ids)


def settings_of(seed: int, steps: int) -> UnifiedRewardTrainingParameters:
    """As the embedded model's, for so many steps."""
    path = ROOT / "conf/base/parameters/micro_unifiedreward.yml"
    block = dict(yaml.safe_load(path.read_text(encoding="utf-8"))["micro_unifiedreward"])
    block |= {"steps": steps, "checkpoint_every": 0, "seed": seed, "warmup_steps": steps // 20, "validation_items": 20}
    block["start"] = {**block["start"], "path": str(MODELS / "judge")}
    block["template"] = str(ROOT / "conf/templates/micro_world.yml")
    block["held_out"] = {"validation_share": 0.1, "test_share": 0.25, "seed": seed, "bootstrap_samples": 0}
    return UnifiedRewardTrainingParameters.model_validate(block)


def figures_of(trained: TrainedUnifiedReward) -> dict[str, float]:
    """Figures on test items: of pairs by comparisons, of points by scores."""
    found: dict[str, float] = {}
    for row in trained.report[trained.report["dimension"] == "all"].to_dict("records"):
        kinds = ("diff", "one_order_diff", "order_flips", "three_way_accuracy", "always_first", "always_tie")
        wanted = kinds if row["form"] == "pair" else ("diff",)
        found |= {f"{row['form']}_{name}": float(row[name]) for name in wanted}
    return found


def margins(trained: TrainedUnifiedReward, world: World, prompts: Sequence[str]) -> dict[str, float]:
    """True margin of the pair that each way takes from ten candidates of a prompt, its mean over prompts."""
    pool = world.pools["claims held out"]
    utility = dict(zip(pool.clips.video_ids, world.utility(pool), strict=True))
    with tempfile.TemporaryDirectory() as folder:
        trained.save(Path(folder))
        reward = load_reward_model({"type": "unifiedreward", "path": folder, "device": "cpu", "clip_batch": 10})
        ranker = ranker_of(reward)
        compared, points, found = [], [], []
        for prompt in prompts:
            names = [name for name, own in zip(pool.clips.video_ids, pool.clips.prompts, strict=True) if own == prompt]
            clips = {name: pool.read(name, Sampling(8)) for name in names}
            pairs = list(zip(names[::2], names[1::2], strict=True))
            said = ranker.compare_group(clips, pairs, prompt)
            frames = [pool.clips.frames[pool.clips.video_ids.index(name)] for name in names]
            total = reward.score(frames, [prompt] * len(names), FRAMES_PER_SECOND)["total"].to_numpy(dtype=float)
            compared.append(pd.DataFrame(pairs, columns=["a", "b"]).assign(group=prompt, better=said["better"]))
            points.append(pd.DataFrame({"group": prompt, "item": names, "total": total}))
            lead = (said["p_a"] - said["p_b"]).to_numpy(dtype=float)
            surest = int(np.abs(lead).argmax())
            winner, loser = pairs[surest] if lead[surest] > 0 else pairs[surest][::-1]
            of_names = np.array([utility[name] for name in names])
            found.append(
                {
                    "points alone": of_names[total.argmax()] - of_names[total.argmin()],
                    "comparisons alone": utility[winner] - utility[loser],
                    "oracle": np.ptp(of_names),
                }
            )
        sifted, _ = sift(pd.concat(compared, ignore_index=True), pd.concat(points, ignore_index=True))
    means = pd.DataFrame(found).mean().to_dict()
    chosen, rejected = (sifted[name].map(utility) for name in ("chosen", "rejected"))
    means["sift"] = float((chosen - rejected).mean())
    means["sift, pairs"] = float(len(sifted))
    return {f"margin, {name}": float(value) for name, value in means.items()}


def measure(
    seeds: Sequence[int], steps: int, num_pairs: int, clips: int, store: Path | None
) -> Iterator[dict[str, Any]]:
    """Train every variant for every seed; what a store has already is not done again."""
    text = store.read_text(encoding="utf-8") if store and store.exists() else ""
    known = [json.loads(line) for line in text.splitlines()]
    yield from known
    done = {(row["variant"], row["seed"]) for row in known}
    wanted = [
        *((name, forms, steps) for name, forms in VARIANTS.items()),
        (HALF_TRAINED, ("pair", "point"), steps // 3),
    ]
    world = World(clips) if any((name, seed) not in done for seed in seeds for name, _, _ in wanted) else None
    for seed in seeds:
        for name, forms, count in wanted:
            if world is None or (name, seed) in done:
                continue
            started = time.process_time()
            settings = settings_of(seed, count)
            items = world.items(seed, num_pairs, settings.held_out)
            # What is not trained on is tested all the same.
            items["weight"] = items["weight"].where(items["form"].isin(forms), 1e-9)
            trained = train_unified_reward(items, world.index, world.read, settings)
            row = {"variant": name, "seed": seed, "steps": count} | figures_of(trained)
            if name == "joint":
                side = split_by_unit(pd.Series(all_prompts()).map(prompt_id), settings.held_out)
                tested = [prompt for prompt, of_prompt in zip(all_prompts(), side, strict=True) if of_prompt == "test"]
                row |= margins(trained, world, tested)
            row["seconds"] = time.process_time() - started
            if store:
                with store.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
            yield row


def interval(values: Sequence[float]) -> dict[str, float]:
    """Mean and Student's t interval (95 %) over seeds; of one seed the mean alone."""
    mean, count = float(np.mean(values)), len(values)
    half = float(stats.t.ppf(0.975, count - 1) * np.std(values, ddof=1) / np.sqrt(count)) if count > 1 else 0.0
    return {"mean": mean, "low": mean - half, "high": mean + half, "seeds": count}


def summarise(table: pd.DataFrame) -> dict[str, Any]:
    """Paired differences of what the paper compares, and the figures of every variant."""

    def paired(first: tuple[str, str], second: tuple[str, str]) -> dict[str, float]:
        one, other = (table[table["variant"] == name].set_index("seed")[column] for name, column in (first, second))
        return interval((one - other).dropna().to_list())

    compared = {
        "joint - pairs alone, pairs in the right order": paired(("joint", "pair_diff"), ("pairs alone", "pair_diff")),
        "joint - points alone, points in the right order": paired(
            ("joint", "point_diff"), ("points alone", "point_diff")
        ),
        "both orders - one order": paired(("joint", "pair_diff"), ("joint", "pair_one_order_diff")),
        "both orders - one order, a third of the steps": paired(
            (HALF_TRAINED, "pair_diff"), (HALF_TRAINED, "pair_one_order_diff")
        ),
        "margin: sift - points alone": paired(("joint", "margin, sift"), ("joint", "margin, points alone")),
        "margin: sift - comparisons alone": paired(("joint", "margin, sift"), ("joint", "margin, comparisons alone")),
    }
    columns = [name for name in table.columns if name.startswith(("pair_", "point_", "margin"))]
    by_variant = {
        str(name): {
            column: interval(rows[column].dropna().to_list()) for column in columns if rows[column].notna().any()
        }
        for name, rows in table.groupby("variant", sort=True)
    }
    return {"compared": compared, "by_variant": by_variant}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300, help="of 32 items each")
    parser.add_argument("--pairs", type=int, default=6000, help="pairs to learn from")
    parser.add_argument("--clips", type=int, default=30, help="generated clips of each prompt to learn from")
    parser.add_argument("--store", type=Path, help="file of finished trainings, which are not done again")
    arguments = parser.parse_args()
    rows = []
    for row in measure(range(arguments.seeds), arguments.steps, arguments.pairs, arguments.clips, arguments.store):
        rows.append(row)
        shown = {name: round(value, 3) for name, value in row.items() if name.endswith("diff")}
        print(f"{row['variant']:<28} seed {row['seed']}  {shown}  {row['seconds']:.0f} s", flush=True)
    table = pd.DataFrame(rows)
    found = summarise(table)
    for name, values in found["compared"].items():
        print(f"{name:<50} {values['mean']:+.3f} [{values['low']:+.3f}, {values['high']:+.3f}]")
    print(
        json.dumps(
            {
                "benchmark": "unifiedreward_claims",
                "seeds": arguments.seeds,
                "steps": arguments.steps,
                "seconds": float(table["seconds"].sum()),
                **found,
            }
        )
    )


if __name__ == "__main__":
    main()
