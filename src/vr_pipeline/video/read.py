"""Read frames of videos and images.

The content of a file decides, never its name. An image is a clip of one frame, an animated one a clip
(:mod:`~vr_pipeline.video.pictures`); everything else goes to :mod:`~vr_pipeline.video.decode`.
"""

import os
from dataclasses import replace
from pathlib import Path

from vr_pipeline.video.clip import Choose, Frames, Reading, VideoInformation, VideoReadError
from vr_pipeline.video.containers import is_container, is_heic, looks_like_text, missing_end
from vr_pipeline.video.decode import read_video
from vr_pipeline.video.limits import check_pixels, reading
from vr_pipeline.video.pictures import PICTURE_ERRORS, is_picture, open_picture
from vr_pipeline.video.sampling import sample_indices, unless_steady

__all__ = [
    "Frames",
    "VideoInformation",
    "VideoReadError",
    "probe",
    "read_chosen",
    "read_clip",
    "read_frames",
    "sample_indices",
]


def read_frames(
    path: str | Path, *, num_frames: int | None = None, fps: float | None = None, own: bool = False
) -> Frames:
    """Read a clip, or a sample of its frames; only what is needed is decoded.

    Args:
        path: a video or an image.
        num_frames: at most this many frames, evenly spread from the first to the last.
        fps: frames a second of the clip's own time. With ``num_frames`` too, that is an upper limit.
        own: the project has made this clip itself; see :class:`~vr_pipeline.video.limits.ReadingParameters`.

    Returns:
        uint8 array [frames, height, width, 3], RGB, upright where the file states an orientation.

    Raises:
        VideoReadError: the file is missing, empty, truncated, damaged, too large, has no picture, or is neither video
            nor image.
        ValueError: a sampling option is not positive.
    """
    return read_clip(path, num_frames=num_frames, fps=fps, own=own)[0]


def read_clip(
    path: str | Path, *, num_frames: int | None = None, fps: float | None = None, own: bool = False
) -> Reading:
    """Read frames as :func:`read_frames`; also return their indices and the clip's properties."""

    sample_indices(1, 0.0, num_frames=num_frames, frames_per_second=fps)  # options that are none are the caller's error

    def choose(information: VideoInformation) -> list[int]:
        return sample_indices(
            information.num_frames,
            information.fps,
            num_frames=num_frames,
            frames_per_second=fps,
            times=information.times,
        )

    return _read(Path(path), choose, own=own)


def read_chosen(path: str | Path, choose: Choose) -> Reading:
    """Read a clip as :func:`read_clip`, but with frames that a function chooses from the clip's properties."""
    return _read(Path(path), choose, own=False)


def probe(path: str | Path) -> VideoInformation:
    """Return number of frames, frames a second, height and width (upright). Raises :class:`VideoReadError`."""
    return _read(Path(path), lambda information: [0], own=False)[2]


def _read(path: Path, choose: Choose, *, own: bool) -> Reading:
    """Return the frames that are chosen of a file, by the reader that its first bytes call for."""
    import av

    _check_file(path)
    with path.open("rb") as file:
        head = file.read(4096)
        if is_picture(head):
            return _read_image(path, choose)
        if looks_like_text(head):
            # Some decoders draw text as pictures, or take it as a list of other files to open.
            raise _no_video(path, "the file holds text, whatever its extension says")
        if is_heic(head):
            raise VideoReadError("HEIC images are not read", remedy="Save it as JPEG or PNG", file=path)
        size = path.stat().st_size
        stated = missing_end(file, head, size)
    if stated is not None:
        raise VideoReadError(
            f"the file is truncated: it has {size} of at least {stated} bytes",
            remedy="Copy or make it again",
            file=path,
        )
    settings = reading()
    try:
        return read_video(path, choose, decord=(settings.own_clips if own else settings.other_clips) == "decord")
    except av.error.InvalidDataError as error:
        known = is_container(head)
        reason = "the file is truncated or damaged" if known else "the file is no video, whatever its extension says"
        raise _no_video(path, reason) from error
    except (av.error.FFmpegError, ValueError) as error:
        raise _no_video(path, str(error)) from error


def _no_video(path: Path, reason: str) -> VideoReadError:
    return VideoReadError(
        f"cannot be decoded: {reason}",
        remedy="Give a complete video (mp4, mov, mkv, webm, avi, gif) or image (png, jpg, webp, bmp)",
        file=path,
    )


def _check_file(path: Path) -> None:
    if not path.exists():
        raise VideoReadError("the file does not exist", remedy="Give the path of a video or an image", file=path)
    if path.is_dir():
        raise VideoReadError("is a folder", remedy="Give the path of a video or an image", file=path)
    if not path.is_file():
        raise VideoReadError("is no regular file", remedy="Give the path of a video or an image", file=path)
    if path.stat().st_size == 0:
        raise VideoReadError("the file is empty (0 bytes)", remedy="Copy or make it again", file=path)
    if not os.access(path, os.R_OK):
        raise VideoReadError("you may not read the file", remedy="Ask its owner for the right to read it", file=path)


def _read_image(path: Path, choose: Choose) -> Reading:
    try:
        with open_picture(path) as picture:
            known = VideoInformation(len(picture.times), picture.fps, 0, 0, unless_steady(picture.times))
            indices = choose(known)
            check_pixels(path, *picture.size, len(indices))
            frames = picture.frames(indices)
        return frames, indices, replace(known, height=frames.shape[1], width=frames.shape[2])
    except VideoReadError:
        raise
    except PICTURE_ERRORS as error:
        raise VideoReadError(
            f"the image cannot be decoded: {error}",
            remedy="It is truncated, damaged or too large: copy or make it again",
            file=path,
        ) from error
