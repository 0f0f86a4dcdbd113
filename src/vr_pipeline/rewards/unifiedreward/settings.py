"""Settings of a UnifiedReward in a configuration and in its folder: model, template, loading."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from vr_pipeline.config import Parameters
from vr_pipeline.rewards.config import NetworkRewardParameters
from vr_pipeline.rewards.unifiedreward.template import Generation, UnifiedTemplate
from vr_pipeline.runtime.setting_names import read_settings
from vr_pipeline.storage.atomic import write_text
from vr_pipeline.vlm.families import FAMILIES, REMOTE_CODE_FAMILIES

ARTIFACT_FILE, MODEL_FOLDER = "reward.json", "model"
TYPE = "unifiedreward"


class UnifiedArtifact(Parameters):
    """The file reward.json of a trained UnifiedReward, next to the model's folder."""

    type: Literal["unifiedreward"] = Field("unifiedreward", description="Type of the reward.")
    family: str = Field(description="Family of the vision-language model.")
    template: UnifiedTemplate = Field(description="Template of training.")
    task: Generation = Field(
        "video_generation",
        description="Default task: clips or images. Responses use the understanding task of the same kind.",
    )
    provenance: dict[str, Any] = Field(default={}, description="Origin: training, start and items.")

    def write(self, folder: Path) -> None:
        """Write reward.json."""
        text = json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False)
        write_text(folder / ARTIFACT_FILE, text + "\n")


def read_artifact(folder: Path) -> UnifiedArtifact:
    """Read reward.json of a folder. Raises :class:`InputError` if it is missing or invalid."""
    return read_settings(folder / ARTIFACT_FILE, UnifiedArtifact, remedy="Make the folder again")


class UnifiedRewardSettings(NetworkRewardParameters):
    """A UnifiedReward in a configuration.

    ``path`` is the folder of a trained one, or with ``family`` and ``template`` that of a published checkpoint in the
    layout of transformers.
    """

    path: str | None = Field(
        None,
        description="Folder of the model, or with 'revision' its name on the hub; omitted in its reward.json.",
    )
    revision: str | None = Field(
        None, pattern="^[0-9a-f]{40}$", description="Commit of a checkpoint on the hub, 40 hexadecimal digits."
    )
    family: str | None = Field(
        None, description="Family of a published checkpoint: a key of vr_pipeline.vlm.families.FAMILIES."
    )
    template: str | UnifiedTemplate | None = Field(
        None, description="Template of a published checkpoint: a YAML file, or the name of one in conf/templates."
    )
    task: Generation | None = Field(
        None, description="Clips or images; null for that of the model's folder, else video_generation."
    )
    quantisation: Literal["none", "8bit", "4bit"] = Field("none", description="Weights in 8 or 4 bits.")
    batch: int = Field(16, ge=1, description="Requests per batch; halved when memory runs out.")
    max_median_outside_mass: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Largest median probability outside the scales, above which a run stops.",
    )
    provenance: dict[str, Any] = Field(default={}, description="In the model's folder only: its origin.")

    @model_validator(mode="after")
    def _a_folder_or_its_content(self) -> UnifiedRewardSettings:
        if (self.family is None) != (self.template is None):
            raise ValueError("give 'family' and 'template' together, for a published checkpoint; or neither")
        if self.path is None and self.family is None:
            raise ValueError("give 'path', the folder of a UnifiedReward")
        if self.revision is not None and (self.family is None or self.path is None):
            raise ValueError("a checkpoint on the hub needs 'path', 'family' and 'template'")
        if self.family is not None and (self.family not in FAMILIES or self.family in REMOTE_CODE_FAMILIES):
            known = ", ".join(name for name in FAMILIES if name not in REMOTE_CODE_FAMILIES)
            raise ValueError(f"'family' must be one of {known}")
        return self
