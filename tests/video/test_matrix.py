"""Frame i is frame i: in every container and codec, by every reader and every sampling."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from numbered import encode, numbers, shown
from vr_pipeline.video.limits import VARIABLE
from vr_pipeline.video.read import probe, read_clip

COUNT = 30


def _cases() -> Iterator[tuple[str, dict[str, Any]]]:
    def x264(text: str) -> dict[str, str]:
        return {"x264__params": text}

    quiet = "log-level=0:keyint=12:min-keyint=12:scenecut=0"
    vpx, arf = {"cpu__used": "8"}, {"auto__alt__ref": "1", "lag__in__frames": "12"}
    for suffix in ("mp4", "mov", "m4v", "3gp", "mkv", "ts", "m2ts", "flv", "avi"):
        for between in (0, 2):
            yield f"h264_{between}.{suffix}", {"between": between}
    for suffix in ("mp4", "ts"):
        yield f"h264_open.{suffix}", x264("open-gop=1:keyint=10:min-keyint=10:scenecut=0:bframes=2")
        yield f"h264_refresh.{suffix}", x264("intra-refresh=1:keyint=12")
        yield f"h264_interlaced.{suffix}", x264("interlaced=1")
    yield "h264_fragments.mp4", {"mux": {"movflags": "frag_keyframe+empty_moov"}}
    yield "h264_10_bits.mp4", {"pixels": "yuv420p10le"}
    yield "h264_444_odd.mp4", {"pixels": "yuv444p", "size": (65, 67)}
    yield "h264_rgb.mp4", {"codec": "libx264rgb", "pixels": "rgb24"}
    for suffix in ("mp4", "mov", "mkv", "ts"):
        yield f"hevc.{suffix}", {"codec": "libx265", "x265__params": quiet}
        yield f"hevc_closed.{suffix}", {"codec": "libx265", "x265__params": f"{quiet}:open-gop=0"}
    for suffix in ("webm", "mkv"):
        yield f"vp8.{suffix}", {"codec": "libvpx", **vpx}
        yield f"vp8_hidden_frames.{suffix}", {"codec": "libvpx", **vpx, **arf}
    for suffix in ("webm", "mkv", "mp4"):
        yield f"vp9.{suffix}", {"codec": "libvpx-vp9", **vpx}
        yield f"vp9_hidden_frames.{suffix}", {"codec": "libvpx-vp9", **vpx, **arf}
        yield f"av1.{suffix}", {"codec": "libsvtav1", "preset": "11", "svtav1__params": "keyint=12"}
    for between in (0, 2):
        for suffix in ("avi", "mp4", "mov", "mkv", "3gp", "ts"):
            yield f"mpeg4_{between}.{suffix}", {"codec": "mpeg4", "between": between}
        for suffix, form in (("mpg", "mpeg"), ("vob", "vob"), ("ts", None), ("mkv", None)):
            yield f"mpeg2_{between}.{suffix}", {"codec": "mpeg2video", "rate": 25, "between": between, "form": form}
        yield f"mpeg1_{between}.mpg", {"codec": "mpeg1video", "rate": 25, "between": between, "form": "mpeg"}
    for suffix in ("avi", "mov", "mkv", "mp4"):
        yield f"mjpeg.{suffix}", {"codec": "mjpeg", "pixels": "yuvj420p"}
    for name, codec, pixels in (
        ("prores.mov", "prores_ks", "yuv422p10le"),
        ("qtrle.mov", "qtrle", "rgb24"),
        ("png.mov", "png", "rgb24"),
        ("ffv1.mkv", "ffv1", "yuv420p"),
        ("ffv1.avi", "ffv1", "yuv420p"),
        ("huffyuv.avi", "huffyuv", "yuv422p"),
        ("raw.avi", "rawvideo", "bgr24"),
        ("wmv1.wmv", "wmv1", "yuv420p"),
        ("wmv2.asf", "wmv2", "yuv420p"),
        ("msmpeg4.avi", "msmpeg4", "yuv420p"),
        ("flv1.flv", "flv", "yuv420p"),
        ("gif.gif", "gif", "rgb8"),
        ("apng.png", "apng", "rgb24"),
    ):
        yield name, {"codec": codec, "pixels": pixels, "form": {"asf": "asf", "png": "apng"}.get(name[-3:])}
    yield "h263.3gp", {"codec": "h263", "size": (96, 128)}
    unsteady = [0, 20, 40, 60, 400, 1000, 1010, *range(1100, 1100 + 60 * 23, 60)]
    for suffix in ("mp4", "mkv"):
        yield f"unsteady.{suffix}", {"times": unsteady}
        yield f"late.{suffix}", {"times": range(6000, 7800, 60)}
    yield "twice_the_same_time.mkv", {"times": [60 * (at // 2) for at in range(COUNT)], "between": 0}
    yield "early.mp4", {"times": range(-600, 1200, 60)}


CASES = dict(_cases())
SAMPLINGS = ({}, {"num_frames": 5}, {"fps": 2.0}, {"fps": 3.0, "num_frames": 4}, {"num_frames": 1})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clips")


@pytest.mark.parametrize("name", CASES)
def test_frames_are_those_that_a_player_shows(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = CASES[name]
    path = encode(folder / name, COUNT, **options)
    # Pillow is no reference for FFmpeg's own PNG, nor the other way round: the encoder was given these.
    truth = list(range(COUNT)) if name == "apng.png" else shown(path)
    assert truth == list(range(10 if name.startswith("early") else 0, COUNT))
    for decoder in ("pyav", "decord"):
        monkeypatch.setenv(VARIABLE, json.dumps({"other_clips": decoder}))
        for sampling in SAMPLINGS:
            frames, indices, known = read_clip(path, **sampling)
            assert numbers(frames) == [truth[index] for index in indices], (decoder, sampling)
            assert known.num_frames == len(truth)
            assert frames.shape[1:3] == options.get("size", (64, 64))
    rate = options.get("rate", 10)
    if "times" not in options:
        assert known.times is None
        assert known.fps == pytest.approx(rate, rel=0.01)
    assert probe(path) == known


def test_times_are_those_of_the_frames(folder: Path) -> None:
    for suffix in ("mp4", "mkv"):
        times = CASES[f"unsteady.{suffix}"]["times"]
        known = probe(encode(folder / f"times.{suffix}", COUNT, times=times))
        assert known.times == pytest.approx([time / 600 for time in times], abs=1e-3)
        assert read_clip(folder / f"times.{suffix}", fps=2.0)[1][:4] == [0, 3, 4, 8]
