"""Relatives of known models: each setting that a family's code relies on, with another value, is rejected at load."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from generator_families import FAMILIES as TINY
from vr_pipeline.errors import InputError
from vr_pipeline.generators import family_of, load_generator
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.settings import PIPELINE

NAN = float("nan")

COGVIDEOX: list[tuple[str, str, Any, str]] = [
    (PIPELINE, "_class_name", "CogVideoXImageToVideoPipeline", "text-to-video"),
    ("transformer", "_class_name", ["diffusers", "WanTransformer3DModel"], "CogVideoX"),
    ("transformer", "patch_size_t", 4, "CogVideoX 1.5"),
    ("transformer", "patch_size", [1, 2, 2], "squares"),
    ("transformer", "ofs_embed_dim", 512, "ofs"),
    ("transformer", "in_channels", 8, "image-to-video"),
    ("transformer", "out_channels", 8, "latents alone"),
    ("transformer", "use_learned_positional_embeddings", True, "image-to-video"),
    ("transformer", "max_text_seq_length", 0, "padded"),
    ("transformer", "temporal_compression_ratio", 8, "counts latent frames"),
    ("transformer", "text_embed_dim", 64, "width"),
    ("text_encoder", "_class_name", ["transformers", "CLIPTextModel"], "T5"),
    ("scheduler", "_class_name", ["diffusers", "DDIMScheduler"], "signal-to-noise"),
    ("scheduler", "prediction_type", "epsilon", "velocities"),
    ("scheduler", "num_train_timesteps", -5, "timesteps"),
    ("vae", "scaling_factor", NAN, "multiplied"),
    ("vae", "temporal_compression_ratio", None, "latent frames"),
]
OF_PUBLISHED_AUTOENCODERS: list[tuple[str, str, Any, str]] = [
    ("vae", "shift_factor", 0.1, "not shifted"),
    ("vae", "latents_mean", [0.0, 0.0, 0.0, 0.0], "statistics"),
    ("vae", "latents_std", [1.0, 1.0, 1.0, 1.0], "statistics"),
]
OTHERWISE: dict[str, list[tuple[str, str, Any, str]]] = {
    "cogvideox_2b": [
        *COGVIDEOX,
        ("vae", "_class_name", ["diffusers", "AutoencoderKLWan"], "that of CogVideoX"),
        *OF_PUBLISHED_AUTOENCODERS,
    ],
    "micro_world": [
        *COGVIDEOX,
        ("vae", "_class_name", ["diffusers", "AutoencoderKLCogVideoX"], "micro-world"),
        ("vae", "spatial_patch", 4, "block_out_channels"),
    ],
    "wan": [
        (PIPELINE, "_class_name", "WanImageToVideoPipeline", "text-to-video"),
        (PIPELINE, "transformer_2", ["diffusers", "WanTransformer3DModel"], "second transformer"),
        (PIPELINE, "boundary_ratio", 0.875, "one transformer"),
        (PIPELINE, "expand_timesteps", 1, "one time for all tokens, or one for each"),
        ("transformer", "_class_name", ["diffusers", "WanVACETransformer3DModel"], "Wan 2.1"),
        ("transformer", "patch_size", [2, 2, 2], "one latent frame"),
        ("transformer", "in_channels", 36, "image-to-video"),
        ("transformer", "out_channels", 8, "latents alone"),
        ("transformer", "image_dim", 1280, "image condition"),
        ("transformer", "added_kv_proj_dim", 5120, "image condition"),
        ("transformer", "pos_embed_seq_len", 514, "image condition"),
        ("transformer", "text_dim", 64, "width"),
        ("text_encoder", "_class_name", ["transformers", "T5EncoderModel"], "UMT5"),
        ("vae", "_class_name", ["diffusers", "AutoencoderKLCogVideoX"], "that of Wan"),
        ("vae", "latents_mean", [0.0] * 48, "one finite number per channel"),
        ("vae", "latents_std", [1.0] * 15 + [0.0], "above 0"),
        ("scheduler", "_class_name", ["diffusers", "DDIMScheduler"], "rectified flow"),
        ("scheduler", "prediction_type", "v_prediction", "flow"),
        ("scheduler", "use_flow_sigmas", False, "rectified flow"),
        ("scheduler", "num_train_timesteps", 0, "steps"),
        ("scheduler", "shift", NAN, "shifted"),
        ("scheduler", "flow_shift", 0.0, "shifted"),
        ("scheduler", "use_dynamic_shifting", True, "every size"),
        ("scheduler", "shift_terminal", 0.02, "curves"),
        ("scheduler", "use_karras_sigmas", True, "curves"),
        ("scheduler", "use_exponential_sigmas", True, "curves"),
        ("scheduler", "use_beta_sigmas", True, "curves"),
        ("scheduler", "use_lu_lambdas", True, "curves"),
        ("scheduler", "invert_sigmas", True, "noise falls"),
        ("scheduler", "final_sigmas_type", "sigma_min", "without noise"),
        ("scheduler", "stochastic_sampling", True, "seed"),
        ("scheduler", "algorithm_type", "sde-dpmsolver++", "seed"),
    ],
    "sdxl": [
        (PIPELINE, "_class_name", "StableDiffusionXLImg2ImgPipeline", "text-to-image"),
        ("unet", "_class_name", ["diffusers", "UNet2DModel"], "Stable Diffusion XL"),
        ("unet", "in_channels", 9, "inpainting"),
        ("unet", "out_channels", 8, "noise alone"),
        ("unet", "addition_embed_type", "text", "sizes"),
        ("unet", "addition_time_embed_dim", None, "size"),
        ("unet", "projection_class_embeddings_input_dim", 72, "refiners"),
        ("unet", "cross_attention_dim", 32, "width"),
        ("unet", "time_cond_proj_dim", 256, "LCM"),
        ("unet", "class_embed_type", "timestep", "classes"),
        ("unet", "num_class_embeds", 10, "classes"),
        ("unet", "encoder_hid_dim", 4096, "only condition"),
        ("unet", "encoder_hid_dim_type", "text_proj", "only condition"),
        ("text_encoder", "_class_name", ["transformers", "T5EncoderModel"], "CLIP"),
        ("text_encoder_2", "_class_name", ["transformers", "CLIPTextModel"], "pooled"),
        ("vae", "_class_name", ["diffusers", "AutoencoderTiny"], "Stable Diffusion XL"),
        ("vae", "scaling_factor", -0.13, "multiplied"),
        *OF_PUBLISHED_AUTOENCODERS,
        ("scheduler", "_class_name", ["diffusers", "EDMEulerScheduler"], "share of noise"),
        ("scheduler", "prediction_type", "v_prediction", "noise"),
        ("scheduler", "num_train_timesteps", 2.5, "timesteps"),
        ("scheduler", "rescale_betas_zero_snr", True, "noise alone"),
        ("scheduler", "use_flow_sigmas", True, "rectified flow"),
        ("scheduler", "timestep_type", "continuous", "steps"),
    ],
}
CASES = [(model, *case) for model, cases in OTHERWISE.items() for case in cases]


def relative(parameters: GeneratorParameters, folder: Path, part: str, **changes: Any) -> GeneratorParameters:
    """The same model, with other settings of a part; a class is changed where pipelines look for it."""
    shutil.copytree(parameters.path, folder, copy_function=os.link)
    index = part == PIPELINE or "_class_name" in changes
    place = folder / "model_index.json"
    if not index:
        place = folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
    elif part != PIPELINE:
        changes = {part: changes["_class_name"]}
    content = json.loads(place.read_text(encoding="utf-8")) | changes
    place.unlink()
    place.write_text(json.dumps(content), encoding="utf-8")
    return parameters.model_copy(update={"path": str(folder)})


@pytest.mark.parametrize(("model", "part", "name", "value", "reason"), CASES)
def test_a_setting_that_is_otherwise_is_rejected_with_the_reason(
    model: str,
    part: str,
    name: str,
    value: Any,
    reason: str,
    settings: dict[str, GeneratorParameters],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_weights(*_: Any, **__: Any) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr("vr_pipeline.generators.loading.load_complete", no_weights)
    other = relative(settings[model], tmp_path / "model", part, **{name: value})
    with pytest.raises(InputError, match=reason) as raised:
        load_generator(other, ("denoiser",))
    assert raised.value.field == name
    assert raised.value.file is not None
    assert Path(raised.value.file).is_file()


@pytest.mark.parametrize("model", [name for name in TINY if name not in OTHERWISE])
def test_no_setting_that_is_relied_on_may_be_anything(
    model: str, settings: dict[str, GeneratorParameters], tmp_path: Path
) -> None:
    """Of families whose relatives are not listed above: some other value of each setting is rejected by its name."""
    family = family_of(settings[model].family)
    index = json.loads((Path(settings[model].path) / "model_index.json").read_text(encoding="utf-8"))
    there = {PIPELINE, *index} - set(family.optional_parts) | {
        name for name in family.optional_parts if index.get(name)
    }
    for part, table in family.relied_on.items():
        if part not in there:
            continue
        for name in (name for names in table for name in names.split()):
            rejected: list[object] = []
            for number, value in enumerate(("otherwise", -7, 1 << 20, [NAN])):
                folder = tmp_path / f"{part}-{name}-{number}"
                changed = ["diffusers", "DDIMScheduler"] if name == "_class_name" and part != PIPELINE else value
                other = relative(settings[model], folder, part, **{name: changed})
                try:
                    family._load_pipeline(other, ())
                except InputError as error:
                    rejected.append(error.field)
                finally:
                    shutil.rmtree(folder)
            # Some make a configuration that transformers itself does not read.
            assert name in rejected or rejected == ["generator.path"] * 4, f"{part}.{name}"


@pytest.mark.parametrize("model", OTHERWISE)
def test_every_setting_that_is_relied_on_is_tried(model: str, settings: dict[str, GeneratorParameters]) -> None:
    family = family_of(settings[model].family)
    relied_on = {(part, name) for part, table in family.relied_on.items() for names in table for name in names.split()}
    assert relied_on == {(part, name) for part, name, *_ in OTHERWISE[model]}


@pytest.mark.parametrize(
    ("model", "part", "changes"),
    [
        ("cogvideox_2b", "scheduler", {"rescale_betas_zero_snr": False, "snr_shift_scale": 2.0, "beta_end": 0.02}),
        ("wan", "scheduler", {"flow_shift": 5.0, "num_train_timesteps": 500}),
        ("sdxl", "scheduler", {"beta_schedule": "linear", "beta_end": 0.02, "timestep_spacing": "trailing"}),
        ("sdxl", "scheduler", {"_class_name": ["diffusers", "DDIMScheduler"]}),
        ("wan", "scheduler", {"_class_name": ["diffusers", "FlowMatchEulerDiscreteScheduler"]}),
    ],
)
def test_settings_that_are_handled_are_not_rejected(
    model: str, part: str, changes: dict[str, Any], settings: dict[str, GeneratorParameters], tmp_path: Path
) -> None:
    """Noise and targets follow these schedules: what is noised is what the scheduler makes of it."""
    import torch

    generator = load_generator(relative(settings[model], tmp_path / "model", part, **changes))
    scheduler = generator.pipeline.scheduler  # type: ignore[attr-defined]
    random = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 3, 4, 2, 2, 2, generator=random)
    if model == "wan":
        steps = generator.draw_timesteps(200, random)
        shift = changes.get("flow_shift", 3.0) if "_class_name" not in changes else 1.0
        share = steps / scheduler.config.num_train_timesteps
        # Undoing the shift leaves times that are even.
        even = share / (shift - (shift - 1) * share)
        assert 0.4 < float(even.mean()) < 0.6
    else:
        steps = generator.draw_timesteps(3, random)
        signal = scheduler.alphas_cumprod[steps].view(-1, 1, 1, 1, 1)
        expected = (signal.sqrt() * latents + (1 - signal).sqrt() * noise).float()
        torch.testing.assert_close(generator.add_noise(latents, noise, steps), expected)


@pytest.mark.parametrize(
    ("model", "index", "message"),
    [
        ("wan", {"image_encoder": ["transformers", "CLIPVisionModel"]}, "further part, 'image_encoder'"),
        ("sdxl", {"controlnet": ["diffusers", "ControlNetModel"]}, "further part, 'controlnet'"),
        ("sdxl", {"text_encoder": [None, None]}, "lacks the part 'text_encoder'"),
        ("cogvideox_2b", {"vae": ["my_code", "MyVAE"]}, "my_code.MyVAE"),
        ("cogvideox_2b", {"transformer": ["diffusers", "Transformer9DModel"]}, "Transformer9DModel"),
    ],
)
def test_the_number_and_the_classes_of_parts_are_those_of_the_family(
    model: str, index: dict[str, Any], message: str, settings: dict[str, GeneratorParameters], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        load_generator(relative(settings[model], tmp_path / "model", PIPELINE, **index))


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_a_folder_without_a_readable_description_is_no_model(
    text: str, settings: dict[str, GeneratorParameters], tmp_path: Path
) -> None:
    parameters = relative(settings["wan"], tmp_path / "model", PIPELINE)
    place = Path(parameters.path) / "vae/config.json"
    place.unlink()
    place.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="no configuration of a model"):
        load_generator(parameters)


def test_a_model_on_the_hub_is_fetched_whole_and_checked_like_a_folder(
    settings: dict[str, GeneratorParameters], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import WanPipeline

    asked: list[tuple[object, ...]] = []
    place = [settings["wan"].path]

    def download(name: str, **options: object) -> str:
        asked.append((name, options["revision"], options["use_safetensors"]))
        return place[0]

    monkeypatch.setattr(WanPipeline, "download", download)
    named = settings["wan"].model_copy(update={"path": "owner/model", "revision": "abc"})
    load_generator(named, ("text_encoder",))
    assert asked == [("owner/model", "abc", True)]
    place[0] = relative(settings["wan"], tmp_path / "two", PIPELINE, boundary_ratio=0.9).path
    with pytest.raises(InputError, match="one transformer"):
        load_generator(named)

    def unreachable(name: str, **options: object) -> str:
        raise OSError("Cannot find the requested files\nin the disk cache.")

    monkeypatch.setattr(WanPipeline, "download", unreachable)
    with pytest.raises(
        InputError, match=r"'owner/model' cannot be fetched: Cannot .* in the disk cache\. Where the hub"
    ):
        load_generator(named)
