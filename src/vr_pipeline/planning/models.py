"""Facts about models: those of ``conf/models.yml`` for names on the hub, their own configuration for folders."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from vr_pipeline.generators import family_of
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.planning.denoisers import CLOSED_FORMS, Costs, transformer_costs

FILE = "models.yml"
STAND_INS = {"videoreward": "Qwen/Qwen2-VL-2B-Instruct", "unifiedreward": "Qwen/Qwen2.5-VL-7B-Instruct"}
"""What a reward is built on, by its type, where its folder is not there yet."""
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "8bit": 1, "4bit": 0.5}


@dataclass(frozen=True)
class GeneratorFacts:
    """What is known of a generator, for the clips that its parameters ask for."""

    facts: Mapping[str, Any]
    parameters: GeneratorParameters

    @property
    def latent(self) -> tuple[int, int, int, int]:
        """Shape of a clip's latents: frames, channels, height, width."""
        vae, clip = self.facts["autoencoder"], self.parameters
        frames = -(-clip.num_frames // vae["frames"])
        return frames, vae["channels"], clip.height // vae["pixels"], clip.width // vae["pixels"]

    def costs(self, rank: int) -> Costs:
        """Return what the denoiser needs, with an adapter of a rank."""
        config = self.facts["denoiser"]
        if "counted_at" not in config:
            frames, _, height, width = self.latent
            costs = transformer_costs(config, (frames, height, width), rank)
            experts = config.get("experts", 1)  # one of them denoises at a time
            return replace(costs, parameters=experts * costs.parameters, adapter=experts * costs.adapter)
        at, clip = config["counted_at"], self.parameters
        area, own = math.prod(getattr(clip, name) / counted for name, counted in at.items()), rank / 64
        sizes = {name: value for name, value in config.items() if name not in ("_class_name", "counted_at")}
        scaled = {
            name: area * sizes[name]
            for name in ("forward", "sample", "backward", "recomputed", "activations", "checkpointed")
        }
        return Costs(**{**sizes, **scaled, "adapter": own * sizes["adapter"]})

    @cached_property
    def megapixels(self) -> float:
        """Pixels of all frames of a clip, millions."""
        return self.parameters.num_frames * self.parameters.height * self.parameters.width / 1e6

    @property
    def encode(self) -> float:
        """Operations of encoding a clip."""
        return 1e12 * self.facts["autoencoder"]["tflop_encode_megapixel"] * self.megapixels

    @property
    def encode_prompt(self) -> float:
        """Operations of encoding a prompt."""
        return 1e12 * float(self.facts["text_encoder"]["tflop_prompt"])

    @property
    def make(self) -> float:
        """Operations of making a clip: all denoising steps, its prompt and its decoding."""
        passes = 2 if self.parameters.guidance_scale > 1 else 1
        decode = 1e12 * self.facts["autoencoder"]["tflop_decode_megapixel"] * self.megapixels
        steps = self.parameters.num_inference_steps * passes * self.costs(1).sample
        return steps + passes * self.encode_prompt + decode

    def published_seconds(self, gpu: str) -> float | None:
        """Return the time of a clip that the authors published, if it was for such clips on such a GPU."""
        published = self.facts.get("published") or {}
        sampling = published.get("sampling", {})
        same = sampling and all(getattr(self.parameters, name) == value for name, value in sampling.items())
        return float(published["seconds_a_clip"][gpu]) if same and gpu in published["seconds_a_clip"] else None

    @property
    def weights(self) -> dict[str, float]:
        """Bytes of each part in memory."""
        size = BYTES[self.parameters.dtype]
        # Some autoencoders stay in float32 whatever the rest is.
        own = getattr(family_of(self.parameters.family), "autoencoder_dtype", None)
        vae = size if own is None else BYTES[own]
        return {
            "denoiser": size * self.costs(1).parameters,
            "text_encoder": size * self.facts["text_encoder"]["parameters"],
            "autoencoder": vae * self.facts["autoencoder"]["parameters"],
        }

    @property
    def latent_bytes(self) -> int:
        """Bytes of a clip's latents on disk, float32."""
        frames, channels, height, width = self.latent
        return 4 * frames * channels * height * width

    @property
    def condition_bytes(self) -> float:
        """Bytes of a prompt's text condition on disk, in the generator's precision."""
        text = self.facts["text_encoder"]
        return BYTES[self.parameters.dtype] * text["tokens"] * text["width"]


@dataclass(frozen=True)
class ReaderFacts:
    """What is known of a vision-language model that reads clips."""

    facts: Mapping[str, Any]
    dtype: str

    @property
    def weights(self) -> float:
        """Bytes in memory."""
        return BYTES[self.dtype] * (self.facts["language_model"]["parameters"] + self.facts["vision"]["parameters"])

    def tokens(self, frames: int, pixels: float) -> float:
        """Return the visual tokens of a clip: frames of an area, merged in time and space."""
        vision = self.facts["vision"]
        return -(-frames // vision["frames"]) * pixels / (vision["patch"] * vision["merge"]) ** 2

    def read(self, visual: float, text: float, *, seen: float | None = None) -> float:
        """Return the operations of one pass: two a weight and token, in the language model and in the vision tower.

        Args:
            visual: visual tokens in the pass.
            text: tokens of text.
            seen: visual tokens that the vision tower makes anew; None for all.
        """
        patches = self.facts["vision"]["merge"] ** 2 * (visual if seen is None else seen)
        language = self.facts["language_model"]["parameters"] * (visual + text)
        return 2 * (language + self.facts["vision"]["parameters"] * patches)


def known_models(conf: Path) -> dict[str, dict[str, Any]]:
    """Return the facts of all models that the file names."""
    import yaml

    return dict(yaml.safe_load((conf / FILE).read_text(encoding="utf-8")))


def generator_facts(parameters: GeneratorParameters, known: Mapping[str, Any]) -> GeneratorFacts | None:
    """Return what is known of a generator; None where neither the file nor a folder says enough."""
    if "denoiser" in known.get(parameters.path, {}):
        return GeneratorFacts(known[parameters.path], parameters)
    folder = Path(parameters.path).expanduser()
    denoiser = _config(folder / "transformer")
    if denoiser.get("_class_name") not in CLOSED_FORMS:
        return None
    vae, text = _config(folder / "vae"), _config(folder / "text_encoder")
    width = text.get("d_model") or text.get("hidden_size") or denoiser.get("text_embed_dim") or denoiser.get("text_dim")
    parameters_of_text = _weights(folder / "text_encoder")
    tokens = denoiser.get("max_text_seq_length", 512)
    autoencoder = {
        "parameters": _weights(folder / "vae"),
        "channels": vae.get("latent_channels") or vae.get("z_dim") or denoiser["in_channels"],
        "frames": vae.get("temporal_compression_ratio") or vae.get("scale_factor_temporal") or 4,
        "pixels": vae.get("spatial_patch") or vae.get("scale_factor_spatial") or 8,
        # Convolutions that are not known; a patch autoencoder has none.
        "tflop_encode_megapixel": 0.0 if "spatial_patch" in vae else 8.8,
        "tflop_decode_megapixel": 0.0 if "spatial_patch" in vae else 18.6,
    }
    encoder = {"parameters": parameters_of_text, "tokens": tokens, "width": width}
    encoder["tflop_prompt"] = 2e-12 * parameters_of_text * tokens
    return GeneratorFacts({"denoiser": denoiser, "autoencoder": autoencoder, "text_encoder": encoder}, parameters)


def reader_facts(path: str | None, dtype: str, known: Mapping[str, Any], kind: str = "") -> ReaderFacts | None:
    """Return what is known of a vision-language model, or of what a reward of a kind is built on."""
    name = path if path is not None and path in known else STAND_INS.get(kind)
    folder = Path(path or "").expanduser()
    for place in (folder, folder / "model"):
        vision = _config(place).get("vision_config") or {}
        if vision and path not in known:
            text = _config(place).get("text_config") or _config(place)
            width = vision.get("embed_dim") or vision.get("hidden_size") or 1
            inner = vision.get("intermediate_size") or vision.get("mlp_ratio", 4) * width
            patch = vision.get("patch_size", 14)
            tower = (vision.get("depth") or vision.get("num_hidden_layers", 1)) * (4 * width**2 + 2 * width * inner)
            facts = {
                "vision": {
                    "parameters": tower,
                    "patch": patch[0] if isinstance(patch, list) else patch,
                    "merge": vision.get("spatial_merge_size", 2),
                    "frames": vision.get("temporal_patch_size", 1),
                },
                "language_model": {"parameters": max(_weights(place) - tower, text.get("hidden_size", 1))},
            }
            return ReaderFacts(facts, dtype)
    return ReaderFacts(known[name], dtype) if name is not None and "vision" in known.get(name, {}) else None


def total_parameters(facts: Mapping[str, Any]) -> float:
    """Return the weights of all parts of a model of the file."""
    parts = [
        facts[name]["parameters"]
        for name in ("text_encoder", "autoencoder", "language_model", "vision")
        if name in facts
    ]
    if denoiser := facts.get("denoiser"):
        one = denoiser.get("parameters") or transformer_costs(denoiser, (1, 2, 2), 1).parameters
        parts.append(denoiser.get("experts", 1) * one)
    return float(sum(parts))


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


def _weights(folder: Path) -> float:
    """Return the number of weights in a folder of safetensors in float32, the precision of models made here."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 4
