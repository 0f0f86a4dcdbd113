"""Files as people have them: turned, cut off, mislabelled, empty."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from vr_pipeline.video.write import write_video

_TURNS = {1: (0, 1, -1, 0), 2: (-1, 0, 0, -1), 3: (0, -1, 1, 0)}


def turned(video: bytes, quarters: int) -> bytes:
    """An mp4 whose display matrix turns it clockwise, as telephones write it; the pixels stay as they are."""
    # In the track header, behind its version, three times, an identifier, reserved fields, layer, group and volume.
    at = video.index(b"tkhd") + 4 + 40
    a, b, c, d = (number << 16 for number in _TURNS[quarters])
    return video[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + video[at + 36 :]


def write_with(path: Path, frames: np.ndarray, codec: str, **options: str) -> None:
    """A clip in any container and codec that PyAV has."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=8)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode())


def write_unsteady(path: Path, frames: np.ndarray, moments: list[int]) -> None:
    """A clip whose frames are shown at the given moments, in 1/600 s."""
    tick = Fraction(1, 600)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        stream.time_base = stream.codec_context.time_base = tick
        for pixels, moment in zip(frames, moments, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels)
            frame.pts, frame.time_base = moment, tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_sound(path: Path) -> None:
    """A file with sound only."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4410), np.float32), format="flt", layout="mono")
        frame.rate, frame.pts = 44100, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def cut(path: Path, to: Path, share: float = 0.5) -> None:
    """The beginning of a file."""
    content = path.read_bytes()
    to.write_bytes(content[: int(len(content) * share)])


GOOD = ("good.mp4", "one_frame.mp4", "picture.jpg", "turned.mov", "video.txt", "whole.webm")
BAD = {
    "cut.avi": "truncated",
    "cut.mp4": "the file is truncated: it has",
    "cut.webm": "truncated",
    "cut_in_pictures.mp4": "the file is truncated: it has",
    "document.mp4": "is no video",
    "empty.mp4": "empty (0 bytes)",
    "half.png": "image cannot be decoded",
    "sound.mp4": "sound but no picture",
    "words.mp4": "holds text",
}
"""Name -> what is said about it."""


def write_odd_files(folder: Path) -> np.ndarray:
    """Writes all of :data:`GOOD` and :data:`BAD`; returns the frames of good.mp4 [20, 48, 64, 3]."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    frames = np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), dtype=np.uint8)
    good = folder / "good.mp4"
    write_video(good, frames, fps=8)
    write_video(folder / "one_frame.mp4", frames[:1], fps=8)
    (folder / "turned.mov").write_bytes(turned(good.read_bytes(), 1))
    (folder / "video.txt").write_bytes(good.read_bytes())
    Image.fromarray(frames[0]).save(folder / "picture.jpg")
    Image.fromarray(frames[0]).save(folder / "half.png")
    cut(folder / "half.png", folder / "half.png")
    write_with(folder / "whole.webm", frames, "libvpx-vp9")
    cut(folder / "whole.webm", folder / "cut.webm")
    write_with(folder / "cut.avi", frames, "mpeg4")
    cut(folder / "cut.avi", folder / "cut.avi")
    cut(good, folder / "cut.mp4")
    write_with(folder / "cut_in_pictures.mp4", frames, "libx264", movflags="faststart")
    cut(folder / "cut_in_pictures.mp4", folder / "cut_in_pictures.mp4", 0.6)
    (folder / "document.mp4").write_bytes(b"%PDF-1.4\n" + np.random.default_rng(1).bytes(2000))
    (folder / "empty.mp4").write_bytes(b"")
    write_sound(folder / "sound.mp4")
    (folder / "words.mp4").write_text("this is no video\n" * 20, encoding="utf-8")
    return frames
