"""Judges: vision-language models that answer a checklist's questions about clips with probabilities of yes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vr_pipeline.judges.contract import Judge
    from vr_pipeline.vlm.config import JudgeParameters


def load_judge(config: JudgeParameters | dict[str, object]) -> Judge:
    """Load the model of a configuration and make it a judge.

    Raises:
        InputError: the family is unknown, the folder is missing or is no model, its weights are not safetensors, or its
            tokenizer cannot say yes or no.
    """
    from vr_pipeline.judges.vlm import VisionLanguageJudge
    from vr_pipeline.vlm.config import JudgeParameters
    from vr_pipeline.vlm.loading import judge_identity, load_family

    parameters = config if isinstance(config, JudgeParameters) else JudgeParameters.model_validate(config)
    return VisionLanguageJudge(load_family(parameters), parameters, judge_identity(parameters))
