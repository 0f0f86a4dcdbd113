"""What an evaluation found, in words: nothing is called better than its interval allows.

The judge is the reward the policies were trained on; the oracle, where there is one, had no part in training. So the
oracle decides whether clips became better, and a reward that rises for the judge alone is named as what it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from markupsafe import Markup

from vr_pipeline.evaluation.report import elements
from vr_pipeline.evaluation.report.comparison import (
    SOURCES,
    Comparison,
    Comparisons,
    Interval,
    Verdict,
    compare_all,
    rewards_by_source,
)
from vr_pipeline.evaluation.report.elements import Finding
from vr_pipeline.evaluation.report.wording import counted, percent, signed
from vr_pipeline.generators.policy import ORIGINAL
from vr_pipeline.statistics.clustered import MINIMUM_PROMPTS

_NO_INTERVAL = f"An interval takes {MINIMUM_PROMPTS} prompts that differ, so this says nothing yet."


def make(
    titles: Mapping[str, str],
    metrics: Mapping[str, Any],
    judge_rewards: pd.DataFrame,
    oracle_rewards: pd.DataFrame,
    agreement: Mapping[str, Any] | None,
) -> list[Markup]:
    """Show the few numbers at the top, and the findings in the order a reader needs them."""
    rewards = rewards_by_source(judge_rewards, oracle_rewards)
    figures = [
        Markup("<div><dt>{}</dt><dd><b>{}</b> <span>{}</span></dd></div>\n").format(
            f"{titles[policy]} gain, {source}",
            signed(record["mean"]),
            f"{signed(record['ci_low'])} to {signed(record['ci_high'])}",
        )
        for policy, source, record in _gains(titles, metrics)
    ]
    found = findings(titles, metrics, *compare_all(rewards, list(titles)), agreement)
    return [Markup('<dl class="figures">\n{}</dl>').format(Markup("").join(figures)), elements.findings(found)]


def findings(
    titles: Mapping[str, str],
    metrics: Mapping[str, Any],
    against_original: Comparisons,
    between: Comparisons,
    agreement: Mapping[str, Any] | None,
) -> list[Finding]:
    """Return all findings.

    Args:
        titles: of the policies.
        metrics: the layout of evaluation_metrics.json.
        against_original: each policy compared with the original.
        between: each policy after the baseline compared with it.
        agreement: reward_agreement; None where it was not measured.
    """
    trained = [name for name in titles if metrics["gain"].get(name)]
    found = [_setting(metrics)]
    found += [_gain(titles[name], metrics["gain"][name]) for name in trained]
    found += [_between(titles[name], titles[trained[0]], sources) for name, sources in between.items() if sources]
    for policy, sources in against_original.items():
        if sources:
            found += _losses_by_dimension(titles[policy], sources)
    found += _judge_against_oracle(metrics.get("judge_oracle_agreement") or {})
    found += [_people(agreement)] if agreement is not None else []
    failed = int(metrics["clips"]["failed"])
    if failed:
        found.append(
            Finding(f"{failed:,} clips could not be made or read and are left out of every figure.", "warning")
        )
    return found


def _gains(titles: Mapping[str, str], metrics: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any]]]:
    return [
        (policy, source, metrics["gain"][policy][source])
        for policy in titles
        for source in SOURCES
        if policy != ORIGINAL and source in metrics["gain"][policy]
    ]


def _setting(metrics: Mapping[str, Any]) -> Finding:
    clips, number = metrics["clips"], len(metrics["policies"])
    sources = {source for by_source in metrics["policies"].values() for source in by_source}
    text = (
        f"{number} {'policies were' if number > 1 else 'policy was'} evaluated on "
        f"{counted(clips['prompts'], 'held-out prompt')}, with {counted(clips['per_policy'], 'clip')} of each policy "
        "from the same seeds."
    )
    if "judge" not in sources:
        return Finding(
            text + " There is no reward in this run, so no figure says which policy is better: look at the clips, or "
            "have people compare them.",
            "warning",
        )
    text += " The judge is the reward that the policies were trained to raise."
    if "oracle" in sources:
        return Finding(text + " The oracle had no part in training: where the two differ, believe the oracle.")
    return Finding(
        text + " There is no oracle in this run, so nothing independent of the training confirms a rise: look at the "
        "clips, or have people compare them.",
        "warning",
    )


def _gain(name: str, record: Mapping[str, Any]) -> Finding:
    judge = Interval.of(record["judge"])
    text = f"{name} against the original: judge {judge}"
    if "oracle" not in record:
        return Finding(f"{text}. {_alone(judge.verdict())}")
    oracle = Interval.of(record["oracle"])
    text += f"; oracle {oracle}. "
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


def _alone(verdict: Verdict) -> str:
    return {
        "above": "The judge's reward rose; whether the clips are better, the judge alone cannot tell.",
        "below": "The judge's reward fell.",
        "unclear": "The interval includes 0: no change is shown.",
        "unknown": _NO_INTERVAL,
    }[verdict]


def _between(name: str, baseline: str, comparisons: Mapping[str, Comparison]) -> Finding:
    judge = comparisons["judge"].total
    says = judge.verdict()
    text = f"{name} minus {baseline}: judge {judge}"
    if "oracle" not in comparisons:
        return Finding(
            f"{text}. "
            + (
                "The judge alone does not show which of the two makes better clips."
                if says in ("above", "below")
                else "The two cannot be told apart."
            )
        )
    oracle = comparisons["oracle"].total
    truth = oracle.verdict()
    text += f"; oracle {oracle}. "
    if truth == "unknown":
        return Finding(text + _NO_INTERVAL, "warning")
    decided = says if truth == "unclear" else truth
    higher, lower = (name, baseline) if decided == "above" else (baseline, name)
    if truth == "unclear":
        if says not in ("above", "below"):
            return Finding(text + "Neither is shown to be better than the other.")
        # An oracle that leans the same way contradicts nothing; it is not sure.
        alone = "" if oracle.mean * judge.mean > 0 else " A gap for the judge alone is the signature of reward hacking."
        return Finding(
            text + f"The judge puts {higher} above {lower}, the oracle's interval includes 0, so {higher} is not "
            f"shown to be better than {lower}.{alone}",
            "warning",
        )
    if truth == says:
        return Finding(text + f"Both put {higher} above {lower} in this run (one training each; others may differ).")
    return Finding(text + f"The oracle puts {higher} above {lower} in this run, the judge does not.", "warning")


def _losses_by_dimension(name: str, comparisons: Mapping[str, Comparison]) -> list[Finding]:
    source = "oracle" if "oracle" in comparisons else "judge"
    worse = [
        f"{dimension}: {interval}"
        for dimension, interval in comparisons[source].dimensions.items()
        if interval.verdict() == "below"
    ]
    if not worse:
        return []
    return [
        Finding(
            f"By the {source}, {name} is below the original in {'; '.join(worse)}; the intervals hold "
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
            f"All of {counted(pairs, 'held-out preference')} are ties, which do not test how the reward orders clips.",
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
