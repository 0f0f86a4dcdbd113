"""Settings of the codec: what they change, and that they alone decide the bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vr_pipeline.datasets.formats import item_format
from vr_pipeline.video.read import read_frames
from vr_pipeline.video.write import write_video
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
