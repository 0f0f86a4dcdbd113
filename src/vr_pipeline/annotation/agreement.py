"""What the answers of a study say: progress, how far people agree, and who wins a blind comparison."""

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

    A is the clip that was shown left. 'Both bad' is a tie, with True in the column both_bad; a skipped question has no
    row.
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
        criteria: what was asked, in the order of asking; criteria that only the journal has come after them.
        n_pairs: pairs on offer; None where that is not known.

    Returns:
        ``annotators`` (name, pairs answered in full, answers, median seconds, share of left among decided answers) and
        ``criteria`` (name, answers, how often each choice, skipped, agreement; for policies also win rates).
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

    Every pair counts once: of several annotators the mean of their votes decides. Annotators are crossed with prompts:
    with five or more both are taken as drawn, the variance by annotator being that of the jackknife, and the interval
    is about other people too; with fewer it is about these people (``about``).

    Args:
        table: from :func:`preference_table`; generator_a and generator_b are the policies.
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
    """Return the interval of :func:`policy_win_rate` and whom it is about, or why there is none."""
    if win["ci_low"] is None:
        return f"no interval: {win['no_interval']}"
    return f"95 % interval {win['ci_low']:.1%} to {win['ci_high']:.1%}, for {win['about']}"


def report_lines(results: dict[str, Any]) -> list[str]:
    """Return the figures in words, a line each, for a terminal."""
    lines = [f"{results['study']}: {results['answers']} answers about {results['pairs_answered']} pairs"]
    for person in results["annotators"]:
        left = "" if person["left_share"] is None else f", {person['left_share']:.0%} of the decided ones left"
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
    }
