"""Write clips: lossless by default, the same bytes for the same frames on every processor, never half a file."""

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vr_pipeline.storage.atomic import replaced

# Colours are kept as they are; 4:2:0 is what browsers play, and loses colour resolution even at crf 0.
_PIXEL_FORMATS = {"libx264rgb": "rgb24", "libx264": "yuv420p"}
_CRF = {"libx264rgb": 0, "libx264": 18}

# x264 decides where to spend bits with floating-point code that differs between processors and, on AVX-512, reads
# memory that it did not write: five different files in eight processes. This switch takes the portable code instead.
_ENCODER = "cpu-independent=1"

# BT.601 in limited range, as integers of 16 fractional bits: rows Y, Cb, Cr over columns R, G, B. The converter of
# FFmpeg rounds by the processor's instruction set; integers do not.
_TO_YUV = np.rint(
    np.array(
        [
            [219 * 0.299, 219 * 0.587, 219 * 0.114],
            [-224 * 0.299 / 1.772, -224 * 0.587 / 1.772, 224 * 0.5],
            [224 * 0.5, -224 * 0.587 / 1.402, -224 * 0.114 / 1.402],
        ]
    )
    / 255
    * 65536
).astype(np.int32)


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
    """Write a clip as mp4, first under a temporary name in the same folder, then renamed.

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
    frames = np.asarray(frames)
    if enlarge < 1:
        raise ValueError(f"enlarge must be at least 1, got {enlarge}")
    if frames.ndim == 4:
        frames = enlarge_frames(frames, enlarge)
    content = encode_clip(frames, fps=fps, codec=codec, crf=crf, preset=preset)
    with replaced(Path(path), durable=False) as temporary:
        temporary.write_bytes(content)


def encode_clip(
    frames: NDArray[np.uint8], *, fps: float, codec: str = "libx264", crf: int | None = None, preset: str = "medium"
) -> bytes:
    """Encode frames as an mp4 whose bytes depend on the arguments alone.

    Args:
        frames: uint8 [frames, height, width, 3], RGB; even sides for 'libx264'.
        fps, codec, crf, preset: as in ``write_video``.

    Raises:
        ValueError: frames of another shape or type, no frames, or an option out of range.
    """
    import av

    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or frames.size == 0:
        raise ValueError(f"frames must be uint8 [frames, height, width, 3], got {frames.dtype} {list(frames.shape)}")
    if codec not in _PIXEL_FORMATS:
        raise ValueError(f"codec must be one of {', '.join(_PIXEL_FORMATS)}, got {codec}")
    if not fps > 0:
        raise ValueError(f"fps must be above 0, got {fps}")
    height, width = frames.shape[1:3]
    if codec == "libx264" and (height % 2 or width % 2):
        raise ValueError(f"libx264 in 4:2:0 needs even sizes, got {height} x {width}")
    options = {"crf": str(_CRF[codec] if crf is None else crf), "preset": preset, "x264-params": _ENCODER}
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=options)
        stream.height, stream.width, stream.pix_fmt = height, width, _PIXEL_FORMATS[codec]
        context = stream.codec_context
        # One thread and bitexact flags: the output must not depend on the machine's load or on a version tag.
        context.thread_count = 1
        context.flags |= int(av.codec.context.Flags.bitexact)
        if codec == "libx264":
            _tag_colours(context)
        for pixels in frames:
            planes = yuv_planes(pixels) if codec == "libx264" else np.ascontiguousarray(pixels)
            frame = av.VideoFrame.from_ndarray(planes, format=stream.pix_fmt)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def yuv_planes(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert RGB to the planes of 4:2:0 in BT.601, limited range, by integers alone.

    Args:
        pixels: uint8 [height, width, 3], RGB, even sides.

    Returns:
        uint8 [height * 3 / 2, width]: the plane Y, then Cb and Cr of half the size, row after row, as FFmpeg's yuv420p.
    """
    height, width = pixels.shape[:2]
    luma = ((pixels @ _TO_YUV[0]) + (16 << 16) + (1 << 15)) >> 16
    squares = pixels.reshape(height // 2, 2, width // 2, 2, 3).sum(axis=(1, 3), dtype=np.int32)
    chroma = ((squares @ _TO_YUV[1:].T) + (128 << 18) + (1 << 17)) >> 18
    planes = [luma.ravel(), chroma[..., 0].ravel(), chroma[..., 1].ravel()]
    return np.concatenate(planes).astype(np.uint8).reshape(height * 3 // 2, width)


def _tag_colours(context: Any) -> None:
    """State how the colours are coded: players otherwise guess by size."""
    from av.video.reformatter import ColorRange, Colorspace

    context.colorspace, context.color_range = int(Colorspace.ITU601), int(ColorRange.MPEG)
    context.color_primaries = context.color_trc = 1


def enlarge_frames(frames: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Repeat every pixel ``factor`` times along both sides of the last but one axes [..., height, width, channels]."""
    if factor == 1:
        return frames
    return frames.repeat(factor, axis=-3).repeat(factor, axis=-2)
