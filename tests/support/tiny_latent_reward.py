"""A latent reward's training that takes a second: clips in two kinds, the brighter and the moving one preferred."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import tiny_models
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.identifiers import prompt_id
from vr_pipeline.training.latent_reward.config import LatentRewardTrainingParameters
from vr_pipeline.training.latent_reward.data import LatentPairs, noise_pairs
from vr_pipeline.training.latent_reward.labels import pairs_of_own_clips
from vr_pipeline.training.latent_reward.training import TrainedLatentReward, train_latent_reward

CLIPS = 6
"""Clips of each of the eight prompts."""


@dataclass(frozen=True)
class Given:
    """Everything a training needs, that can be pickled."""

    settings: GeneratorParameters
    frames: dict[str, np.ndarray]
    rewards: pd.DataFrame
    index: pd.DataFrame
    latents: dict[str, torch.Tensor]
    conditions: dict[str, dict[str, torch.Tensor]]

    def pairs(self, **changes: Any) -> LatentPairs:
        """All pairs, labelled by the rewards."""
        table = pairs_of_own_clips(self.rewards, self.index, parameters(**changes))
        return LatentPairs(table, self.latents, self.conditions)

    def train(self, **changes: Any) -> TrainedLatentReward:
        """Train on them."""
        return train_latent_reward(self.pairs(**changes), self.settings, parameters(**changes))


def parameters(**changes: Any) -> LatentRewardTrainingParameters:
    """Settings of a training of a second."""
    given: dict[str, Any] = {
        "network": {"blocks": 1},
        "steps": 6,
        "batch_size": 4,
        "learning_rate": 3e-3,
        "warmup_steps": 1,
        "checkpoint_every": 2,
        "validation_times": 2,
        "report_bins": 2,
        "threads": 1,
        "held_out": {"validation_share": 0.25, "test_share": 0.25, "bootstrap_samples": 20},
    }
    return LatentRewardTrainingParameters.model_validate(given | changes)


def make(folder: Path, family: str = "micro_world") -> Given:
    """Save a tiny generator in the folder, and make and encode clips."""
    from vr_pipeline.micro_world.world import all_prompts

    save, of_model = {
        "micro_world": (tiny_models.save_micro_world, tiny_models.micro_world_parameters),
        "wan": (tiny_models.save_wan, tiny_models.wan_parameters),
    }[family]
    settings = of_model(save(folder))
    generator, random = load_generator(settings), np.random.default_rng(0)
    frames, rows = {}, []
    for prompt in all_prompts()[::6]:
        for number in range(CLIPS):
            name = f"{prompt.replace(' ', '-')}-{number}"
            bright, steps = random.uniform(0.0, 1.0), random.integers(0, 4)
            clip = np.full((settings.num_frames, settings.height, settings.width, 3), 40 + 150 * bright)
            for frame in range(settings.num_frames):
                clip[frame, :, (2 * frame * steps) % settings.width] += 60
            frames[name] = clip.clip(0, 255).astype(np.uint8)
            known = {"video_id": name, "prompt_id": prompt_id(prompt), "prompt": prompt}
            rows.append(known | {"dim_light": bright, "dim_motion": float(steps), "total": bright + steps})
    rewards = pd.DataFrame(rows)
    index = rewards[["video_id", "prompt_id", "prompt"]].assign(status="ok", error="", sha256=rewards["video_id"])
    encoded = generator.encode_frames(np.stack(list(frames.values())))
    return Given(
        settings=settings,
        frames=frames,
        rewards=rewards.drop(columns="prompt"),
        index=index,
        latents=dict(zip(frames, encoded, strict=True)),
        conditions={prompt_id(prompt): generator.encode_prompts([prompt]) for prompt in rewards["prompt"].unique()},
    )


def scores_of(given: Given, trained: TrainedLatentReward) -> torch.Tensor:
    """Scores of some noised clips, [clips, dimensions]."""
    data, generator = given.pairs(), trained.reward.blocks.generator
    pairs = data.pairs[:8]
    batch = noise_pairs(generator, data, pairs, [(0, (0.0, 0.5))] * len(pairs), seed=9)
    with torch.no_grad():
        return trained.reward.scores(batch.noised, batch.timesteps, batch.condition)


def train_in_group(folder: str) -> tuple[torch.Tensor, pd.DataFrame, pd.DataFrame]:
    """Run the training that lies in a folder; for processes that were started."""
    import pickle

    given: Given = pickle.loads((Path(folder) / "given.pickle").read_bytes())
    trained = given.train()
    return scores_of(given, trained), trained.log, trained.report
