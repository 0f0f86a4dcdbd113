"""Model families a judge can be made of. A family is one file with one class; this table names them."""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING

from vr_pipeline.errors import InputError

if TYPE_CHECKING:
    from vr_pipeline.vlm.families.base import Family

FAMILIES: dict[str, str] = {
    "qwen2_vl": "vr_pipeline.vlm.families.qwen2_vl:Qwen2VL",
    "qwen2_5_vl": "vr_pipeline.vlm.families.qwen2_vl:Qwen25VL",
    "qwen3_vl": "vr_pipeline.vlm.families.qwen3_vl:Qwen3VL",
    "qwen3_5": "vr_pipeline.vlm.families.qwen3_5:Qwen35",
    "glm_4_6v": "vr_pipeline.vlm.families.glm_4_6v:Glm46V",
    "llava_onevision": "vr_pipeline.vlm.families.llava_onevision:LlavaOnevision",
    "smolvlm": "vr_pipeline.vlm.families.smolvlm:SmolVLM",
    "internvl": "vr_pipeline.vlm.families.internvl:InternVL",
    "cogvlm2_image": "vr_pipeline.vlm.families.cogvlm2_image:CogVLM2Image",
    "cogvlm2_video": "vr_pipeline.vlm.families.cogvlm2_video:CogVLM2Video",
}
"""Family name -> 'module:class'."""

SERVED = "openai_compatible"
"""Family of judges behind a server: it has no class here, because the model is elsewhere."""

REMOTE_CODE_FAMILIES = frozenset({"cogvlm2_image", "cogvlm2_video"})
"""Families whose modelling code comes with the checkpoint; it runs only with consent and at a named commit."""


def family_class(name: str) -> type[Family]:
    """Return the class of a family. Raises :class:`InputError` for an unknown name, or a model behind a server."""
    if name == SERVED:
        raise InputError(
            f"family '{SERVED}' answers yes/no questions of a checklist only: a server gives neither weights to train "
            "nor the likelihood of whole answers, which rankings and points are read from",
            remedy="Use it as 'judge' or 'checklist_inference.alignment.judge'; here name a model in a folder",
            field="family",
        )
    if name not in FAMILIES:
        raise InputError(
            f"there is no judge family '{name}'",
            remedy=f"Use one of: {', '.join((*FAMILIES, SERVED))}",
            field="judge.family",
        )
    found: type[Family] = pkgutil.resolve_name(FAMILIES[name])
    return found
