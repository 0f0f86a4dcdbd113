"""Where a model gives something else than numbers there is no clip, and the place is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tiny_models import PROMPTS
from vr_pipeline.errors import InputError, PipelineError
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import Generator
from vr_pipeline.generators.plans import sample_items, video_items
from vr_pipeline.work import ItemFailure


def part_of(generator: Generator, name: str) -> Any:
    pipeline = generator.pipeline  # type: ignore[attr-defined]
    return {"denoiser": generator.denoiser, "autoencoder": pipeline.vae, "text encoder": pipeline.text_encoder}[name]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("part", "place"),
    [
        ("text encoder", "in the text encoder"),
        ("denoiser", "in denoising step 1"),
        ("autoencoder", "in the autoencoder"),
    ],
)
@pytest.mark.parametrize("model", ["cogvideox_5b", "micro_world", "wan", "sdxl"])
def test_a_clip_of_no_numbers_is_none(
    model: str, part: str, place: str, value: float, settings: dict[str, GeneratorParameters]
) -> None:
    generator = load_generator(settings[model])
    broken = part_of(generator, part)
    # The micro-world's autoencoder has no parameters, only buffers.
    weights = list(broken.parameters()) or [broken.mean]
    with torch.no_grad():
        weights[0 if part == "text encoder" else -1].fill_(value)
    with pytest.raises(PipelineError, match=place):
        generator.sample(PROMPTS[:1], [1])


def test_one_clip_of_a_batch_fails_alone(settings: dict[str, GeneratorParameters]) -> None:
    generator = load_generator(settings["cogvideox_2b"])
    expected = generator.sample(PROMPTS, [1, 2, 3])
    pipeline = generator.pipeline  # type: ignore[attr-defined]
    encode = pipeline.encode_prompt

    def one_lost(prompt: list[str], *arguments: Any, **keywords: Any) -> Any:
        embeddings = encode(prompt, *arguments, **keywords)
        for row, text in enumerate(prompt):
            if text == PROMPTS[1]:
                embeddings[0][row] = torch.nan
        return embeddings

    pipeline.encode_prompt = one_lost
    items = video_items(
        pd.DataFrame({"prompt_id": ["a", "b", "c"], "prompt": list(PROMPTS)}),
        producer="x",
        parameters=settings["cogvideox_2b"],
        videos_per_prompt=1,
        seed=0,
    )
    made = sample_items(generator, items)
    assert [isinstance(clip, ItemFailure) for clip in made] == [False, True, False]
    first, second, third = generator.sample_each(PROMPTS, [1, 2, 3])
    assert isinstance(second, ItemFailure)
    assert "text encoder" in second.reason
    assert "float32" not in second.reason
    assert np.array_equal(first, expected[0])
    assert np.array_equal(third, expected[2])


def test_watching_leaves_nothing_behind(settings: dict[str, GeneratorParameters]) -> None:
    generator = load_generator(settings["wan"])
    generator.sample(PROMPTS[:1], [1])
    pipeline = generator.pipeline  # type: ignore[attr-defined]
    assert "encode_prompt" not in vars(pipeline)
    assert "decode" not in vars(pipeline.vae)


def test_clips_of_another_size_are_never_taken(settings: dict[str, GeneratorParameters]) -> None:
    generator = load_generator(settings["cogvideox_2b"])
    generator.parameters = generator.parameters.model_copy(update={"num_frames": 5})
    with pytest.raises(InputError, match="num_frames is 8, but 5 is configured"):
        generator.sample(PROMPTS[:1], [1])
