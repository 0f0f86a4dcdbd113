"""What containers do to frames: cuts, orientation, transparency, several streams, colours, broken times."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from numbered import encode, numbers, picture, remux, shown
from vr_pipeline.errors import InputError
from vr_pipeline.video.limits import VARIABLE, use_settings
from vr_pipeline.video.pixels import turned
from vr_pipeline.video.read import VideoReadError, probe, read_clip, read_frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clips")


@pytest.fixture(scope="module")
def source(folder: Path) -> Path:
    """Thirty frames, a key frame every ten, two B-frames between others."""
    return encode(folder / "source.mp4", 30, group=10, between=2, sc_threshold="0")


def agrees(path: Path) -> list[int]:
    """Read a clip in several ways and compare with plain decoding, whose frames are returned."""
    truth = shown(path)
    for sampling in ({}, {"num_frames": 5}, {"fps": 2.0}):
        frames, indices, known = read_clip(path, **sampling)
        assert numbers(frames) == [truth[index] for index in indices]
        assert known.num_frames == len(truth)
    return truth


def moved(ticks: int) -> Callable[[int, Any], Any]:
    def change(_: int, packet: Any) -> Any:
        packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
        return packet

    return change


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".ts", ".flv"])
def test_cuts_without_encoding(folder: Path, source: Path, suffix: str) -> None:
    """Packets from some place on: a cut at a key frame, and one in the middle of a group."""
    for first in (4, 10, 13):
        cut = remux(
            source, folder / f"cut_{first}{suffix}", lambda at, packet, first=first: packet if at >= first else None
        )
        assert agrees(cut)[0] in (10, 20)
    hidden = agrees(remux(source, folder / f"early{suffix}", moved(-5120)))
    # Five packets before time 0 are decoded and not shown where the container has edit lists.
    assert hidden == list(range(5 if suffix in (".mp4", ".mov") else 0, 30))
    assert agrees(remux(source, folder / f"late{suffix}", moved(10**6))) == list(range(30))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_lost_packets_never_give_copies(folder: Path, source: Path, suffix: str) -> None:
    """Without a key frame its group cannot be decoded; no frame is repeated in its place."""
    lost = remux(source, folder / f"lost{suffix}", lambda at, packet: None if at == 10 else packet)
    assert len(agrees(lost)) < 29


def test_times_that_jump_run_backwards_or_are_missing(folder: Path, source: Path) -> None:
    def leap(at: int, packet: Any) -> Any:
        return moved(10**9)(at, packet) if at >= 20 else packet

    def without(_: int, packet: Any) -> Any:
        packet.pts = None
        return packet

    for suffix in (".mp4", ".mkv", ".ts", ".flv"):
        path = remux(source, folder / f"leap{suffix}", leap)
        assert agrees(path) == list(range(30))
        known = probe(path)
        assert known.times is None
        assert known.fps == pytest.approx(10, rel=0.02)
    recording = remux(source, folder / "once.ts")
    (folder / "twice.ts").write_bytes(recording.read_bytes() * 2)
    assert agrees(folder / "twice.ts") == [*range(30), *range(30)]
    raw = remux(source, folder / "raw.h264", without, form="h264")
    assert agrees(raw) == list(range(30))


def test_frames_of_another_size_are_scaled_to_the_first(folder: Path) -> None:
    for suffix, options in ((".ts", {}), (".mpg", {"codec": "mpeg2video", "rate": 25, "form": "mpeg"})):
        parts = [encode(folder / f"{size}{suffix}", 12, size=(size, size), **options) for size in (64, 96)]
        (folder / f"both{suffix}").write_bytes(b"".join(part.read_bytes() for part in parts))
        frames = read_frames(folder / f"both{suffix}")
        assert frames.shape[1:] == (64, 64, 3)
        # The last frame of a program stream may lack its end.
        assert numbers(frames)[:11] == list(range(11))
        assert numbers(frames)[-11:] == list(range(1, 12))


def test_bytes_behind_the_end_are_no_part_of_a_clip(folder: Path, source: Path) -> None:
    trailers = [
        bytes(100),
        b"\n",
        b"TAG" + b"A song".ljust(125),
        b"\r\n--boundary12345--\r\n",
        b"x" * 40 + b"8db42d694c",
    ]
    for suffix, trailer in itertools.product((".mp4", ".mov", ".mkv", ".ts", ".flv", ".avi", ".gif"), trailers):
        whole = folder / f"whole{suffix}"
        if not whole.exists():
            gif = {"codec": "gif", "pixels": "rgb8"}
            encode(whole, 12, between=0, **(gif if suffix == ".gif" else {}))
        (folder / f"more{suffix}").write_bytes(whole.read_bytes() + trailer)
        assert agrees(folder / f"more{suffix}") == list(range(12))


@given(
    matrix=st.sampled_from([(1, 0, 0, 1), (-1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, -1)])
    | st.sampled_from([(0, 1, 1, 0), (0, 1, -1, 0), (0, -1, 1, 0), (0, -1, -1, 0)]),
    height=st.integers(1, 4),
    width=st.integers(1, 4),
)
def test_every_pixel_goes_where_the_matrix_says(matrix: tuple[int, ...], height: int, width: int) -> None:
    a, b, c, d = matrix
    pixels = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    result = turned(pixels, np.array([a, b, 0, c, d, 0, 0, 0, 1]) << 16)
    places = {(a * x + c * y, b * x + d * y): pixels[y, x] for y in range(height) for x in range(width)}
    left, top = (min(place[axis] for place in places) for axis in (0, 1))
    for (x, y), pixel in places.items():
        assert np.array_equal(result[y - top, x - left], pixel)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_clips_stand_upright(folder: Path, suffix: str) -> None:
    still = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    for degrees, across in itertools.product((0, 90, 180, 270), (False, True)):
        path = folder / f"turned_{degrees}_{across}{suffix}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264rgb", rate=10, options={"crf": "0"})
            stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
            stream.set_display_rotation(degrees, hflip=across)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(still, format="rgb24")))
            container.mux(stream.encode())
        # FFmpeg turns counter-clockwise, then mirrors.
        expected = np.rot90(still, degrees // 90)
        assert np.array_equal(read_frames(path)[0], expected[:, ::-1] if across else expected)
        assert (probe(path).height, probe(path).width) == expected.shape[:2]


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "options"),
    [
        ("png.mov", "png", "rgba", {}),
        ("qtrle.mov", "qtrle", "argb", {}),
        ("prores.mov", "prores_ks", "yuva444p10le", {"profile": "4444"}),
        ("ffv1.mkv", "ffv1", "bgra", {}),
        ("ffv1.avi", "ffv1", "yuva420p", {}),
        ("vp8.webm", "libvpx", "yuva420p", {"auto-alt-ref": "0"}),
        ("vp9.webm", "libvpx-vp9", "yuva420p", {}),
    ],
)
def test_what_is_transparent_is_white(
    folder: Path, name: str, codec: str, pixels: str, options: dict[str, str]
) -> None:
    with av.open(str(folder / name), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options)
        stream.height, stream.width, stream.pix_fmt = 64, 64, pixels
        for at in range(6):
            drawn = np.zeros((64, 64, 4), np.uint8)
            drawn[..., 1] = 255
            drawn[20:40, 4 + 4 * at : 24 + 4 * at] = (255, 0, 0, 255)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(drawn, format="rgba")))
        container.mux(stream.encode())
    frames, indices, _ = read_clip(folder / name, num_frames=3)
    for frame, index in zip(frames.astype(int), indices, strict=True):
        assert np.abs(frame[2, 2] - 255).max() <= 6
        assert np.abs(frame[30, 14 + 4 * index] - (255, 0, 0)).max() <= 12


def test_transparent_gif(tmp_path: Path) -> None:
    drawn = [Image.new("RGBA", (32, 32), (0, 0, 0, 0)) for _ in range(4)]
    for at, image in enumerate(drawn):
        image.paste((255, 0, 0, 255), (6 * at, 4, 6 * at + 6, 12))
    drawn[0].save(tmp_path / "a.gif", save_all=True, append_images=drawn[1:], duration=250, disposal=2)
    frames, _, known = read_clip(tmp_path / "a.gif")
    assert known.fps == pytest.approx(4)
    for at, frame in enumerate(frames):
        assert frame[6, 6 * at + 2].tolist() == [255, 0, 0]
        assert (frame == 255).all(axis=2).sum() == 32 * 32 - 48


def test_the_first_picture_of_an_animated_png_may_stand_outside(tmp_path: Path) -> None:
    still, *moving = [Image.new("RGB", (8, 8), (at, 0, 0)) for at in (200, 10, 20, 30)]
    still.save(tmp_path / "a.png", save_all=True, append_images=moving, default_image=True, duration=100)
    assert read_frames(tmp_path / "a.png")[:, 0, 0, 0].tolist() == [10, 20, 30]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_the_stream_that_a_player_shows(folder: Path, suffix: str) -> None:
    for default in (0, 1):
        path = folder / f"streams_{default}{suffix}"
        with av.open(str(path), "w") as container:
            streams = [container.add_stream("libx264", rate=10) for _ in range(2)]
            for at, stream in enumerate(streams):
                stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p"
                stream.disposition = Disposition.default if at == default else Disposition(0)
            for frame, (at, stream) in itertools.product(range(12), enumerate(streams)):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(frame + 100 * at), format="rgb24")))
            for stream in streams:
                container.mux(stream.encode())
        assert numbers(read_frames(path)) == [frame + 100 * default for frame in range(12)]
    for cover_first in (True, False):
        path = folder / f"cover_{cover_first}{suffix}"
        with av.open(str(path), "w") as container:
            kinds = ["mjpeg", "libx264"] if cover_first else ["libx264", "mjpeg"]
            by_codec = {kind: container.add_stream(kind, rate=10) for kind in kinds}
            for kind, stream in by_codec.items():
                stream.height, stream.width = 64, 64
                stream.pix_fmt = "yuvj420p" if kind == "mjpeg" else "yuv420p"
            by_codec["mjpeg"].disposition = Disposition.attached_pic
            for frame in range(12):
                for kind, stream in by_codec.items():
                    if kind == "libx264" or frame == 0:
                        shot = picture(200 if kind == "mjpeg" else frame)
                        container.mux(stream.encode(av.VideoFrame.from_ndarray(shot, format="rgb24")))
            for stream in by_codec.values():
                container.mux(stream.encode())
        assert numbers(read_frames(path)) == list(range(12))


_KR_KB = {"601": (0.299, 0.114, 6), "709": (0.2126, 0.0722, 1), "2020": (0.2627, 0.0593, 9)}
_PATCHES = np.array(
    [[255, 0, 0], [0, 255, 0], [0, 0, 255], [200, 100, 50], [30, 180, 220], [128] * 3, [255] * 3, [0] * 3]
)


_FINE = {"libx264": {"crf": "1"}, "libx265": {"x265-params": "log-level=0:crf=1"}, "libvpx-vp9": {"lossless": "1"}}


@pytest.mark.parametrize(("codec", "suffix"), [("libx264", ".mp4"), ("libx265", ".mp4"), ("libvpx-vp9", ".webm")])
@pytest.mark.parametrize("matrix", _KR_KB)
def test_colours_by_matrix_range_and_bits(
    folder: Path, codec: str, suffix: str, matrix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    red, blue, tag = _KR_KB[matrix]
    r, g, b = _PATCHES.T / 255
    luma = red * r + (1 - red - blue) * g + blue * b
    planes = [luma, (b - luma) / (2 * (1 - blue)), (r - luma) / (2 * (1 - red))]
    for full, bits in itertools.product((False, True), (8,) if codec == "libvpx-vp9" else (8, 10)):
        unit = 1 << (bits - 8)
        most = 256 * unit - 1
        span, zero, chroma = (most, 0, most) if full else (219 * unit, 16 * unit, 224 * unit)
        scaled = [planes[0] * span + zero, *(plane * chroma + 128 * unit for plane in planes[1:])]
        levels = [np.clip(np.rint(plane), 0, 256 * unit - 1) for plane in scaled]
        kind = np.uint16 if bits == 10 else np.uint8
        path = folder / f"{codec}_{matrix}_{full}_{bits}{suffix}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=10, options=_FINE[codec])
            stream.width, stream.height, stream.pix_fmt = 128, 32, "yuv420p10le" if bits == 10 else "yuv420p"
            stream.codec_context.colorspace, stream.codec_context.color_range = tag, 2 if full else 1
            for at in range(3):
                frame = av.VideoFrame(128, 32, stream.pix_fmt)
                for plane, level, half in zip(frame.planes, levels, (1, 2, 2), strict=True):
                    rows = np.zeros((plane.height, plane.line_size // np.dtype(kind).itemsize), kind)
                    rows[:, : 128 // half] = np.repeat(level, 16 // half)
                    plane.update(rows.tobytes())
                frame.colorspace, frame.color_range, frame.pts = tag, 2 if full else 1, at
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        taken = []
        for decoder in ("pyav", "decord"):
            monkeypatch.setenv(VARIABLE, json.dumps({"other_clips": decoder}))
            taken.append(read_frames(path))
        assert np.abs(taken[0][1][16, 8::16].astype(int) - _PATCHES).max() <= 4
        assert np.array_equal(*taken)


def test_pixels_are_not_stretched(tmp_path: Path) -> None:
    from fractions import Fraction

    with av.open(str(tmp_path / "wide.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(2, 1)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(1), format="rgb24")))
        container.mux(stream.encode())
    assert read_frames(tmp_path / "wide.mp4").shape == (1, 64, 64, 3)


def test_pixels_have_a_limit(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (1500, 1000)).save(tmp_path / "large.png")
    Image.new("RGB", (60, 50)).save(tmp_path / "small.png")
    monkeypatch.setenv(VARIABLE, json.dumps({"max_frame_pixels": 1_000_000, "max_clip_pixels": 10 * 64 * 64}))
    with pytest.raises(VideoReadError, match=r"1000 x 1500 pixels, more than 1 million.*max_frame_pixels"):
        read_frames(tmp_path / "large.png")
    assert len(read_frames(tmp_path / "small.png")) == 1
    with pytest.raises(VideoReadError, match=r"30 frames of 64 x 64.*max_clip_pixels"):
        read_frames(source)
    assert len(read_frames(source, num_frames=10)) == 10
    monkeypatch.setenv(VARIABLE, json.dumps({"max_frame_pixels": 64 * 63}))
    for one in (source, tmp_path / "large.png"):
        with pytest.raises(VideoReadError, match="max_frame_pixels"):
            probe(one)


def test_settings_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "{}")
    with pytest.raises(InputError, match="other_clips"):
        use_settings({"other_clips": "ffmpeg"})
    use_settings({"own_clips": "pyav"})


@pytest.mark.parametrize(
    "name",
    [
        *("2026-01-26T20:57:04Z.mp4", "16:9.mp4", "http:clip.mp4", "file:clip.mp4", "concat:a.mp4|a.mp4", "-i.mp4"),
        *("100% #1.mp4", "%03d.mp4", "[a]*?.mp4", "a?b=c&d.mp4", "ünï 日本 😀.mp4", "two\nlines.mp4", "tab\t.mp4"),
        *(
            "quote'\".mp4",
            "back\\slash.mp4",
            " space .mp4",
            "undecodable\udcff\udc80.mp4",
            "pipe:0",
            "subfile,,start,0,end,9,,:a",
        ),
    ],
)
def test_names_are_names(tmp_path: Path, source: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encode(tmp_path / "a.mp4", 3)
    (tmp_path / name).write_bytes(source.read_bytes())
    Image.new("RGB", (9, 9)).save(tmp_path / "picture.png")
    (tmp_path / f"{name}.png").write_bytes((tmp_path / "picture.png").read_bytes())
    monkeypatch.chdir(tmp_path)
    for decoder in ("pyav", "decord"):
        monkeypatch.setenv(VARIABLE, json.dumps({"other_clips": decoder}))
        for path in (tmp_path / name, Path(name)):
            assert numbers(read_frames(path, num_frames=3)) == [0, 15, 29]
    assert read_frames(f"{name}.png").shape == (1, 9, 9, 3)


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_files_are_read_or_rejected(folder: Path, source: Path, data: st.DataObject) -> None:
    """Whatever bytes are changed, cut off or left out: frames or a sentence, nothing else, and no end without one."""
    suffix = data.draw(st.sampled_from([".mp4", ".mkv", ".ts", ".flv"]))
    whole = folder / f"whole_source{suffix}"
    content = bytearray((whole if whole.exists() else remux(source, whole)).read_bytes())
    for _ in range(data.draw(st.integers(0, 20))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    start, length = data.draw(st.integers(0, len(content))), data.draw(st.integers(0, 3000))
    content[start : start + length] = b""
    damaged = folder / f"damaged{suffix}"
    damaged.write_bytes(content)
    for sampling in ({"num_frames": 4}, {"fps": 0.7}):
        try:
            frames, indices, known = read_clip(damaged, **sampling)
        except VideoReadError:
            continue
        assert len(frames) == len(indices) <= known.num_frames
        assert 0 <= known.fps <= 1000
