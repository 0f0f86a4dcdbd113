"""Puts the page together: choice of clips, sections, and the template that turns them into one HTML file."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.evaluation.config import ReportParameters
from vr_pipeline.evaluation.report import sections, tables
from vr_pipeline.evaluation.report.clips import EmbeddedClip, embed_clip
from vr_pipeline.evaluation.report.findings import (
    Comparison,
    compare,
    percent,
    plain,
    policy_name,
    signed,
    summary,
    training_remarks,
)
from vr_pipeline.evaluation.report.run_lines import placeholder, table_hash
from vr_pipeline.evaluation.report.tables import Column, Table
from vr_pipeline.generators.policy import ORIGINAL
from vr_pipeline.identifiers import content_hash
from vr_pipeline.terminal import visible
from vr_pipeline.training.inputs import reward_weights_hash

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vr_pipeline.checklist.schema import Checklist
    from vr_pipeline.items.folder import ItemFolder

CLIPS_BYTES = 6_300_000
"""Bytes of all clips before base64, so that the whole page stays under 10 MB."""

_SMALLEST_CLIP, _LARGEST_CLIP = 24_000, 300_000


@dataclass(frozen=True)
class ShownClip:
    """A clip with what is said of it."""

    heading: str
    label: str
    clip: EmbeddedClip | None
    facts: Sequence[tuple[str, str]]
    problem: str = ""


@dataclass(frozen=True)
class ClipSet:
    """Clips that belong side by side."""

    heading: str
    note: str
    clips: Sequence[ShownClip]
    table: Table | None


def render_report(
    *,
    metrics: Mapping[str, Any],
    videos: ItemFolder,
    index: pd.DataFrame,
    judge_rewards: pd.DataFrame,
    oracle_rewards: pd.DataFrame,
    weights: Mapping[str, Any],
    checklist: Checklist,
    training_logs: Mapping[str, pd.DataFrame],
    prompt_filter: Mapping[str, Any],
    pair_selection: Mapping[str, Any],
    parameters: ReportParameters,
    validation_logs: Mapping[str, pd.DataFrame] | None = None,
    judge_answers: pd.DataFrame | None = None,
    oracle_answers: pd.DataFrame | None = None,
    pairs: pd.DataFrame | None = None,
    pair_videos: ItemFolder | None = None,
    pair_index: pd.DataFrame | None = None,
    pictures: Mapping[str, Figure] | None = None,
    provenance: Mapping[str, str] | None = None,
    reward_agreement: Mapping[str, Any] | None = None,
) -> str:
    """One self-contained HTML page under 10 MB; the same inputs give the same bytes.

    Args:
        metrics: from :func:`vr_pipeline.evaluation.metrics.evaluation_metrics`.
        videos: the evaluation's clips by video_id.
        index: their video index, with policy.
        judge_rewards: rewards by the judge, with policy.
        oracle_rewards: the same by the oracle; may be empty.
        weights: JSON form of :class:`vr_pipeline.rewards.checklist.weights.RewardWeights`.
        checklist: the questions.
        training_logs: table of steps by policy.
        prompt_filter: report of prompt_filtering; may be empty.
        pair_selection: report of pair_selection.
        parameters: what is shown.
        validation_logs: judged checkpoints by policy, without rows where none were judged.
        judge_answers, oracle_answers: answers on the evaluation's clips; with both, the judge's bias by question and
            policy is shown.
        pairs: pairs by total reward (strategy dpo), of which those that do not dominate are shown.
        pair_videos, pair_index: the clips of these pairs and their video index.
        pictures: further plots by what they show; the text is also their alternative for screen readers.
        reward_agreement: agreement with people as weight_regression measured it, with intervals; the metrics have the
            figures alone.
        provenance: further lines of the footer, such as hashes of other data. Commit and run are no part of the page,
            see :mod:`vr_pipeline.evaluation.report.run_lines`.

    Raises:
        InputError: results that do not belong together, such as another checklist's weights.
    """
    from vr_pipeline.rewards.checklist.weights import RewardWeights

    _check(metrics, checklist, judge_rewards, oracle_rewards)
    policies = sections.policies_of(metrics)
    rewards = {"judge": judge_rewards} | ({"oracle": oracle_rewards} if len(oracle_rewards) else {})
    against_original: dict[str, dict[str, Comparison]] = {
        policy: {
            source: compare(table, policy, ORIGINAL, source, policies=len(policies) - 1)
            for source, table in rewards.items()
        }
        for policy in policies
        if policy != ORIGINAL
    }
    between = (
        {source: compare(table, "mpo", "dpo", source) for source, table in rewards.items()}
        if {"mpo", "dpo"} <= set(policies)
        else {}
    )
    dimensions = list(checklist.dimensions)
    fitted = RewardWeights.from_json(weights)
    refused, examples = (None, pd.DataFrame()) if pairs is None else sections.refused_pairs(pairs, dimensions)
    if pair_videos is None or pair_index is None:
        examples = examples.head(0)
    examples = examples.head(parameters.num_rejected_pairs)
    places = CLIPS_BYTES // _SMALLEST_CLIP - 2 * len(examples)
    shown = _chosen(index, policies, parameters, limit=max(1, places // len(policies)))
    number = len(shown) * len(policies) + 2 * len(examples)
    room = max(_SMALLEST_CLIP, min(_LARGEST_CLIP, CLIPS_BYTES // max(1, number)))
    curves, ends, training_legend = sections.training_section(training_logs, policies, validation_logs)
    agreement = metrics.get("judge_oracle_agreement") or {}
    context = {
        "title": parameters.title,
        "note": parameters.note,
        "findings": summary(metrics, against_original, between, reward_agreement),
        "figures": _figures(metrics),
        "clip_sets": [_clip_set(rows, videos, rewards, policies, dimensions, room) for rows in shown],
        "clip_note": _clip_note(shown, index),
        "rewards_charts": sections.rewards_charts(metrics, dimensions),
        "rewards_tables": [
            sections.rewards_table(metrics, dimensions, source) for source in sections.sources_of(metrics)
        ],
        "gain_charts": sections.gain_charts(against_original, policies, dimensions),
        "gains_table": sections.gains_table(metrics, against_original, between),
        "win_rates": sections.win_rates(metrics),
        "weights": sections.weights_section(fitted, checklist),
        "weights_facts": _weights_facts(fitted),
        "agreement": metrics["agreement"],
        "agreement_table": _agreement_table(reward_agreement or metrics["agreement"]),
        "pairs_tables": sections.pairs_tables(pair_selection, metrics),
        "refused": refused,
        "refused_sets": []
        if pair_videos is None or pair_index is None
        else [_pair_set(pair, pair_videos, pair_index, dimensions, room) for pair in _records(examples)],
        "curves": curves,
        "training_table": ends,
        "training_legend": training_legend,
        "training_remarks": training_remarks(training_logs, validation_logs),
        "disagreement": sections.disagreement_table(
            agreement, checklist, sections.bias_of(judge_answers, oracle_answers, index, policies), policies
        )
        if agreement
        else None,
        "disagreement_overall": percent(agreement.get("overall")),
        "has_bias": judge_answers is not None and oracle_answers is not None,
        "prompt_filter": prompt_filter,
        "prompt_filter_tables": sections.prompt_filter_tables(prompt_filter),
        "pictures": [(text, _picture(figure)) for text, figure in (pictures or {}).items()],
        "provenance": _provenance(
            metrics,
            index,
            checklist,
            fitted.encoding,
            {
                "Rewards by the judge": judge_rewards,
                "Rewards by the oracle": oracle_rewards,
                "Answers of the judge": judge_answers,
                **{f"Training log, {policy_name(name)}": log for name, log in sorted(training_logs.items())},
                **{f"Checkpoints, {policy_name(name)}": log for name, log in sorted((validation_logs or {}).items())},
                "Pairs by total reward": pairs,
            },
            {"Weights": reward_weights_hash(weights), **(provenance or {})},
        ),
        "run": placeholder(),
    }
    return _fill_template(context)


def _picture(figure: Figure) -> str:
    """A plot as the address of an embedded PNG, without the version of the library in its header."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _fill_template(context: Mapping[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("vr_pipeline.evaluation.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["plain"] = plain
    loader = environment.loader
    assert loader is not None
    style, script = (loader.get_source(environment, name)[0] for name in ("style.css", "script.js"))
    # The browser runs this script and no other, whatever stands in the data.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template("page.html.j2").render(
        context, style=Markup(style), script=Markup(script), script_digest=Markup(digest)
    )
    # Character references for all that is not ASCII: the page then reads the same whatever encoding a file is saved in.
    return visible(page).encode("ascii", "xmlcharrefreplace").decode("ascii")


def _check(
    metrics: Mapping[str, Any], checklist: Checklist, judge_rewards: pd.DataFrame, oracle_rewards: pd.DataFrame
) -> None:
    if ORIGINAL not in metrics["policies"]:
        raise InputError(
            f"the metrics have no policy '{ORIGINAL}'", remedy="run evaluation again", field="evaluation_metrics"
        )
    for name, table in (("evaluation_rewards", judge_rewards), ("evaluation_oracle_rewards", oracle_rewards)):
        for dimension in checklist.dimensions:
            if f"dim_{dimension}" not in table.columns:
                raise InputError(
                    f"the rewards have no dimension '{dimension}'",
                    remedy="run evaluation again after a change of the checklist",
                    file=name,
                    field=f"dim_{dimension}",
                )


def _chosen(
    index: pd.DataFrame, policies: Sequence[str], parameters: ReportParameters, *, limit: int
) -> list[pd.DataFrame]:
    """Rows of the clips to show, one table a prompt and seed; prompts by a hash, not by how their clips came out."""
    complete = index[index["policy"].isin(policies)]
    sets = complete.groupby(["prompt_id", "sample_index"])
    order = sorted(complete["prompt_id"].unique(), key=lambda name: content_hash("shown prompt", str(name)))
    chosen = []
    for prompt in order[: parameters.num_prompts]:
        seeds = sorted(complete.loc[complete["prompt_id"] == prompt, "sample_index"].unique())
        chosen += [sets.get_group((prompt, seed)) for seed in seeds[: parameters.clips_per_prompt]]
    return chosen[:limit]


def _clip_note(shown: Sequence[pd.DataFrame], index: pd.DataFrame) -> str:
    prompts = len({str(rows["prompt_id"].iloc[0]) for rows in shown})
    return (
        f"{prompts} of {index['prompt_id'].nunique():,} held-out prompts, chosen by a hash of their identifier and not "
        "by how the clips came out. The clips of a row come from the same prompt and the same noise. They are "
        "re-encoded for browsers (small ones enlarged without smoothing); rewards are those of the files themselves."
    )


def _clip_set(
    rows: pd.DataFrame,
    videos: ItemFolder,
    rewards: Mapping[str, pd.DataFrame],
    policies: Sequence[str],
    dimensions: Sequence[str],
    room: int,
) -> ClipSet:
    by_policy = {str(row["policy"]): row for row in _records(rows)}
    first = next(iter(by_policy.values()))
    prompt, sample = str(first["prompt"]), int(first["sample_index"])
    identifiers = {policy: str(row["video_id"]) for policy, row in by_policy.items()}
    scores = {
        source: {
            str(row["video_id"]): row for row in _records(table[table["video_id"].isin(list(identifiers.values()))])
        }
        for source, table in rewards.items()
    }

    def score(source: str, policy: str, column: str) -> float:
        row = scores[source].get(identifiers.get(policy, ""))
        return math.nan if row is None else float(row[column])

    clips = []
    for policy in policies:
        heading = policy_name(policy)
        row = by_policy.get(policy)
        if row is None or row["status"] != "ok":
            problem = "There is no such clip." if row is None else f"This clip failed: {row['error']}"
            clips.append(ShownClip(heading, "", None, [], problem))
            continue
        facts: list[tuple[str, str]] = []
        for source in rewards:
            value = score(source, policy, "total")
            gain = value - score(source, ORIGINAL, "total")
            change = f"({signed(gain)})" if policy != ORIGINAL and math.isfinite(gain) else ""
            facts.append((f"{sections.SOURCES[source]} {plain(value)}", change))
        clip = embed_clip(videos.load(str(row["video_id"])), fps=float(row["fps"]), max_bytes=room)
        clips.append(ShownClip(heading, f"{heading}: {prompt} (sample {sample})", clip, facts))
    columns = [(policy, source) for policy in policies for source in rewards]
    table = Table(
        "Rewards of these clips by dimension",
        [
            Column("Dimension", number=False),
            *(Column(f"{policy_name(policy)}, {source}") for policy, source in columns),
        ],
        [
            [
                tables.words(name.removeprefix("dim_")),
                *(tables.number(score(source, policy, name)) for policy, source in columns),
            ]
            for name in (*(f"dim_{dimension}" for dimension in dimensions), "total")
        ],
    )
    return ClipSet(prompt, f"Sample {sample}, seed {int(first['seed'])}", clips, table)


def _pair_set(
    pair: Mapping[str, Any], videos: ItemFolder, index: pd.DataFrame, dimensions: Sequence[str], room: int
) -> ClipSet:
    names = [str(pair["winner_video_id"]), str(pair["loser_video_id"])]
    known = {str(row["video_id"]): row for row in _records(index[index["video_id"].isin(names)])}
    prompt = str(known[names[0]]["prompt"]) if names[0] in known else ""
    clips = []
    for heading, name in zip(("Winner", "Loser"), names, strict=True):
        if name not in known or name not in videos:
            clips.append(ShownClip(heading, "", None, [], "This clip is not in the folder of clips."))
            continue
        clip = embed_clip(videos.load(name), fps=float(known[name]["fps"]), max_bytes=room)
        clips.append(ShownClip(heading, f"{heading}: {prompt}", clip, []))
    gaps = {name: float(pair[f"dim_{name}_gap"]) for name in dimensions}
    failing = ", ".join(f"{name} ({signed(gap)})" for name, gap in gaps.items() if gap < -1e-9)
    table = Table(
        "Winner minus loser by dimension (judge's reward)",
        [Column("Dimension", number=False), Column("Gap")],
        [
            [
                tables.words(name),
                tables.Cell(signed(gap, 3), tables.sort_key(gap), emphasis="warning" if gap < -1e-9 else ""),
            ]
            for name, gap in gaps.items()
        ],
    )
    note = f"Total {signed(float(pair['margin']))} in the winner's favour, but worse in {failing}."
    return ClipSet(prompt, note, clips, table)


def _figures(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The few numbers at the top: heading, number, interval."""
    figures = []
    for policy, sources in sorted(metrics["gain"].items()):
        for source in (name for name in sections.SOURCES if name in sources):
            record = sources[source]
            figures.append(
                (
                    f"{policy_name(policy)} gain, {source}",
                    signed(record["mean"]),
                    f"{signed(record['ci_low'])} to {signed(record['ci_high'])}",
                )
            )
    return figures


def _weights_facts(weights: Any) -> str:
    facts = weights.statistics
    text = "Logistic regression of preferences on differences of answers, without intercept"
    if "n_pairs" in facts:
        text += f", on {int(facts['n_pairs']):,} pairs"
        if "n_ties" in facts:
            text += f" ({int(facts['n_ties']):,} of them ties, which take no part)"
    encoding = {"zero_one": "yes 1, no 0", "plus_minus": "yes 1, no −1"}[weights.encoding]
    answers = "as probabilities" if weights.answers == "probability" else "cut at one half"
    remarks = "".join(f" {warning[:1].upper()}{warning[1:]}." for warning in facts.get("warnings", ()))
    return (
        f"{text}. Answers enter {answers}, {encoding}. Each interval is for itself: of twenty, one is expected to miss."
        f"{remarks}"
    )


def _agreement_table(agreement: Mapping[str, Any]) -> Table:
    pairs, ties = int(agreement["n"]), int(agreement["n_ties"])
    names = {
        "diff": f"diff: right order, of the {pairs - ties:,} pairs without a human tie",
        "tau": f"tau: right order or rightly a tie, of all {pairs:,}; a tie is called where rewards differ by at most "
        f"{plain(agreement['epsilon'], 4)}, chosen on these pairs",
        "tau_transferred": "tau with the threshold of the fitted pairs, "
        f"{plain(agreement.get('epsilon_transferred'), 4)}",
    }
    intervals = agreement.get("intervals") or {}
    return Table(
        "Agreement of the reward with held-out preferences (intervals take prompts as the units drawn)",
        [Column("Measure", number=False), Column("Value"), Column("95 % interval")],
        [
            [
                tables.words(text),
                tables.share(agreement[name]),
                tables.share_interval(*(intervals.get(name) or (None, None))),
            ]
            for name, text in names.items()
            if name in agreement
        ],
    )


def _provenance(
    metrics: Mapping[str, Any],
    index: pd.DataFrame,
    checklist: Checklist,
    encoding: str,
    shown: Mapping[str, pd.DataFrame | None],
    given: Mapping[str, str],
) -> list[tuple[str, str]]:
    made = index.sort_values("video_id", kind="stable")
    files = (f"{name} {digest}" for name, digest in zip(made["video_id"], made["sha256"], strict=True))
    lines = [
        ("Checklist", f"{checklist.name} ({checklist.hash})"),
        ("Encoding of answers", encoding),
        ("Clips", f"{len(index):,} files, hash {content_hash('clips', *files)}"),
        ("Metrics", f"hash {content_hash('metrics', json.dumps(metrics, sort_keys=True))}"),
    ]
    for policy, part in index.groupby("policy", sort=True):
        lines.append((f"Generator, {policy_name(str(policy))}", ", ".join(sorted(set(part["generator"].astype(str))))))
    lines += [
        (name, f"{len(table):,} rows, hash {table_hash(table)}") for name, table in shown.items() if table is not None
    ]
    return lines + [(str(name), str(value)) for name, value in given.items()]


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
