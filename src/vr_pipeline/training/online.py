"""Rounds of online training: settings of a round, choice of its prompts, replay of older pairs, and when to stop."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from pydantic import Field, ValidationError

from vr_pipeline.config import Parameters
from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash, pair_id, sample_seed
from vr_pipeline.training.config import DpoTrainingParameters, ValidationParameters
from vr_pipeline.training.table import PAIR

logger = logging.getLogger(__name__)

ROUND = "round"
"""Column with the number of the round in which a clip or a pair was made, from 1."""
UNCERTAINTY = "uncertainty"
"""Column of a round's rewards: mean entropy of the judge's answers about the clip, in bits."""


class OnlineParameters(Parameters):
    """Rounds of generating, judging, selecting and training, each with the policy of the last."""

    rounds: int = Field(3, ge=1, le=99, description="Number of rounds; the graph has one pipeline for each.")
    recipe: str = Field("mpo", description="Recipe of pair_selection whose pair rule and settings rounds use.")
    splits: list[Literal["train", "validation", "test"]] = Field(
        default=["train"], min_length=1, description="Splits of the prompts for which clips are made."
    )
    videos_per_prompt: int = Field(8, ge=2, description="Clips per prompt and round.")
    prompts_per_round: int | None = Field(None, ge=1, description="Prompts per round; null: all.")
    prompts_by: Literal["hash", "uncertainty"] = Field(
        "hash",
        description="Prompts of a round, with prompts_per_round. hash: other ones in every round; uncertainty: "
        "those about whose clips the judge was least certain when it last saw some (mean entropy of its answers), "
        "prompts without clips first.",
    )
    seed: int = Field(50, description="Base seed of the clips; the seeds of a round depend on its number.")
    replay: float = Field(
        0.5, ge=0, description="Pairs of earlier rounds that a round also trains on, per new pair; 0: none."
    )
    reference: Literal["renewed", "kept"] = Field(
        "renewed", description="Reference of the loss: the policy with which the round starts, or the original."
    )
    training: dict[str, Any] = Field(
        default={}, description="Changes of dpo_training.training for every round, such as steps."
    )
    learning_rate_decay: float = Field(
        1.0, gt=0, le=1, description="Factor of the learning rate from each round to the next; 1: it stays the same."
    )
    validation: dict[str, Any] | None = Field(
        default={},
        description="Changes of dpo_training.validation for every round. An alarm for reward hacking whose action is "
        "choose or stop ends the rounds. null: the last step becomes the policy, and nothing stops the rounds.",
    )
    stop_without_gain: bool = Field(
        True,
        description="Stop after a round whose gain in validation has an interval that includes 0, and keep the policy "
        "it started with. False: keep the policy with the higher mean, and continue.",
    )


def settings_of_round(
    dpo_training: DpoTrainingParameters, parameters: OnlineParameters, number: int
) -> DpoTrainingParameters:
    """Return the settings of a round's training.

    Raises:
        InputError: they are inconsistent, or train all weights.
    """
    made, name = dpo_training.for_recipe(parameters.recipe), f"round_{number}"
    changes = {"seed": sample_seed(made.training.seed, name, 0) % 2**31} | dict(parameters.training)
    block = "training"
    try:
        made = made.model_copy(update={"recipes": {name: changes}}).for_recipe(name)
        rate = made.training.learning_rate * parameters.learning_rate_decay ** (number - 1)
        made = made.model_copy(update={"training": made.training.model_copy(update={"learning_rate": rate})})
        block = "validation"
        validation = _changed(made.validation, parameters.validation)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InputError(
            f"the settings of the rounds are wrong: {first['msg']}",
            field=".".join(["online_mpo", block, *map(str, first["loc"])]),
            remedy="correct them",
        ) from error
    if made.training.method != "lora":
        raise InputError(
            "rounds train adapters, but the method is full", field="online_mpo.training.method", remedy="set it to lora"
        )
    return made.model_copy(update={"recipes": {}, "validation": validation})


def _changed(settings: ValidationParameters | None, changes: dict[str, Any] | None) -> ValidationParameters | None:
    if settings is None or changes is None:
        return None
    values = settings.model_dump()
    for name, value in changes.items():
        both = isinstance(value, dict) and isinstance(values.get(name), dict)
        values[name] = values[name] | value if both else value
    return ValidationParameters.model_validate(values)


def choose_prompts(
    prompts: pd.DataFrame, parameters: OnlineParameters, number: int, rewards: Sequence[pd.DataFrame] = ()
) -> pd.DataFrame:
    """Choose the prompts of a round.

    Args:
        prompts: schema ``FilteredPrompts``.
        parameters: number of prompts and rule.
        number: of the round.
        rewards: of the clips of all earlier rounds, in order, with prompt_id, round and uncertainty.

    Returns:
        their rows in the given order, with the column ``round``.

    Raises:
        InputError: no prompt is left in the splits.
    """
    chosen = prompts[prompts["split"].isin(parameters.splits)].reset_index(drop=True)
    if chosen.empty:
        raise InputError(
            f"no prompt is left in the splits {', '.join(parameters.splits)}",
            field="online_mpo.splits",
            remedy="choose other splits, change the shares in prompt_filtering, or supply more prompts",
        )
    if parameters.prompts_per_round is not None:
        seen: dict[str, float] = {}
        if parameters.prompts_by == "uncertainty":
            for table in rewards:
                means = table.groupby("prompt_id")[UNCERTAINTY].mean()
                seen.update({str(name): float(value) for name, value in means.items()})

        def place(name: str) -> tuple[float, str]:
            return -seen.get(name, math.inf), content_hash("prompt of round", parameters.seed, number, name)

        first = sorted(chosen["prompt_id"], key=place)[: parameters.prompts_per_round]
        chosen = chosen[chosen["prompt_id"].isin(first)].reset_index(drop=True)
    return chosen.assign(**{ROUND: number})


def uncertainty(answers: pd.DataFrame) -> pd.Series[float]:
    """Return the mean entropy of the judge's answers about each clip, in bits, by video_id; gated ones do not count."""
    p = answers.loc[~answers["gated"], "p_yes"].clip(1e-9, 1 - 1e-9)
    entropy = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    return entropy.groupby(answers.loc[p.index, "video_id"]).mean()


def replayed(earlier: Sequence[pd.DataFrame], count: int, parameters: OnlineParameters, number: int) -> pd.DataFrame:
    """Choose pairs of earlier rounds at random by their identifiers, each at most once.

    Args:
        earlier: training pairs of the earlier rounds, which may contain replayed pairs themselves.
        count: number of pairs; all if there are fewer.
        parameters: gives the seed.
        number: of the round that replays them.

    Returns:
        the rows, with the round in which they were made.
    """
    pairs = pd.concat(earlier, ignore_index=True).drop_duplicates(PAIR, ignore_index=True)

    def place(row: int) -> str:
        name = pair_id(*pairs.loc[row, PAIR])
        return content_hash("replay", parameters.seed, number, name)

    return pairs.loc[sorted(sorted(pairs.index, key=place)[:count])].reset_index(drop=True)


class Verdict(NamedTuple):
    """What validation says about the policy of a round.

    Attributes:
        accepted: it replaces the policy with which the round started.
        stopped: why no round follows; empty if one does.
        gain: lead of the chosen checkpoint over the start, mean over the validation clips; NaN without validation.
        ci_low, ci_high: its 95 % interval by prompt, simultaneous for all checkpoints.
    """

    accepted: bool
    stopped: str = ""
    gain: float = math.nan
    ci_low: float = math.nan
    ci_high: float = math.nan


def judge_round(
    validated: pd.DataFrame, parameters: OnlineParameters, validation: ValidationParameters | None = None
) -> Verdict:
    """Decide by the validation of a round whether its policy is kept and whether a round follows.

    Args:
        validated: schema ``ValidationLog``; step 0 is the policy with which the round started.
        parameters: of the rounds.
        validation: of the round; says whether an alarm ends the rounds.
    """
    if validated.empty:
        return Verdict(True)
    rows = {int(row["step"]): row for row in validated.to_dict("records")}
    acts = validation is not None and validation.alarm is not None and validation.alarm.action != "report"
    alarms = [row["alarm"] for row in rows.values() if row.get("alarm") and acts]
    alarm = f"alarm for reward hacking: {alarms[-1]}" if alarms else ""
    chosen = [step for step, row in rows.items() if step and row["chosen"]]
    if not chosen or 0 not in rows:
        return Verdict(False, alarm or "no checkpoint is better than the policy with which the round started")
    start, best = rows[0], rows[chosen[0]]
    gain, low, high = best["reward"] - start["reward"], -start["gap_high"], -start["gap_low"]
    if not parameters.stop_without_gain:
        return Verdict(gain > 0, alarm, gain, low, high)
    reason = "" if low > 0 else f"the interval of the gain, {low:+.3f} to {high:+.3f}, is not above 0"
    return Verdict(low > 0, alarm or reason, gain, low, high)


def round_result(verdict: Verdict, number: int, start: Mapping[str, Any] | None, pairs: pd.DataFrame) -> dict[str, Any]:
    """Describe a finished round.

    Args:
        verdict: about its policy.
        number: of the round.
        start: description of the round before; None for the first.
        pairs: the pairs it trained on, with ``round``.

    Returns:
        round; policy_of (the round whose training made the policy, 0: the original); new_pairs and replayed_pairs;
        accepted; gain, ci_low and ci_high (None if unknown); stopped (the reason, or empty).
    """
    new = int((pairs[ROUND] == number).sum())
    figures = {name: getattr(verdict, name) for name in ("gain", "ci_low", "ci_high")}
    before = 0 if start is None else int(start["policy_of"])
    return {
        "round": number,
        "policy_of": number if verdict.accepted else before,
        "new_pairs": new,
        "replayed_pairs": len(pairs) - new,
        "accepted": verdict.accepted,
        **{name: value if math.isfinite(value) else None for name, value in figures.items()},
        "stopped": verdict.stopped,
    }
