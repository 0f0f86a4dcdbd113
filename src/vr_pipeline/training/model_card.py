"""The model card of a policy, and the facts in it.

Sections as in Mitchell et al. 2019, Model Cards for Model Reporting: model, data, training, evaluation, use and limits.
A card does not depend on time or place, so the same training gives the same card.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from vr_pipeline.generators.comfyui import READERS, comfyui_tensors
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.policy import Adapter, Policy
from vr_pipeline.storage.markdown import as_code, as_text
from vr_pipeline.terminal import visible
from vr_pipeline.training.inputs import listed_hash, pairs_hash, used_clips, used_prompts

if TYPE_CHECKING:
    # Not at runtime: lineage finds a stage's sources by imports, and stages that read policies run no objectives.
    from vr_pipeline.training.config import DpoTrainingParameters

_PARTS = ("base", "data", "objective", "settings", "reward", "validation")


def training_facts(
    pairs: pd.DataFrame,
    validation: pd.DataFrame,
    reward: Mapping[str, Any],
    generator: GeneratorParameters,
    parameters: DpoTrainingParameters,
) -> dict[str, Any]:
    """Collect data, settings and judgements of a training for the policy's provenance.

    Args:
        pairs: schema ``TrainingPairs``; their prompts and clips are counted and hashed.
        validation: the judged checkpoints; may be empty.
        reward: of the checkpoints; see ``CheckpointReward.facts``.
        generator: the trained generator.
        parameters: the training.

    Returns:
        plain values: base, data, settings, reward, validation.
    """
    used, clips = used_prompts(pairs), used_clips(pairs)
    settings = {"path", "revision", "dtype", "num_frames", "height", "width"}
    facts: dict[str, Any] = {
        "base": {"family": generator.family, **generator.model_dump(include=settings)},
        "data": {
            "pairs": {"count": len(pairs), "hash": pairs_hash(pairs)},
            "prompts": {"count": len(used), "hash": listed_hash(used)},
            "clips": {"count": len(clips), "hash": listed_hash(clips)},
        },
        "settings": parameters.training.model_dump(mode="json"),
        "reward": dict(reward),
    }
    if parameters.validation is not None and len(validation):
        facts["validation"] = {
            **parameters.validation.model_dump(include={"splits", "videos_per_prompt", "seed"}),
            "checkpoints": [
                {str(name): _plain(value) for name, value in row.items()} for row in validation.to_dict("records")
            ],
        }
    return facts


_WITHOUT_LOADER = ("hunyuan_video_1_5",)
_LIMITS = {
    "ltx_2": "Only the video stream was trained, on clips without sound. The audio stream keeps its weights; "
    "its sound for a changed video was not measured."
}
"""Family -> what its policies do not change."""


def model_card(policy: Policy) -> str:
    """Write the card of a policy in Markdown, from the policy and its provenance."""
    from jinja2 import Environment, PackageLoader

    facts = {name: _mapping(policy.provenance.get(name)) for name in _PARTS}
    base, validation = facts["base"], facts["validation"]
    rows = validation.get("checkpoints", [])
    chosen = next((row for row in rows if row["chosen"]), None)
    pipelines = "of a text-to-video or text-to-image pipeline"
    if isinstance(policy, Adapter):
        kind, whole = f"A low-rank adapter for the denoiser {pipelines}", None
        what = {
            "part of the pipeline": " and ".join(policy.components),
            "rank": policy.config["r"],
            "alpha": policy.config["lora_alpha"],
            "layers": ", ".join(policy.config["target_modules"]),
            "parameters": f"{sum(value.numel() for value in policy.tensors.values()):,}",
        }
    else:
        kind, whole = f"The fine-tuned denoiser {pipelines}", policy.config["_class_name"]
        what = {"part of the pipeline": policy.component, "class": whole}
    environment = Environment(loader=PackageLoader("vr_pipeline.training"), trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"shown": _shown, "number": _number, "quoted": json.dumps, "code": as_code}
    text = environment.get_template("policy.md.j2").render(
        data=facts["data"],
        reward=facts["reward"],
        validation=validation,
        kind=kind,
        what=what | {"identity": policy.identity},
        base=base | {"identity of the weights": policy.base},
        training=facts["objective"] | facts["settings"],
        stopped=_mapping(_mapping(policy.provenance.get("training")).get("stopped")),
        checkpoints=rows,
        dimensions=[name for name in (rows[0] if rows else {}) if str(name).startswith("dim_")],
        no_gain=chosen is not None and rows[0]["step"] == 0 and chosen["reward"] <= rows[0]["reward"],
        component=policy.component,
        comfyui=list(comfyui_tensors(policy, str(base.get("family")))) if isinstance(policy, Adapter) else [],
        comfyui_reader=READERS.get(str(base.get("family")), "ComfyUI"),
        further=policy.components[1:] if isinstance(policy, Adapter) else (),
        # Families whose pipelines have no loader of adapters.
        by_part=policy.components if isinstance(policy, Adapter) and base.get("family") in _WITHOUT_LOADER else (),
        whole=whole,
        limits=_LIMITS.get(str(base.get("family")), ""),
        dtype=f", torch_dtype=torch.{base['dtype']}" if base.get("dtype") else "",
    )
    # Unknown parts leave several empty lines.
    return visible(re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n")


def _shown(value: Any) -> str:
    text = json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else str(value)
    return as_text(text)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _plain(value: Any) -> Any:
    """Return a Python scalar for a numpy one; None for NaN, which JSON does not have."""
    scalar = getattr(value, "item", lambda: value)()
    return None if isinstance(scalar, float) and scalar != scalar else scalar
