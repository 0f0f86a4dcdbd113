"""Clips on their way into a training: read, prepared for the model, and kept as long as the memory lasts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vr_pipeline.engine.groups import Group
from vr_pipeline.errors import InputError
from vr_pipeline.rewards.videoreward.calibration import seen_clips, shape_of
from vr_pipeline.rewards.videoreward.settings import SeenClips
from vr_pipeline.runtime.progress import progress_bar
from vr_pipeline.video.clip import VideoReadError
from vr_pipeline.video.sampled import SampledClip, Sampling, clip_path, sample_clip
from vr_pipeline.vlm.families.base import Family, PreparedClip

if TYPE_CHECKING:
    from vr_pipeline.vlm.config import JudgeParameters

logger = logging.getLogger(__name__)

ReadClip = Callable[[str, Sampling], SampledClip]
"""Gives a clip by its identifier, with the frames that are asked for. Raises :class:`VideoReadError`."""


def read_from(videos: Any, index: pd.DataFrame) -> ReadClip:
    """Return what reads the clips of a folder.

    Args:
        videos: the folder: a mapping from file names, or an :class:`~vr_pipeline.items.folder.ItemFolder`.
        index: schema ``VideoIndex``.
    """
    places = dict(zip(index["video_id"].astype(str), index["path"].astype(str), strict=True))
    own = not isinstance(videos, Mapping)

    def read(video_id: str, sampling: Sampling) -> SampledClip:
        path = clip_path(videos, video_id, places[video_id])
        return sample_clip(path, "", sampling, video_id=video_id, own=own)

    return read


def shown_frames(family: Family, parameters: JudgeParameters | None) -> Sampling:
    """Return which frames training shows, and leave the same in the model's settings, so that scoring shows them too.

    A number of frames in the configuration replaces the model folder's rate, and the other way round.
    """
    settings = family.settings
    count = parameters.num_frames if parameters is not None else None
    rate = parameters.frames_per_second if parameters is not None else None
    frames = count or settings.num_frames
    per_second = rate or (None if count else settings.frames_per_second)
    family.settings = settings.model_copy(update={"num_frames": frames, "frames_per_second": per_second})
    return Sampling(frames, per_second)


class TrainingClips:
    """The clips of a training, prepared when they are first wanted."""

    def __init__(self, read: ReadClip, family: Family, sampling: Sampling, *, memory_mb: float, threads: int) -> None:
        self.read, self.family, self.sampling = read, family, sampling
        self.free, self.threads = memory_mb * 1e6, threads
        self.kept: dict[str, PreparedClip] = {}
        self.shapes: dict[str, tuple[float, float, float]] = {}

    def prepared(self, video_ids: Sequence[str]) -> list[PreparedClip]:
        """Return clips ready for the model.

        Raises:
            InputError: a clip cannot be read, or is too small for the model.
        """
        wanted = [name for name in dict.fromkeys(video_ids) if name not in self.kept]
        made = dict(zip(wanted, self._prepare_all(wanted), strict=True))
        for clip in made.values():
            if isinstance(clip, Exception):
                raise clip
        return [self.kept.get(name) or made[name] for name in video_ids]  # type: ignore[misc]

    def examine(self, video_ids: Sequence[str], group: Group) -> dict[str, str]:
        """Read every clip once; each process of a group its share. Returns those that cannot be used, with the reason.

        So a clip that does not decode is known before training, and not when its turn comes.
        """
        import torch

        share = group.share(video_ids)
        found = np.full((-(-len(video_ids) // group.size), 4), np.nan)
        bar = progress_bar(
            range(0, len(share), 64), description="read clips", unit="64 clips", disable=not group.main, leave=False
        )
        for start in bar:
            names = share[start : start + 64]
            for row, (name, clip) in enumerate(zip(names, self._prepare_all(names), strict=True), start=start):
                found[row] = [1.0, 0, 0, 0] if isinstance(clip, Exception) else [0.0, *self.shapes[name]]
        gathered = group.gather({"found": torch.from_numpy(found)})["found"].view(-1, 4)[: len(video_ids)].numpy()
        bad = [name for name, row in zip(video_ids, gathered, strict=True) if row[0] == 1.0]
        self.shapes = {
            name: (float(row[1]), float(row[2]), float(row[3]))
            for name, row in zip(video_ids, gathered, strict=True)
            if row[0] == 0.0
        }
        # The reasons once more, in every process: there are few.
        reasons = {name: str(clip) for name, clip in zip(bad, self._prepare_all(bad), strict=True)}
        for name in bad[:5]:
            logger.warning("Clip %s cannot be used: %s", name, reasons[name])
        return reasons

    def seen(self, video_ids: Iterable[str]) -> SeenClips:
        """Return the ranges of rate, area and length of some clips."""
        return seen_clips([(rate, int(area), length) for rate, area, length in map(self.shapes.__getitem__, video_ids)])

    def _prepare_all(self, names: Sequence[str]) -> list[PreparedClip | Exception]:
        if len(names) < 2 or self.threads == 1:
            return [self._prepare(name) for name in names]
        with ThreadPoolExecutor(min(self.threads, len(names))) as pool:
            return list(pool.map(self._prepare, names))

    def _prepare(self, name: str) -> PreparedClip | Exception:
        try:
            clip = self.read(name, self.sampling)
            prepared = self.family.prepare(clip.frames, clip.frames_per_second)
        except (VideoReadError, InputError) as error:
            return error
        except ValueError as error:
            return InputError(f"clip '{name}': {error}", remedy="Give a clip of another size", file=name)
        rate, area, length = shape_of(clip)
        self.shapes[name] = (rate, float(area), length)
        size = sum(array.nbytes for array in prepared.vision.values())
        if size <= self.free:
            self.free -= size
            self.kept[name] = prepared
        return prepared


def with_failures(index: pd.DataFrame, reasons: Mapping[str, str]) -> pd.DataFrame:
    """Return an index in which clips that cannot be used have status 'failed' and the reason."""
    if not reasons:
        return index
    failed = index["video_id"].isin(list(reasons))
    status = index["status"].where(~failed, "failed")
    return index.assign(status=status, error=index["error"].where(~failed, index["video_id"].map(reasons)))


def rows_of_all(rows: NDArray[np.float64], count: int, group: Group) -> NDArray[np.float64]:
    """Return rows of all processes in the order of the items that :meth:`Group.share` took apart, [count, columns]."""
    import torch

    filled = np.full((-(-count // group.size), rows.shape[1]), np.nan)
    filled[: len(rows)] = rows
    gathered = group.gather({"rows": torch.from_numpy(filled)})["rows"]
    found: NDArray[np.float64] = gathered.view(-1, rows.shape[1])[:count].numpy()
    return found
