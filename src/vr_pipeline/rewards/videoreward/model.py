"""VideoReward behind the contract of rewards: a score a dimension, their mean, and probabilities of comparisons."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash
from vr_pipeline.judges.contract import NoNumbersError
from vr_pipeline.rewards.contract import Outcome, RewardModel, about_file, index_of
from vr_pipeline.rewards.videoreward.calibration import outside_of, probabilities, standardised, tie_model
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

if TYPE_CHECKING:
    from vr_pipeline.rewards.videoreward.network import VideoRewardNetwork

logger = logging.getLogger(__name__)

SAID_OF_CLIPS = ("outside_training", "model", "sampling")
"""Columns beside the scores: whether the clip is unlike those of training, what scored it, and which frames it saw."""

_SHOWN_TO_THE_MODEL = ("num_frames", "frames_per_second", "min_pixels", "max_pixels")


class VideoReward(RewardModel):
    """Rewards of a trained VideoReward: ``dim_<name>`` standardised, ``total`` their mean (or sum).

    Measurements have these, ``raw_<name>`` as the head gave it, ``outside_training``, ``outside_why``, ``model`` (its
    identity), ``sampling`` and ``frames_judged``.

    Args:
        folder: the model's folder.
        settings: how it is loaded.
        artifact: its reward.json, where it was read already.
    """

    Settings = VideoRewardSettings
    kind = "scores"
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
        """See :meth:`~vr_pipeline.rewards.contract.RewardModel.from_settings`."""
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
        """See :class:`~vr_pipeline.rewards.contract.RewardModel`."""
        from vr_pipeline.vlm.loading import folder_hash

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
        """See :class:`~vr_pipeline.rewards.contract.RewardModel`."""
        return {"model": self.identity}

    def load(self) -> VideoRewardNetwork:
        """Load the network.

        Raises:
            InputError: a file or a weight is missing, unknown, damaged or of another shape.
        """
        from vr_pipeline.rewards.videoreward.network import load_network

        names = ("device", "dtype", "threads", *_SHOWN_TO_THE_MODEL)
        return load_network(self.folder, self.artifact, **{name: getattr(self.settings, name) for name in names})

    def sampling(self, loaded: VideoRewardNetwork) -> Sampling:
        """Sample as in training, unless the configuration says otherwise."""
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
        said = {"model": self.identity, "sampling": str(self.sampling(loaded))}
        raw = self._raw_scores(loaded, [one for _, one in prepared], [clips[at].prompt for at, _ in prepared])
        for (at, _), scores in zip(prepared, raw, strict=True):
            outcomes[at] = scores if isinstance(scores, Exception) else self._row(clips[at], scores, said)
        return outcomes

    def _raw_scores(
        self, network: VideoRewardNetwork, clips: Sequence[PreparedClip], prompts: Sequence[str]
    ) -> list[np.ndarray | InputError]:
        """Return what the head gives for each clip, or why there is nothing; a batch too large for memory is halved."""
        found: list[np.ndarray | InputError] = []
        while len(found) < len(clips):
            batch = slice(len(found), min(len(found) + self._fitting, len(clips)))
            scores = _scores_or_reason(network, clips[batch], prompts[batch])
            if scores is None:
                self._fitting = max(1, (batch.stop - batch.start) // 2)
                logger.warning("Memory ran out: now scoring %d clips at a time.", self._fitting)
            else:
                found += scores
        return found

    def _row(self, clip: SampledClip, raw: np.ndarray, said: Mapping[str, str]) -> pd.DataFrame:
        scores = standardised(raw, self.dimensions, self.calibration)
        total = float(scores.mean() if self.settings.overall == "mean" else scores.sum())
        why = self._outside(clip)
        return pd.DataFrame(
            [
                {f"dim_{name}": float(score) for name, score in zip(self.dimensions, scores, strict=True)}
                | {f"raw_{name}": float(score) for name, score in zip(self.dimensions, raw, strict=True)}
                | {"total": total, "outside_training": bool(why), "outside_why": why, **said}
                | {"frames_judged": len(clip.frames)}
            ]
        )

    def _outside(self, clip: SampledClip) -> str:
        """Return in what a clip, or how it is shown, is unlike training; empty if in nothing."""
        changed = [name for name in _SHOWN_TO_THE_MODEL if getattr(self.settings, name) is not None]
        settings = f"set otherwise: {', '.join(changed)}" if changed else ""
        seen = self.calibration.seen if self.calibration is not None else None
        return "; ".join(filter(None, (outside_of(clip, seen), settings)))

    def unmeasured(self, loaded: VideoRewardNetwork) -> dict[str, Any]:
        """Give no score."""
        names = [*(f"dim_{name}" for name in self.dimensions), *(f"raw_{name}" for name in self.dimensions), "total"]
        nothing: dict[str, Any] = dict.fromkeys(names, np.nan)
        said = {"model": self.identity, "sampling": str(self.sampling(loaded)), "frames_judged": 0}
        return nothing | {"outside_training": False, "outside_why": ""} | said

    def arrange(self, table: pd.DataFrame, index: pd.DataFrame) -> pd.DataFrame:
        """Warn once of clips that are unlike those of training."""
        outside = table[table["outside_training"].astype(bool)]
        if len(outside) and not self._warned:
            self._warned = True
            logger.warning(
                "%d of %d clips are unlike those that the reward was trained on, so that their scores may mean less: "
                "for example %s: %s. The column outside_training says which.",
                len(outside),
                len(table),
                outside["video_id"].iloc[0] or "the first",
                outside["outside_why"].iloc[0],
            )
        return table

    def rewards(self, measured: pd.DataFrame, index: pd.DataFrame) -> pd.DataFrame:
        """Return total and dimensions, and what is said of each clip beside them."""
        table = super().rewards(measured, index)
        of_clips = measured.set_index("video_id")[list(SAID_OF_CLIPS)].loc[table["video_id"]].reset_index(drop=True)
        return pd.concat([table, of_clips.astype({"outside_training": bool})], axis=1)

    def score(
        self, clips: Sequence[str | Path | Frames], prompts: Sequence[str], fps: float | None = None
    ) -> pd.DataFrame:
        """Score clips; see :meth:`vr_pipeline.rewards.contract.RewardModel.score`.

        Returns:
            ``total``, ``dim_<name>``, ``outside_training``, ``model`` and ``sampling``, a row a clip.
        """
        columns = ["total", *(f"dim_{name}" for name in self.dimensions), *SAID_OF_CLIPS]
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


class VideoRewardRanker:
    """Compares clips by their scores, with probabilities; see :class:`~vr_pipeline.rewards.contract.Ranker`.

    Each clip is scored by itself: the position of a clip has no influence.
    """

    def __init__(self, model: VideoReward) -> None:
        self.model = model

    @property
    def identity(self) -> str:
        """Hash of all that its comparisons depend on."""
        return content_hash("ranker from a VideoReward", self.model.identity)

    def compare(
        self,
        clips_a: Sequence[str | Path | Frames],
        clips_b: Sequence[str | Path | Frames],
        prompts: Sequence[str],
        fps: float | None = None,
    ) -> pd.DataFrame:
        """Compare clips pair by pair; see :meth:`vr_pipeline.rewards.contract.Ranker.compare`.

        Returns:
            ``p_a``, ``p_b``, ``p_tie`` of the mean score, ``position_bias`` 0, ``better`` ('a', 'b', or 'tie' where the
            means differ by no more than the tie threshold), and ``p_a_<name>``, ``p_b_<name>``, ``p_tie_<name>`` of
            each dimension.
        """
        dimensions, calibration = self.model.dimensions, self.model.calibration
        columns = [f"dim_{name}" for name in dimensions]
        first, second = (self.model.score(clips, prompts, fps)[columns] for clips in (clips_a, clips_b))
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
    """Return which frames of a clip a network sees: those its model folder says, or as given."""
    settings = network.family.settings
    # A count in the configuration replaces the model folder's rate, and the other way round.
    rate = frames_per_second or (None if num_frames else settings.frames_per_second)
    return Sampling(num_frames or settings.num_frames, rate)


def _scores_or_reason(
    network: VideoRewardNetwork, clips: Sequence[PreparedClip], prompts: Sequence[str]
) -> list[np.ndarray | InputError] | None:
    """Return raw scores of a batch, or why a clip has none; None where several were too many for memory."""
    import torch

    from vr_pipeline.vlm.prefix import is_out_of_memory

    try:
        with torch.inference_mode():
            raw = network.scores(clips, prompts).double().cpu().numpy()
    except InputError as error:
        if len(clips) == 1:
            return [error]
        # One prompt is to blame: alone, each clip shows whether it is the one.
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
                f"memory runs out on one clip of {len(clips[0].token_ids)} tokens",
                remedy="Take fewer frames (num_frames) or smaller ones (max_pixels)",
                field="reward_model",
            )
        ]
    return [row if np.isfinite(row).all() else _no_numbers(row, network.settings.names) for row in raw]


def _no_numbers(raw: np.ndarray, names: Sequence[str]) -> NoNumbersError:
    name, value = next((name, value) for name, value in zip(names, raw, strict=True) if not np.isfinite(value))
    return NoNumbersError(
        f"the reward gave no number ({value}) for dimension '{name}'",
        remedy="Set its dtype to bfloat16 or float32, since large numbers overflow in float16",
        field="reward_model.dtype",
    )
