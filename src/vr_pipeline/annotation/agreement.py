"""Figures of a study: progress, agreement of people, and win rates of a blind comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from vr_pipeline.preferences.journal import CHOICES, SKIP, Label, Study
from vr_pipeline.preferences.labels import annotator_agreement
from vr_pipeline.statistics.clustered import MINIMUM_PROMPTS, win_rate

_COLUMNS = {
    "pair": "pair_id",
    "left": "video_id_a",
    "right": "video_id_b",
    "left_generator": "generator_a",
    "right_generator": "generator_b",
}


def preference_table(labels: Sequence[Label], criterion: str) -> pd.DataFrame:
    """Return answers to one criterion with the columns of :class:`vr_pipeline.schemas.HumanPreferences`.

    A is the left clip. 'Both bad' is a tie with True in the column both_bad; skipped questions have no row.
    """
    table = pd.DataFrame([label.model_dump() for label in labels], columns=list(Label.model_fields))
    table = (
        table[(table["criterion"] == criterion) & (table["choice"] != SKIP)]
        .reset_index(drop=True)
        .rename(columns=_COLUMNS)
    )
    return table.assign(preference=table["choice"].map(CHOICES), both_bad=table["choice"] == "both_bad")


def study_results(
    study: Study, labels: Sequence[Label], criteria: Sequence[str], n_pairs: int | None = None
) -> dict[str, Any]:
    """Return all figures of a study, ready for JSON.

    Args:
        study, labels: of the journal.
        criteria: in the order of questions; other criteria of the journal follow.
        n_pairs: number of pairs; None if unknown.

    Returns:
        ``annotators`` (name, complete pairs, answers, median seconds, share of left among answers without tie) and
        ``criteria`` (name, answers, counts of choices, skipped, agreement; for policies also win rates).
    """
    asked = list(dict.fromkeys([*criteria, *(label.criterion for label in labels)]))
    return {
        "study": study.study,
        "source": study.source,
        "policies": list(study.policies),
        "pairs": n_pairs,
        "pairs_answered": len({label.pair for label in labels}),
        "answers": len(labels),
        "annotators": [
            _annotator(name, [label for label in labels if label.annotator == name], criteria)
            for name in sorted({label.annotator for label in labels})
        ],
        "criteria": [_criterion(study, labels, name) for name in asked],
    }


def policy_win_rate(table: pd.DataFrame, policy: str) -> dict[str, Any]:
    """Return how often a policy's clip is preferred, ties counting half, with a 95 % interval.

    Every pair counts once, with the mean vote of its annotators. Annotators are crossed with prompts: with five or
    more, the interval includes the variance over annotators (jackknife) and applies to other people too; with fewer, it
    is about these annotators (``about``).

    Args:
        table: from :func:`preference_table`; generator_a and generator_b are the policies.
        policy: one of them.
    """
    vote = table["preference"].map({"a": 1.0, "b": -1.0, "tie": 0.0}).astype(float)
    votes = table.assign(vote=vote.where(table["generator_a"] == policy, -vote))

    def by_pair(votes: pd.DataFrame) -> pd.DataFrame:
        return votes.groupby("pair_id", sort=True).agg(vote=("vote", "mean"), prompt=("prompt_id", "first"))

    pairs, people = by_pair(votes), sorted(set(votes["annotator"]))
    crossed = None
    if len(people) >= MINIMUM_PROMPTS:
        without = [by_pair(votes[votes["annotator"] != name])["vote"].to_numpy(dtype=np.float64) for name in people]
        rates = np.array([win_rate(each, np.arange(len(each))).rate for each in without])
        crossed = (len(people) - 1) * float(np.nanvar(rates)), len(people)
    rate = win_rate(pairs["vote"].to_numpy(dtype=np.float64), pairs["prompt"].tolist(), crossed=crossed)
    about = "people" if crossed else "these annotators"
    return {"policy": policy, "pairs": len(pairs), "about": about, **rate.to_json()}


def interval_words(win: dict[str, Any]) -> str:
    """Return the interval of :func:`policy_win_rate` in words, or the reason for its absence."""
    if win["ci_low"] is None:
        return f"no interval: {win['no_interval']}"
    return f"95 % interval {win['ci_low']:.1%} to {win['ci_high']:.1%}, for {win['about']}"


def report_lines(results: dict[str, Any]) -> list[str]:
    """Return lines with the figures for a terminal."""
    lines = [f"{results['study']}: {results['answers']} answers about {results['pairs_answered']} pairs"]
    for person in results["annotators"]:
        left = "" if person["left_share"] is None else f", {person['left_share']:.0%} left of those without tie"
        lines.append(
            f"  {person['annotator']}: {person['pairs']} pairs, {person['answers']} answers, "
            f"median {person['median_seconds']:.1f} s{left}"
        )
    for criterion in results["criteria"]:
        if not criterion["answers"] and not criterion["skipped"]:
            continue
        shares = criterion["choices"]
        skipped = f", skipped {criterion['skipped']}" if criterion["skipped"] else ""
        lines.append(
            f"{criterion['criterion']}: {criterion['answers']} answers (left {shares['left']}, "
            f"right {shares['right']}, tie {shares['tie']}, both bad {shares['both_bad']}{skipped})"
        )
        agreement = criterion["agreement"]
        if agreement["pairs_with_several"]:
            kappa = agreement["fleiss_kappa"]
            lines.append(
                f"  {agreement['pairs_with_several']} pairs with several annotators: they agree in "
                f"{agreement['raw_agreement']:.0%}, Fleiss' kappa {'not defined' if kappa is None else f'{kappa:.2f}'}"
            )
        lines += [
            f"  {win['policy']} wins {win['rate']:.1%} of {win['pairs']} pairs, {interval_words(win)} "
            f"({win['wins']} won, {win['ties']} tied, {win['losses']} lost)"
            for win in criterion["win_rates"]
        ]
        lines += [
            f"  {win['policy']} against {win['against']}: wins {win['rate']:.1%} of {win['pairs']} pairs, "
            f"{interval_words(win)} ({win['wins']} won, {win['ties']} tied, {win['losses']} lost)"
            for win in criterion.get("generator_pairs", ())
        ]
    return lines


def _annotator(name: str, labels: Sequence[Label], criteria: Sequence[str]) -> dict[str, Any]:
    answered: dict[str, set[str]] = {}
    for label in labels:
        answered.setdefault(label.pair, set()).add(label.criterion)
    decided = [label.choice == "left" for label in labels if label.choice in ("left", "right")]
    return {
        "annotator": name,
        "pairs": sum(set(criteria) <= given for given in answered.values()),
        "answers": len(labels),
        "median_seconds": float(np.median([label.seconds for label in labels])),
        "left_share": sum(decided) / len(decided) if decided else None,
    }


def _criterion(study: Study, labels: Sequence[Label], name: str) -> dict[str, Any]:
    table = preference_table(labels, name)
    return {
        "criterion": name,
        "answers": len(table),
        "choices": {choice: int((table["choice"] == choice).sum()) for choice in CHOICES},
        "skipped": sum(label.criterion == name and label.choice == SKIP for label in labels),
        "agreement": annotator_agreement(table),
        "win_rates": [policy_win_rate(table, policy) for policy in reversed(study.policies)] if len(table) else [],
        **({"generator_pairs": _between_generators(table)} if study.source == "generators" else {}),
    }


def _between_generators(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the win rate of the first of every two compared generators, in alphabetical order."""
    ends = [tuple(sorted(two)) for two in zip(table["generator_a"], table["generator_b"], strict=True)]
    place = pd.Series(ends, index=table.index, dtype=object)
    return [
        {**policy_win_rate(table[place == (one, other)], one), "against": other}
        for one, other in sorted(set(ends))
        if one != other
    ]
