"""Judges: vision-language models that answer a checklist's questions about clips with probabilities of yes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vr_pipeline.judges.contract import Judge
    from vr_pipeline.vlm.config import JudgeParameters


def load_judge(config: JudgeParameters | Mapping[str, object] | str | Path) -> Judge:
    """Load the model of a configuration and make it a judge.

    Args:
        config: a judge's parameters, also as a mapping such as the block ``judge``; or a model's folder, whose
            ``config.json`` names its family.
            ``micro_world/judge`` is the shipped one.

    Returns:
        a judge with ``.answer(clips, questions, prompts)``: probabilities of yes and masses outside yes and no, both
        [clips, questions].

    Raises:
        InputError: the family is unknown, the folder is missing or is no model, its weights are not safetensors, its
            tokenizer cannot say yes or no, or the server has no such model.
        EndpointUnavailable: the server of the model does not answer.
    """
    from vr_pipeline.judges.vlm import VisionLanguageJudge
    from vr_pipeline.project.template import model_folder
    from vr_pipeline.vlm.config import ChecklistJudgeParameters, JudgeParameters
    from vr_pipeline.vlm.loading import judge_identity, load_family

    if isinstance(config, str | Path):
        config = _of_folder(model_folder(config))
    if not isinstance(config, JudgeParameters):
        config = ChecklistJudgeParameters.model_validate(config)
    if config.served:
        from vr_pipeline.judges.served import ServedJudge

        return ServedJudge(config, judge_identity(config))
    return VisionLanguageJudge(load_family(config), config, judge_identity(config))


def _of_folder(folder: Path) -> dict[str, object]:
    """Return the parameters of a judge whose model lies in a folder."""
    import json

    from vr_pipeline.errors import InputError
    from vr_pipeline.vlm.families import FAMILIES

    try:
        family = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(
            f"there is no model here ({error.__class__.__name__})",
            remedy="give a model's folder, with its config.json",
            file=folder,
        ) from error
    if family not in FAMILIES:
        raise InputError(
            f"a model of type '{family}' is no judge's",
            remedy=f"give 'family' and 'path'; families are {', '.join(FAMILIES)}",
            file=folder,
        )
    return {"family": family, "path": str(folder)}
