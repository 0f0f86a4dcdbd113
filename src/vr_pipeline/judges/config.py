"""Parameters of judges."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Optional

from pydantic import Field, model_validator

from vr_pipeline.config import Parameters


class JudgeParameters(Parameters):
    """Which vision-language model answers, and how it is fed."""

    family: str = Field(description="Judge family: a key of vr_pipeline.judges.families.FAMILIES.")
    path: str = Field(description="Folder of the model, or its name on the hub (then 'revision' is required).")
    revision: Optional[str] = Field(None, description="Commit of the model on the hub; unused for folders.")
    adapter: Optional[str] = Field(None, description="Folder of a PEFT adapter that is merged into the model.")
    allow_remote_code: bool = Field(
        False, description="Consent to running the Python code in the model's repository; only cogvlm2_video needs it."
    )
    device: str = Field("auto", description="Torch device, or 'auto' for CUDA where there is one.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="Precision of the model.")
    quantisation: Literal["none", "8bit", "4bit"] = Field(
        "none", description="Weights in 8 or 4 bits by bitsandbytes, on GPUs only."
    )
    threads: Optional[int] = Field(None, ge=1, description="CPU threads of torch; null leaves the default.")
    num_frames: Optional[int] = Field(
        None, ge=1, description="At most so many frames of a clip, evenly spread; null leaves it to the model folder."
    )
    frames_per_second: Optional[float] = Field(None, gt=0, description="Rate at which frames are taken, in 1/s.")
    min_pixels: Optional[int] = Field(None, ge=1, description="Smallest area of a resized frame, in pixels.")
    max_pixels: Optional[int] = Field(None, ge=1, description="Largest area of a resized frame, in pixels.")
    prefix: Literal["auto", "packed", "cached"] = Field(
        "auto",
        description=(
            "How questions share the clip: 'packed' puts the clip and all questions into one pass, 'cached' keeps the "
            "clip's keys and values and asks chunk by chunk; 'auto' packs when all questions fit one chunk."
        ),
    )
    question_chunk_size: int = Field(
        64, ge=1, description="Questions asked at a time; bounds memory. Halved when memory runs out."
    )
    clip_batch: int = Field(1, ge=1, description="Clips read by the model at a time; bounds memory.")

    @model_validator(mode="after")
    def _hub_models_are_pinned(self) -> JudgeParameters:
        if self.revision is None and not Path(self.path).exists() and not _looks_like_folder(self.path):
            raise ValueError(
                f"'{self.path}' is no folder here; for a model on the hub set 'revision' to one of its commits, "
                "so that stored answers keep their meaning"
            )
        return self


def _looks_like_folder(path: str) -> bool:
    # Hub names are 'owner/name'. A folder that a pipeline has yet to make has more levels or starts with a dot or /.
    return path.startswith((".", "/", "~")) or path.count("/") != 1


class ChecklistInferenceParameters(Parameters):
    """The pipeline checklist_inference."""

    judge: JudgeParameters = Field(description="The judge that answers.")
    clips_per_item: int = Field(
        32, ge=1, description="Clips judged and stored together; a killed run loses at most so many answers."
    )
    reader_threads: int = Field(2, ge=1, description="Threads that decode clips.")
    max_median_outside_mass: float = Field(
        0.5,
        gt=0,
        le=1,
        description="The run stops when the median probability on tokens other than yes and no is above this.",
    )
