"""What a model is shown of a clip: the one place where frames are taken for judges and rewards."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vr_pipeline.errors import InputError
from vr_pipeline.video.clip import Frames, VideoReadError
from vr_pipeline.video.read import read_clip, sample_indices

_NO_FRAMES: Frames = np.zeros((0, 0, 0, 3), np.uint8)


class Sampling(NamedTuple):
    """Which frames of a clip are taken, in the terms of :func:`vr_pipeline.video.read.sample_indices`.

    With the number of frames taken, its text says which they were: evenly spread over the clip.
    """

    num_frames: int | None = None
    frames_per_second: float | None = None

    def __str__(self) -> str:
        """Return the text that tables of answers use."""
        rate = "every frame" if self.frames_per_second is None else f"{self.frames_per_second:g}/s"
        return rate if self.num_frames is None else f"{rate}, at most {self.num_frames}"


@dataclass(frozen=True, eq=False)
class SampledClip:
    """A clip as a model sees it.

    Attributes:
        video_id: what it is called in tables.
        prompt: its text.
        frames: those that are shown, uint8 [frames, height, width, 3].
        indices: their numbers in the clip.
        frames_per_second: rate of the frames that are shown.
        path: the file they are from; None for frames in memory.
        rate_known: whether somebody stated the rate; else it is 1.
    """

    video_id: str
    prompt: str
    frames: Frames
    indices: list[int]
    frames_per_second: float
    path: Path | None = None
    rate_known: bool = True


def sample_clip(
    source: str | Path | Frames,
    prompt: str,
    sampling: Sampling | None,
    *,
    video_id: str | None = None,
    fps: float | None = None,
    own: bool = False,
) -> SampledClip:
    """Take the frames of a clip that a model is to see.

    Args:
        source: a video or picture, or all its frames, uint8 [frames, height, width, 3].
        prompt: the text it was made for.
        sampling: which frames; None for a model that reads no clips, then there are none.
        video_id: what it is called in tables; without one a file's name.
        fps: frames a second of frames in memory; a file states its own.
        own: the project has made the file itself; see :class:`~vr_pipeline.video.limits.ReadingParameters`.

    Raises:
        VideoReadError: the file cannot be read.
        InputError: frames in memory have a wrong shape or type, or are to be sampled by a rate and have none.
    """
    if sampling is None:
        path = Path(source) if isinstance(source, str | Path) else None
        name = path.name if path is not None else ""
        return SampledClip(name if video_id is None else video_id, prompt, _NO_FRAMES, [], 1.0, path)
    if isinstance(source, str | Path):
        path = Path(source)
        frames, taken, known = read_clip(path, num_frames=sampling.num_frames, fps=sampling.frames_per_second, own=own)
        name, count, rate = path.name, known.num_frames, known.fps
    else:
        _check_frames(source, sampling, fps)
        path, name, count, rate = None, "", len(source), fps or 0.0
        taken = sample_indices(
            count, rate, num_frames=sampling.num_frames, frames_per_second=sampling.frames_per_second
        )
        frames = source[taken]
    # The rate of the frames that were taken, not the clip's own.
    rate = rate * len(taken) / max(count, 1)
    return SampledClip(name if video_id is None else video_id, prompt, frames, list(taken), rate or 1.0, path, rate > 0)


def shape_of(clip: SampledClip) -> tuple[float, int, float]:
    """Return rate of the frames shown in 1/s, area of a frame in pixels, and length of what is shown in s."""
    return clip.frames_per_second, int(np.prod(clip.frames.shape[1:3])), len(clip.frames) / clip.frames_per_second


def sample_clips(
    folder: Any, clips: Sequence[Mapping[str, Any]], sampling: Sampling | None, threads: int = 1
) -> list[SampledClip | VideoReadError]:
    """Take the frames of clips that the project made, or the reason why one cannot be read in its place.

    Args:
        folder: see :func:`clip_path`.
        clips: video_id, prompt and path of each.
        sampling: which frames; None for a model that reads no clips.
        threads: that decode.
    """

    def read(clip: Mapping[str, Any]) -> SampledClip | VideoReadError:
        try:
            path = clip["path"] if sampling is None else clip_path(folder, clip["video_id"], clip["path"])
            own = not isinstance(folder, Mapping)
            return sample_clip(path, str(clip["prompt"]), sampling, video_id=str(clip["video_id"]), own=own)
        except VideoReadError as error:
            return error

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(read, clips))


def clip_path(folder: Any, video_id: str, file: str) -> Path:
    """Return the path of a clip: in an :class:`~vr_pipeline.items.folder.ItemFolder` by its key, else by its file name.

    Raises:
        VideoReadError: the folder has no such clip.
    """
    try:
        return Path(folder[file]) if isinstance(folder, Mapping) else Path(folder.path(video_id))
    except KeyError:
        raise VideoReadError(
            f"clip '{video_id}' is not in the folder of clips", remedy="Index the folder again", file=file
        ) from None


def _check_frames(frames: Frames, sampling: Sampling, fps: float | None) -> None:
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
        shape = f"{frames.dtype} {list(frames.shape)}" if isinstance(frames, np.ndarray) else type(frames).__name__
        raise InputError(
            f"a clip in memory is {shape}", remedy="Give a uint8 array [frames, height, width, 3]", field="clips"
        )
    if not len(frames):
        raise InputError("a clip in memory has no frames", remedy="Give at least one frame", field="clips")
    if sampling.frames_per_second is not None and len(frames) > 1 and fps is None:
        raise InputError(
            f"frames are taken at a rate ({sampling}), and the rate of a clip in memory is not known",
            remedy="Give its frames a second as 'fps'",
            field="fps",
        )
