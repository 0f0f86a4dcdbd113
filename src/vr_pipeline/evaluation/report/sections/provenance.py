"""Hashes of the page's data, for its footer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd
from markupsafe import Markup

from vr_pipeline.evaluation.report.run_lines import table_hash
from vr_pipeline.generators.policy import ORIGINAL
from vr_pipeline.identifiers import content_hash
from vr_pipeline.training.inputs import reward_weights_hash

if TYPE_CHECKING:
    from vr_pipeline.checklist.schema import Checklist

_TABLES = {
    "evaluation_rewards": "Rewards by the judge",
    "evaluation_oracle_rewards": "Rewards by the oracle",
    "evaluation_auditor_rewards?": "Rewards by the auditor",
    "evaluation_answers?": "Answers of the judge",
    "training_log_{recipe}": "Training log, {title}",
    "validation_log_{recipe}": "Checkpoints, {title}",
    "preference_pairs_{baseline}?": "Pairs by total reward",
}
"""Tables of the page's data, with their names in the footer."""

_OTHERS = "evaluation_metrics evaluation_video_index checklist? reward_weights? video_index? pair_scores?"
DATA = " ".join([_OTHERS, *_TABLES])


def make(
    titles: Mapping[str, str],
    metrics: Mapping[str, Any],
    index: pd.DataFrame,
    checklist: Checklist | None,
    weights: Mapping[str, Any] | None,
    training_index: pd.DataFrame | None,
    pair_scores: pd.DataFrame | None,
    *tables: pd.DataFrame | None,
) -> list[Markup]:
    """Show one line with hash per kind of data of the run; ``tables`` are those of ``_TABLES``."""
    made = index.sort_values("video_id", kind="stable")
    files = (f"{name} {digest}" for name, digest in zip(made["video_id"], made["sha256"], strict=True))
    trained = [title for name, title in titles.items() if name != ORIGINAL]
    names = [
        label.format(title=title)
        for label in _TABLES.values()
        for title in (trained if "{title}" in label else trained[:1])
    ]
    lines = []
    # Without weights, the checklist belongs to the oracle, not to the reward.
    if checklist is not None and weights is not None:
        lines += [
            ("Checklist", f"{checklist.name} ({checklist.hash})"),
            ("Encoding of answers", weights.get("encoding", "zero_one")),
        ]
    if (reward := metrics.get("reward") or {}).get("type"):
        lines.append(("Reward", f"{reward['type']}, identity {reward['identity']}"))
    lines += [
        ("Clips", f"{len(index):,} files, hash {content_hash('clips', *files)}"),
        ("Metrics", f"hash {content_hash('metrics', json.dumps(metrics, sort_keys=True))}"),
    ]
    for policy, part in index.groupby("policy", sort=True):
        generators = ", ".join(sorted(set(part["generator"].astype(str))))
        lines.append((f"Generator, {titles[str(policy)]}", generators))
    lines += [
        (name, _hashed(table)) for name, table in zip(names, tables, strict=True) if table is not None and len(table)
    ]
    if weights is not None:
        lines.append(("Weights", reward_weights_hash(weights)))
    if training_index is not None:
        lines.append(("Training clips", _hashed(training_index[["video_id", "sha256"]], "files")))
    if pair_scores is not None:
        lines.append(("Compared pairs", _hashed(pair_scores)))
    rows = Markup("").join(Markup("<div><dt>{}</dt><dd>{}</dd></div>\n").format(*line) for line in lines)
    return [Markup("<dl>\n{}</dl>").format(rows)]


def _hashed(table: pd.DataFrame, what: str = "rows") -> str:
    return f"{len(table):,} {what}, hash {table_hash(table)}"
