"""Registered models: versions by content, the best version, and their inputs.

A catalog entry registers a model::

    metadata:
      mlflow:
        model: policy_mpo                               # name in the registry
        score: [training_log_mpo:validation_reward, evaluation_metrics:policies.mpo.judge.total.mean]
        comparable: [reward_weights]

``score`` lists where to find the score, in order of preference: a column of a table (its maximum) or a dotted key of a
JSON document. Scores are compared only between versions whose ``comparable`` datasets have the same content, since
rewards with different weights have different units.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vr_pipeline.identifiers import content_hash

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

BEST = "best"
MODEL = "model."
"""Prefix of tags of a run: the version of a registered model that it made or measured."""
MD5, SCORE, SCORED_BY, RULER, CHOICE = "dvc.md5", "score", "score.source", "score.ruler", "score.choice"


def score_sources(mark: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return dataset and column or key of each possible score, in order of preference."""
    listed = mark.get("score") or []
    places = [listed] if isinstance(listed, str) else listed
    return [(place.partition(":")[0], place.partition(":")[2]) for place in places]


def figure(content: Any, place: str) -> float | None:
    """Return the score at ``place`` of a loaded dataset; None if it is missing or not finite."""
    if hasattr(content, "columns"):
        if place not in content.columns:
            return None
        value: Any = content[place].max()
    else:
        value = content
        for key in place.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def model_entry(
    dataset: str, mark: Mapping[str, Any], hashes: Mapping[str, str], contents: Mapping[str, Any], saved: bool
) -> dict[str, Any] | None:
    """Return the entry of a run's record for a model; None if its content is unknown, or if nothing about it is new.

    Args:
        hashes: dataset -> MD5 of inputs and outputs of the run.
        contents: datasets that the run wrote and that may contain scores.
        saved: whether the run wrote the model itself.
    """
    if dataset not in hashes:
        return None
    known = (
        (choice, f"{origin}:{place}", found)
        for choice, (origin, place) in enumerate(score_sources(mark))
        if origin in contents and (found := figure(contents[origin], place)) is not None
    )
    choice, source, score = next(known, (0, "", None))
    if not saved and score is None:
        return None
    ruler = content_hash("ruler", source, *(f"{name}={hashes.get(name, '')}" for name in mark.get("comparable", ())))
    return {
        "name": str(mark["model"]),
        "dataset": dataset,
        "md5": hashes[dataset],
        "saved": saved,
        "score": score,
        "source": source,
        "ruler": ruler,
        "choice": choice,
    }


def register(client: MlflowClient, run_id: str, record: Mapping[str, Any], inputs: Mapping[str, str]) -> list[str]:
    """Register the models of a run, tag the run with them, and update the alias ``best``.

    Args:
        inputs: dataset -> MD5 of the run's inputs, for the version's tags.

    Returns:
        ``name/version`` of each model of the run.
    """
    touched = []
    for entry in record.get("models", ()):
        version = _version(client, run_id, entry, record, inputs)
        if version is None:
            continue
        touched.append(f"{version.name}/{version.version}")
        client.set_tag(run_id, f"{MODEL}{version.name}", version.version)
        # The evaluation's reward does not replace a validation reward.
        if entry["score"] is not None and entry["choice"] <= int(version.tags.get(CHOICE, entry["choice"])):
            tags = {SCORE: repr(entry["score"]), SCORED_BY: entry["source"], RULER: entry["ruler"]}
            for name, value in {**tags, CHOICE: str(entry["choice"])}.items():
                client.set_model_version_tag(version.name, version.version, name, value)
            best = best_version(versions(client, version.name), entry["ruler"])
            if best is not None:
                client.set_registered_model_alias(version.name, BEST, best.version)
    return touched


def versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    """Return all versions of a registered model, oldest first."""
    found = client.search_model_versions(f"name = '{name}'", max_results=1000)
    return sorted(found, key=lambda version: int(version.version))


def _version(
    client: MlflowClient, run_id: str, entry: Mapping[str, Any], record: Mapping[str, Any], inputs: Mapping[str, str]
) -> ModelVersion | None:
    """Return the version with this content; create it if the run wrote it."""
    name = entry["name"]
    same = [version for version in versions(client, name) if version.tags.get(MD5) == entry["md5"]]
    if same or not entry["saved"]:
        return same[-1] if same else None
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
    except MlflowException:
        client.create_registered_model(name)
    tags = {MD5: entry["md5"], "git.commit": record["code"]["commit"], "dataset": entry["dataset"]}
    tags |= {f"input.{dataset}": md5 for dataset, md5 in inputs.items()}
    made: ModelVersion = client.create_model_version(
        name, source=f"runs:/{run_id}/{entry['dataset']}", run_id=run_id, tags={k: v for k, v in tags.items() if v}
    )
    return made


def best_version(candidates: Sequence[ModelVersion], ruler: str) -> ModelVersion | None:
    """Return the version with the highest score by one ruler, the oldest of equals; None without such a score."""
    measured = [version for version in candidates if version.tags.get(RULER) == ruler and SCORE in version.tags]
    return max(measured, key=lambda version: (float(version.tags[SCORE]), -int(version.version)), default=None)
