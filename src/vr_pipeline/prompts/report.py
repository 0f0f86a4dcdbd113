"""Report on filtering: counts by step and rule, similarities before and after, examples."""

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from vr_pipeline.identifiers import content_hash
from vr_pipeline.prompts.config import PromptFilteringParameters
from vr_pipeline.prompts.decisions import STEPS
from vr_pipeline.prompts.embedding_store import Embeddings
from vr_pipeline.prompts.rouge import nearest_rouge_l
from vr_pipeline.prompts.segments import main_script, segments
from vr_pipeline.prompts.semantic import is_seen, nearest_cosines

logger = logging.getLogger(__name__)

HISTOGRAM_BINS = 40


def filter_report(
    decisions: pd.DataFrame,
    clean_prompts: pd.DataFrame,
    distinct_prompts: pd.DataFrame,
    filtered_prompts: pd.DataFrame,
    embeddings: Embeddings,
    parameters: PromptFilteringParameters,
) -> dict[str, Any]:
    """Return the report as plain JSON.

    Args:
        decisions: one row per prompt of the input.
        clean_prompts: prompts that passed the cleaning rules.
        distinct_prompts: prompts that passed the comparison by words (these have embeddings).
        filtered_prompts: prompts that passed all steps.
        embeddings: of ``distinct_prompts``; empty if the semantic step is off.
        parameters: of filtering.
    """
    counts = Counter(zip(decisions["step"], decisions["rule"], strict=True))
    steps = []
    remaining = len(decisions)
    for step in STEPS:
        reasons = {rule: int(count) for (name, rule), count in sorted(counts.items()) if name == step}
        dropped = sum(reasons.values())
        steps.append({"step": step, "in": remaining, "out": remaining - dropped, "dropped": dropped, "rules": reasons})
        remaining -= dropped
    changed = decisions["changed_by"][decisions["changed_by"] != ""].str.split(", ").explode().value_counts()
    splits = filtered_prompts["split"].value_counts()
    model = filtered_prompts["language_model"]
    return {
        "read": len(decisions),
        "kept": len(filtered_prompts),
        "steps": steps,
        "changed_by_rule": {str(rule): int(count) for rule, count in sorted(changed.items())},
        "splits": {name: int(splits.get(name, 0)) for name in ("train", "validation", "test")},
        "sources": {str(name): int(count) for name, count in filtered_prompts["source"].value_counts().items()},
        "scripts": _by_script(decisions, distinct_prompts, embeddings),
        "language_model": {
            outcome: int(model.str.contains(outcome).sum())
            for outcome in ("mended", "rewritten", "review failed", "rewrite failed")
        },
        "nearest_similarity": _similarities(
            clean_prompts, distinct_prompts, filtered_prompts, embeddings, parameters.report.sample_size
        ),
        "examples": _examples(decisions, parameters.report.examples),
        "parameters": parameters.model_dump(mode="json"),
    }


def _by_script(decisions: pd.DataFrame, distinct: pd.DataFrame, embeddings: Embeddings) -> dict[str, dict[str, int]]:
    """Count prompts by their main script: read, kept, and not compared by meaning."""
    read = Counter(main_script(text) for text in decisions["original_prompt"] if text)
    kept = Counter(main_script(text) for text in decisions.loc[decisions["kept"], "original_prompt"])
    unseen: Counter[str] = Counter()
    if len(embeddings):
        texts = distinct["prompt"].tolist()
        unseen = uncovered_scripts(texts, embeddings.of(texts))
    return {
        script: {"read": read[script], "kept": kept[script], "not_compared_by_meaning": unseen[script]}
        for script in sorted(read, key=lambda script: (-read[script], script))
    }


def uncovered_scripts(texts: Sequence[str], vectors: np.ndarray) -> Counter[str]:
    """Count the texts without a vector by script."""
    return Counter(main_script(text) for text, seen in zip(texts, is_seen(vectors), strict=True) if not seen)


def warn_of_uncovered(texts: Sequence[str], vectors: np.ndarray) -> None:
    """Warn of prompts that are compared by words only."""
    unseen = uncovered_scripts(texts, vectors)
    if unseen:
        named = ", ".join(f"{script} {count}" for script, count in unseen.most_common())
        logger.warning(
            "%d of %d prompts are not compared by meaning, because the embedder does not cover their language (%s). "
            "Set semantic.embedder to a model that covers it, and set its scripts.",
            unseen.total(),
            len(texts),
            named,
        )


def _similarities(
    clean: pd.DataFrame, distinct: pd.DataFrame, filtered: pd.DataFrame, embeddings: Embeddings, sample_size: int
) -> dict[str, Any]:
    """Return histograms of the similarity of sampled prompts to their nearest other prompt, before and after."""
    result: dict[str, Any] = {"sample_size": sample_size, "rouge_l": {}, "cosine": {}}
    for when, table in (("before", clean), ("after", filtered)):
        sample = _sample(table["prompt_id"].tolist(), sample_size)
        result["rouge_l"][when] = _histogram(
            nearest_rouge_l(sample, table["cleaned_prompt" if when == "after" else "prompt"].tolist(), tokens=segments)
        )
    if len(embeddings):
        for when, table, column in (("before", distinct, "prompt"), ("after", filtered, "embedded_prompt")):
            vectors = embeddings.of(table[column].tolist())
            seen = is_seen(vectors)
            sample = _sample(table["prompt_id"][seen].tolist(), sample_size)
            result["cosine"][when] = _histogram(nearest_cosines(sample, vectors[seen]))
    return result


def _sample(identifiers: Sequence[str], size: int) -> np.ndarray:
    """Return positions of a sample, independent of the order of the prompts."""
    ranks = [content_hash("report sample", identifier) for identifier in identifiers]
    return np.array(sorted(range(len(ranks)), key=ranks.__getitem__)[:size], dtype=np.int64)


def _histogram(values: np.ndarray) -> dict[str, Any]:
    values = values[np.isfinite(values)]
    counts, edges = np.histogram(np.clip(values, 0, 1), bins=HISTOGRAM_BINS, range=(0.0, 1.0))
    quantiles = np.quantile(values, (0.5, 0.9, 0.99)).round(4).tolist() if len(values) else [None] * 3
    return {
        "n": len(values),
        "edges": edges.round(4).tolist(),
        "counts": counts.tolist(),
        "median": quantiles[0],
        "p90": quantiles[1],
        "p99": quantiles[2],
    }


def _examples(decisions: pd.DataFrame, count: int) -> list[dict[str, Any]]:
    """Return some dropped prompts per step and rule, chosen by hash."""
    examples = []
    dropped = decisions[~decisions["kept"]]
    for (step, rule), group in dropped.groupby(["step", "rule"], sort=False):
        ranked = sorted(group.to_dict("records"), key=lambda row: content_hash("example", row["prompt_id"], row["row"]))
        for row in ranked[:count]:
            has_nearest = isinstance(row["nearest_prompt"], str)
            examples.append(
                {
                    "step": step,
                    "rule": rule,
                    "prompt": row["original_prompt"],
                    "reason": row["reason"],
                    "nearest_prompt": row["nearest_prompt"] if has_nearest else None,
                    "similarity": round(float(row["similarity"]), 4) if np.isfinite(row["similarity"]) else None,
                }
            )
    order = {step: position for position, step in enumerate(STEPS)}
    return sorted(examples, key=lambda example: (order[example["step"]], example["rule"]))
