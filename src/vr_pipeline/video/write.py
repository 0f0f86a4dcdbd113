"""Writes clips: lossless by default, the same bytes for the same frames, never half a file."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# Colours are kept as they are; 4:2:0 is what browsers play, and loses colour resolution even at crf 0.
_PIXEL_FORMATS = {"libx264rgb": "rgb24", "libx264": "yuv420p"}
_CRF = {"libx264rgb": 0, "libx264": 18}


def write_video(
    path: str | Path,
    frames: NDArray[np.uint8],
    *,
    fps: float,
    codec: str = "libx264rgb",
    crf: int | None = None,
    preset: str = "medium",
    enlarge: int = 1,
) -> None:
    """Writes a clip as mp4, first under a temporary name in the same folder, then renamed.

    Args:
        path: the file; its folder is made if it does not exist.
        frames: uint8 [frames, height, width, 3], RGB.
        fps: frames a second, above 0.
        codec: 'libx264rgb' (lossless at crf 0, read back exactly; not played by browsers) or 'libx264' (4:2:0, played
            everywhere, needs even height and width).
        crf: constant rate factor, 0 (best) to 51; None for 0 with libx264rgb and 18 with libx264.
        preset: the encoder's choice between speed and size, by its name in x264.
        enlarge: each pixel becomes a square of so many pixels a side (nearest).

    Raises:
        ValueError: frames of another shape or type, no frames, or an option out of range.
    """
    import av

    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or frames.size == 0:
        raise ValueError(f"frames must be uint8 [frames, height, width, 3], got {frames.dtype} {list(frames.shape)}")
    if codec not in _PIXEL_FORMATS:
        raise ValueError(f"codec must be one of {', '.join(_PIXEL_FORMATS)}, got {codec}")
    if not fps > 0 or enlarge < 1:
        raise ValueError(f"fps must be above 0 and enlarge at least 1, got {fps} and {enlarge}")
    frames = enlarge_frames(frames, enlarge)
    height, width = frames.shape[1:3]
    if codec == "libx264" and (height % 2 or width % 2):
        raise ValueError(f"libx264 in 4:2:0 needs even sizes, got {height} x {width}")

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with av.open(str(temporary), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
            options = {"crf": str(_CRF[codec] if crf is None else crf), "preset": preset}
            stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=options)
            stream.height, stream.width, stream.pix_fmt = height, width, _PIXEL_FORMATS[codec]
            # One thread and bitexact flags: the encoder's output must not depend on the machine's load or version tag.
            stream.codec_context.thread_count = 1
            stream.codec_context.flags |= int(av.codec.context.Flags.bitexact)
            for pixels in frames:
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def enlarge_frames(frames: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Repeats every pixel ``factor`` times along both sides of the last but one axes [..., height, width, channels]."""
    if factor == 1:
        return frames
    return frames.repeat(factor, axis=-3).repeat(factor, axis=-2)
