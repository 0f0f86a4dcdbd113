"""First frames: what they are fitted to, how noise is put on them, and that a clip's identity holds its image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from generator_families import FAMILIES
from tiny_models import PROMPTS, first_frames
from vr_pipeline.errors import InputError
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import sampling_identity
from vr_pipeline.generators.plans import plan_clips, sample_items, video_items
from vr_pipeline.video.first_frames import first_frame
from vr_pipeline.work import WorkItem

TAKERS = [name for name, family in FAMILIES.items() if family.family.endswith(("i2v", "i2v_experts"))]


def saved(folder: Path, frames: list[np.ndarray]) -> list[str]:
    """The frames as a prompt table names them."""
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number}.png")
    return [first_frame(folder, f"{number}.png", min_side=1) for number in range(len(frames))]


def items(parameters: GeneratorParameters, images: list[str] | None) -> list[WorkItem]:
    table = pd.DataFrame({"prompt_id": ["p", "q"], "prompt": list(PROMPTS[:2])})
    table = table if images is None else table.assign(image=images)
    return video_items(table, producer="x", parameters=parameters, videos_per_prompt=1, seed=3)


@pytest.mark.parametrize("name", ["cogvideox_5b_i2v", "wan_2_2_ti2v_5b"])
def test_planned_clips_are_made_from_their_images(
    name: str, settings: dict[str, GeneratorParameters], tmp_path: Path
) -> None:
    frames = first_frames(2)
    planned = items(settings[name], saved(tmp_path, frames))
    generator = load_generator(settings[name])
    made = sample_items(generator, planned)
    expected = generator.sample(PROMPTS[:2], [int(item.metadata["seed"]) for item in planned], frames)
    assert np.array_equal(np.stack(made), expected)


def test_the_content_of_an_image_is_part_of_a_clip_and_its_place_is_not(
    settings: dict[str, GeneratorParameters], tmp_path: Path
) -> None:
    parameters, frames = settings["cogvideox_5b_i2v"], first_frames(2)
    folders = [tmp_path / name for name in ("one", "two", "three")]
    for folder in folders:
        folder.mkdir()
    one, two = (items(parameters, saved(folder, frames)) for folder in folders[:2])
    other = items(parameters, saved(folders[2], [frames[0], 255 - frames[1]]))
    assert [item.identity for item in one] == [item.identity for item in two]
    assert one[0].identity == other[0].identity
    assert one[1].identity != other[1].identity


def test_a_plan_says_that_images_are_missing_or_too_many_before_anything_is_loaded(
    settings: dict[str, GeneratorParameters], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vr_pipeline.generators.plans.load_generator", None)
    prompts = pd.DataFrame({"prompt_id": ["p"], "prompt": ["a cat"]})
    with pytest.raises(InputError, match="from a first frame"):
        plan_clips(prompts, settings["wan_2_1_i2v"], videos_per_prompt=1, seed=0)
    images = prompts.assign(image=saved(tmp_path, first_frames(1)))
    with pytest.raises(InputError, match="from text alone"):
        plan_clips(images, settings["wan"], videos_per_prompt=1, seed=0)


@pytest.mark.parametrize("name", ["cogvideox_5b_i2v", "wan_2_1_i2v"])
def test_images_of_another_shape_are_cut_and_not_stretched(name: str, settings: dict[str, GeneratorParameters]) -> None:
    generator = load_generator(settings[name])
    square = first_frames(1, height=32, width=32)[0]
    wide = np.pad(square, ((0, 0), (8, 8), (0, 0)))
    one, two = (generator.encode_images([image]) for image in (square, wide))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_noise_on_first_frames_is_that_of_the_published_training_and_changes_no_clip(
    settings: dict[str, GeneratorParameters], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = settings["cogvideox_5b_i2v"]
    noisy = plain.model_copy(update={"first_frame_noise": True})
    assert sampling_identity(noisy) == sampling_identity(plain)
    generator, frames = load_generator(noisy), first_frames(200, height=32, width=32)
    seen: list[torch.Tensor] = []
    encode = generator.pipeline.vae.encode  # type: ignore[attr-defined]

    def encoded(pixels: torch.Tensor) -> Any:
        seen.append(pixels)
        return encode(pixels[:1])

    monkeypatch.setattr(generator.pipeline.vae, "encode", encoded)  # type: ignore[attr-defined]
    for given in (frames, frames[::-1]):
        generator.encode_images(given)
    assert torch.equal(seen[0], seen[1].flip(0)), "an image has its own noise, whatever is beside it"
    clean = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)[:, :, None].float() / 127.5 - 1.0
    deviations = (seen[0] - clean).flatten(1).std(dim=1).log()
    assert abs(float(deviations.mean()) + 3.0) < 4 * 0.5 / 200**0.5
    assert abs(float(deviations.std()) - 0.5) < 4 * 0.5 / 400**0.5
    with pytest.raises(InputError, match="first_frame_noise"):
        load_generator(settings["wan_2_1_i2v"].model_copy(update={"first_frame_noise": True}))


@pytest.mark.parametrize("name", TAKERS)
def test_the_network_sees_the_image_and_its_adapter_learns_where_something_is_to_predict(
    name: str, settings: dict[str, GeneratorParameters]
) -> None:
    """A gradient reaches every latent frame but those that are given: they have no part in the error."""
    generator = load_generator(settings[name])
    assert generator.frame_axis is not None
    latents = generator.encode_frames(generator.sample(PROMPTS[:1], [1], first_frames(1)))
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
    condition = generator.encode_prompts(PROMPTS[:1], first_frames(1))
    latents.requires_grad_()
    times = generator.draw_timesteps(1, torch.Generator().manual_seed(5))
    generator.prediction_error(latents, noise, times, condition).sum().backward()
    assert latents.grad is not None
    reached = latents.grad.movedim(generator.frame_axis, 0).flatten(1).abs().sum(dim=1) > 0
    assert reached.tolist() == [frame >= generator.given_frames for frame in range(len(reached))]
