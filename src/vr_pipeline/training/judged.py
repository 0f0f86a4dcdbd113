"""The prompts that checkpoints are judged on, and the table of judged checkpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.training.bound import BELOW
from vr_pipeline.training.config import ValidationParameters
from vr_pipeline.training.reward_hacking import ALARM, alarm_text

COLUMNS = ["step", "policy", "reward", "se", "clips", "failed", "chosen", "gap_low", "gap_high"]

Rewards = Sequence[tuple[str, float]]
"""Prompt and reward of each clip of a checkpoint."""


def validation_table(
    records: Mapping[int, dict[str, Any]], best: int | None, *, with_alarms: bool = False, bounded: bool = False
) -> pd.DataFrame:
    """Return the columns :data:`COLUMNS` and those of dimensions and hold-outs, one row per judged checkpoint.

    Args:
        records: what was stored of each checkpoint, by step; entries that are not columns are removed.
        best: step of the checkpoint that became the policy.
        with_alarms: add the column ``alarm``.
        bounded: add the column ``below``.
    """
    from vr_pipeline.statistics.clustered import simultaneous

    found = [record.pop("alarm", None) for record in records.values()]
    below = [record.pop("below", None) or [] for record in records.values()]
    for record in records.values():
        record.pop("held_out", None)
        record.pop("means", None)
        record.pop("moments", None)
    clips = {step: record.pop("rewards") for step, record in records.items()}
    unknown = (math.nan, math.nan)
    level = simultaneous(len(records) - 1)
    gaps = [_gap(clips[s], clips[best], level) if best in clips and s != best else unknown for s in records]
    table = (
        pd.DataFrame(list(records.values()))
        .assign(chosen=[step == best for step in records])
        .assign(gap_low=[low for low, _ in gaps], gap_high=[high for _, high in gaps])
    )
    if with_alarms:
        table["alarm"] = [alarm_text(alarm) if alarm else "" for alarm in found]
    if bounded:
        table["below"] = [", ".join(names) for names in below]
    return table[[*COLUMNS, *(name for name in table.columns if name not in COLUMNS)]]


def kept_step(log: pd.DataFrame, *, alarms: bool = False, bound: bool = False) -> int | None:
    """Return the step of the checkpoint that becomes the policy: of the highest reward, the first of equals.

    Args:
        log: training log with validation_reward; ``kept_step`` has the step of a training that went wrong.
        alarms: whether it is no later than the checkpoint since which an alarm holds.
        bound: whether none of its dimensions is below the original.

    Returns:
        0 for the original; None if no checkpoint was judged.
    """
    judged: dict[int, float] = {}
    if "validation_reward" in log:
        rows = log.dropna(subset="validation_reward")
        judged = dict(zip(rows["step"].astype(int), rows["validation_reward"].astype(float), strict=True))
    best = max(judged, key=lambda step: judged[step], default=None)
    last = math.inf
    if "kept_step" in log and log["kept_step"].notna().any():
        # A failed training ends with earlier weights, possibly the original's.
        best = int(log["kept_step"].dropna().iloc[-1])
        last = best
    if alarms and ALARM in log and log[ALARM].notna().any():
        last = min(last, int(log[ALARM].min()))
    below = set(log.loc[log[BELOW].fillna(0) > 0, "step"].astype(int)) if bound and BELOW in log else set()
    if best is None or (best <= last and best not in below):
        return best
    return max((step for step in judged if step <= last and step not in below), key=lambda s: judged[s], default=0)


def _gap(clips: Rewards, others: Rewards, level: float) -> tuple[float, float]:
    """Interval of the first rewards' lead over the others on the prompts they share; NaN with too few."""
    from vr_pipeline.statistics.clustered import paired_gain

    shared = {prompt for prompt, _ in clips} & {prompt for prompt, _ in others}
    sides: list[list[Any]] = []
    for rewards in (clips, others):
        kept = [(prompt, value) for prompt, value in rewards if prompt in shared]
        sides += [[value for _, value in kept], [prompt for prompt, _ in kept]]
    gain = paired_gain(*sides, level=level)
    return gain.ci_low, gain.ci_high


def validation_prompts(prompts: pd.DataFrame, settings: ValidationParameters) -> pd.DataFrame:
    """Choose the prompts that checkpoints are judged on: of the splits, the first by identifier up to the limit.

    Raises:
        InputError: there are none.
    """
    chosen = prompts[prompts["split"].isin(settings.splits)].sort_values("prompt_id", ignore_index=True, kind="stable")
    if chosen.empty:
        raise InputError(
            f"no prompt is left in the splits {', '.join(settings.splits)}, so checkpoints cannot be validated",
            field="dpo_training.validation.splits",
            remedy="choose other splits, raise prompt_filtering.split.validation_fraction, supply more prompts, or set "
            "dpo_training.validation to null",
        )
    return chosen if settings.num_prompts is None else chosen.head(settings.num_prompts)


def no_validation() -> pd.DataFrame:
    """Return the table of a training whose checkpoints are not validated."""
    return pd.DataFrame(columns=COLUMNS).astype(
        {"step": int, "reward": float, "clips": int, "chosen": bool, "gap_low": float, "gap_high": float}
    )
