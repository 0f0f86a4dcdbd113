"""Parameters of generators and of sampling."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from vr_pipeline.config import Parameters

Offload = Literal["none", "model", "sequential"]


class GuidanceReward(Parameters):
    """A reward on noised latents that steers sampling, and how strongly."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    model: str = Field(
        description="Folder of a latent reward (pipeline latent_reward_training) made for this generator. Its content "
        "is part of a clip's identity."
    )
    weights: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = Field(
        min_length=1,
        description="Weight of each of the reward's dimensions, by name; those that are left out have weight 0, and a "
        "negative weight steers away from a dimension.",
    )
    scale: float = Field(
        3.0,
        ge=0,
        allow_inf_nan=False,
        description="Strength w of the guidance; 0 gives the same clips, bit for bit, as no guidance.",
    )
    clip: float | None = Field(
        10.0,
        gt=0,
        allow_inf_nan=False,
        description="Largest factor t / (1 - t) that a step multiplies the gradient by, with t the share of noise; it "
        "is 49 at t = 0.98. Null for no limit. Clipped steps are counted.",
    )
    from_: float = Field(
        0.0, alias="from", ge=0, lt=1, description="Smallest share of noise at which steps are guided."
    )
    to: float = Field(
        1.0, gt=0, le=1, description="Largest share of noise at which steps are guided; pure noise never is."
    )

    @model_validator(mode="after")
    def _some_times(self) -> Self:
        if self.from_ >= self.to:
            raise ValueError(f"no step is guided: 'from' ({self.from_:g}) has to be below 'to' ({self.to:g})")
        return self

    @property
    def is_on(self) -> bool:
        """Whether any step of sampling is changed."""
        return self.scale > 0 and any(self.weights.values())


class GeneratorParameters(Parameters):
    """Which generator, and how it samples."""

    family: str = Field(description="Generator family: a key of vr_pipeline.generators.FAMILIES.")
    path: str = Field(description="Folder of the model in diffusers layout, or its name on the hub.")
    revision: str | None = Field(None, description="Commit of a model on the hub, needed there; unused for folders.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="Precision of all parts.")
    device: str = Field("auto", description="Torch device, or 'auto' for CUDA where there is one.")
    offload: Offload = Field(
        "none",
        description="Keep parts in CPU memory while sampling: 'model' moves one part at a time to the device, "
        "'sequential' one layer (far less memory, far slower). No effect on CPUs.",
    )
    vae_tiling: bool = Field(
        False,
        description="Encode and decode in overlapping tiles: far less memory, faint seams. Part of a clip's identity.",
    )
    num_frames: int = Field(49, ge=1, description="Frames of a clip.")
    height: int = Field(480, ge=8, multiple_of=8, description="Height of a clip in pixels.")
    width: int = Field(720, ge=8, multiple_of=8, description="Width of a clip in pixels.")
    fps: float = Field(8.0, gt=0, description="Frames per second at which clips are written.")
    num_inference_steps: int = Field(50, ge=1, description="Denoising steps.")
    guidance_scale: float = Field(6.0, ge=1.0, description="Classifier-free guidance; 1 switches it off.")
    guidance_reward: GuidanceReward | None = Field(
        None, description="A reward on noised latents whose gradient steers sampling, after classifier-free guidance."
    )
    first_frame_noise: bool = Field(
        False,
        description="Train with noise on first frames, as CogVideoX from an image was trained: pixels from -1 to 1 get "
        "noise of the deviation e^z, with z of mean -3 and deviation 0.5, drawn once for each image. Sampling adds "
        "none.",
    )
    batch_size: int = Field(
        1, ge=1, description="Clips sampled together. Part of a clip's identity: another batch size rounds differently."
    )
    threads: int | None = Field(
        None, ge=1, description="CPU threads of torch; part of a clip's identity on CPUs. Null leaves the default."
    )


class VideoGenerationParameters(Parameters):
    """The pipeline video_generation."""

    splits: list[Literal["train", "validation", "test"]] = Field(
        default=["train"], description="Splits of the prompts for which clips are made."
    )
    videos_per_prompt: int = Field(4, ge=1, description="Clips per prompt.")
    seed: int = Field(0, description="Base seed; a clip's seed derives from it, the prompt and the sample's number.")


class PreferenceGenerationParameters(Parameters):
    """The pipeline preference_generation: clips of several generators for people to compare."""

    given: dict[str, GeneratorParameters | None] = Field(
        alias="generators",
        description="Generators, by the name that their clips get; null removes one that the base configuration names.",
    )
    splits: list[Literal["train", "validation", "test"]] = Field(
        default=["train"], description="Splits of the prompts for which clips are made."
    )
    prompts: int | None = Field(
        None, ge=1, description="Prompts of these splits, drawn by hash; null takes all of them."
    )
    videos_per_prompt: int = Field(1, ge=1, description="Clips per prompt and generator.")
    seed: int = Field(0, description="Base seed, the same for all generators.")

    @property
    def generators(self) -> dict[str, GeneratorParameters]:
        """Generators to use, by name."""
        return {name: one for name, one in self.given.items() if one is not None}

    @model_validator(mode="after")
    def _plain_names(self) -> Self:
        wrong = [name for name in self.given if not re.fullmatch(r"[a-z0-9][a-z0-9_]{0,39}", name)]
        if wrong:
            raise ValueError(f"'{wrong[0]}' names no generator: write small letters, digits and underscores")
        return self
