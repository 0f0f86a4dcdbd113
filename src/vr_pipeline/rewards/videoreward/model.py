"""VideoReward as a reward: one score per dimension, their mean, and probabilities of comparisons."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash
from vr_pipeline.judges.contract import NoNumbersError
from vr_pipeline.rewards.contract import Outcome, RewardModel, about_file, index_of
from vr_pipeline.rewards.ranking import RewardRanker
from vr_pipeline.rewards.videoreward.calibration import outside_of, probabilities, standardised, tie_model
from vr_pipeline.rewards.videoreward.network import VideoRewardNetwork, load_network
from vr_pipeline.rewards.videoreward.settings import (
    HEAD_FILE,
    MODEL_FOLDER,
    TOTAL,
    VideoRewardArtifact,
    VideoRewardSettings,
    check_parts,
    read_artifact,
)
from vr_pipeline.runtime.memory import free_memory
from vr_pipeline.storage.atomic import sha256_once
from vr_pipeline.video.clip import Frames
from vr_pipeline.video.sampled import SampledClip, Sampling, sample_clip
from vr_pipeline.vlm.families.base import PreparedClip
from vr_pipeline.vlm.loading import folder_hash
from vr_pipeline.vlm.prefix import is_out_of_memory

logger = logging.getLogger(__name__)

EXTRA_COLUMNS = ("outside_training", "model", "sampling")
"""Columns besides the scores: whether the clip differs from training, identity of the model, sampling of frames."""

_SHOWN_TO_THE_MODEL = ("num_frames", "frames_per_second", "min_pixels", "max_pixels")


class VideoReward(RewardModel):
    """Rewards of a trained VideoReward: ``dim_<name>`` standardised, ``total`` their mean (or sum).

    Measurements also have ``raw_<name>`` (output of the head), ``outside_training``, ``outside_why``, ``model`` (its
    identity), ``sampling`` and ``frames_judged``.

    Args:
        folder: the model's folder.
        settings: how it is loaded.
        artifact: its reward.json, if already read.
    """

    Settings = VideoRewardSettings
    kind = "scores"
    extra_columns = EXTRA_COLUMNS
    ranks_by = "vr_pipeline.rewards.videoreward.model:VideoRewardRanker"

    def __init__(
        self,
        folder: Path,
        settings: VideoRewardSettings | None = None,
        artifact: VideoRewardArtifact | None = None,
    ) -> None:
        self.folder, self.settings = folder, settings or VideoRewardSettings(path=str(folder))
        self.artifact = artifact or read_artifact(folder)
        self.calibration = self.artifact.calibration
        self.dimensions = self.artifact.network.names
        self.clips_per_item, self.reader_threads = self.settings.clips_per_item, self.settings.reader_threads
        self._fitting = self.settings.clip_batch
        self._warned = False

    @classmethod
    def from_settings(cls, settings: VideoRewardSettings, folder: Path) -> VideoReward:
        if settings.path is not None:
            return cls(folder / Path(settings.path).expanduser(), settings)
        assert settings.family is not None
        assert settings.network is not None
        artifact = VideoRewardArtifact(
            family=settings.family,
            network=settings.network,
            calibration=settings.calibration,
            provenance=settings.provenance,
        )
        return cls(folder, settings, artifact)

    @property
    def measured_by(self) -> tuple[str, ...]:
        check_parts(self.folder)
        how = {"dtype", "clip_batch", "overall", *_SHOWN_TO_THE_MODEL}
        return (
            "videoreward 1",
            folder_hash(self.folder / MODEL_FOLDER),
            sha256_once(self.folder / HEAD_FILE),
            json.dumps(self.artifact.model_dump(mode="json", exclude={"provenance"}), sort_keys=True),
            json.dumps(self.settings.model_dump(mode="json", include=how), sort_keys=True),
        )

    @property
    def recorded(self) -> Mapping[str, str]:
        return {"model": self.identity}

    def load(self) -> VideoRewardNetwork:
        """Load the network.

        Raises:
            InputError: a file or weight is missing, unknown, damaged or has another shape.
        """
        names = ("device", "dtype", "threads", *_SHOWN_TO_THE_MODEL)
        return load_network(self.folder, self.artifact, **{name: getattr(self.settings, name) for name in names})

    def sampling(self, loaded: VideoRewardNetwork) -> Sampling:
        """Return the sampling of the configuration, else of training."""
        return sampling_of(loaded, self.settings.num_frames, self.settings.frames_per_second)

    def look(self, loaded: VideoRewardNetwork, clips: Sequence[SampledClip]) -> list[Outcome]:
        """Score clips, ``clip_batch`` at a time."""
        outcomes: list[Outcome] = []
        prepared: list[tuple[int, PreparedClip]] = []
        for at, clip in enumerate(clips):
            outcomes.append(pd.DataFrame())
            try:
                prepared.append((at, loaded.family.prepare(clip.frames, clip.frames_per_second)))
            except (ValueError, InputError) as error:
                outcomes[at] = error
        provenance = {"model": self.identity, "sampling": str(self.sampling(loaded))}
        raw = self._raw_scores(loaded, [one for _, one in prepared], [clips[at].prompt for at, _ in prepared])
        for (at, _), scores in zip(prepared, raw, strict=True):
            outcomes[at] = scores if isinstance(scores, Exception) else self._row(clips[at], scores, provenance)
        return outcomes

    def _raw_scores(
        self, network: VideoRewardNetwork, clips: Sequence[PreparedClip], prompts: Sequence[str]
    ) -> list[np.ndarray | InputError]:
        """Return the head's outputs or the error of each clip; a batch too large for memory is halved."""
        found: list[np.ndarray | InputError] = []
        while len(found) < len(clips):
            batch = slice(len(found), min(len(found) + self._fitting, len(clips)))
            scores = _scores_or_reason(network, clips[batch], prompts[batch])
            if scores is None:
                self._fitting = max(1, (batch.stop - batch.start) // 2)
                logger.warning("Out of memory: scoring %d clips at a time from now on.", self._fitting)
            else:
                found += scores
        return found

    def _row(self, clip: SampledClip, raw: np.ndarray, provenance: Mapping[str, str]) -> pd.DataFrame:
        scores = standardised(raw, self.dimensions, self.calibration)
        total = float(scores.mean() if self.settings.overall == "mean" else scores.sum())
        why = self._outside(clip)
        return pd.DataFrame(
            [
                {f"dim_{name}": float(score) for name, score in zip(self.dimensions, scores, strict=True)}
                | {f"raw_{name}": float(score) for name, score in zip(self.dimensions, raw, strict=True)}
                | {"total": total, "outside_training": bool(why), "outside_why": why, **provenance}
                | {"frames_judged": len(clip.frames)}
            ]
        )

    def _outside(self, clip: SampledClip) -> str:
        """Return how a clip or its sampling differs from training; empty if it does not."""
        changed = [name for name in _SHOWN_TO_THE_MODEL if getattr(self.settings, name) is not None]
        settings = f"changed settings: {', '.join(changed)}" if changed else ""
        seen = self.calibration.seen if self.calibration is not None else None
        return "; ".join(filter(None, (outside_of(clip, seen), settings)))

    def unmeasured(self, loaded: VideoRewardNetwork) -> dict[str, Any]:
        """Return the row of a failed clip."""
        names = [*(f"dim_{name}" for name in self.dimensions), *(f"raw_{name}" for name in self.dimensions), "total"]
        nothing: dict[str, Any] = dict.fromkeys(names, np.nan)
        provenance = {"model": self.identity, "sampling": str(self.sampling(loaded)), "frames_judged": 0}
        return nothing | {"outside_training": False, "outside_why": ""} | provenance

    def arrange(self, table: pd.DataFrame, index: pd.DataFrame) -> pd.DataFrame:
        """Warn once of clips that differ from training."""
        outside = table[table["outside_training"].astype(bool)]
        if len(outside) and not self._warned:
            self._warned = True
            logger.warning(
                "%d of %d clips differ from those that the reward was trained on, so their scores are less reliable; "
                "for example %s: %s. The column outside_training marks them.",
                len(outside),
                len(table),
                outside["video_id"].iloc[0] or "the first",
                outside["outside_why"].iloc[0],
            )
        return table

    def rewards(self, measured: pd.DataFrame, index: pd.DataFrame) -> pd.DataFrame:
        """Return total, dimensions and :attr:`extra_columns`."""
        table = super().rewards(measured, index)
        of_clips = measured.set_index("video_id")[list(EXTRA_COLUMNS)].loc[table["video_id"]].reset_index(drop=True)
        return pd.concat([table, of_clips.astype({"outside_training": bool})], axis=1)

    def score(
        self, clips: Sequence[str | Path | Frames], prompts: Sequence[str], fps: float | None = None
    ) -> pd.DataFrame:
        """Score clips in batches; see :meth:`vr_pipeline.rewards.contract.RewardModel.score`."""
        columns = ["total", *(f"dim_{name}" for name in self.dimensions), *EXTRA_COLUMNS]
        loaded = self.loaded()
        sampling = self.sampling(loaded)
        parts = []
        pairs = list(zip(clips, prompts, strict=True))
        for start in range(0, len(pairs), self.clips_per_item):
            shown = [
                sample_clip(clip, prompt, sampling, video_id=str(start + at), fps=fps)
                for at, (clip, prompt) in enumerate(pairs[start : start + self.clips_per_item])
            ]
            for clip, seen in zip(shown, self.look(loaded, shown), strict=True):
                if isinstance(seen, Exception):
                    raise about_file(seen, clip.path)
                name = clip.path.name if clip.path is not None else ""
                parts.append(seen.assign(video_id=name))
        if not parts:
            return pd.DataFrame(columns=columns)
        return self.arrange(pd.concat(parts, ignore_index=True), index_of([]))[columns]


class VideoRewardRanker(RewardRanker):
    """Compares clips by their scores, with probabilities.

    Comparisons have ``p_a``, ``p_b``, ``p_tie`` of the mean score, ``position_bias`` 0, ``better`` ('a', 'b', or 'tie'
    up to the tie threshold), and ``p_a_<name>``, ``p_b_<name>``, ``p_tie_<name>`` of each dimension.
    """

    model: VideoReward

    @property
    def identity(self) -> str:
        """Hash of everything that determines its comparisons."""
        return content_hash("ranker from a VideoReward", self.model.identity)

    @property
    def columns(self) -> list[str]:
        """Columns of rewards that are compared."""
        return [f"dim_{name}" for name in self.model.dimensions]

    def _compared(self, first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
        dimensions, calibration = self.model.dimensions, self.model.calibration
        by_dimension = first.to_numpy(dtype=np.float64) - second.to_numpy(dtype=np.float64)
        table: dict[str, Any] = {}
        mean = by_dimension.mean(axis=1)
        for name, difference in ((TOTAL, mean), *zip(dimensions, by_dimension.T, strict=True)):
            ties = tie_model(calibration, name)
            p_a, p_tie, p_b = np.moveaxis(probabilities(difference, ties.theta, ties.scale), -1, 0)
            end = "" if name == TOTAL else f"_{name}"
            table |= {f"p_a{end}": p_a, f"p_b{end}": p_b, f"p_tie{end}": p_tie}
            if name == TOTAL:
                threshold = calibration.tie_threshold.get(TOTAL, 0.0) if calibration is not None else 0.0
                better = np.where(np.abs(mean) <= threshold, "tie", np.where(mean > 0, "a", "b"))
                table |= {"position_bias": np.zeros(len(mean)), "better": better}
        return pd.DataFrame(table)


def sampling_of(
    network: VideoRewardNetwork, num_frames: int | None = None, frames_per_second: float | None = None
) -> Sampling:
    """Return the given sampling, else that of the network's model folder."""
    settings = network.family.settings
    # A number of frames in the configuration replaces the model folder's rate, and vice versa.
    rate = frames_per_second or (None if num_frames else settings.frames_per_second)
    return Sampling(num_frames or settings.num_frames, rate)


def _scores_or_reason(
    network: VideoRewardNetwork, clips: Sequence[PreparedClip], prompts: Sequence[str]
) -> list[np.ndarray | InputError] | None:
    """Return the raw scores or error of each clip of a batch; None if memory runs out on several."""
    import torch

    try:
        with torch.inference_mode():
            raw = network.scores(clips, prompts).double().cpu().numpy()
    except InputError as error:
        if len(clips) == 1:
            return [error]
        # Score one by one, so that only the clip at fault fails.
        alone = (_scores_or_reason(network, clips[at : at + 1], prompts[at : at + 1]) for at in range(len(clips)))
        return [one for scores in alone for one in scores or ()]
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        free_memory(anyway=True)
        if len(clips) > 1:
            return None
        return [
            InputError(
                f"out of memory on one clip of {len(clips[0].token_ids)} tokens",
                remedy="Use fewer frames (num_frames) or smaller ones (max_pixels)",
                field="reward_model",
            )
        ]
    return [row if np.isfinite(row).all() else _no_numbers(row, network.settings.names) for row in raw]


def _no_numbers(raw: np.ndarray, names: Sequence[str]) -> NoNumbersError:
    name, value = next((name, value) for name, value in zip(names, raw, strict=True) if not np.isfinite(value))
    return NoNumbersError(
        f"the reward returned no number ({value}) for dimension '{name}'",
        remedy="Set its dtype to bfloat16 or float32: large numbers overflow in float16",
        field="reward_model.dtype",
    )
