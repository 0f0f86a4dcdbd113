"""Clips in formats that browsers play."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from vr_pipeline.video.packets import open_video
from vr_pipeline.video.read import probe, read_clip
from vr_pipeline.video.resize import resize
from vr_pipeline.video.write import encode_clip

LONGEST_SIDE = 720
"""Longest side of re-encoded clips in pixels."""

_RATE_FACTOR = 14  # of the encoder; nearly lossless, since people look for flaws
_PLAYED = {("mp4", "h264", "yuv420p"): "video/mp4", ("webm", "vp8", "yuv420p"): "video/webm"}
_PLAYED[("webm", "vp9", "yuv420p")] = "video/webm"


@dataclass(frozen=True)
class BrowserClip:
    """Bytes of a clip with their type; ``kind`` is 'video' or 'image'."""

    kind: str
    media_type: str
    content: bytes


def browser_clip(path: Path) -> BrowserClip:
    """Return a clip unchanged if browsers play it, else re-encoded (lossless RGB, ProRes, GIF, tiny pictures...).

    Raises:
        VideoReadError: the file cannot be read as a video or an image.
    """
    stamp = path.stat() if path.exists() else None
    return _browser_clip(path, stamp.st_mtime_ns if stamp else 0, stamp.st_size if stamp else 0)


@lru_cache(maxsize=64)
def _browser_clip(path: Path, modified: int, size: int) -> BrowserClip:
    information = probe(path)
    if information.num_frames > 1 and min(information.height, information.width) >= 128:
        media_type = _played_as_it_is(path)
        if media_type is not None:
            return BrowserClip("video", media_type, path.read_bytes())
    frames, _, information = read_clip(path)
    sized = resize(frames, LONGEST_SIDE)
    if len(sized) == 1:
        import io

        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(sized[0]).save(buffer, "PNG")
        return BrowserClip("image", "image/png", buffer.getvalue())
    rate = information.fps if information.fps > 0 else 8.0
    return BrowserClip("video", "video/mp4", encode_clip(sized, fps=rate, crf=_RATE_FACTOR))


def _played_as_it_is(path: Path) -> str | None:
    """Return the media type of a file that every browser plays, or None."""
    import av

    try:
        with open_video(path) as (_, stream):
            # The suffix distinguishes Matroska from webm, and QuickTime from mp4.
            kind = path.suffix.lower().removeprefix(".").replace("m4v", "mp4")
            return _PLAYED.get((kind, stream.codec_context.name, stream.codec_context.pix_fmt or ""))
    except av.error.FFmpegError:  # an animated picture
        return None
