"""Held-out figures and the model card of the embedded VideoReward."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vr_pipeline.micro_world.card import file_hashes, render_card
from vr_pipeline.micro_world.config import MicroWorldParameters
from vr_pipeline.micro_world.preferences import CRITERIA
from vr_pipeline.micro_world.world import FRAMES_PER_SECOND, all_prompts
from vr_pipeline.rewards.contract import RewardModel
from vr_pipeline.rewards.videoreward.settings import read_artifact
from vr_pipeline.statistics.agreement import pairwise_accuracy
from vr_pipeline.video.clip import Frames

SHOWN_CLIPS, SHOWN_PROMPTS = 100, 6
"""Number of clips, and of prompts under which each is scored, for the spread over prompts."""


def held_out_figures(
    reward: RewardModel, clips: Mapping[str, str | Path | Frames], compared: pd.DataFrame
) -> pd.DataFrame:
    """Measure how often a reward orders pairs as simulated people do, and how much its scores depend on the prompt.

    Args:
        reward: its dimensions are named as the criteria.
        clips: video_id -> clip.
        compared: of :func:`~vr_pipeline.micro_world.reward_pairs.compare_pairs`.

    Returns:
        one row per dimension (and 'total') and kind of pairs ('all', 'one prompt', 'cross-prompt'): n, ties, diff
        (share of pairs without a human tie in the correct order), tau (ties predicted by the best threshold), and
        prompt_spread of a dimension, see :func:`spread_over_prompts`.
    """
    names = {"total": "preference"} | {f"dim_{name}": f"preference_{name}" for name in reward.dimensions}
    wanted = [
        (video, prompt)
        for video, prompt in zip(
            [*compared["video_id_a"], *compared["video_id_b"]], [*compared["prompt"]] * 2, strict=True
        )
    ]
    each = sorted(set(wanted))
    scores = reward.score([clips[video] for video, _ in each], [prompt for _, prompt in each], FRAMES_PER_SECOND)
    place = {one: at for at, one in enumerate(each)}
    first, second = np.array([place[one] for one in wanted]).reshape(2, -1)
    crossed = compared["crossed"].to_numpy(dtype=bool)
    spread = spread_over_prompts(reward, [clips[video] for video in sorted(clips)[:SHOWN_CLIPS]])
    rows = []
    for column, criterion in names.items():
        name = column.removeprefix("dim_")
        values = scores[column].to_numpy(dtype=np.float64)
        for kind, chosen in (("all", np.ones_like(crossed)), ("one prompt", ~crossed), ("cross-prompt", crossed)):
            found = pairwise_accuracy(
                (values[first] - values[second])[chosen], compared[criterion].to_numpy()[chosen].astype(str)
            )
            rows.append(
                {
                    "dimension": name,
                    "pairs": kind,
                    "n": found.n,
                    "ties": found.n_ties,
                    "diff": found.diff,
                    "tau": found.tau,
                    "prompt_spread": spread.get(name),
                }
            )
    return pd.DataFrame(rows)


def spread_over_prompts(reward: RewardModel, clips: Sequence[str | Path | Frames]) -> dict[str, float]:
    """Measure how much the scores of a clip depend on the prompt.

    Returns:
        by dimension: the standard deviation over prompts (its mean over clips), as a share of that over clips; exactly
        0 if a score is the same for every prompt.
    """
    prompts = all_prompts()[:: len(all_prompts()) // SHOWN_PROMPTS][:SHOWN_PROMPTS]
    scores = reward.score([clip for clip in clips for _ in prompts], prompts * len(clips), FRAMES_PER_SECOND)
    found = {}
    for name in reward.dimensions:
        values: npt.NDArray[np.float64] = scores[f"dim_{name}"].to_numpy(dtype=np.float64).reshape(len(clips), -1)
        own = values - values[:, :1]
        found[name] = float(own.std(axis=1).mean() / values.mean(axis=1).std())
    return found


def reward_card(
    folder: Path,
    figures: Sequence[Mapping[str, Any]],
    metrics: Mapping[str, Any],
    parameters: MicroWorldParameters,
    judge: Path,
) -> str:
    """Return the card in Markdown: the reward, how it was made, and its figures on held-out prompts.

    Args:
        folder: the reward's folder.
        figures: the rows of :func:`held_out_figures`.
        metrics: the summary of the training.
        judge: folder of the model that training started from.
    """
    artifact = read_artifact(folder)
    return render_card(
        "videoreward_card.md.j2",
        dimensions=[(one.name, CRITERIA[one.name], one.sees_prompt) for one in artifact.network.dimensions],
        figures=pd.DataFrame(figures).set_index(["dimension", "pairs"]),
        metrics=metrics,
        pairs=parameters.reward_pairs,
        seed=parameters.seed,
        hashes=file_hashes(folder),
        judge=file_hashes(judge),
    )
