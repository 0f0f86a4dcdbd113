"""A training whose checkpoints are judged; a module of its own, so that the processes of a group can import it."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from toy_training import Toy
from vr_pipeline.checklist import checklist_from_mapping
from vr_pipeline.datasets.policy import PolicyDataset
from vr_pipeline.identifiers import prompt_id
from vr_pipeline.items.filling import fill_folder
from vr_pipeline.judges.config import ChecklistInferenceParameters
from vr_pipeline.rewards.checklist.model import ChecklistReward
from vr_pipeline.rewards.checklist.weights import RewardWeights, equal_weights
from vr_pipeline.training import validation as module
from vr_pipeline.training.config import DpoTrainingParameters, ValidationParameters
from vr_pipeline.training.preference_trainer import train_on_pairs
from vr_pipeline.training.validation import CheckpointValidation, PolicyFiles
from vr_pipeline.vlm.config import JudgeParameters

QUESTIONS = [{"id": "red", "text": "is it red ?"}, {"id": "as_asked", "text": "does it show [[prompt]] ?"}]
CHECKLIST = checklist_from_mapping(
    {
        "name": "toy",
        "modality": "video",
        "dimensions": [{"name": "all", "sub_dimensions": [{"name": "all", "questions": QUESTIONS}]}],
    }
)
PAIRS = pd.DataFrame({"prompt_id": ["p"], "winner_video_id": ["w"], "loser_video_id": ["l"]})


@dataclass(frozen=True)
class Judged:
    """What a training left in one process: how many clips and answers it made itself, the log and the table."""

    sampled: int
    answered: int
    log: pd.DataFrame
    table: pd.DataFrame


def validation_of(toy: Toy, judge: JudgeParameters, folder: Path, training: Any) -> CheckpointValidation:
    """Three clips of one prompt, a clip a batch: two processes do not share them evenly."""
    prompts = pd.DataFrame({"prompt": sorted(toy.conditions)})
    prompts["prompt_id"] = prompts["prompt"].map(prompt_id)
    prompts["split"] = "validation"
    settings = ValidationParameters(folder=str(folder), num_prompts=1, videos_per_prompt=3)
    weights = RewardWeights.from_json(equal_weights(CHECKLIST).to_json() | {"answers": "probability"})
    judging = ChecklistInferenceParameters(max_median_outside_mass=1.0, clips_per_item=1)
    return CheckpointValidation(
        PAIRS,
        prompts,
        ChecklistReward(CHECKLIST, weights, judge, judging),
        DpoTrainingParameters(training=training, validation=settings),
        fill=fill_folder,
        files=PolicyFiles(
            lambda place, policy: PolicyDataset(path=str(place)).save(policy),
            lambda place: PolicyDataset(path=str(place)).load(),
        ),
    )


def train_twice(place: str) -> tuple[Judged, Judged]:
    """Train in the group that this process was launched into, twice; the given toy and judge lie in the folder."""
    torch.set_num_threads(1)
    return train_and_judge(place), train_and_judge(place)


def train_and_judge(place: str) -> Judged:
    """Train, and judge the checkpoints."""
    folder = Path(place)
    toy, judge = pickle.loads((folder / "given.pickle").read_bytes())
    sampled, answered = [], []
    sample, measure = module.sample_items, ChecklistReward.measure

    def sampling(generator: Any, items: Any) -> Any:
        sampled.extend(items)
        return sample(generator, items)

    def measuring(self: ChecklistReward, videos: Any, index: pd.DataFrame) -> Any:
        plan = measure(self, videos, index)

        def make_batch(context: Any, items: Any) -> Any:
            answered.extend(items)
            return plan.make_batch(context, items)

        return type(plan)(plan.items, make_batch, plan.batch_size, plan.description, plan.setup)

    module.sample_items, ChecklistReward.measure = sampling, measuring  # type: ignore[method-assign]
    try:
        training = toy.parameters(checkpoint_every=3)
        generator, validation = toy.generator(), validation_of(toy, judge, folder / "validation", training)
        log = train_on_pairs(generator, toy.data, training, validation=validation.judging(generator))
        return Judged(len(sampled), len(answered), log, validation.table(log))
    finally:
        module.sample_items, ChecklistReward.measure = sample, measure  # type: ignore[method-assign]
