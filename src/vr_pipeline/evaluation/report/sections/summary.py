"""The findings of an evaluation in words, within the limits of the intervals.

The judge is the reward of training. The witness is the auditor, which had no part in labels, preferences or training,
or else the oracle, which had no part in training. The witness decides whether clips improved, and a gain by the judge
alone is reported as possible reward hacking.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from markupsafe import Markup

from vr_pipeline.evaluation.metrics import rewards_by_source
from vr_pipeline.evaluation.report import elements
from vr_pipeline.evaluation.report.comparison import (
    SOURCES,
    Comparison,
    Comparisons,
    Interval,
    Verdict,
    compare_all,
    witness,
)
from vr_pipeline.evaluation.report.elements import Cell, Cells, Finding, Table, sort_key
from vr_pipeline.evaluation.report.wording import counted, percent, signed
from vr_pipeline.generators.policy import ORIGINAL
from vr_pipeline.statistics.clustered import MINIMUM_PROMPTS

_NO_INTERVAL = f"An interval needs {MINIMUM_PROMPTS} prompts with different gains, so there is no result yet."


def make(
    titles: Mapping[str, str],
    metrics: Mapping[str, Any],
    judge_rewards: pd.DataFrame,
    oracle_rewards: pd.DataFrame,
    auditor_rewards: pd.DataFrame | None,
    agreement: Mapping[str, Any] | None,
) -> list[Markup]:
    """Show the main figures, the findings, and the gains by dimension."""
    rewards = rewards_by_source(judge_rewards, oracle_rewards, auditor_rewards)
    figures = [
        Markup("<div><dt>{}</dt><dd><b>{}</b> <span>{}</span></dd></div>\n").format(
            f"{titles[policy]} gain, {source}",
            signed(record["mean"]),
            f"{signed(record['ci_low'])} to {signed(record['ci_high'])}",
        )
        for policy, source, record in _gains(titles, metrics)
    ]
    against_original, between = compare_all(rewards, list(titles))
    found = findings(titles, metrics, against_original, between, agreement)
    return [
        Markup('<dl class="figures">\n{}</dl>').format(Markup("").join(figures)),
        elements.findings(found),
        *(elements.table(_by_dimension(titles, against_original, source)) for source in rewards),
    ]


def _by_dimension(titles: Mapping[str, str], against_original: Comparisons, source: str) -> Table:
    """Return the gains of every policy by dimension, marked if their interval excludes 0."""
    compared = {titles[name]: sources[source] for name, sources in against_original.items()}
    dimensions = next(iter(compared.values())).dimensions if compared else {}
    rows: list[Cells] = []
    for title, comparison in compared.items():
        gains = [comparison.total, *(comparison.dimensions[name] for name in dimensions)]
        rows.append([title, *map(_gain_cell, gains)])
    return Table(
        f"{SOURCES[source]}: gain over the original in total and by dimension, with 95 % intervals (joint for all "
        "dimensions, single for the total)",
        ["Policy", "Total", *dimensions],
        rows,
    )


def _gain_cell(gain: Interval) -> Cell:
    colours: dict[str, str] = {"above": "good", "below": "warning"}
    ends = Markup("<br><small>{}</small>").format(f"{signed(gain.low)} to {signed(gain.high)}")
    verdict = gain.verdict()
    return Cell(
        signed(gain.mean), sort_key(gain.mean), ends if verdict != "unknown" else Markup(), colours.get(verdict, "")
    )


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
        agreement: reward_agreement; None if not measured.
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
        found.append(Finding(f"{failed:,} clips could not be made or read; no figure includes them.", "warning"))
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
            text
            + " This run has no reward, so no figure shows which policy is better: look at the clips, or have people "
            "compare them.",
            "warning",
        )
    text += " The judge is the reward that the policies were trained to raise."
    if "auditor" in sources:
        return Finding(
            text
            + " The auditor, fitted on rendered clips with exact answers, had no part in labels, preferences, pairs "
            "or training: where they differ, trust the auditor."
        )
    if "oracle" in sources:
        return Finding(text + " The oracle had no part in training: where the two differ, trust the oracle.")
    return Finding(
        text + " No measure independent of the training can confirm a gain: look at the clips, or have people compare "
        "them.",
        "warning",
    )


def _gain(name: str, record: Mapping[str, Any]) -> Finding:
    judge = Interval.of(record["judge"])
    text = f"{name} against the original: judge {judge}"
    other = witness(record)
    if other is None:
        return Finding(f"{text}. {_alone(judge.verdict())}")
    text += _others({source: Interval.of(one) for source, one in record.items()})
    by_judge, truth = judge.verdict(), Interval.of(record[other]).verdict()
    if "unknown" in (by_judge, truth):
        return Finding(text + _NO_INTERVAL, "warning")
    if truth == "above":
        if by_judge == "above":
            return Finding(text + f"By judge and {other}, {name}'s clips are better than the original's.", "good")
        return Finding(text + f"By the {other}, {name}'s clips are better, although not by the judge.", "good")
    if by_judge == "above":
        seen = "worse clips" if truth == "below" else "no difference beyond its interval"
        return Finding(
            text + f"The judge's reward rises while the {other} shows {seen}. This is a sign of reward hacking, not an "
            "improvement.",
            "warning",
        )
    if truth == "below":
        return Finding(text + f"By the {other}, {name}'s clips are worse than the original's.", "warning")
    return Finding(text + "No improvement is shown.")


def _others(intervals: Mapping[str, Interval]) -> str:
    """Return the intervals by the sources other than the judge."""
    return "".join(f"; {name} {intervals[name]}" for name in SOURCES if name in intervals and name != "judge") + ". "


def _alone(verdict: Verdict) -> str:
    return {
        "above": "The judge's reward rose; the judge alone cannot show whether the clips are better.",
        "below": "The judge's reward fell.",
        "unclear": "The interval includes 0: no change is shown.",
        "unknown": _NO_INTERVAL,
    }[verdict]


def _between(name: str, baseline: str, comparisons: Mapping[str, Comparison]) -> Finding:
    judge = comparisons["judge"].total
    by_judge = judge.verdict()
    text = f"{name} minus {baseline}: judge {judge}"
    other = witness(comparisons)
    if other is None:
        return Finding(
            f"{text}. "
            + (
                "The judge alone does not show which of the two makes better clips."
                if by_judge in ("above", "below")
                else "No difference between the two is shown."
            )
        )
    trusted = comparisons[other].total
    truth = trusted.verdict()
    text += _others({source: comparison.total for source, comparison in comparisons.items()})
    if truth == "unknown":
        return Finding(text + _NO_INTERVAL, "warning")
    decided = by_judge if truth == "unclear" else truth
    higher, lower = (name, baseline) if decided == "above" else (baseline, name)
    if truth == "unclear":
        if by_judge not in ("above", "below"):
            return Finding(text + "Neither is shown to be better than the other.")
        # A witness with the same sign does not contradict the judge.
        alone = "" if trusted.mean * judge.mean > 0 else " A difference by the judge alone is a sign of reward hacking."
        return Finding(
            text + f"The judge ranks {higher} above {lower}, but the {other}'s interval includes 0, so {higher} is not "
            f"shown to be better than {lower}.{alone}",
            "warning",
        )
    if truth == by_judge:
        return Finding(
            text + f"Judge and {other} rank {higher} above {lower} in this run (one training each; others may differ)."
        )
    return Finding(text + f"The {other} ranks {higher} above {lower} in this run, but the judge does not.", "warning")


def _losses_by_dimension(name: str, comparisons: Mapping[str, Comparison]) -> list[Finding]:
    found = []
    for source, comparison in comparisons.items():
        worse = [
            f"{dimension}: {interval}"
            for dimension, interval in comparison.dimensions.items()
            if interval.verdict() == "below"
        ]
        if worse:
            text = (
                f"By the {source}, {name} is below the original in {'; '.join(worse)}; intervals are joint for all "
                f"{comparison.together} comparisons of policies and dimensions (Bonferroni)."
            )
            found.append(Finding(text, "warning"))
    return found


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
        return Finding("There are no held-out preferences to test the reward.", "warning")
    decided = pairs - int(agreement["n_ties"])
    if not decided:
        return Finding(
            f"All of {counted(pairs, 'held-out preference')} are ties, which do not test the order of rewards.",
            "warning",
        )
    intervals = agreement.get("intervals") or {}

    def share(name: str) -> str:
        low, high = intervals.get(name) or (None, None)
        if low is None or high is None:
            return percent(agreement[name])
        return f"{percent(agreement[name])} (95 % interval {percent(low)} to {percent(high)})"

    return Finding(
        f"Held-out preferences: the reward agrees with the annotators on {share('diff')} of the {decided:,} without a "
        f"tie (diff), and on {share('tau')} of all {pairs:,} including ties (tau)."
    )
