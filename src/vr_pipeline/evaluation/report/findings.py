"""What an evaluation found, in words: nothing is called better than its interval allows.

The judge is the reward the policies were trained on; the oracle, where there is one, had no part in training. So the
oracle decides whether clips became better, and a reward that rises for the judge alone is named as what it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from vr_pipeline.generators.policy import ORIGINAL
from vr_pipeline.statistics.clustered import MINIMUM_PROMPTS, paired_gain, simultaneous

Verdict = Literal["above", "below", "unclear", "unknown"]
Tone = Literal["plain", "good", "warning"]

NAMES = {ORIGINAL: "Original", "dpo": "DPO", "mpo": "MPO"}


def policy_name(policy: str) -> str:
    """The name shown for a policy."""
    return NAMES.get(policy, policy)


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval; NaN where there were too few prompts for one."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, record: Mapping[str, Any], key: str = "mean") -> Interval:
        """The interval in a record of the metrics (null as NaN)."""
        return cls(*(_number(record.get(name)) for name in (key, "ci_low", "ci_high")))

    def verdict(self, reference: float = 0.0) -> Verdict:
        """On which side of a reference the whole interval lies."""
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            return "unknown"
        if self.low > reference:
            return "above"
        return "below" if self.high < reference else "unclear"


@dataclass(frozen=True)
class Finding:
    """One statement of the summary."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Comparison:
    """One policy against another by one source, over all and by dimension.

    Attributes:
        total: difference of total rewards.
        dimensions: difference by dimension; these intervals hold together for all ``together`` that are read at once.
        effect: difference of totals in standard deviations of the baseline's clips, which allows to set sources side
            by side although their rewards have different scales; NaN where the baseline never varies.
    """

    policy: str
    baseline: str
    source: str
    total: Interval
    dimensions: dict[str, Interval]
    effect: float
    together: int = 1


def compare(rewards: pd.DataFrame, policy: str, baseline: str, source: str, *, policies: int = 1) -> Comparison:
    """Difference of two policies with 95 % intervals over the prompts that both have.

    The interval of the total is for itself. Those of the dimensions hold together (Bonferroni): among many, some would
    be beyond 0 by chance.

    Args:
        rewards: one row a clip: prompt_id, policy, total, dim_<name>.
        policies: comparisons of policies that are read at once.
    """
    dimensions = [str(name) for name in rewards.columns if str(name).startswith("dim_")]
    together = policies * len(dimensions)
    parts = {name: rewards[rewards["policy"] == name] for name in (policy, baseline)}
    shared = set(parts[policy]["prompt_id"]) & set(parts[baseline]["prompt_id"])
    ours, theirs = (parts[name][parts[name]["prompt_id"].isin(shared)] for name in (policy, baseline))

    def difference(column: str, level: float) -> Interval:
        gain = paired_gain(
            ours[column].to_numpy(),
            ours["prompt_id"].to_numpy(dtype=str),
            theirs[column].to_numpy(),
            theirs["prompt_id"].to_numpy(dtype=str),
            level=level,
        )
        return Interval(gain.mean, gain.ci_low, gain.ci_high)

    total = difference("total", 0.95)
    deviation = float(np.std(theirs["total"].to_numpy(dtype=np.float64))) if len(theirs) else math.nan
    return Comparison(
        policy=policy,
        baseline=baseline,
        source=source,
        total=total,
        dimensions={name.removeprefix("dim_"): difference(name, simultaneous(together)) for name in dimensions},
        effect=total.mean / deviation if deviation > 1e-9 else math.nan,
        together=together,
    )


def summary(
    metrics: Mapping[str, Any],
    against_original: Mapping[str, Mapping[str, Comparison]],
    between: Mapping[str, Comparison],
    agreement: Mapping[str, Any] | None = None,
) -> list[Finding]:
    """The findings in the order a reader needs them.

    Args:
        metrics: the layout of evaluation_metrics.json.
        against_original: policy -> source -> comparison with the original.
        between: source -> MPO compared with DPO; empty where one of them was not evaluated.
        agreement: reward_agreement, which has intervals; the figures of the metrics without it.
    """
    has_oracle = any("oracle" in sources for sources in metrics["policies"].values())
    findings = [_setting(metrics, has_oracle)]
    findings += [_gain(policy, record) for policy, record in sorted(metrics["gain"].items())]
    if between:
        findings.append(_mpo_against_dpo(between))
    findings += [
        finding for policy in against_original for finding in _losses_by_dimension(policy, against_original[policy])
    ]
    findings += _judge_against_oracle(metrics.get("judge_oracle_agreement") or {})
    findings.append(_people(agreement or metrics["agreement"]))
    failed = int(metrics["clips"]["failed"])
    if failed:
        findings.append(
            Finding(f"{failed:,} clips could not be made or read and are left out of every figure.", "warning")
        )
    return findings


def _setting(metrics: Mapping[str, Any], has_oracle: bool) -> Finding:
    clips, number = metrics["clips"], len(metrics["policies"])
    text = (
        f"{number} {'policies were' if number > 1 else 'policy was'} evaluated on "
        f"{_count(clips['prompts'], 'held-out prompt')}, with {_count(clips['per_policy'], 'clip')} of each policy "
        "from the same seeds. The judge is the reward that the policies were trained to raise."
    )
    if has_oracle:
        return Finding(text + " The oracle had no part in training: where the two differ, believe the oracle.")
    return Finding(
        text + " There is no oracle in this run, so nothing independent of the training confirms a rise: look at the "
        "clips, or have people compare them.",
        "warning",
    )


def _gain(policy: str, record: Mapping[str, Any]) -> Finding:
    name = policy_name(policy)
    judge = Interval.of(record["judge"])
    text = f"{name} against the original: judge {interval_words(judge)}"
    if "oracle" not in record:
        return Finding(f"{text}. {_alone(judge.verdict())}")
    oracle = Interval.of(record["oracle"])
    text += f"; oracle {interval_words(oracle)}. "
    says, truth = judge.verdict(), oracle.verdict()
    if "unknown" in (says, truth):
        return Finding(text + _NO_INTERVAL, "warning")
    if truth == "above":
        if says == "above":
            return Finding(text + f"Both see {name}'s clips as better than the original's.", "good")
        return Finding(text + f"The oracle sees {name}'s clips as better, although the judge does not.", "good")
    if says == "above":
        seen = "worse clips" if truth == "below" else "no difference that its interval could tell from none"
        return Finding(
            text + f"The judge's reward rises while the oracle sees {seen}: this is the signature of reward hacking, "
            f"so do not read it as an improvement.",
            "warning",
        )
    if truth == "below":
        return Finding(text + f"The oracle sees {name}'s clips as worse than the original's.", "warning")
    return Finding(text + "No improvement is shown.")


_NO_INTERVAL = f"An interval takes {MINIMUM_PROMPTS} prompts that differ, so this says nothing yet."


def _alone(verdict: Verdict) -> str:
    return {
        "above": "The judge's reward rose; whether the clips are better, the judge alone cannot tell.",
        "below": "The judge's reward fell.",
        "unclear": "The interval includes 0: no change is shown.",
        "unknown": _NO_INTERVAL,
    }[verdict]


def _mpo_against_dpo(between: Mapping[str, Comparison]) -> Finding:
    judge = between["judge"].total
    says = judge.verdict()
    text = f"MPO minus DPO: judge {interval_words(judge)}"
    if "oracle" not in between:
        return Finding(
            f"{text}. "
            + (
                "The judge alone does not show which of the two makes better clips."
                if says in ("above", "below")
                else "The two cannot be told apart."
            )
        )
    oracle = between["oracle"].total
    truth = oracle.verdict()
    text += f"; oracle {interval_words(oracle)}. "
    if truth == "unknown":
        return Finding(text + _NO_INTERVAL, "warning")
    if truth == "unclear":
        if says in ("above", "below"):
            higher, lower = ("MPO", "DPO") if says == "above" else ("DPO", "MPO")
            # An oracle that leans the same way contradicts nothing; it is not sure.
            alone = (
                "" if oracle.mean * judge.mean > 0 else " A gap for the judge alone is the signature of reward hacking."
            )
            return Finding(
                text + f"The judge puts {higher} above {lower}, the oracle's interval includes 0, so {higher} is not "
                f"shown to be better than {lower}.{alone}",
                "warning",
            )
        return Finding(text + "Neither is shown to be better than the other.")
    higher, lower = ("MPO", "DPO") if truth == "above" else ("DPO", "MPO")
    if truth == says:
        return Finding(text + f"Both put {higher} above {lower} in this run (one training each; others may differ).")
    return Finding(text + f"The oracle puts {higher} above {lower} in this run, the judge does not.", "warning")


def _losses_by_dimension(policy: str, comparisons: Mapping[str, Comparison]) -> list[Finding]:
    source = "oracle" if "oracle" in comparisons else "judge"
    worse = [
        f"{name}: {interval_words(interval)}"
        for name, interval in comparisons[source].dimensions.items()
        if interval.verdict() == "below"
    ]
    if not worse:
        return []
    return [
        Finding(
            f"By the {source}, {policy_name(policy)} is below the original in {'; '.join(worse)}; the intervals hold "
            f"together for all {comparisons[source].together} comparisons of policies and dimensions (Bonferroni).",
            "warning",
        )
    ]


def _judge_against_oracle(agreement: Mapping[str, Any]) -> list[Finding]:
    if not agreement:
        return []
    text = f"Judge and oracle give the same answer in {percent(agreement['overall'])} of cases on these clips"
    questions = agreement.get("questions") or {}
    lowest = sorted(questions.items(), key=lambda item: (item[1], item[0]))[:3]
    if lowest:
        text += "; least often on " + ", ".join(f"{name} ({percent(value)})" for name, value in lowest)
    return [Finding(text + ".")]


def _people(agreement: Mapping[str, Any]) -> Finding:
    pairs = int(agreement["n"])
    if not pairs:
        return Finding("There were no held-out preferences to test the reward on.", "warning")
    decided = pairs - int(agreement["n_ties"])
    if not decided:
        return Finding(
            f"All of {_count(pairs, 'held-out preference')} are ties, which do not test how the reward orders clips.",
            "warning",
        )
    intervals = agreement.get("intervals") or {}

    def share(name: str) -> str:
        low, high = intervals.get(name) or (None, None)
        if low is None or high is None:
            return percent(agreement[name])
        return f"{percent(agreement[name])} (95 % interval {percent(low)} to {percent(high)})"

    return Finding(
        f"Held-out preferences: the reward orders {share('diff')} of the {decided:,} without a tie as the annotators "
        f"did (diff), and is right on {share('tau')} of all {pairs:,}, ties included (tau)."
    )


def interval_words(interval: Interval) -> str:
    """A difference with its interval, for a sentence or a table's cell."""
    if not math.isfinite(interval.mean):
        return "not known"
    if not (math.isfinite(interval.low) and math.isfinite(interval.high)):
        return f"{signed(interval.mean)} (no interval)"
    return f"{signed(interval.mean)} (95 % interval {signed(interval.low)} to {signed(interval.high)})"


def signed(value: float | None, digits: int = 2) -> str:
    """A number with its sign; a dash where there is none, and no sign where it rounds to 0."""
    number = _number(value)
    if not math.isfinite(number):
        return "–"
    text = f"{number:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def plain(value: float | None, digits: int = 2) -> str:
    """A number with so many digits after the point; a dash where there is none."""
    number = _number(value)
    if not math.isfinite(number):
        return "–"
    text = f"{number:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def percent(value: float | None) -> str:
    """A share of 0 to 1 as a percentage."""
    number = _number(value)
    return f"{100 * number:.1f} %" if math.isfinite(number) else "–"


def validation_remarks(validations: Mapping[str, pd.DataFrame]) -> list[Finding]:
    """Which checkpoint became the policy, and whether any was better than the original by the judge.

    Args:
        validations: judged checkpoints by policy, as :class:`vr_pipeline.schemas.ValidationLog`.
    """
    remarks = []
    for policy, table in sorted(validations.items()):
        chosen, original = table[table["chosen"].astype(bool)], table[table["step"] == 0]
        if chosen.empty or original.empty:
            continue
        step, reward, before = int(chosen["step"].iloc[0]), float(chosen["reward"].iloc[0]), original["reward"].iloc[0]
        text = (
            f"{policy_name(policy)} is the checkpoint after step {step} of {int(table['step'].max())}, with the "
            f"highest validation reward: {plain(reward)}, the original {plain(float(before))}. The highest of several "
            "is rather too high; the figures above are from other prompts."
        )
        if table.loc[~table["chosen"].astype(bool), "gap_low"].isna().any():
            text += " There are too few validation prompts to tell how far the checkpoints differ on others."
        # The interval of the lead holds 0: on other prompts the order might be the other way round.
        alike = table[(table["step"] > 0) & (table["gap_low"] <= 0) & (table["gap_high"] >= 0)]["step"].astype(int)
        if len(alike):
            text += (
                " On these validation prompts it cannot be told from "
                f"{'that' if len(alike) == 1 else 'those'} after step {', '.join(map(str, alike))} (95 % intervals of "
                "the difference on the same prompts hold 0); more validation prompts would tell."
            )
        if reward > before:
            remarks.append(Finding(text))
        else:
            remarks.append(Finding(f"{text} No checkpoint was above the original: training did not help.", "warning"))
    return remarks


def training_remarks(
    logs: Mapping[str, pd.DataFrame], validations: Mapping[str, pd.DataFrame] | None = None
) -> list[Finding]:
    """What validation and the ends of the training curves say, where it is worth a sentence."""
    remarks = validation_remarks(validations or {})
    for policy, log in logs.items():
        ends = log_ends(log)
        kept = _kept_step(log, (validations or {}).get(policy))
        earlier = f" The policy is an earlier checkpoint, after step {kept}." if kept is not None else ""
        winners, losers = ends.get("winner_change"), ends.get("loser_change")
        if winners and losers and winners[1] > 0:
            remarks.append(
                Finding(
                    f"{policy_name(policy)} models even the winners worse than the reference at the end "
                    f"({signed(winners[1], 4)}; losers {signed(losers[1], 4)}). The pairs push it away from the losers "
                    f"more than towards the winners; a smaller learning rate or a larger beta holds it back.{earlier}",
                    "warning",
                )
            )
        accuracy = ends.get("implicit_accuracy")
        if accuracy and accuracy[1] < 0.55:
            remarks.append(
                Finding(
                    f"{policy_name(policy)} orders only {percent(accuracy[1])} of its own training pairs rightly at "
                    f"the end, hardly more than chance.{earlier}",
                    "warning",
                )
            )
        saturation = ends.get("saturation")
        if saturation and saturation[1] > 0.9:
            remarks.append(
                Finding(
                    f"{policy_name(policy)}'s loss is saturated ({percent(saturation[1])} of the gradient is lost at "
                    f"the end): lower beta or the number of steps.{earlier}",
                    "warning",
                )
            )
    return remarks


def _kept_step(log: pd.DataFrame, validation: pd.DataFrame | None) -> int | None:
    """The step of the checkpoint that became the policy, where training went on after it."""
    if validation is None or not len(log) or not validation["chosen"].astype(bool).any():
        return None
    step = int(validation.loc[validation["chosen"].astype(bool), "step"].iloc[0])
    return step if step < int(log["step"].max()) else None


def log_ends(log: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Mean of the first and of the last tenth of the steps, for every column but the step."""
    tenth = max(1, len(log) // 10)
    ends = {}
    for column in log.columns:
        values = pd.to_numeric(log[column], errors="coerce").to_numpy(dtype=np.float64)
        first, last = values[:tenth], values[-tenth:]
        if column != "step" and np.isfinite(first).any() and np.isfinite(last).any():
            ends[str(column)] = (float(np.nanmean(first)), float(np.nanmean(last)))
    return ends


def question_bias(
    judge_answers: pd.DataFrame, oracle_answers: pd.DataFrame, index: pd.DataFrame, policies: Sequence[str]
) -> pd.DataFrame:
    """How much more often the judge says yes than the oracle, by question (rows) and policy (columns).

    A share that is larger for a trained policy than for the original marks a question on which training found clips
    that please the judge only. Empty without an oracle.
    """
    both = judge_answers[["video_id", "question_id", "p_yes"]].merge(
        oracle_answers[["video_id", "question_id", "p_yes"]],
        on=["video_id", "question_id"],
        suffixes=("_judge", "_oracle"),
    )
    both = both.merge(index[["video_id", "policy"]], on="video_id")
    if both.empty:
        return pd.DataFrame(columns=list(policies))
    both["excess"] = (both["p_yes_judge"] > 0.5).astype(float) - (both["p_yes_oracle"] > 0.5).astype(float)
    return both.pivot_table(index="question_id", columns="policy", values="excess", aggfunc="mean").reindex(
        columns=list(policies)
    )


def _count(number: int, what: str) -> str:
    return f"{int(number):,} {what}{'' if int(number) == 1 else 's'}"


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
