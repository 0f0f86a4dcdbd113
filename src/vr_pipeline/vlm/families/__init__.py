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
    "llava_onevision": "vr_pipeline.vlm.families.llava_onevision:LlavaOnevision",
    "smolvlm": "vr_pipeline.vlm.families.smolvlm:SmolVLM",
    "internvl": "vr_pipeline.vlm.families.internvl:InternVL",
    "cogvlm2_video": "vr_pipeline.vlm.families.cogvlm2_video:CogVLM2Video",
}
"""Family name -> 'module:class'."""

REMOTE_CODE_FAMILIES = frozenset({"cogvlm2_video"})
"""Families whose modelling code comes with the checkpoint; it runs only with consent and at a named commit."""


def family_class(name: str) -> type[Family]:
    """Return the class of a family. Raises :class:`InputError` for an unknown name."""
    if name not in FAMILIES:
        raise InputError(
            f"there is no judge family '{name}'", remedy=f"Use one of: {', '.join(FAMILIES)}", field="judge.family"
        )
    found: type[Family] = pkgutil.resolve_name(FAMILIES[name])
    return found
