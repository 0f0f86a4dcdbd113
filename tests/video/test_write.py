"""Settings of the codec: what they change, and that they alone decide the bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vr_pipeline.items.formats import item_format
from vr_pipeline.video.read import read_frames
from vr_pipeline.video.write import write_video, yuv_planes
from vr_pipeline.work import WorkItem


def waves(frames: int = 6, size: int = 48) -> np.ndarray:
    """A smooth moving picture with some grain, so that quality has something to lose."""
    rows, columns = np.mgrid[0:size, 0:size]
    clip = np.stack([np.sin((rows + 3 * step) / 7) + np.cos((columns - 2 * step) / 5) for step in range(frames)])
    grain = np.random.default_rng(0).normal(0, 12, (*clip.shape, 3))
    return np.clip(60 * clip[..., None] + 128 + grain, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("codec", ["libx264", "libx264rgb"])
def test_a_higher_rate_factor_gives_smaller_and_worse_files(tmp_path: Path, codec: str) -> None:
    clip = waves()
    sizes, errors = [], []
    for crf in (1, 20, 40):
        path = tmp_path / f"{crf}.mp4"
        write_video(path, clip, fps=8, codec=codec, crf=crf)
        sizes.append(path.stat().st_size)
        errors.append(np.abs(read_frames(path).astype(int) - clip).mean())
    assert sizes == sorted(sizes, reverse=True)
    assert errors == sorted(errors)
    assert len(set(sizes)) == 3


@settings(max_examples=8, deadline=None)
@given(
    codec=st.sampled_from(["libx264", "libx264rgb"]),
    crf=st.integers(0, 51),
    preset=st.sampled_from(["ultrafast", "medium", "slow"]),
)
def test_the_same_settings_give_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, codec: str, crf: int, preset: str
) -> None:
    folder = tmp_path_factory.mktemp("clips")
    for name in ("a.mp4", "b.mp4"):
        write_video(folder / name, waves(), fps=8, codec=codec, crf=crf, preset=preset)
    assert (folder / "a.mp4").read_bytes() == (folder / "b.mp4").read_bytes()


def test_a_folder_of_clips_writes_with_its_settings(tmp_path: Path) -> None:
    item = WorkItem(key="a", identity="a", metadata={"fps": 8.0})
    lossy = item_format({"type": "video", "codec": "libx264", "crf": 30, "preset": "fast"})
    lossy.write(tmp_path / "a.mp4", waves(), item)
    write_video(tmp_path / "b.mp4", waves(), fps=8, codec="libx264", crf=30, preset="fast")
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    # The manifest records these: clips that were stored otherwise are made again.
    assert lossy.model_dump() == {
        "type": "video",
        "fps": 8.0,
        "codec": "libx264",
        "crf": 30,
        "preset": "fast",
        "enlarge": 1,
    }
    default = item_format({"type": "video"})
    default.write(tmp_path / "c.mp4", waves(), item)
    assert np.array_equal(default.read(tmp_path / "c.mp4"), waves()), "lossless unless configured otherwise"


_DIGESTS = """
import hashlib, os, sys
import numpy as np
from vr_pipeline.evaluation.report.clips import embed_clip
from vr_pipeline.video import write

# Freed memory with other contents in each process: an encoder that reads what it never wrote shows itself.
junk = [os.urandom(1000 * (position + int(sys.argv[1]))) for position in range(40)]
del junk
write._ENCODER += sys.argv[2]
rows, columns, steps = np.mgrid[0:128, 0:192, 0:24].transpose(0, 3, 1, 2)
moving = (5 * rows + 3 * steps + columns * (steps % 7 + 2)) % 200
clip = (moving[..., None] + np.random.default_rng(0).integers(0, 40, (24, 128, 192, 3))).astype(np.uint8)
for content in (
    write.encode_clip(clip, fps=8, crf=10),
    write.encode_clip(clip, fps=8, crf=28, preset="slow"),
    write.encode_clip(clip, fps=8, codec="libx264rgb"),
    write.encode_clip(clip, fps=8, codec="libx264rgb", crf=12),
    embed_clip(clip, fps=8, max_bytes=60_000).url.encode(),
):
    print(hashlib.sha256(content).hexdigest())
"""


def test_fresh_processes_with_disturbed_memory_write_the_same_bytes() -> None:
    """A loop in one process reuses the same memory and hides an encoder that reads what it did not write.

    Other levels of x264's own code stand in for other processors: without vector code, and up to SSE and AVX2.
    """
    found = set()
    for number, level in enumerate(["", "", "", ":asm=0", ":asm=sse2", ":asm=avx2"]):
        disturbed = {"MALLOC_PERTURB_": str(40 * number + 1), "PYTHONHASHSEED": str(number), "TZ": f"UTC{number}"}
        done = subprocess.run(
            [sys.executable, "-c", _DIGESTS, str(number), level],
            env={**os.environ, **disturbed},
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(done.stdout)
    assert len(found) == 1
    assert len(set(found.pop().split())) == 5


def test_colours_are_converted_as_the_standard_says() -> None:
    """Every primary, grey and random colour against BT.601 in floating point, and flat areas against FFmpeg."""
    import av

    colours = np.random.default_rng(0).integers(0, 256, (64, 3))
    colours[:8] = np.array(np.meshgrid([0, 255], [0, 255], [0, 255])).reshape(3, 8).T
    picture = np.repeat(np.repeat(colours.reshape(8, 8, 3), 16, 0), 16, 1).astype(np.uint8)
    planes = yuv_planes(picture).astype(float)
    red, green, blue = (colours[:, channel] / 255 for channel in range(3))
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    expected = 16 + 219 * luma, 128 + 224 * (blue - luma) / 1.772, 128 + 224 * (red - luma) / 1.402
    height, width = picture.shape[:2]
    chroma = planes[height:].reshape(2, height // 2, width // 2)
    for plane, step, wanted in zip((planes[:height], *chroma), (16, 8, 8), expected, strict=True):
        assert np.abs(plane[step // 2 :: step, step // 2 :: step].ravel() - wanted).max() <= 0.501
    by_ffmpeg = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p").to_ndarray()
    assert np.abs(planes[:height] - by_ffmpeg[:height]).max() <= 1
