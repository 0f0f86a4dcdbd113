"""Every family behind the contract, against the pipeline and the scheduler of diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tiny_models import PROMPTS
from vr_pipeline.errors import InputError
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import Generator, folder_identity, sampling_identity, weights_identity
from vr_pipeline.generators.policy import Adapter, FullWeights, Policy
from vr_pipeline.storage.hub import is_local


def latents_like(generator: Generator, count: int, seed: int = 0) -> torch.Tensor:
    settings = generator.parameters
    shape = (count, settings.num_frames, settings.height, settings.width, 3)
    clips = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return generator.encode_frames(clips)


def test_frames_survive_encoding_as_far_as_the_autoencoder_allows(settings: dict[str, GeneratorParameters]) -> None:
    from vr_pipeline.micro_world.clips import render_clips

    generator = load_generator(settings["micro_world"])
    clips = render_clips(8, seed=1, purpose="round trip").frames
    pipeline = generator.pipeline  # type: ignore[attr-defined]
    decoded = pipeline.decode_latents(generator.encode_frames(clips))
    back = pipeline.video_processor.postprocess_video(video=decoded, output_type="np")
    error = np.sqrt(((back - clips / 255.0) ** 2).mean())
    assert error < 0.3 * (clips / 255.0).std()


@pytest.mark.parametrize("kind", ["adapter", "full"])
def test_policies_are_told_apart_by_their_weights_and_what_they_change(kind: str) -> None:
    tensors = {"transformer.a": torch.arange(4.0), "transformer.b": torch.ones(2, 3)}

    def policy(provenance: str = "", **changes: Any) -> Policy:
        if kind == "full":
            return FullWeights(**{"tensors": tensors, "config": {}, "component": "transformer", "base": "x"} | changes)
        config = {"r": 2, "lora_alpha": changes.pop("alpha", 4.0)}
        return Adapter(**{"tensors": tensors, "config": config, "base": "x"} | changes, provenance={"by": provenance})

    identity = policy().identity
    assert policy(provenance="another run").identity == identity
    assert policy(tensors=dict(reversed(tensors.items()))).identity == identity
    changed = [
        policy(base="y"),
        policy(tensors=tensors | {"transformer.b": torch.ones(2, 3).index_fill(0, torch.tensor([1]), 2.0)}),
        policy(tensors={"transformer.a": tensors["transformer.a"], "transformer.c": tensors["transformer.b"]}),
    ]
    changed += [policy(alpha=8.0)] if kind == "adapter" else []
    assert len({identity, *(other.identity for other in changed)}) == 1 + len(changed)


@pytest.mark.parametrize(
    ("path", "local"),
    [
        ("owner/model", False),
        ("model", True),
        ("models/of/mine", True),
        ("./owner/model", True),
        ("../model", True),
        ("~/model", True),
        ("/models/model", True),
        ("data/model", True),
    ],
)
def test_only_owner_and_name_can_mean_a_model_on_the_hub(path: str, local: bool) -> None:
    assert is_local(path) is local


def test_a_name_on_the_hub_needs_its_revision_for_an_identity() -> None:
    parameters = GeneratorParameters(family="cogvideox", path="owner/model", revision="abc")
    assert weights_identity(parameters) != weights_identity(parameters.model_copy(update={"revision": "abd"}))


def test_a_missing_folder_and_a_folder_without_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        weights_identity(GeneratorParameters(family="cogvideox", path=str(tmp_path / "nothing")))
    (tmp_path / "pickled.bin").write_bytes(b"weights")
    with pytest.raises(InputError, match="no model weights"):
        folder_identity(tmp_path)


def test_a_model_on_the_hub_without_a_commit_is_rejected() -> None:
    with pytest.raises(InputError, match="commit"):
        weights_identity(GeneratorParameters(family="cogvideox", path="owner/model"))
    with pytest.raises(InputError, match="folder does not exist"):
        weights_identity(GeneratorParameters(family="cogvideox", path="./nowhere/model", revision="abc"))


@pytest.mark.parametrize(("name", "expected"), [("wan", torch.float32), ("cogvideox_5b", torch.bfloat16)])
def test_precision_is_that_of_the_configuration_but_for_delicate_autoencoders(
    name: str, expected: torch.dtype, settings: dict[str, GeneratorParameters]
) -> None:
    generator = load_generator(settings[name].model_copy(update={"dtype": "bfloat16"}))
    pipeline = generator.pipeline  # type: ignore[attr-defined]
    weights = dict(generator.denoiser.named_parameters())
    assert {value.dtype for key, value in weights.items() if key.endswith("attn1.to_q.weight")} == {torch.bfloat16}
    assert pipeline.text_encoder.dtype == torch.bfloat16
    assert pipeline.vae.dtype == expected
    assert latents_like(generator, 1).dtype == torch.float32
    assert generator.sample(["a ball"], [0]).shape[1] == settings[name].num_frames


def test_tiles_are_a_choice_that_changes_the_identity(settings: dict[str, GeneratorParameters]) -> None:
    tiled = settings["cogvideox_2b"].model_copy(update={"vae_tiling": True})
    generator = load_generator(tiled)
    assert generator.pipeline.vae.use_tiling  # type: ignore[attr-defined]
    assert not load_generator(settings["cogvideox_2b"]).pipeline.vae.use_tiling  # type: ignore[attr-defined]
    assert generator.identity != sampling_identity(settings["cogvideox_2b"])
    whole = load_generator(settings["cogvideox_2b"])
    clips = whole.sample(PROMPTS[:1], [1])
    # These clips are smaller than a tile; with smaller tiles than clips both ways through the autoencoder change.
    assert np.array_equal(generator.sample(PROMPTS[:1], [1]), clips)
    for part in (generator, load_generator(tiled, ("autoencoder",))):
        vae = part.pipeline.vae  # type: ignore[attr-defined]
        vae.enable_tiling(16, 16, 0.5, 0.5)
        assert part.encode_frames(clips).shape == whole.encode_frames(clips).shape
        assert not torch.equal(part.encode_frames(clips), whole.encode_frames(clips))
    assert not np.array_equal(generator.sample(PROMPTS[:1], [1]), clips)


def test_an_unknown_family_is_rejected_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="cogvideox"):
        load_generator(GeneratorParameters(family="imaginary", path="owner/model"))
