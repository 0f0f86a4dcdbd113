"""Clips whose frames carry their number, in the containers and codecs that people have."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

SIDE = 64
TICK = Fraction(1, 600)


def picture(number: int, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    """A frame whose upper half has eight stripes, black or white: the bits of its number."""
    frame = np.full((height, width, 3), 128, np.uint8)
    for bit in range(8):
        frame[: height // 2, bit * width // 8 : (bit + 1) * width // 8] = 255 * (number >> bit & 1)
    return frame


def numbers(frames: np.ndarray) -> list[int]:
    """The numbers of frames [frames, height, width, 3]."""
    height, width = frames.shape[1:3]
    rows = slice(height // 4 - 2, height // 4 + 2)
    return [
        sum(
            1 << bit
            for bit in range(8)
            if frame[rows, (2 * bit + 1) * width // 16 - 1 : (2 * bit + 1) * width // 16 + 1].mean() > 128
        )
        for frame in frames
    ]


def encode(
    path: Path,
    count: int = 30,
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    rate: int = 10,
    group: int = 12,
    between: int | None = None,
    form: str | None = None,
    times: Sequence[int] | None = None,
    size: tuple[int, int] = (SIDE, SIDE),
    mux: dict[str, str] | None = None,
    **options: str,
) -> Path:
    """Write a clip of numbered frames.

    Args:
        path: its suffix says which container, unless ``form`` does.
        count: frames.
        codec: of PyAV's encoders.
        pixels: their format.
        rate: frames a second.
        group: a key frame at least every so many frames.
        between: B-frames in a row at most.
        form: container.
        times: when each frame is shown, in 1/600 s, where not at a steady rate.
        size: height and width.
        mux: options of the container.
        options: options of the encoder; ``__`` stands for a hyphen.
    """
    with av.open(str(path), "w", format=form, options=mux or {}) as container:
        stream = container.add_stream(
            codec, rate=rate, options={name.replace("__", "-"): value for name, value in options.items()}
        )
        stream.height, stream.width = size
        stream.pix_fmt = pixels
        stream.codec_context.gop_size = group
        if between is not None:
            stream.codec_context.max_b_frames = between
        if times is not None:
            stream.time_base = stream.codec_context.time_base = TICK
        for at in range(count):
            frame = av.VideoFrame.from_ndarray(picture(at, *size), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[at], TICK
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def remux(
    source: Path,
    target: Path,
    change: Any = None,
    *,
    form: str | None = None,
    mux: dict[str, str] | None = None,
) -> Path:
    """Copy the packets of a clip without decoding them.

    Args:
        source: the clip.
        target: the copy.
        change: takes the number of a packet and the packet; returns it, changed or not, or None to leave it out.
        form: container of the copy.
        mux: its options.
    """
    with av.open(str(source)) as old, av.open(str(target), "w", format=form, options=mux or {}) as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream, opaque=True)
        for number, packet in enumerate(packet for packet in old.demux(stream) if packet.size):
            kept = change(number, packet) if change else packet
            if kept is not None:
                kept.stream = copy
                new.mux(kept)
    return target


def shown(path: Path) -> list[int]:
    """What a player shows: the numbers of FFmpeg's plain decoding from start to end."""
    with av.open(str(path)) as container:
        return numbers(np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]))
