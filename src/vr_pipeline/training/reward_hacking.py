"""Alarm for reward hacking: the training's reward rises and a reward that it does not use does not (Gao et al. 2023).

Every judged checkpoint is compared with all earlier ones on the same prompts: either the training's reward rose more
than a held-out reward explains, or a held-out reward fell, in the total or in a dimension. No reward of the truth is
needed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from vr_pipeline.statistics.excess import clearest_excess, moments
from vr_pipeline.statistics.falls import clearest_fall, smallest_p_value
from vr_pipeline.statistics.labels import FloatArray
from vr_pipeline.training.config import AlarmParameters

if TYPE_CHECKING:
    from vr_pipeline.rewards.contract import RewardModel

logger = logging.getLogger(__name__)

ALARM = "alarm_since"
"""Column of the training log: the step since which an alarm holds, at checkpoints with one."""

PromptMeans = Mapping[str, float]
"""Mean reward of the clips of a checkpoint, by prompt."""


def prompt_means(rewards: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Return the mean reward of each prompt, in the total and by dimension.

    Args:
        rewards: schema ``Rewards``, the clips of one checkpoint.
    """
    columns = [name for name in rewards if name == "total" or str(name).startswith("dim_")]
    means = rewards.groupby("prompt_id", sort=True)[columns].mean()
    return {str(name): {str(prompt): float(value) for prompt, value in means[name].items()} for name in columns}


def clip_moments(rewards: pd.DataFrame, others: pd.DataFrame) -> dict[str, tuple[float, float, float]]:
    """Return :func:`~vr_pipeline.statistics.excess.moments` of two total rewards of the same clips, by prompt.

    Args:
        rewards: schema ``Rewards``, the training's reward of the clips of one checkpoint.
        others: the same of a hold-out; clips that are not in both are left out.
    """
    both = rewards[["video_id", "prompt_id", "total"]].merge(others[["video_id", "total"]], on="video_id")
    return moments(both["total_x"], both["total_y"], both["prompt_id"].astype(str).tolist())


def find_alarm(
    checkpoints: Sequence[Mapping[str, Any]], settings: AlarmParameters, number: int
) -> dict[str, Any] | None:
    """Test the last checkpoint against all earlier ones.

    Each of ``number`` checkpoints is tested at ``settings.level / number``, so that ``settings.level`` bounds the
    probability of a false alarm in the whole training (Bonferroni).

    Args:
        checkpoints: judged checkpoints in the order of their steps, each with ``step``, ``rewards`` (prompt and reward
            of every clip), ``held_out`` (:func:`prompt_means` by name of the held-out reward), ``means``
            (:func:`prompt_means` of the training's own reward) and ``dim_<name>``, the means of its dimensions; the
            first with ``moments`` (:func:`clip_moments` by name of the held-out reward).
        number: of checkpoints that the training will have, without the original.

    Returns:
        ``hold_out``, ``dimension`` (``total`` or a name), ``since_step``, ``change`` (mean over prompts) and
        ``p_value`` of the clearest fall; of an excess the dimension with its largest part, and also ``rise`` and
        ``expected``, the rise of the training's reward and its explained part. None without an alarm.
    """
    trained = [_trained(record) for record in checkpoints]
    prompts = _shared([set(of_record["total"]) for of_record in trained])
    names = _shared([set(_columns(record)) for record in checkpoints])
    if settings.signal == "fall" and settings.dimensions == "none":
        names = [name for name in names if _column(name) == "total"]
    for record in checkpoints:
        of_record = _columns(record)
        prompts = [prompt for prompt in prompts if all(prompt in of_record[name] for name in names)]
    if not names or len(prompts) < 2:
        return None

    def table(columns: Sequence[PromptMeans]) -> FloatArray:
        return np.array([[column[prompt] for prompt in prompts] for column in columns])

    held_out = {name: table([_columns(record)[name] for record in checkpoints]) for name in names}
    own = {
        column: table([of_record[column] for of_record in trained])
        for column in _shared([set(of_record) for of_record in trained])
        if all(prompt in of_record[column] for of_record in trained for prompt in prompts)
    }
    if settings.signal == "excess":
        found = _excess(held_out, own, prompts, checkpoints, settings)
    else:
        found = _fall(held_out, own, checkpoints, settings)
    if found is None or found["p_value"] > settings.level / number:
        return None
    return found


def _fall(
    held_out: Mapping[str, FloatArray],
    own: Mapping[str, FloatArray],
    checkpoints: Sequence[Mapping[str, Any]],
    settings: AlarmParameters,
) -> dict[str, Any] | None:
    seen: dict[str, list[float]] = {}
    if settings.dimensions == "unseen":
        known = [name for name in held_out if all(_is_dimension(_column(name), record) for record in checkpoints)]
        seen = {name: [float(record[_column(name)]) for record in checkpoints] for name in known}
    fall = clearest_fall(held_out, own["total"], rise=settings.rise_level, seen=seen)
    if fall is None:
        return None
    return _alarm(fall.name, checkpoints[fall.since], fall.change, fall.p_value)


def _excess(
    held_out: Mapping[str, FloatArray],
    own: Mapping[str, FloatArray],
    prompts: Sequence[str],
    checkpoints: Sequence[Mapping[str, Any]],
    settings: AlarmParameters,
) -> dict[str, Any] | None:
    # Clips of later checkpoints may already be hacked.
    known = checkpoints[0].get("moments") or {} if not checkpoints[0]["step"] else {}
    totals = {name: table for name, table in held_out.items() if _column(name) == "total"}
    original = {
        name: np.array([known[name.partition("\n")[0]].get(prompt, (0.0, 0.0, 0.0)) for prompt in prompts])
        for name in totals
        if name.partition("\n")[0] in known
    }
    excess = clearest_excess(
        totals,
        own["total"],
        original,
        rise=settings.rise_level,
        smallest=settings.smallest,
        agreement=settings.agreement,
    )
    if excess is None:
        return None
    hold_out = excess.name.partition("\n")[0]
    slope = excess.expected / excess.change if excess.change else 0.0
    parts = {
        column: float((table[-1] - table[excess.since]).mean())
        - slope
        * float((held_out[f"{hold_out}\n{column}"][-1] - held_out[f"{hold_out}\n{column}"][excess.since]).mean())
        for column, table in own.items()
        if column != "total" and f"{hold_out}\n{column}" in held_out
    }
    largest = max(parts, key=lambda column: parts[column], default="total")
    alarm = _alarm(f"{hold_out}\n{largest}", checkpoints[excess.since], excess.change, excess.p_value)
    return alarm | {"rise": excess.rise, "expected": excess.expected}


def _alarm(name: str, since: Mapping[str, Any], change: float, p_value: float) -> dict[str, Any]:
    hold_out, _, column = name.partition("\n")
    return {
        "hold_out": hold_out,
        "dimension": column.removeprefix("dim_"),
        "since_step": int(since["step"]),
        "change": change,
        "p_value": p_value,
    }


@dataclass(frozen=True)
class Alarm:
    """The alarm of a training.

    Attributes:
        settings: None for no alarm.
        hold_outs: rewards that the training does not use, by name.
        prompts: number of validation prompts.
        checkpoints: number of checkpoints that the training judges.
    """

    settings: AlarmParameters | None
    hold_outs: Mapping[str, RewardModel]
    prompts: int
    checkpoints: int

    @property
    def possible(self) -> bool:
        """Whether so many prompts can show a fall at the level of the alarm."""
        if self.settings is None or not self.hold_outs:
            return False
        return smallest_p_value(self.prompts) <= self.settings.level / self.checkpoints

    @property
    def acts(self) -> bool:
        """Whether an alarm changes the policy."""
        return self.settings is not None and self.settings.action != "report" and self.possible

    @property
    def stops(self) -> bool:
        """Whether an alarm ends the training."""
        return self.settings is not None and self.settings.action == "stop" and self.possible

    @property
    def needed_prompts(self) -> int:
        """The smallest number of validation prompts with which an alarm is possible; 0 if it is off."""
        return 0 if self.settings is None else math.ceil(math.log2(self.checkpoints / self.settings.level))

    @property
    def depends_on(self) -> list[str]:
        """All that alarms depend on, if they change the policy."""
        if self.settings is None or not self.acts:
            return []
        parts = [part for name, reward in sorted(self.hold_outs.items()) for part in (name, *reward.depends_on)]
        return [self.settings.model_dump_json(), *parts]

    def report_absence(self) -> None:
        """Log why there can be no alarm, if there should be one."""
        if self.settings is None or not self.hold_outs or self.possible:
            return
        log = logger.info if self.settings.action == "report" else logger.warning
        log(
            "There is no alarm for reward hacking: %d validation prompts cannot show that a held-out reward falls. "
            "%d can, for %d checkpoints (dpo_training.validation)",
            self.prompts,
            self.needed_prompts,
            self.checkpoints,
        )

    def find(self, records: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
        """Test the last checkpoint against all earlier ones, and log an alarm; see :func:`find_alarm`."""
        if self.settings is None:
            return None
        if self.settings.signal == "excess" and (records[0]["step"] or not records[0].get("moments")):
            logger.warning(
                "No excess can be found: the result of the original is of an earlier version, or was deleted. Delete "
                "dpo_training.validation.folder and train again"
            )
        found = find_alarm(records, self.settings, self.checkpoints)
        if found is not None:
            logger.warning("Alarm for reward hacking after step %d: %s", records[-1]["step"], alarm_text(found))
        return found


def alarm_text(alarm: Mapping[str, Any]) -> str:
    """Describe an alarm in one clause, for the log, the validation table and the report."""
    p_value = f"(p = {alarm['p_value']:.2g})"
    if "expected" in alarm:
        most = "" if alarm["dimension"] == "total" else f", most of the rest in the dimension {alarm['dimension']}"
        return (
            f"the reward of the training rose by {alarm['rise']:+.3f} since step {alarm['since_step']}, of which the "
            f"change of {alarm['hold_out']} by {alarm['change']:+.3f} explains {alarm['expected']:+.3f} {p_value}{most}"
        )
    which = "the total" if alarm["dimension"] == "total" else f"the dimension {alarm['dimension']}"
    return (
        f"{which} of {alarm['hold_out']} changed by {alarm['change']:+.3f} since step {alarm['since_step']} "
        f"{p_value} while the reward of the training rose"
    )


def _trained(record: Mapping[str, Any]) -> dict[str, PromptMeans]:
    """Return the training's own reward by prompt, in the total and in the dimensions that the record has by prompt."""
    values: dict[str, list[float]] = {}
    for prompt, reward in record["rewards"]:
        values.setdefault(str(prompt), []).append(float(reward))
    total = {prompt: math.fsum(rewards) / len(rewards) for prompt, rewards in values.items()}
    return {**(record.get("means") or {}), "total": total}


def _columns(record: Mapping[str, Any]) -> dict[str, PromptMeans]:
    held_out = record.get("held_out") or {}
    return {f"{name}\n{column}": means for name, of_reward in held_out.items() for column, means in of_reward.items()}


def _column(name: str) -> str:
    return name.partition("\n")[2]


def _is_dimension(column: str, record: Mapping[str, Any]) -> bool:
    return column.startswith("dim_") and record.get(column) is not None


def _shared(sets: Sequence[set[str]]) -> list[str]:
    return sorted(set.intersection(*sets)) if sets else []
