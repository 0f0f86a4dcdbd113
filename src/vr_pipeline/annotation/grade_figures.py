"""Figures of grades: agreement of annotators, disputes, and annotators who are too fast."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Literal

import numpy as np

from vr_pipeline.annotation.guide import GradingGuide
from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.preferences.journal import Grade, Study
from vr_pipeline.statistics.agreement import without_nan
from vr_pipeline.statistics.clustered import MINIMUM_PROMPTS, Kind, interval
from vr_pipeline.statistics.labels import FloatArray

Ranks = Mapping[str, Mapping[str, int]]
_MEASURES: tuple[tuple[str, Kind, int], ...] = (("binary", "share", 0), ("exact", "share", 2), ("alpha", "number", 2))
"""Name, kind of interval, and index of the sum that counts the observations."""


def grade_ranks(checklist: Checklist) -> dict[str, dict[str, int]]:
    """Return the rank of each grade in its sub-dimension's scale, with 0 for the worst."""
    return {
        sub.name: {grade: len(sub.scale) - 1 - place for place, grade in enumerate(sub.scale)}
        for sub in checklist.graded
    }


def training_rounds(own: Sequence[Grade]) -> list[tuple[int, int]]:
    """Return the numbers of answers and correct answers of each training round; (0, 0) before the first."""
    rounds = [[0, 0]]
    for label in own:
        if label.part == "training":
            rounds += [[0, 0] for _ in range(label.round + 1 - len(rounds))]
            rounds[label.round][0] += 1
            rounds[label.round][1] += label.grade == label.right
    return [(answered, right) for answered, right in rounds]


def dispute(grades: Sequence[Grade], ranks: Ranks, guide: GradingGuide) -> Literal["none", "open", "settled"]:
    """Return whether the first ``annotators_per_clip`` grades differ too much, and whether another settles it."""
    given = [ranks[one.criterion][one.grade] for one in grades if one.grade]
    first = given[: guide.annotators_per_clip]
    if len(first) < 2 or max(first) - min(first) <= guide.adjudicate_above:
        return "none"
    return "settled" if len(given) > len(first) else "open"


def grade_results(
    study: Study, labels: Sequence[Grade], checklist: Checklist, guide: GradingGuide, n_clips: int | None = None
) -> dict[str, Any]:
    """Return all figures of a study of grades, ready for JSON.

    Consistency has three measures with 95 % intervals by clip: ``binary``, the share of pairs of annotators with the
    same yes/no answer, over all clips and questions that both grades answer (VisionReward, section 3.1: 89.33 % for
    videos, 89.29 % for images); ``exact``, the share with the same grade; ``alpha``, Krippendorff's for intervals, on
    ranks of grades. They use the first ``annotators_per_clip`` only, since others follow disagreement.

    Args:
        study, labels: of the journal.
        checklist, guide: of the study.
        n_clips: number of clips; None if unknown.

    Returns:
        ``annotators``, ``criteria``, ``consistency``, ``adjudication`` (numbers of ``open`` and ``settled`` disputes)
        and ``reasons`` of skipped questions.
    """
    ranks = grade_ranks(checklist)
    own = [label for label in labels if label.part == "clip"]
    by_question: dict[tuple[str, str], list[Grade]] = defaultdict(list)
    for label in own:
        by_question[label.video_id, label.criterion].append(label)
    states = Counter((name, dispute(given, ranks, guide)) for (_, name), given in by_question.items())
    counts = Counter((label.criterion, label.grade) for label in own)
    figures = _consistency(by_question, checklist, guide)
    criteria = [
        {
            "criterion": name,
            "answers": sum(counts[name, grade] for grade in grades),
            "grades": {grade: counts[name, grade] for grade in grades},
            "skipped": counts[name, ""],
            "open": states[name, "open"],
            "settled": states[name, "settled"],
            **figures[name],
        }
        for name, grades in ranks.items()
    ]
    return {
        "study": study.study,
        "source": study.source,
        "checklist": study.checklist,
        "clips": n_clips,
        "clips_graded": len({label.video_id for label in own}),
        "answers": len(own),
        "annotators": _annotators(labels, ranks, guide),
        "consistency": figures[""],
        "criteria": criteria,
        "adjudication": {
            "above": guide.adjudicate_above,
            **{
                state: sum(count for (_, one), count in states.items() if one == state) for state in ("open", "settled")
            },
        },
        "reasons": dict(Counter(label.reason for label in own if not label.grade).most_common()),
    }


def _alpha_parts(count: FloatArray, total: FloatArray, squares: FloatArray) -> tuple[FloatArray, ...]:
    """Return each clip's terms of alpha: number, sum and squares of its grades, and squared differences within.

    Args:
        count, total, squares: number, sum and sum of squares, [clips, ...]; clips with fewer than two are ignored.
    """
    several = count >= 2
    m, s, q = (np.where(several, each, 0.0) for each in (count, total, squares))
    return m, s, q, 2 * (m * q - s**2) / np.where(several, m - 1, 1.0)


def _alpha(n: FloatArray, s: FloatArray, q: FloatArray, within: FloatArray) -> FloatArray:
    """Return Krippendorff's alpha for intervals from sums over clips; NaN if all grades are equal.

    alpha = 1 - D_o / D_e, with D_o the mean squared difference within clips, weighted by grades, and D_e that between
    any two grades (Krippendorff 2011, Computing Krippendorff's Alpha-Reliability).
    """
    return 1.0 - _divided(within * (n - 1), 2 * (n * q - s**2))


def _divided(part: FloatArray, whole: FloatArray) -> FloatArray:
    """Return a ratio, NaN if undefined."""
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 1e-9)


def _consistency(
    by_question: Mapping[tuple[str, str], Sequence[Grade]], checklist: Checklist, guide: GradingGuide
) -> dict[str, dict[str, Any]]:
    """Return the measures of each sub-dimension, and of all under ""."""
    subs = {sub.name: sub for sub in checklist.graded}
    ranks, columns = grade_ranks(checklist), {name: place for place, name in enumerate(subs)}
    first = {
        key: [label.grade for label in given if label.grade][: guide.annotators_per_clip]
        for key, given in by_question.items()
    }
    clips = sorted({video for (video, _), given in first.items() if len(given) >= 2})
    rows = {video: place for place, video in enumerate(clips)}
    # By clip and sub-dimension: pairs and agreeing pairs of answers, then of grades; number, sum, squares of ranks.
    sums = np.zeros((7, len(clips), len(subs)))
    for (video, name), given in first.items():
        if len(given) < 2:
            continue
        place = sums[:, rows[video], columns[name]]
        for one, other in combinations(given, 2):
            answers = zip(subs[name].scale[one], subs[name].scale[other], strict=True)
            both = [x == y for x, y in answers if x is not None and y is not None]
            place[:4] += len(both), sum(both), 1, one == other
        values = np.array([ranks[name][grade] for grade in given], dtype=np.float64)
        place[4:] += len(values), values.sum(), (values**2).sum()

    parts = np.stack([*sums[:4], *_alpha_parts(*sums[4:])])

    def measures(parts: FloatArray) -> FloatArray:
        """Return [measures, ..., all and each sub-dimension] of sums [parts, ..., sub-dimensions]."""
        alpha = _alpha(*parts[4:])
        defined = np.isfinite(alpha)
        mean = _divided(np.where(defined, alpha, 0.0).sum(axis=-1), defined.sum(axis=-1).astype(np.float64))
        pairs = np.concatenate([parts[:4].sum(axis=-1, keepdims=True), parts[:4]], axis=-1)
        shares = [_divided(pairs[at + 1], pairs[at]) for at in (0, 2)]
        return np.stack([*shares, np.concatenate([mean[..., None], alpha], axis=-1)])

    total = parts.sum(axis=1)
    whole = measures(total)
    without = measures(total[:, None] - parts)
    found: dict[str, dict[str, Any]] = {}
    for column, name in enumerate(["", *subs]):
        several = (sums[2] if not name else sums[2, :, [column - 1]].T).sum(axis=1) > 0
        n_clips, counted = int(several.sum()), total[:4].sum(axis=1) if not name else total[:4, column - 1]
        figures: dict[str, Any] = {"clips": n_clips, "pairs": int(counted[2])}
        for at, (measure, kind, of) in enumerate(_MEASURES):
            drawn = without[at, several, column]
            # The jackknife over clips.
            error = math.sqrt(max(n_clips - 1, 0) * float(drawn.var())) if n_clips else math.nan
            value = float(whole[at, column])
            low, high = interval(value, error, n_clips, kind=kind, n=int(counted[of]))
            figures |= {measure: value, f"{measure}_low": low, f"{measure}_high": high}
        found[name] = without_nan(figures)
    return found


def _annotators(labels: Sequence[Grade], ranks: Ranks, guide: GradingGuide) -> list[dict[str, Any]]:
    own: dict[str, list[Grade]] = defaultdict(list)
    for label in labels:
        own[label.annotator].append(label)
    people = {name: _annotator(name, own[name], ranks, guide) for name in sorted(own)}
    medians = {name: one["median_seconds"] for name, one in people.items() if one["median_seconds"] is not None}
    for name, one in people.items():
        others = [median for other, median in medians.items() if other != name]
        one["flags"] = []
        if name in medians and others and medians[name] < guide.fast_share * float(np.median(others)):
            one["flags"].append(f"median below {guide.fast_share:.0%} of the others' {float(np.median(others)):.1f} s")
        if one["hasty_share"] is not None and one["hasty_share"] > 0.5:
            one["flags"].append(f"{one['hasty_share']:.0%} of the clips in less time than watching and reading need")
        if one["control_share"] is not None and one["control_share"] < guide.pass_share:
            one["flags"].append("share of correct control items below that required in training")
    return list(people.values())


def _annotator(name: str, own: Sequence[Grade], ranks: Ranks, guide: GradingGuide) -> dict[str, Any]:
    rounds = training_rounds(own)
    control = [label for label in own if label.part == "control"]
    off = [abs(ranks[one.criterion][one.grade] - ranks[one.criterion][one.right]) for one in control if one.grade]
    items: dict[tuple[str, int, str], list[Grade]] = defaultdict(list)
    for label in own:
        if label.part != "training" and label.grade:
            items[label.item].append(label)
    hasty = [
        sum(one.seconds for one in given)
        < given[0].clip_seconds + guide.seconds_per_option * sum(len(ranks[one.criterion]) for one in given)
        for given in items.values()
    ]
    pace = [sum(one.seconds for one in given) / len(given) for given in items.values()]
    return {
        "annotator": name,
        "clips": len({label.video_id for label in own if label.part == "clip"}),
        "answers": sum(label.part == "clip" for label in own),
        "skipped": sum(label.part == "clip" and not label.grade for label in own),
        "training_rounds": len(rounds) if rounds[0][0] else 0,
        "training_share": rounds[-1][1] / rounds[-1][0] if rounds[-1][0] else None,
        "control_answers": len(control),
        "control_share": sum(one.grade == one.right for one in control) / len(control) if control else None,
        "control_off": float(np.mean(off)) if off else None,
        "median_seconds": float(np.median(pace)) if pace else None,
        "hasty_share": float(np.mean(hasty)) if hasty else None,
    }


def consistency_words(one: Mapping[str, Any]) -> str:
    """Return the measures of :func:`grade_results` as text."""
    if not one["pairs"]:
        return "no clip has two annotators yet"

    def figure(name: str, form: str) -> str:
        value, low, high = (one[f"{name}{end}"] for end in ("", "_low", "_high"))
        if value is None:
            return "not defined"
        return format(value, form) + ("" if low is None else f" [{low:{form}}, {high:{form}}]")

    few = f", no interval below {MINIMUM_PROMPTS} clips" if one["clips"] < MINIMUM_PROMPTS else ""
    return (
        f"same answers {figure('binary', '.1%')}, same grades {figure('exact', '.1%')}, "
        f"alpha {figure('alpha', '.2f')} ({one['pairs']} pairs of grades of {one['clips']} clips{few})"
    )


def grade_report_lines(results: Mapping[str, Any]) -> list[str]:
    """Return the figures in words, a line each, for a terminal."""
    lines = [
        f"{results['study']}: {results['answers']} answers about {results['clips_graded']} clips, "
        f"checklist {results['checklist']}"
    ]
    for one in results["annotators"]:
        parts = [f"{one['clips']} clips", f"{one['answers']} answers", f"{one['skipped']} skipped"]
        if one["training_rounds"]:
            parts.append(f"training {one['training_share']:.0%} right in round {one['training_rounds']}")
        if one["control_answers"]:
            parts.append(f"control items {one['control_share']:.0%} right of {one['control_answers']}")
        if one["median_seconds"] is not None:
            parts.append(f"median {one['median_seconds']:.1f} s per answer")
        lines += [f"  {one['annotator']}: {', '.join(parts)}", *(f"    Flagged: {flag}" for flag in one["flags"])]
    lines.append(f"Consistency: {consistency_words(results['consistency'])}")
    lines += [
        f"  {one['criterion']}: {consistency_words(one)}; {one['skipped']} skipped, {one['open']} disputes open, "
        f"{one['settled']} settled"
        for one in results["criteria"]
        if one["answers"] or one["skipped"]
    ]
    adjudication = results["adjudication"]
    lines.append(
        f"Differences of more than {adjudication['above']}: {adjudication['settled']} graded by a further annotator, "
        f"{adjudication['open']} open"
    )
    return lines + [f"Skipped {count} times: {reason}" for reason, count in results["reasons"].items()]
