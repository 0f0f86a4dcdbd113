"""Reads frames of videos and images.

decord reads videos first: it seeks, so that only the frames asked for are decoded. Where it cannot - it refuses some
widths that are no multiple of 32, and formats it was not built for - PyAV reads instead. An image is a clip of one
frame, an animated one a clip (:mod:`~vr_pipeline.video.pictures`).
"""

from __future__ import annotations

import codecs
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vr_pipeline.errors import InputError
from vr_pipeline.video.pictures import Frames, is_picture, open_picture, picture_errors

logger = logging.getLogger(__name__)

_IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".avif", ".tif", ".tiff"})
VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".gif"})
MEDIA_SUFFIXES = _IMAGE_SUFFIXES | VIDEO_SUFFIXES


class VideoReadError(InputError):
    """A file cannot be read as a video or an image."""


@dataclass(frozen=True)
class VideoInformation:
    """What is known of a clip without decoding it; an image has one frame and 0 frames a second."""

    num_frames: int
    fps: float
    height: int
    width: int
    times: Sequence[float] | None = field(default=None, repr=False, compare=False)
    """When each frame is shown, in seconds after the first; only where frames do not come at a steady rate."""


def read_frames(path: str | Path, *, num_frames: int | None = None, fps: float | None = None) -> Frames:
    """Reads a clip, or a sample of its frames; only what is needed is decoded.

    Args:
        path: a video or an image.
        num_frames: at most this many frames, evenly spread from the first to the last.
        fps: frames a second of the clip's own time. With ``num_frames`` too, that is an upper limit.

    Returns:
        uint8 array [frames, height, width, 3], RGB, upright where the file states a rotation.

    Raises:
        VideoReadError: the file is missing, empty, truncated, damaged, has no picture, or is neither video nor image.
        ValueError: a sampling option is not positive.
    """
    return read_clip(path, num_frames=num_frames, fps=fps)[0]


def read_clip(
    path: str | Path, *, num_frames: int | None = None, fps: float | None = None
) -> tuple[Frames, list[int], VideoInformation]:
    """As :func:`read_frames`, with the indices of the frames that were taken and what is known of the whole clip."""
    path = Path(path)
    _check_file(path)

    def choose(information: VideoInformation) -> list[int]:
        return sample_indices(
            information.num_frames,
            information.fps,
            num_frames=num_frames,
            frames_per_second=fps,
            times=information.times,
        )

    return _read(path, choose)


def probe(path: str | Path) -> VideoInformation:
    """Number of frames, frames a second, height and width in pixels (upright). Raises :class:`VideoReadError`."""
    path = Path(path)
    _check_file(path)
    return _read(path, lambda information: [0])[2]


def sample_indices(
    count: int,
    clip_fps: float,
    *,
    num_frames: int | None = None,
    frames_per_second: float | None = None,
    times: Sequence[float] | None = None,
) -> list[int]:
    """Which frames of a clip a sampling takes: strictly increasing indices in [0, count).

    Args:
        count: frames in the clip, at least 1.
        clip_fps: the clip's frames a second; 0 if unknown, then ``frames_per_second`` has no effect.
        num_frames: upper limit; evenly spread with both ends included, one frame is the first.
        frames_per_second: the rate to sample at; a rate above the clip's own takes every frame.
        times: when each frame is shown, in seconds from 0 on, ascending, where that is no steady rate; then the sample
            is spread over the time, and may have fewer frames than ``num_frames``.
    """
    if num_frames is not None and num_frames < 1:
        raise ValueError(f"num_frames must be at least 1, got {num_frames}")
    if frames_per_second is not None and not frames_per_second > 0:
        raise ValueError(f"fps must be above 0, got {frames_per_second}")
    indices = np.arange(count)
    if times is not None and (frames_per_second is not None or num_frames is not None):
        if frames_per_second is not None:
            # The last frame stays for a while too: an average one is assumed.
            moments = np.arange(0, times[-1] * count / (count - 1), 1 / frames_per_second)
        else:
            moments = np.linspace(0, times[-1], min(num_frames or count, count))
        indices = np.unique(np.searchsorted(times, moments + 1e-6, side="right") - 1)
    elif frames_per_second is not None and clip_fps > 0 and frames_per_second < clip_fps:
        step = clip_fps / frames_per_second
        # What is a whole number but for the last digits shall not fall below it, nor pass the end.
        indices = np.unique(np.minimum(np.floor(np.arange(0, count, step) + 1e-6).astype(int), count - 1))
    if num_frames is not None and num_frames < len(indices):
        indices = indices[np.floor(np.linspace(0, len(indices) - 1, num_frames) + 0.5).astype(int)]
    return [int(index) for index in indices]


Choose = Callable[[VideoInformation], list[int]]
_Result = tuple[Frames, list[int], VideoInformation]


def _read(path: Path, choose: Choose) -> _Result:
    """The frames that are chosen of a file that exists, by the reader that its first bytes call for."""
    with path.open("rb") as file:
        head = file.read(4096)
        if is_picture(head):
            return _read_image(path, choose)
        if _looks_like_text(head):
            # Some decoders draw text as pictures, or take it as a list of other files to open.
            raise _no_video(path, "the file holds text, whatever its extension says")
        if head[4:8] == b"ftyp" and head[8:12] in _HEIC:
            raise VideoReadError("HEIC images are not read", remedy="Save it as JPEG or PNG", file=path)
        _check_complete(path, file, head)
    # decord complains on its own of what it does not know.
    readers = [_read_with_decord, _read_with_pyav] if _is_container(head) else [_read_with_pyav]
    reasons = []
    for reader in readers:
        try:
            return reader(path, choose)
        except VideoReadError:
            raise
        except _library_errors() as error:
            logger.debug("%s: %s failed: %s", path, reader.__name__, error)
            reasons.append(error)
    raise _no_video(path, _plain_reason(head, reasons[-1])) from reasons[-1]


def _no_video(path: Path, reason: str) -> VideoReadError:
    return VideoReadError(
        f"cannot be decoded: {reason}",
        remedy="Give a complete video (mp4, mov, mkv, webm, avi, gif) or image (png, jpg, webp, bmp)",
        file=path,
    )


def _library_errors() -> tuple[type[Exception], ...]:
    import av

    errors: tuple[type[Exception], ...] = (av.error.FFmpegError, ValueError, RuntimeError, IndexError, ImportError)
    try:
        from decord import DECORDError
    except ImportError:  # no build of decord for this platform: PyAV reads everything
        return errors
    return (*errors, DECORDError)


def _check_file(path: Path) -> None:
    if not path.exists():
        raise VideoReadError("the file does not exist", remedy="Give the path of a video or an image", file=path)
    if path.is_dir():
        raise VideoReadError("is a folder", remedy="Give the path of a video or an image", file=path)
    if path.stat().st_size == 0:
        raise VideoReadError("the file is empty (0 bytes)", remedy="Copy or make it again", file=path)
    if not os.access(path, os.R_OK):
        raise VideoReadError("you may not read the file", remedy="Ask its owner for the right to read it", file=path)


def _check_complete(path: Path, file: BinaryIO, head: bytes) -> None:
    """Refuses a file that ends before its own container does, where the container states its length.

    Players and decoders take what is there, and half a clip would be judged as if it were all.
    """
    size = path.stat().st_size
    stated = _stated_boxes(file, size) if head[4:8] in _BOXES else _stated_size(head)
    if stated is not None and stated > size:
        raise VideoReadError(
            f"the file is truncated: it has {size} of at least {stated} bytes",
            remedy="Copy or make it again",
            file=path,
        )


_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
"""What mp4 and mov files begin with, behind its size."""

_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
"""Kinds of a container like mp4 that hold photographs, in tiles that video decoders take for frames."""


def _is_container(head: bytes) -> bool:
    """Whether a file begins as videos that people have do: mp4, mov, Matroska, WebM, AVI, GIF, MPEG, FLV."""
    starts = (b"\x1aE\xdf\xa3", b"RIFF", b"GIF8", b"\x00\x00\x01", b"FLV", b"\x47")
    return head[4:8] in _BOXES or head.startswith(starts)


def _stated_boxes(file: BinaryIO, size: int) -> int | None:
    """Where the last of the boxes that make up an mp4 or mov file ends; None where one is left open or is none."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if length < 8 or not header[4:8].isalnum():
            return None
        at += length
    return at


def _stated_size(head: bytes) -> int | None:
    """Bytes that the container says it has: AVI (the first RIFF chunk) and Matroska, WebM (header and segment)."""
    if head[:4] == b"RIFF" and head[8:11] == b"AVI":
        return 8 + int.from_bytes(head[4:8], "little")
    if head[:4] != b"\x1aE\xdf\xa3":
        return None
    header, start = _ebml_size(head, 4)
    if header is None or head[start + header : start + header + 4] != b"\x18S\x80g":
        return None
    segment, start = _ebml_size(head, start + header + 4)
    return None if segment is None else start + segment


def _ebml_size(head: bytes, at: int) -> tuple[int | None, int]:
    """A size in EBML's variable length, None if it is left open as in live streams, and where its content starts."""
    if at >= len(head) or head[at] == 0:
        return None, at
    length = 9 - head[at].bit_length()
    value = int.from_bytes(head[at : at + length], "big") & ((1 << 7 * length) - 1)
    return (None if value == (1 << 7 * length) - 1 else value), at + length


def _read_image(path: Path, choose: Choose) -> _Result:
    try:
        with open_picture(path) as picture:
            known = VideoInformation(len(picture.times), picture.fps, 0, 0, _unless_steady(picture.times))
            indices = choose(known)
            frames = picture.frames(indices)
        return frames, indices, replace(known, height=frames.shape[1], width=frames.shape[2])
    except picture_errors() as error:
        raise VideoReadError(
            f"the image cannot be decoded: {error}",
            remedy="It is truncated, damaged or too large: copy or make it again",
            file=path,
        ) from error


def _read_with_decord(path: Path, choose: Choose) -> _Result:
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    reader = decord.VideoReader(str(path), num_threads=1 if path.stat().st_size < 1_000_000 else 0)
    count = len(reader)
    times = reader.get_frame_timestamp(np.arange(count))[:, 0].tolist()
    # The size of a frame is known only once one is decoded; choosing frames does not need it.
    known = VideoInformation(count, float(reader.get_avg_fps()), 0, 0, _unless_steady(times))
    indices = choose(known)
    frames = reader.get_batch(indices).asnumpy()
    if len(frames) != len(indices):
        raise RuntimeError(f"decord gave {len(frames)} of {len(indices)} frames")
    information = replace(known, height=frames.shape[1], width=frames.shape[2])
    return np.ascontiguousarray(frames, dtype=np.uint8), indices, information


def _unless_steady(times: Sequence[float]) -> Sequence[float] | None:
    """Times in seconds after the first frame, where they stray from a steady rate by more than a frame and a half.

    Containers round times, and telephones' rates tremble: there the count of frames is as good a clock.
    """
    if len(times) < 3:
        return None
    shown = np.sort(np.asarray(times, dtype=np.float64))
    shown -= shown[0]
    interval = shown[-1] / (len(shown) - 1)
    strays = np.abs(shown - interval * np.arange(len(shown))).max() > 1.5 * interval
    return shown.tolist() if strays else None


def _read_with_pyav(path: Path, choose: Choose) -> _Result:
    import av

    with av.open(str(path)) as container:
        if not container.streams.video:
            raise VideoReadError(
                "has sound but no picture" if container.streams.audio else "holds no video stream",
                remedy="Give a file with a video stream",
                file=path,
            )
        stream = container.streams.video[0]
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        # Containers such as webm do not state the number of frames; packets are counted without decoding them.
        packets = [packet for packet in container.demux(stream) if packet.size > 0]
        count = stream.frames or len(packets)
        shown = [float(packet.pts * packet.time_base) for packet in packets if packet.pts is not None]
        times = _unless_steady(shown) if len(shown) == count else None
    if count < 1:
        raise VideoReadError("the video has no frames", remedy="Copy or make it again", file=path)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        first: Frames | None = None
        wanted: list[int] | None = None
        taken: list[Frames] = []
        information = None
        for index, frame in enumerate(container.decode(stream)):
            if wanted is None:
                first = _upright(frame)
                information = VideoInformation(count, rate, first.shape[0], first.shape[1], times)
                wanted = choose(information)
            if index == wanted[len(taken)]:
                taken.append(_upright(frame))
                if len(taken) == len(wanted):
                    break
    if wanted is None or information is None:
        raise VideoReadError("the video has no frames that decode", remedy="Copy or make it again", file=path)
    if len(taken) < len(wanted):
        raise VideoReadError(
            f"only {len(taken)} of {len(wanted)} frames decode, the file is truncated or damaged",
            remedy="Copy or make it again",
            file=path,
        )
    return np.stack(taken), wanted, information


def _upright(frame: Any) -> Frames:
    """Pixels of a PyAV frame, turned as the file's display matrix says (counter-clockwise quarter turns)."""
    pixels = frame.to_ndarray(format="rgb24")
    turns = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _plain_reason(head: bytes, error: Exception) -> str:
    import av

    if isinstance(error, av.error.InvalidDataError):
        known = _is_container(head)
        return "the file is truncated or damaged" if known else "the file is no video, whatever its extension says"
    return str(error)


def _looks_like_text(head: bytes) -> bool:
    try:
        # The last character may be cut in two.
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\r\n\t" for character in text)


def find_media(patterns: Sequence[str | Path]) -> list[Path]:
    """Files meant by paths, globs and folders (their media files), each once, in the order given, sorted within one.

    Raises:
        VideoReadError: a pattern matches nothing, or a folder holds no media.
    """
    import glob

    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        if os.path.isdir(path):
            matches = sorted(child for child in path.iterdir() if child.suffix.lower() in MEDIA_SUFFIXES)
            problem = "the folder holds no videos or images"
        elif os.path.exists(path):  # unlike Path's, it takes a text that is too long for a name
            matches, problem = [path], ""
        else:
            matches = sorted(Path(match) for match in glob.glob(str(pattern), recursive=True))
            problem = "no file has this name or matches this pattern"
        if not matches:
            raise VideoReadError(problem, remedy="Give a video, an image, a folder or a pattern", file=path)
        found.update(dict.fromkeys(matches))
    return list(found)
