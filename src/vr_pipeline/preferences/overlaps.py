"""Fitting pairs whose prompts also test the policies."""

import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.prompts.overlap import prompt_overlaps


def overlapping_prompts(pairs: pd.DataFrame, filtered_prompts: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Return prompts used for both testing and training, schema ``PromptOverlaps``.

    Validation and test prompts of policies are compared with those of fitted preferences, and prompts of held-out
    preferences with training prompts of policies.

    Args:
        pairs: prompt and split ('fit' or 'held_out') of every pair.
        filtered_prompts: prompt and split ('train', 'validation' or 'test') of every prompt.
        threshold: see :func:`~vr_pipeline.prompts.overlap.prompt_overlaps`.
    """
    splits = {name: list(own["prompt"]) for name, own in filtered_prompts.groupby("split", sort=True)}
    tested = {name: splits.get(name, []) for name in ("validation", "test")}
    tested["held_out_preferences"] = _prompts(pairs, "held_out")
    trained = {"weights": _prompts(pairs, "fit"), "policies": splits.get("train", [])}
    skip = frozenset({("held_out_preferences", "weights"), ("validation", "policies"), ("test", "policies")})
    return prompt_overlaps(tested, trained, threshold=threshold, skip=skip)


def without_overlaps(pairs: pd.DataFrame, filtered_prompts: pd.DataFrame, threshold: float) -> pd.Series:
    """Return the split of every pair, with 'overlap' for fitting pairs whose prompt (nearly) tests policies.

    Raises:
        InputError: no pair would remain for the fit.
    """
    tested = list(filtered_prompts.loc[filtered_prompts["split"] != "train", "prompt"])
    found = prompt_overlaps({"fit": _prompts(pairs, "fit")}, {"tested": tested}, threshold=threshold)
    out = (pairs["split"] == "fit") & pairs["prompt_id"].isin(found["prompt_id"])
    split = pairs["split"].mask(out, "overlap")
    if not (split == "fit").any():
        raise InputError(
            f"the prompts of all {int(out.sum())} fitting pairs are (nearly) validation or test prompts of policies",
            remedy="set overlaps to show, raise near_duplicate, or give preferences for other prompts",
            field="weight_regression.overlaps",
        )
    return split


def _prompts(pairs: pd.DataFrame, split: str) -> list[str]:
    return list(dict.fromkeys(pairs.loc[pairs["split"] == split, "prompt"]))
