"""Clips of one prompt that somebody asks for: from seeds, with a policy, steered or not; and their latent scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import Frames, sampling_identity
from vr_pipeline.generators.guidance import NoisedReward
from vr_pipeline.generators.plans import sample_items, video_items
from vr_pipeline.generators.policy import Policy
from vr_pipeline.identifiers import IMAGE, content_hash, image_content, prompt_id, sample_seed
from vr_pipeline.work import WorkPlan

if TYPE_CHECKING:
    from vr_pipeline.generators.diffusers_pipeline import PipelineGenerator

NEARLY_CLEAN = 0.05
"""Share of noise at which clips are scored by a reward on noised latents."""

_NOISES = 4


def plan_samples(
    prompt: str, generator: PipelineGenerator, policy: Policy | None, *, count: int, seed: int, image: str | None = None
) -> WorkPlan:
    """Plan clips of one prompt, numbered from 01.

    Args:
        prompt: the text.
        generator: with the policy loaded.
        policy: what was loaded; None for the original weights.
        count: how many clips.
        seed: base seed; the first clips of a larger count are the same.
        image: the first frame as tables name it; None for clips from text alone.
    """
    parameters = generator.parameters
    asked = {"prompt_id": prompt_id(prompt, image_content(image or "")), "prompt": prompt}
    asked |= {} if image is None else {IMAGE: image}
    items = video_items(
        pd.DataFrame([asked]),
        producer=producer_of(parameters, policy),
        parameters=parameters,
        videos_per_prompt=count,
        seed=seed,
    )
    return WorkPlan(
        items=[replace(item, key=f"{number:02d}") for number, item in enumerate(items, start=1)],
        make_batch=sample_items,
        batch_size=parameters.batch_size,
        description="clips",
        setup=lambda: generator,
    )


def producer_of(parameters: GeneratorParameters, policy: Policy | None) -> str:
    """Return the identity of what makes clips."""
    base = sampling_identity(parameters)
    return base if policy is None else content_hash("policy", base, policy.identity)


def latent_scores(
    generator: PipelineGenerator, reward: NoisedReward, clips: Sequence[Frames], prompt: str
) -> pd.DataFrame:
    """Score clips by a reward on noised latents where hardly any noise is left.

    Args:
        generator: the one that the reward was made for.
        reward: the reward.
        clips: uint8 [frames, height, width, 3] each, of the generator's size.
        prompt: their text.

    Returns:
        one column per dimension, one row per clip: the mean over a few draws of noise, the same for all clips.
    """
    import torch

    time = generator.time_at(NEARLY_CLEAN)
    condition = generator.encode_prompts([prompt])
    rows = []
    for clip in clips:
        latents = generator.encode_frames(clip[None])
        draws = [torch.Generator("cpu").manual_seed(sample_seed(0, "latent scores", draw)) for draw in range(_NOISES)]
        noise = torch.cat([torch.randn(latents.shape, generator=draw) for draw in draws])
        times = time.expand(_NOISES)
        noised = generator.add_noise(latents.expand_as(noise), noise, times)
        repeated = {name: value.expand(_NOISES, *value.shape[1:]) for name, value in condition.items()}
        with torch.no_grad():
            scores = reward.scores(noised.to(generator.device), times.to(generator.device), repeated)
        rows.append(scores.double().mean(dim=0).cpu().numpy())
    return pd.DataFrame(np.array(rows).reshape(len(rows), -1), columns=list(reward.dimensions))
