"""Plans of many clips to make: what to make, under which identity and seed; nothing is loaded to write a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from vr_pipeline.generators import family_of, load_generator
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import sampling_identity
from vr_pipeline.generators.policy import Policy
from vr_pipeline.identifiers import IMAGE, content_hash, image_content, sample_seed, video_id
from vr_pipeline.runtime.memory import free_memory
from vr_pipeline.video.first_frames import read_first_frame
from vr_pipeline.work import WorkItem, WorkPlan, joined_plan

if TYPE_CHECKING:
    from vr_pipeline.generators.contract import Generator


def video_items(
    prompts: pd.DataFrame,
    *,
    producer: str,
    parameters: GeneratorParameters,
    videos_per_prompt: int,
    seed: int,
    metadata: dict[str, Any] | None = None,
) -> list[WorkItem]:
    """Return one item for every prompt and sample.

    Args:
        prompts: table with prompt_id and prompt, and image if the clips start from images.
        producer: identity of what makes the clips (generator and settings, and adapter if any).
        parameters: the generator's parameters; its frame rate is recorded.
        metadata: recorded with every clip.

    Raises:
        InputError: the generator needs images that the table lacks, or takes none.
    """
    identifiers, texts = prompts["prompt_id"].astype(str), prompts["prompt"].astype(str).tolist()
    images = prompts[IMAGE].astype(str).tolist() if IMAGE in prompts else None
    family_of(parameters.family).check_images(texts, images)
    given = [{}] * len(texts) if images is None else [{IMAGE: image} for image in images]
    return [
        WorkItem(
            key=video_id(prompt_id, sample_index, content_hash(producer, seed)),
            identity=content_hash(
                producer,
                prompt,
                sample_seed(seed, prompt_id, sample_index),
                *(image_content(name) for name in image.values()),
            ),
            metadata={
                "prompt_id": prompt_id,
                "prompt": prompt,
                "sample_index": sample_index,
                "seed": sample_seed(seed, prompt_id, sample_index),
                "generator": producer,
                "fps": parameters.fps,
                **image,
                **(metadata or {}),
            },
        )
        for prompt_id, prompt, image in zip(identifiers, texts, given, strict=True)
        for sample_index in range(videos_per_prompt)
    ]


def plan_clips(
    prompts: pd.DataFrame,
    parameters: GeneratorParameters,
    *,
    videos_per_prompt: int,
    seed: int,
    name: str | None = None,
    policy: Policy | None = None,
    metadata: dict[str, Any] | None = None,
) -> WorkPlan:
    """Plan the clips of a generator, by default without an adapter.

    Args:
        prompts: table with prompt_id and prompt.
        name: recorded as the clips' generator, beside its identity as ``producer``; None records the identity.
        policy: changes the generator.
        metadata: further values to record with every clip.
    """
    producer = sampling_identity(parameters)
    if policy is not None:
        producer = content_hash("policy", producer, policy.identity)

    def setup() -> Generator:
        loaded = load_generator(parameters)
        loaded.load_policy(policy)
        return loaded

    return WorkPlan(
        items=video_items(
            prompts,
            producer=producer,
            parameters=parameters,
            videos_per_prompt=videos_per_prompt,
            seed=seed,
            metadata=(metadata or {}) | ({} if name is None else {"generator": name, "producer": producer}),
        ),
        make_batch=sample_items,
        batch_size=parameters.batch_size,
        description="videos",
        setup=setup,
    )


def plan_clips_of_several(
    prompts: pd.DataFrame, generators: Mapping[str, GeneratorParameters], *, videos_per_prompt: int, seed: int
) -> WorkPlan:
    """Plan clips of several generators for the same prompts, from the same seeds; one is in memory at a time.

    Args:
        prompts: table with prompt_id and prompt.
        generators: by the name that their clips get.
    """
    plans = {
        name: plan_clips(prompts, one, videos_per_prompt=videos_per_prompt, seed=seed, name=name)
        for name, one in generators.items()
    }
    return joined_plan(plans, "videos", close=lambda _: free_memory())


def sample_items(generator: Generator, items: Sequence[WorkItem]) -> list[Any]:
    """Make the clips of a batch of items from prompts, seeds and images; failures stand for those that are none."""
    images = [read_first_frame(str(item.metadata[IMAGE])) for item in items if IMAGE in item.metadata]
    return list(
        generator.sample_each(
            [str(item.metadata["prompt"]) for item in items],
            [int(item.metadata["seed"]) for item in items],  # type: ignore[arg-type]
            *([images] if images else []),
        )
    )
