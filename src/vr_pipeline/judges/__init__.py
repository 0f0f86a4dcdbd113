"""Judges: vision-language models that answer a checklist's questions about clips with probabilities of yes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vr_pipeline.judges.config import JudgeParameters
    from vr_pipeline.judges.contract import Judge


def load_judge(config: JudgeParameters | dict[str, object]) -> Judge:
    """Loads the judge that a configuration describes; see :func:`vr_pipeline.vlm.loading.load_judge`."""
    from vr_pipeline.vlm.loading import load_judge as load

    return load(config)


__all__ = ["load_judge"]
