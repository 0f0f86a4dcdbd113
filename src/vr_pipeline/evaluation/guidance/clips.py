"""Clips of the same prompts and seeds at every strength of guidance, and their drift from unguided clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from vr_pipeline.evaluation.guidance.config import GuidanceReportParameters
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import sampling_identity
from vr_pipeline.generators.plans import sample_items, video_items
from vr_pipeline.generators.policy import ORIGINAL
from vr_pipeline.identifiers import content_hash
from vr_pipeline.items.folder import ItemFolder
from vr_pipeline.work import WorkItem, WorkPlan

if TYPE_CHECKING:
    from vr_pipeline.generators.diffusers_pipeline import PipelineGenerator


def plan_guided_clips(
    prompts: pd.DataFrame, model: str, generator: GeneratorParameters, parameters: GuidanceReportParameters
) -> WorkPlan:
    """Plan clips without guidance, then at every strength.

    Args:
        prompts: table with prompt_id and prompt.
        model: folder of the latent reward.
        generator: its configured guidance is ignored.
        parameters: strengths, weights, clips and seeds.
    """
    steered = _steered(model, generator, parameters)
    items = [
        item
        for name, made in steered.items()
        for item in video_items(
            prompts,
            producer=content_hash(name, sampling_identity(made)),
            parameters=made,
            videos_per_prompt=parameters.videos_per_prompt,
            seed=parameters.seed,
            metadata={"policy": name},
        )
    ]

    def make_batch(loaded: PipelineGenerator, batch: Sequence[WorkItem]) -> list[Any]:
        clips: list[Any] = []
        guidance = loaded.guidance
        assert guidance is not None
        for name, group in groupby(batch, key=lambda item: str(item.metadata["policy"])):
            settings = steered[name].guidance_reward
            loaded.guidance = None if settings is None else replace(guidance, settings=settings)
            clips += sample_items(loaded, list(group))
        loaded.guidance = guidance
        return clips

    return WorkPlan(
        items=items,
        make_batch=make_batch,
        batch_size=generator.batch_size,
        description="guided videos",
        setup=lambda: _load(steered),
    )


def measure_drift(
    videos: ItemFolder,
    index: pd.DataFrame,
    model: str,
    generator: GeneratorParameters,
    parameters: GuidanceReportParameters,
) -> pd.DataFrame:
    """Measure the distance of every clip from the unguided clip of its prompt and seed, and its latent reward.

    Args:
        videos: the clips.
        index: schema ``EvaluationVideoIndex``; failed clips, and those of a failed unguided clip, are skipped.
        model: folder of the latent reward.
        generator: the generator of the latent reward.
        parameters: strengths and weights.

    Returns:
        schema ``GuidanceDrift``.
    """
    from vr_pipeline.generators.samples import latent_scores

    loaded = _load(_steered(model, generator, parameters))
    assert loaded.guidance is not None
    reward = loaded.guidance.reward
    tables = []
    usable = index[index["status"] == "ok"]
    for _, rows in usable.groupby(["prompt_id", "sample_index"], sort=True):
        ordered = rows.sort_values("policy", key=lambda names: names != ORIGINAL, kind="stable")
        if str(ordered["policy"].iloc[0]) != ORIGINAL:
            continue
        clips = np.stack([videos.load(str(name)) for name in ordered["video_id"]])
        latents = loaded.encode_frames(clips)
        pixels = clips.astype(np.float64) / 255.0
        scores = latent_scores(loaded, reward, list(clips), str(ordered["prompt"].iloc[0]))
        table = ordered[["video_id", "prompt_id", "policy"]].reset_index(drop=True)
        table["pixel_drift"] = _distance(pixels, pixels[0])
        table["latent_drift"] = _distance(latents.double().numpy(), latents[0].double().numpy())
        tables.append(table.join(scores.add_prefix("latent_")))
    return pd.concat(tables, ignore_index=True)


def _distance(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the root mean square distance of each from the reference."""
    return np.sqrt(((values - reference) ** 2).reshape(len(values), -1).mean(axis=1))


def _steered(
    model: str, generator: GeneratorParameters, parameters: GuidanceReportParameters
) -> dict[str, GeneratorParameters]:
    from vr_pipeline.generators.latent_reward import read_settings

    return parameters.steered(generator, model, read_settings(Path(model)).dimensions)


def _load(steered: Mapping[str, GeneratorParameters]) -> PipelineGenerator:
    from vr_pipeline.generators import load_generator
    from vr_pipeline.generators.diffusers_pipeline import PipelineGenerator

    loaded = load_generator(list(steered.values())[-1])
    assert isinstance(loaded, PipelineGenerator)
    return loaded
