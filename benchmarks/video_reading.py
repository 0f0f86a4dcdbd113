"""Reading frames of ordinary clips: ours, decord alone and PyAV alone, in one process.

The clips are generated: 10 seconds of moving, noisy shapes at 24 frames per second, 480 x 640, a key frame every two
seconds, of which 8 frames are read; options make other clips. mp4 and mkv hold H.264, webm VP9. Each reader's best of
several turns counts, and turns alternate, since other programs may be running. decord alone is what the project did
before; it checks nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import decord
import numpy as np

from vr_pipeline.video.limits import use_settings
from vr_pipeline.video.read import Frames, read_frames

RATE = 24


def write(path: Path, codec: str, height: int, width: int, length: int) -> None:
    """A clip in the container that its suffix names."""
    rows, columns = np.mgrid[:height, :width]
    generator = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        options = {"libx264": {"preset": "veryfast"}, "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"}}
        stream = container.add_stream(codec, rate=RATE, options=options[codec])
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.codec_context.gop_size = 2 * RATE
        for at in range(length):
            shapes = [columns + 3 * at, rows * 2 + at, (columns + rows) // 2 + 5 * at]
            pixels = np.stack(shapes, axis=2) % 256 + generator.integers(-6, 7, (height, width, 1))
            frame = av.VideoFrame.from_ndarray(np.clip(pixels, 0, 255).astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def by_decord(path: Path, count: int) -> Frames:
    """What decord's documentation shows."""
    reader = decord.VideoReader(str(path), num_threads=0 if path.stat().st_size > 1_000_000 else 1)
    return np.asarray(reader.get_batch(_spread(len(reader), count)).asnumpy())


def by_pyav(path: Path, count: int) -> Frames:
    """What PyAV's documentation shows: decode everything, keep what is wanted."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        frames = list(container.decode(stream))
        return np.stack([frames[at].to_ndarray(format="rgb24") for at in _spread(len(frames), count)])


def _spread(total: int, count: int) -> list[int]:
    return [int(index) for index in np.floor(np.linspace(0, total - 1, count) + 0.5)]


def ours(decoder: str) -> Callable[[Path, int], Frames]:
    """Our reader with one of its decoders."""

    def read(path: Path, count: int) -> Frames:
        use_settings({"other_clips": decoder})
        return read_frames(path, num_frames=count)

    return read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--frames", type=int, default=8, help="that are read of each clip")
    parser.add_argument("--length", type=int, default=240, help="frames of each clip")
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("HEIGHT", "WIDTH"))
    arguments = parser.parse_args()
    decord.logging.set_level(decord.logging.QUIET)
    frames, (height, width) = min(arguments.frames, arguments.length), arguments.size
    readers = {"ours": ours("pyav"), "ours_decord": ours("decord"), "decord": by_decord, "pyav": by_pyav}
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for suffix, codec in (("mp4", "libx264"), ("mkv", "libx264"), ("webm", "libvpx-vp9")):
            path = Path(folder) / f"clip.{suffix}"
            write(path, codec, height, width, arguments.length)
            best = dict.fromkeys(readers, float("inf"))
            expected = by_pyav(path, frames)
            for _ in range(arguments.turns):
                for name, read in readers.items():
                    start = time.process_time()
                    found = read(path, frames)
                    best[name] = min(best[name], time.process_time() - start)
                    if not np.array_equal(found, expected):
                        raise SystemExit(f"{name} reads other frames of {path.name} than PyAV decodes")
            figures[suffix] = {name: round(seconds * 1000, 1) for name, seconds in best.items()}
            print(f"{suffix}: " + ", ".join(f"{name} {value} ms" for name, value in figures[suffix].items()))
    ratio = {suffix: round(of["ours"] / of["decord"], 2) for suffix, of in figures.items()}
    document = {
        "benchmark": "video_reading",
        "cores": os.cpu_count(),
        "processor_milliseconds": figures,
        "ratio": ratio,
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
