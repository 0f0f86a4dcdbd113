"""Training clips: read, prepared for the model, and cached within a memory limit."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vr_pipeline.engine.groups import Group
from vr_pipeline.errors import InputError
from vr_pipeline.runtime.progress import progress_bar
from vr_pipeline.video.clip import Frames, VideoReadError
from vr_pipeline.video.sampled import SampledClip, Sampling, clip_path, sample_clip, shape_of
from vr_pipeline.vlm.config import JudgeParameters
from vr_pipeline.vlm.families.base import Family

logger = logging.getLogger(__name__)

ReadClip = Callable[[str, Sampling], SampledClip]
"""Reads a clip by its identifier and sampling. Raises :class:`VideoReadError`."""


class Ready(Protocol):
    """A clip prepared for a model."""

    @property
    def vision(self) -> dict[str, NDArray[Any]]:
        """Inputs of the vision tower."""


Made = TypeVar("Made", bound=Ready)


def read_from(videos: Any, index: pd.DataFrame) -> ReadClip:
    """Return a reader of clips in a folder.

    Args:
        videos: a mapping from file names, or an :class:`~vr_pipeline.items.folder.ItemFolder`.
        index: schema ``VideoIndex``.
    """
    places = dict(zip(index["video_id"].astype(str), index["path"].astype(str), strict=True))
    own = not isinstance(videos, Mapping)

    def read(video_id: str, sampling: Sampling) -> SampledClip:
        path = clip_path(videos, video_id, places[video_id])
        return sample_clip(path, "", sampling, video_id=video_id, own=own)

    return read


def shown_frames(family: Family, parameters: JudgeParameters | None) -> Sampling:
    """Return the frame sampling of training, and set it in the family's settings for scoring.

    A number of frames in the configuration replaces the model folder's rate, and vice versa.
    """
    settings = family.settings
    count = parameters.num_frames if parameters is not None else None
    rate = parameters.frames_per_second if parameters is not None else None
    frames = count or settings.num_frames
    per_second = rate or (None if count else settings.frames_per_second)
    family.settings = settings.model_copy(update={"num_frames": frames, "frames_per_second": per_second})
    return Sampling(frames, per_second)


class TrainingClips(Generic[Made]):
    """The clips of a training, prepared on first use.

    Args:
        read: reads a clip.
        prepare: prepares frames with their rate in 1/s, as a family's ``prepare`` and ``visual`` do.
        sampling: the frames to read.
        memory_mb: size of the cache in megabytes.
        threads: reader threads.
    """

    def __init__(
        self,
        read: ReadClip,
        prepare: Callable[[Frames, float | None], Made],
        sampling: Sampling,
        *,
        memory_mb: float,
        threads: int,
    ) -> None:
        self.read, self.make_ready, self.sampling = read, prepare, sampling
        self.free, self.threads = memory_mb * 1e6, threads
        self.kept: dict[str, Made] = {}
        self.shapes: dict[str, tuple[float, float, float]] = {}

    def prepared(self, video_ids: Sequence[str]) -> list[Made]:
        """Return prepared clips.

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
        """Read every clip once before training, each process its share; return unusable clips with the reason."""
        share = group.share(video_ids)
        found = np.empty((len(share), 4))
        bar = progress_bar(
            range(0, len(share), 64), description="read clips", unit="64 clips", disable=not group.main, leave=False
        )
        for start in bar:
            names = share[start : start + 64]
            for row, (name, clip) in enumerate(zip(names, self._prepare_all(names), strict=True), start=start):
                found[row] = [1.0, 0, 0, 0] if isinstance(clip, Exception) else [0.0, *self.shapes[name]]
        gathered = group.gather_rows(found, len(video_ids))
        bad = [name for name, row in zip(video_ids, gathered, strict=True) if row[0] == 1.0]
        self.shapes = {
            name: (float(row[1]), float(row[2]), float(row[3]))
            for name, row in zip(video_ids, gathered, strict=True)
            if row[0] == 0.0
        }
        # Every process reads the few bad clips again for the reasons.
        reasons = {name: str(clip) for name, clip in zip(bad, self._prepare_all(bad), strict=True)}
        for name in bad[:5]:
            logger.warning("Clip %s cannot be used: %s", name, reasons[name])
        return reasons

    def usable_index(self, index: pd.DataFrame, video_ids: Iterable[str], group: Group) -> pd.DataFrame:
        """Read clips as :meth:`examine`; return the index with status 'failed' and the reason for unusable ones."""
        usable = index[index["status"] == "ok"]["video_id"].astype(str)
        reasons = self.examine(sorted(set(video_ids).intersection(usable)), group)
        if not reasons:
            return index
        failed = index["video_id"].isin(list(reasons))
        status = index["status"].where(~failed, "failed")
        return index.assign(status=status, error=index["error"].where(~failed, index["video_id"].map(reasons)))

    def _prepare_all(self, names: Sequence[str]) -> list[Made | Exception]:
        if len(names) < 2 or self.threads == 1:
            return [self._prepare(name) for name in names]
        with ThreadPoolExecutor(min(self.threads, len(names))) as pool:
            return list(pool.map(self._prepare, names))

    def _prepare(self, name: str) -> Made | Exception:
        try:
            clip = self.read(name, self.sampling)
            prepared = self.make_ready(clip.frames, clip.frames_per_second)
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
