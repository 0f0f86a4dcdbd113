"""Parameters of generators and of sampling."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vr_pipeline.config import Parameters

Offload = Literal["none", "model", "sequential"]


class GeneratorParameters(Parameters):
    """Which generator, and how it samples."""

    family: str = Field(description="Generator family: a key of vr_pipeline.generators.FAMILIES.")
    path: str = Field(description="Folder of the model in diffusers layout, or its name on the hub.")
    revision: str | None = Field(None, description="Commit of a model on the hub, needed there; unused for folders.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="Precision of all parts.")
    device: str = Field("auto", description="Torch device, or 'auto' for CUDA where there is one.")
    offload: Offload = Field(
        "none",
        description="While sampling, parts wait in the CPU's memory: 'model' brings each part to the device for its "
        "turn, 'sequential' each layer (far less memory, far slower). Of no effect on CPUs.",
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
    batch_size: int = Field(
        1,
        ge=1,
        description="Clips sampled together. Part of a clip's identity: another batch size rounds differently.",
    )
    threads: int | None = Field(
        None, ge=1, description="CPU threads of torch; part of a clip's identity on CPUs. Null leaves the default."
    )


class VideoGenerationParameters(Parameters):
    """The pipeline video_generation."""

    splits: list[Literal["train", "validation", "test"]] = Field(
        default=["train"], description="Splits of the prompts for which clips are made."
    )
    videos_per_prompt: int = Field(4, ge=1, description="Clips a prompt.")
    seed: int = Field(0, description="Base seed; a clip's seed derives from it, the prompt and the sample's number.")
