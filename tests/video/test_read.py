"""Reading and writing of clips."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from odd_files import BAD, GOOD, turned, write_odd_files, write_sound, write_unsteady
from vr_pipeline.errors import InputError
from vr_pipeline.video.read import VideoReadError, probe, read_clip, read_frames
from vr_pipeline.video.write import write_video


def noise(frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (48, 48), (64, 64), (17, 31), (100, 64)])
def test_lossless_and_the_same_bytes_twice(tmp_path: Path, height: int, width: int) -> None:
    clip = noise(7, height, width)
    write_video(tmp_path / "a.mp4", clip, fps=8)
    write_video(tmp_path / "b.mp4", clip, fps=8)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert np.array_equal(read_frames(tmp_path / "a.mp4"), clip)
    information = probe(tmp_path / "a.mp4")
    assert (information.num_frames, information.fps, information.height, information.width) == (7, 8.0, height, width)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


def test_enlarged_pixels(tmp_path: Path) -> None:
    clip = noise(4, 16, 16)
    write_video(tmp_path / "a.mp4", clip, fps=8, enlarge=4)
    stored = read_frames(tmp_path / "a.mp4")
    assert stored.shape == (4, 64, 64, 3)
    for row in range(4):
        for column in range(4):
            assert np.array_equal(stored[:, row::4, column::4], clip)


def test_browser_codec_and_refusals(tmp_path: Path) -> None:
    smooth = np.full((5, 32, 32, 3), 90, np.uint8)
    write_video(tmp_path / "a.mp4", smooth, fps=29.97, codec="libx264")
    assert np.abs(read_frames(tmp_path / "a.mp4").astype(int) - 90).max() <= 3
    assert probe(tmp_path / "a.mp4").fps == pytest.approx(29.97, rel=1e-3)
    with pytest.raises(ValueError, match="even sizes"):
        write_video(tmp_path / "b.mp4", noise(2, 31, 32), fps=8, codec="libx264")
    with pytest.raises(ValueError, match="uint8"):
        write_video(tmp_path / "b.mp4", smooth.astype(np.float32), fps=8)
    with pytest.raises(ValueError, match="uint8"):
        write_video(tmp_path / "b.mp4", smooth[:0], fps=8)
    with pytest.raises(ValueError, match="above 0"):
        write_video(tmp_path / "b.mp4", smooth, fps=0)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_samples_are_the_frames_they_say(tmp_path: Path) -> None:
    clip = noise(24, 64, 64)
    write_video(tmp_path / "a.mp4", clip, fps=8)
    for options in ({"num_frames": 5}, {"fps": 2.0}, {"fps": 2.0, "num_frames": 4}, {"fps": 3.0}, {"num_frames": 99}):
        frames, indices, _ = read_clip(tmp_path / "a.mp4", **options)
        assert np.array_equal(frames, clip[indices])
    assert len(read_frames(tmp_path / "a.mp4", fps=2.0)) == 6
    assert read_clip(tmp_path / "a.mp4", num_frames=3)[1] == [0, 12, 23]


def test_unsteady_clips_are_sampled_by_time(tmp_path: Path) -> None:
    clip = np.repeat(np.arange(40, dtype=np.uint8)[:, None] * 6, 48 * 64 * 3, axis=1).reshape(40, 48, 64, 3)
    # Twenty frames in two thirds of a second, then one a second.
    write_unsteady(tmp_path / "a.mp4", clip, [20 * frame for frame in range(20)] + [400 + 600 * k for k in range(20)])
    information = probe(tmp_path / "a.mp4")
    assert information.times is not None
    assert information.times[20] == pytest.approx(2 / 3, abs=1e-3)
    frames, indices, _ = read_clip(tmp_path / "a.mp4", fps=2)
    assert indices == [0, 15, *range(20, 40)]
    assert np.abs(frames.astype(int).mean(axis=(1, 2, 3)) - 6 * np.array(indices)).max() < 4
    assert read_clip(tmp_path / "a.mp4", num_frames=4)[1] == [0, 25, 32, 39]
    write_video(tmp_path / "steady.mp4", clip, fps=29.97, codec="libx264")
    assert read_clip(tmp_path / "steady.mp4")[2].times is None


def test_pictures_are_read_as_they_are_shown(tmp_path: Path) -> None:
    colours = noise(1, 20, 30)[0]
    grey = colours[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "grey16.png")
    Image.fromarray(np.dstack([colours, grey])).save(tmp_path / "alpha.png")
    turned_right = Image.Exif()
    turned_right[0x0112] = 6
    Image.fromarray(colours).save(tmp_path / "turned.jpg", exif=turned_right, quality=100, subsampling=0)
    for name in ("grey.png", "grey16.png"):
        assert np.array_equal(read_frames(tmp_path / name)[0], np.repeat(grey[..., None], 3, axis=2))
    share = grey[..., None] / 255
    assert np.abs(read_frames(tmp_path / "alpha.png")[0] - (colours * share + 255 * (1 - share))).max() <= 1
    assert np.abs(read_frames(tmp_path / "turned.jpg")[0].astype(int) - np.rot90(colours, -1)).mean() < 3


@pytest.mark.parametrize("kind", ["WEBP", "PNG", "GIF"])
def test_animated_pictures_are_clips(tmp_path: Path, kind: str) -> None:
    # Four colours: GIF has a palette.
    clip = np.repeat(np.repeat(noise(9, 4, 1) // 128 * 255, 5, axis=1), 32, axis=2)
    first, *rest = [Image.fromarray(frame) for frame in clip]
    first.save(tmp_path / "a", format=kind, save_all=True, append_images=rest, duration=100, lossless=True)
    frames, indices, information = read_clip(tmp_path / "a", fps=5)
    assert indices == [0, 2, 4, 6, 8]
    assert np.array_equal(frames, clip[indices])
    assert (information.num_frames, information.fps) == (9, pytest.approx(10))
    assert information.times is None
    assert (probe(tmp_path / "a").height, probe(tmp_path / "a").width) == (20, 32)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp", ".mp4"])
def test_images_are_clips_of_one_frame_whatever_their_name(tmp_path: Path, suffix: str) -> None:
    picture = noise(1, 20, 30)[0]
    kind = {".mp4": "PNG", ".png": "PNG", ".bmp": "BMP", ".webp": "WEBP"}[suffix]
    Image.fromarray(picture).save(tmp_path / f"a{suffix}", format=kind, lossless=True)
    frames, indices, information = read_clip(tmp_path / f"a{suffix}", num_frames=8, fps=2)
    assert np.array_equal(frames[0], picture)
    assert indices == [0]
    assert (information.num_frames, information.fps) == (1, 0.0)


def test_unusable_files_say_why(tmp_path: Path) -> None:
    write_video(tmp_path / "good.mp4", noise(30, 64, 64), fps=8)
    data = (tmp_path / "good.mp4").read_bytes()
    Image.fromarray(noise(1, 64, 64)[0]).save(tmp_path / "picture.png")
    picture = (tmp_path / "picture.png").read_bytes()
    cases = {
        "empty.mp4": (b"", r"empty \(0 bytes\)"),
        "truncated.mp4": (data[: len(data) // 2], f"truncated: it has {len(data) // 2} of at least"),
        "text.mp4": (b"hello, this is text\n" * 40, "holds text"),
        "bytes.mp4": (np.random.default_rng(0).bytes(4000), "is no video"),
        "half.png": (picture[: len(picture) // 2], "image cannot be decoded"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(VideoReadError, match=message) as caught:
            read_frames(tmp_path / name)
        assert name in str(caught.value)
        assert isinstance(caught.value, InputError)
    write_sound(tmp_path / "sound.mp4")
    for name, message in (("sound.mp4", "sound but no picture"), ("none.mp4", "does not exist"), ("", "is a folder")):
        with pytest.raises(VideoReadError, match=message):
            probe(tmp_path / name)


def test_odd_files(tmp_path: Path) -> None:
    frames = write_odd_files(tmp_path)
    for name in GOOD:
        assert read_frames(tmp_path / name, num_frames=4).shape[1:] in {(48, 64, 3), (64, 48, 3)}
    for name, message in BAD.items():
        for options in ({}, {"num_frames": 4}, {"fps": 1.0}):
            with pytest.raises(VideoReadError, match=re.escape(message)) as caught:
                read_frames(tmp_path / name, **options)
            assert name in str(caught.value)
    good = (tmp_path / "good.mp4").read_bytes()
    for quarters in (1, 2, 3):
        (tmp_path / "turned.mp4").write_bytes(turned(good, quarters))
        expected = np.rot90(frames, -quarters, axes=(1, 2))
        assert np.array_equal(read_frames(tmp_path / "turned.mp4"), expected)
        information = probe(tmp_path / "turned.mp4")
        assert (information.height, information.width) == expected.shape[1:3]


def test_file_damaged_in_the_middle(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", noise(30, 64, 64), fps=8)
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    data[len(data) // 3 : len(data) // 3 + 60000] = b"\x00" * 60000
    (tmp_path / "b.mp4").write_bytes(bytes(data))
    with pytest.raises(VideoReadError):
        read_frames(tmp_path / "b.mp4")


@pytest.mark.real_data
def test_real_files(real_data: Path) -> None:
    videos = real_data / "data/videos"
    rotated = read_frames(videos / "video_90.mov")
    assert rotated.shape == (3, 568, 320, 3)
    with pytest.raises(VideoReadError, match="truncated or damaged"):
        read_frames(videos / "corrupted.mp4")
    assert read_frames(real_data / "upstream/visionreward/test1.mp4", fps=2).shape == (13, 480, 720, 3)
    assert read_frames(real_data / "upstream/visionreward/test1.jpg").shape == (1, 1024, 1024, 3)
