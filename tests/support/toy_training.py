"""A training that takes a second."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import tiny_models
from vr_pipeline.engine.config import LoRAParameters
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import Condition, Generator
from vr_pipeline.generators.policy import Policy
from vr_pipeline.training.config import PreferenceTrainingParameters
from vr_pipeline.training.pairs import PairData, TrainingPair
from vr_pipeline.training.preference_trainer import train_on_pairs


@dataclass(frozen=True)
class Toy:
    """A training that takes a second: winners are rendered clips, losers their negatives."""

    settings: GeneratorParameters
    pairs: list[TrainingPair]
    latents: dict[str, torch.Tensor]
    conditions: dict[str, Condition]

    @property
    def data(self) -> PairData:
        return PairData(self.pairs, self.latents, self.conditions)

    def generator(self) -> Generator:
        return load_generator(self.settings)

    @staticmethod
    def parameters(**changes: object) -> PreferenceTrainingParameters:
        return PreferenceTrainingParameters(
            **(
                {
                    "beta": 10.0,
                    "steps": 6,
                    "batch_size": 4,
                    "learning_rate": 1e-2,
                    "warmup_steps": 2,
                    "threads": 1,
                    "lora": LoRAParameters(rank=2, alpha=4.0),
                }
                | changes
            )
        )


def make_toy(folder: Path) -> Toy:
    """Save the tiny generator in ``folder`` and encode its clips."""
    from vr_pipeline.micro_world.clips import render_clips
    from vr_pipeline.micro_world.world import all_prompts

    settings = tiny_models.micro_world_parameters(tiny_models.save_micro_world(folder))
    generator = load_generator(settings)
    prompts = all_prompts()[:6]
    clips = render_clips(12, seed=1, purpose="toy").frames
    # Losers are losers for one plain reason: they are inverted.
    clips = np.where(np.arange(12)[:, None, None, None, None] % 2 == 0, clips, 255 - clips)
    latents = generator.encode_frames(clips)
    return Toy(
        settings=settings,
        pairs=[TrainingPair(f"pair {row}", prompts[row], f"w{row}", f"l{row}") for row in range(6)],
        latents={f"{'wl'[row % 2]}{row // 2}": latents[row] for row in range(12)},
        conditions={prompt: generator.encode_prompts([prompt]) for prompt in prompts},
    )


def train(
    toy: Toy, generator: Generator | None = None, pairs: list[TrainingPair] | None = None, **changes: object
) -> tuple[Policy, pd.DataFrame]:
    """Train a generator, a new one if none is given, and return its policy and the log."""
    generator = generator or toy.generator()
    data = replace(toy.data, pairs=pairs or toy.pairs)
    log = train_on_pairs(generator, data, toy.parameters(**changes))
    return generator.policy(), log


def relative_difference(first: Policy, second: Policy) -> float:
    """Norm of the difference of two policies' tensors, as a share of the first's.

    Adam makes of a gradient that is nothing but rounding a whole step, so that single elements differ between ways of
    adding up, and between processors.
    """
    names = sorted(first.tensors)
    assert names == sorted(second.tensors)
    one, other = (torch.cat([policy.tensors[name].flatten() for name in names]) for policy in (first, second))
    return float((one - other).norm() / one.norm())


def largest_difference(first: Policy, second: Policy) -> float:
    """Return how far two policies are apart in any weight."""
    assert first.tensors.keys() == second.tensors.keys()
    return max(float((first.tensors[name] - second.tensors[name]).abs().max()) for name in first.tensors)
