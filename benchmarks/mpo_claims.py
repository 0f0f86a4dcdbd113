"""MPO against DPO at equal numbers of pairs: in the shipped world, in the one with trade-offs, and with a faulty judge.

Every seed draws other prompts for training, validation and test, and other clips. The embedded judge answers the
questions about them, as it is or with a fault (a tenth of its answers turned around, or flicker taken for motion).
Weights are fitted on simulated comparisons that the same judge answers, or given: the hidden weights of the people.
Of every four clips of a prompt each rule takes at most one pair, and both rules keep as many pairs, of largest margin.
Policies are trained by a few steps; oracle and auditor score clips of test prompts against those of the original from
the same noise. The faulty judge itself scores clips of validation prompts, for the choice of a checkpoint.

Every training is stored when it is done; started again, only those that are missing are done.

The worlds differ in the generator alone; that of the world with trade-offs is not shipped: `kedro run
--env=trade_offs --pipeline=micro_world --to-outputs=micro_generator` makes it.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from alarm import encoded
from mpo_figures import report
from sifting import MODELS, ROOT, configuration, sample
from vr_pipeline.checklist import load_checklist
from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import Generator
from vr_pipeline.identifiers import content_hash, pair_id
from vr_pipeline.judges.config import ChecklistInferenceParameters, FaultParameters
from vr_pipeline.judges.faults import faults_of
from vr_pipeline.micro_world.auditor import Auditor
from vr_pipeline.micro_world.config import PreferenceParameters
from vr_pipeline.micro_world.oracle import Oracle
from vr_pipeline.micro_world.preferences import UTILITY, simulate_preferences, utilities
from vr_pipeline.micro_world.recogniser import Recogniser
from vr_pipeline.micro_world.world import all_prompts
from vr_pipeline.pairs.candidates import largest_margins
from vr_pipeline.pairs.selection import select_pairs
from vr_pipeline.rewards.checklist.fit import fit_weights
from vr_pipeline.rewards.checklist.linear import dimension_scores, score
from vr_pipeline.rewards.checklist.model import ChecklistReward
from vr_pipeline.rewards.checklist.weights import RewardWeights, given_weights
from vr_pipeline.storage.atomic import sha256_of, write_text
from vr_pipeline.training.config import PreferenceTrainingParameters
from vr_pipeline.training.pairs import TrainingPair
from vr_pipeline.training.preference_trainer import Validation, train_on_pairs
from vr_pipeline.video.sampled import SampledClip
from vr_pipeline.vlm.config import ChecklistJudgeParameters

WORLDS = {"shipped": MODELS, "trade_offs": ROOT / "data/trade_offs/06_models/micro_world"}
"""Folder of the generator; judge, oracle and auditor are the shipped ones in both worlds."""
TRAIN, TEST = 28, 16
"""Prompts of each kind; the other four are for validation."""
PAIRED, COMPARED = 16, 6
"""Clips of a training prompt: for pairs, and for the comparisons on which weights are fitted."""
COMPARISONS = 400
BIASED = "dynamics"
"""Dimension of the biased questions."""
FLICKER_MOVES = {"moves_fast": "not brightness_steady", "moves_clearly": "not brightness_steady"}
FAULTS: dict[str, dict[str, Any]] = {"as is": {}, "errors": {"error_rate": 0.1}, "biased": {"bias": FLICKER_MOVES}}
"""Faults of the judge by name."""


class Cell(NamedTuple):
    """What a training is about.

    Attributes:
        world: which micro-world.
        judge: fault of the judge.
        weights: ``fitted`` on comparisons that this judge answered, ``signed`` likewise with negative weights kept, or
            ``true``: given, those of the simulated people, which fit a judge without faults.
        factor: multiplies the weights of the biased dimension.
    """

    world: str
    judge: str
    weights: str
    factor: int = 1

    @property
    def chooses(self) -> bool:
        """Whether a checkpoint half-way is measured too."""
        return self.judge == "errors" and self.weights == "true"

    @property
    def name(self) -> str:
        """For tables and files."""
        return f"{self.world}, {self.judge}, {self.weights}, x{self.factor}"


CELLS = tuple(
    Cell(world, judge, weights, factor)
    for judge, weights, factor in (
        ("as is", "fitted", 1),
        ("as is", "true", 1),
        ("errors", "fitted", 1),
        ("errors", "true", 1),
        ("biased", "fitted", 1),
        ("biased", "signed", 1),
        *(("biased", "true", factor) for factor in (1, 2, 3, 4)),
    )
    for world in WORLDS
)
"""In the order in which they are measured and reported."""


@dataclass(frozen=True)
class World:
    """A generator, and who judges its clips."""

    generator: Generator
    judge: ChecklistReward
    oracle: Oracle
    auditor: Auditor

    @property
    def checklist(self) -> Checklist:
        return self.judge.checklist


@dataclass(frozen=True)
class Drawn:
    """What a seed draws in a world.

    Attributes:
        index: clips of training prompts.
        clips: the same.
        p_yes: what the judge as it is says about them, [clips, questions].
        compared: simulated comparisons among the clips that no pair is made of.
        prompts: for training, validation and test.
        original: mean rewards of test clips of the original generator by oracle and auditor.
    """

    index: pd.DataFrame
    clips: list[SampledClip]
    p_yes: np.ndarray
    compared: pd.DataFrame
    prompts: dict[str, list[str]]
    original: dict[str, Any]


def load_world(name: str) -> World:
    settings = configuration("generator") | {"path": str(WORLDS[name] / "generator")}
    judge = ChecklistJudgeParameters.model_validate(configuration("judge") | {"path": str(MODELS / "judge")})
    judging = ChecklistInferenceParameters.model_validate(configuration("checklist_inference"))
    return World(
        load_generator(GeneratorParameters.model_validate(settings)),
        ChecklistReward(load_checklist(ROOT / "conf/base/checklist.yml"), None, judge, judging),
        Oracle.load(MODELS / "oracle.safetensors"),
        Auditor.load(MODELS / "auditor.safetensors"),
    )


def judged(world: World, clips: Sequence[SampledClip]) -> np.ndarray:
    """Probabilities of yes by the judge as it is, [clips, questions]."""
    loaded = world.judge.loaded()
    found = [
        answer
        for at in range(0, len(clips), 64)
        for answer in world.judge.look(loaded, clips[at : at + 64])
        if isinstance(answer, pd.DataFrame)
    ]
    return np.stack([answer["p_yes"].to_numpy() for answer in found])


def answers(world: World, p_yes: np.ndarray, names: Sequence[str], fault: str, seed: int) -> np.ndarray:
    """What the judge with a fault answers, 0 or 1, [clips, questions]."""
    faults = faults_of(FaultParameters(**FAULTS[fault], seed=seed), world.checklist)
    said = p_yes if faults is None else np.stack([faults.change(*one) for one in zip(p_yes, names, strict=True)])
    return (said > 0.5).astype(np.float64)


def rewards_by(recogniser: Recogniser, world: World, index: pd.DataFrame, clips: Sequence[SampledClip]) -> pd.DataFrame:
    """Expected hidden utility by a recogniser: total and by dimension, one row per clip."""
    ids = world.checklist.question_ids
    said = recogniser.probabilities(np.stack([clip.frames for clip in clips]), list(index["prompt"]), ids)
    weights = RewardWeights(tuple(ids), np.array([recogniser.weights[question] for question in ids]))
    return rewarded(world, weights, said)


def draw(world: World, seed: int, options: argparse.Namespace) -> Drawn:
    """Draw prompts, and make and judge what does not depend on a training."""
    order = sorted(all_prompts(), key=lambda prompt: content_hash("mpo claims", seed, prompt))
    prompts = {"train": order[:TRAIN], "test": order[TRAIN : TRAIN + TEST], "validation": order[TRAIN + TEST :]}
    world.generator.load_policy(None)
    index, clips = sample(world.generator, prompts["train"], PAIRED + COMPARED, 1000 + seed, options.store)
    spare = (index["sample_index"] >= PAIRED).to_numpy()
    own, shown = index[spare], [clip for clip, free in zip(clips, spare, strict=True) if free]
    said = world.oracle.probabilities(
        np.stack([clip.frames for clip in shown]), list(own["prompt"]), world.checklist.question_ids
    )
    compared = simulate_preferences(
        list(own["video_id"]),
        list(own["prompt"]),
        utilities(said, world.checklist.question_ids),
        PreferenceParameters(num_pairs=COMPARISONS),
        seed=seed,
    )
    drawn = Drawn(index, clips, judged(world, clips), compared, prompts, {})
    return replace(drawn, original=measured(world, drawn, seed, options, store=options.store))


def measured(
    world: World, drawn: Drawn, seed: int, options: argparse.Namespace, store: Path | None = None
) -> dict[str, Any]:
    """Make clips of test and validation prompts by the generator's current weights, and score them.

    Returns:
        mean rewards of the test clips by oracle and auditor, total and by dimension, and the judge's probabilities of
        yes about the validation clips.
    """
    prompts = [*drawn.prompts["test"], *drawn.prompts["validation"]]
    index, clips = sample(world.generator, prompts, options.clips, 2000 + seed, store)
    test = index["prompt"].isin(drawn.prompts["test"]).to_numpy()
    scored = [clip for clip, own in zip(clips, test, strict=True) if own]
    validation = [clip for clip, own in zip(clips, test, strict=True) if not own]
    result: dict[str, Any] = {
        name: rewards_by(model, world, index[test], scored).mean().to_dict()
        for name, model in (("oracle", world.oracle), ("auditor", world.auditor))
    }
    return result | {"p_yes": judged(world, validation), "names": [clip.video_id for clip in validation]}


def weights_of(world: World, drawn: Drawn, cell: Cell, seed: int) -> RewardWeights:
    """Fit weights on the comparisons, answered by the cell's judge, or take those of the simulated people."""
    raised = [cell.factor if question.dimension == BIASED else 1 for question in world.checklist.questions]
    if cell.weights == "true":
        true = given_weights({name: UTILITY[name] for name in world.checklist.question_ids}, world.checklist)
        return replace(true, weights=true.weights * raised)
    matrix = pd.DataFrame(
        answers(world, drawn.p_yes, list(drawn.index["video_id"]), cell.judge, seed), index=drawn.index["video_id"]
    )
    compared = drawn.compared[drawn.compared["preference"] != "tie"]
    first, second = (matrix.loc[compared[name]].to_numpy() for name in ("video_id_a", "video_id_b"))
    fitted = fit_weights(
        first,
        second,
        compared["preference"].tolist(),
        groups=compared["prompt"].tolist(),
        question_ids=world.checklist.question_ids,
        answers="binary",
        penalty=0.001,
        bootstrap_samples=0,
        nonnegative=cell.weights != "signed",
        checklist_hash=world.checklist.hash,
    )
    return replace(fitted, weights=fitted.weights * raised)


def rewarded(world: World, weights: RewardWeights, said: np.ndarray) -> pd.DataFrame:
    """Rewards of clips by answers: total and by dimension."""
    return dimension_scores(said, weights, world.checklist).assign(total=score(said, weights))


def pairs_of(world: World, drawn: Drawn, cell: Cell, weights: RewardWeights, seed: int) -> dict[str, pd.DataFrame]:
    """Pairs of both rules, equally many."""
    names = list(drawn.index["video_id"])
    table = rewarded(world, weights, answers(world, drawn.p_yes, names, cell.judge, seed))
    table = drawn.index[["video_id", "prompt_id", "sample_index"]].join(table)
    table = table[table["sample_index"] < PAIRED]
    chosen = {rule: select_pairs(table, rule, group_size=4) for rule in ("dpo", "mpo")}
    return {rule: largest_margins(pairs, min(map(len, chosen.values()))) for rule, pairs in chosen.items()}


def train(
    world: World, drawn: Drawn, cell: Cell, pairs: pd.DataFrame, weights: RewardWeights, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Train on pairs; return gains and the judge's reward of validation clips at every checkpoint."""
    seed = options.seed
    settings = configuration("dpo_training")["training"] | {
        "seed": seed,
        "steps": options.steps,
        "checkpoint_every": options.steps // 2 if cell.chooses else options.steps,
        "warmup_steps": options.steps // 8,
    }
    records: list[dict[str, Any]] = []

    def validate(step: int) -> float:
        with world.generator.encoders():
            found = measured(world, drawn, seed, options)
        said = answers(world, found["p_yes"], found["names"], cell.judge, seed)
        reward = float(rewarded(world, weights, said)["total"].mean())
        gains = {
            model: {name: value - drawn.original[model][name] for name, value in found[model].items()}
            for model in ("oracle", "auditor")
        }
        records.append({"step": step, "validation": reward, **gains})
        return reward

    world.generator.load_policy(None)
    rows = pairs[["prompt_id", "winner_video_id", "loser_video_id"]].itertuples(index=False, name=None)
    data = encoded(world.generator, [TrainingPair(pair_id(*row), *row) for row in rows], drawn.index, drawn.clips)
    parameters = PreferenceTrainingParameters.model_validate(settings)
    train_on_pairs(world.generator, data, parameters, validation=Validation(validate, chooses=False))
    world.generator.load_policy(None)
    return records


def run_cell(world: World, drawn: Drawn, cell: Cell, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Both trainings of a cell and a seed, with what the chosen pairs are truly worth."""
    weights = weights_of(world, drawn, cell, options.seed)
    utility = rewards_by(world.oracle, world, drawn.index, drawn.clips)["total"].set_axis(drawn.index["video_id"])
    rows = []
    for rule, pairs in pairs_of(world, drawn, cell, weights, options.seed).items():
        began = time.process_time()
        gap = utility[pairs["winner_video_id"]].to_numpy() - utility[pairs["loser_video_id"]].to_numpy()
        row = {"cell": cell.name, **cell._asdict(), "rule": rule, "seed": options.seed, "pairs": len(pairs)}
        row |= {"right": float((gap > 0).mean()), "gap": float(gap.mean())}
        row |= {"question_weights": dict(zip(weights.question_ids, weights.weights.tolist(), strict=True))}
        row["records"] = train(world, drawn, cell, pairs, weights, options)
        rows.append(row | {"seconds": round(time.process_time() - began, 1)})
    return rows


def generator_hash(world: str) -> str:
    """Hash of the weights of a world's generator. Stops if they are not there."""
    path = WORLDS[world] / "generator/transformer/diffusion_pytorch_model.safetensors"
    if not path.is_file():
        sys.exit(
            f"{path} is missing: make it by 'kedro run --env=trade_offs --pipeline=micro_world "
            "--to-outputs=micro_generator', or give --worlds shipped"
        )
    return sha256_of(path)


def trainings(options: argparse.Namespace) -> list[dict[str, Any]]:
    """All trainings of all cells and seeds, measured or read."""
    rows: list[dict[str, Any]] = []
    known: dict[str, World] = {}
    drawn: dict[tuple[str, int], Drawn] = {}
    facts = {name: getattr(options, name) for name in ("clips", "steps")}
    facts |= {"paired": PAIRED, "compared": COMPARED, "comparisons": COMPARISONS}
    weights = {world: generator_hash(world) for world in options.worlds}
    for cell in [cell for cell in CELLS if cell.world in options.worlds]:
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            identity = content_hash(
                "mpo claims", json.dumps(facts, sort_keys=True), weights[cell.world], cell.name, seed
            )
            path = options.store / "trainings" / f"{identity}.json"
            if path.is_file():
                rows += json.loads(path.read_text(encoding="utf-8"))
                continue
            if options.report:
                continue
            own = argparse.Namespace(**vars(options) | {"seed": seed})
            if cell.world not in known:
                known[cell.world] = load_world(cell.world)
            world, place = known[cell.world], (cell.world, seed)
            if place not in drawn:
                drawn[place] = draw(world, seed, own)
            made = run_cell(world, drawn[place], cell, own)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(made))
            rows += made
            print(f"{cell.name}, seed {seed}: {sum(row['seconds'] for row in made):.0f} s", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--worlds", nargs="+", choices=list(WORLDS), default=list(WORLDS))
    parser.add_argument("--steps", type=int, default=40, help="steps of a training")
    parser.add_argument("--clips", type=int, default=6, help="clips of each test and validation prompt")
    parser.add_argument("--store", type=Path, default=ROOT / "data/08_reporting/mpo_claims", help="folder of results")
    parser.add_argument("--report", action="store_true", help="train nothing, report all that is stored")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    report(trainings(options), options.store)


if __name__ == "__main__":
    main()
