"""Held-out figures and the model card of the embedded UnifiedReward."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vr_pipeline.micro_world.card import file_hashes, render_card
from vr_pipeline.micro_world.config import MicroWorldParameters
from vr_pipeline.micro_world.world import FRAMES_PER_SECOND
from vr_pipeline.rewards.registry import load_reward_model, ranker_of
from vr_pipeline.rewards.unifiedreward.settings import read_artifact
from vr_pipeline.statistics.agreement import pairwise_accuracy, without_nan
from vr_pipeline.statistics.clustered import bootstrap_by_prompt
from vr_pipeline.statistics.three_way import three_way
from vr_pipeline.video.clip import Frames

_LABELS = {"first": "a", "second": "b", "tie": "tie"}


def pairs_of(items: pd.DataFrame) -> pd.DataFrame:
    """Return the compared pairs of clips among items, with ``preference`` a, b or tie."""
    pairs = items[(items["task"] == "video_generation") & (items["form"] == "pair")]
    return pairs.assign(preference=pairs["answer"].map(_LABELS)).reset_index(drop=True)


def held_out_figures(
    folder: str | Path, clips: Mapping[str, str | Path | Frames], compared: pd.DataFrame
) -> dict[str, Any]:
    """Measure how often pairs are ordered as simulated people do, by comparisons in both orders and by scores.

    Args:
        folder: of the reward.
        clips: video_id -> clip.
        compared: of :func:`pairs_of`.

    Returns:
        ``pair`` (both orders averaged) and ``point`` (difference of totals): tau, diff and their intervals by prompt;
        ``three_way`` accuracy with its baselines; ``order_flips``, the share of pairs whose winner changes with the
        order; ``first_place_lead``, the mean position bias.
    """
    settings = {"type": "unifiedreward", "path": str(folder), "device": "cpu", "batch": 64, "clip_batch": 64}
    reward = load_reward_model(settings)
    first_clips, second_clips = ([clips[video] for video in compared[f"video_id_{end}"]] for end in "ab")
    prompts, label = compared["prompt"].tolist(), compared["preference"].to_numpy(dtype=str)
    said = ranker_of(reward).compare(first_clips, second_clips, prompts, FRAMES_PER_SECOND)
    bias = said["position_bias"].to_numpy(dtype=np.float64)
    lead = (said["p_a"] - said["p_b"]).to_numpy(dtype=np.float64)
    wanted = [*zip(compared["video_id_a"], prompts, strict=True), *zip(compared["video_id_b"], prompts, strict=True)]
    each = sorted(set(wanted))
    scores = reward.score([clips[video] for video, _ in each], [prompt for _, prompt in each], FRAMES_PER_SECOND)
    total = dict(zip(each, scores["total"].to_numpy(dtype=np.float64), strict=True))
    first, second = np.array([total[one] for one in wanted]).reshape(2, -1)
    found: dict[str, Any] = {
        "three_way": three_way(said["better"].to_numpy(dtype=str), label).to_json(),
        "first_place_lead": float(bias.mean()),
        "position_bias": float(np.abs(bias).mean()),
    }
    for name, difference in (("pair", lead), ("point", first - second)):
        agreement = pairwise_accuracy(difference, label)
        decided = np.flatnonzero(label != "tie")
        ends_of_diff = bootstrap_by_prompt(
            lambda rows, values=difference, decided=decided: (  # type: ignore[misc]
                pairwise_accuracy(values[decided[rows]], label[decided[rows]]).diff
            ),
            compared["prompt"].to_numpy(dtype=str)[decided],
            kinds=("share",),
        )
        interval = dict(zip(("diff_low", "diff_high"), map(float, ends_of_diff), strict=True))
        found[name] = without_nan(agreement.to_json() | interval)
    return found


def reward_card(
    folder: Path,
    report: pd.DataFrame,
    figures: Mapping[str, Any],
    metrics: Mapping[str, Any],
    judge: Path,
    parameters: MicroWorldParameters,
) -> str:
    """Return the card in Markdown: the reward, how it was made, and its figures on held-out prompts.

    Args:
        folder: the reward's folder.
        report: of the training, on items of test prompts.
        figures: of :func:`held_out_figures`.
        metrics: the summary of the training.
        judge: folder of the model that training started from.
    """
    artifact = read_artifact(folder)
    rows = report[(report["dimension"] == "all") | (report["form"] == "point")]
    return render_card(
        "unifiedreward_card.md.j2",
        rows=[without_nan({str(name): value for name, value in row.items()}) for row in rows.to_dict("records")],
        figures=figures,
        metrics=metrics,
        dimensions=artifact.template.point("video_generation").dimensions,
        items=parameters.unified_items,
        seed=parameters.seed,
        hashes=file_hashes(folder),
        judge=file_hashes(judge),
    )
