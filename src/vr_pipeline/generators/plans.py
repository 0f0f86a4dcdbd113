"""Plans of many clips to make: what to make, under which identity and seed; nothing is loaded to write a plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import sampling_identity
from vr_pipeline.identifiers import content_hash, sample_seed, video_id
from vr_pipeline.work import WorkItem, WorkPlan

if TYPE_CHECKING:
    from vr_pipeline.generators.contract import Generator


def video_items(
    prompts: pd.DataFrame,
    *,
    producer: str,
    parameters: GeneratorParameters,
    videos_per_prompt: int,
    seed: int,
    metadata: dict[str, str] | None = None,
) -> list[WorkItem]:
    """Return one item for every prompt and sample.

    Args:
        prompts: table with prompt_id and prompt.
        producer: identity of what makes the clips (generator and settings, and adapter if any).
        parameters: the generator's parameters; its frame rate is recorded.
        metadata: recorded with every clip.
    """
    return [
        WorkItem(
            key=video_id(prompt_id, sample_index, content_hash(producer, seed)),
            identity=content_hash(producer, prompt, sample_seed(seed, prompt_id, sample_index)),
            metadata={
                "prompt_id": prompt_id,
                "prompt": prompt,
                "sample_index": sample_index,
                "seed": sample_seed(seed, prompt_id, sample_index),
                "generator": producer,
                "fps": parameters.fps,
                **(metadata or {}),
            },
        )
        for prompt_id, prompt in zip(prompts["prompt_id"].astype(str), prompts["prompt"].astype(str), strict=True)
        for sample_index in range(videos_per_prompt)
    ]


def plan_clips(
    prompts: pd.DataFrame, parameters: GeneratorParameters, *, videos_per_prompt: int, seed: int
) -> WorkPlan:
    """Plan the clips of a generator without an adapter.

    Args:
        prompts: table with prompt_id and prompt.
    """

    def setup() -> Generator:
        from vr_pipeline.generators import load_generator

        return load_generator(parameters)

    return WorkPlan(
        items=video_items(
            prompts,
            producer=sampling_identity(parameters),
            parameters=parameters,
            videos_per_prompt=videos_per_prompt,
            seed=seed,
        ),
        make_batch=sample_items,
        batch_size=parameters.batch_size,
        description="videos",
        setup=setup,
    )


def sample_items(generator: Generator, items: Sequence[WorkItem]) -> list[Any]:
    """Make the clips of a batch of items from their prompts and seeds; failures stand for those that are none."""
    return list(
        generator.sample_each(
            [str(item.metadata["prompt"]) for item in items],
            [int(item.metadata["seed"]) for item in items],  # type: ignore[arg-type]
        )
    )
