"""First frames of clips, by content and place."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import image_content
from vr_pipeline.video.first_frames import first_frame, read_first_frame

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray = PIXELS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def test_an_image_is_named_by_its_content_and_read_from_its_place(tmp_path: Path) -> None:
    path = save(tmp_path / "images" / "a: cat.png")
    image = first_frame(tmp_path / "images", "a: cat.png", min_side=20)
    assert image == f"{hashlib.sha256(path.read_bytes()).hexdigest()}:{path.as_posix()}"
    assert image_content(image) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert np.array_equal(read_first_frame(image), PIXELS)
    save(path, PIXELS[::-1])
    other = first_frame(tmp_path / "images", "a: cat.png", min_side=20)
    assert image_content(other) != image_content(image)


def test_an_image_that_changed_is_not_read_for_the_former_one(tmp_path: Path) -> None:
    path = save(tmp_path / "cat.png")
    image = first_frame(tmp_path, "cat.png", min_side=1)
    save(path, PIXELS[::-1])
    with pytest.raises(InputError, match="another than when the prompts were filtered"):
        read_first_frame(image)


def test_images_that_cannot_be_used_are_said(tmp_path: Path) -> None:
    save(tmp_path / "outside.png")
    folder = tmp_path / "images"
    whole = save(folder / "small.png").read_bytes()
    (folder / "half.png").write_bytes(whole[: len(whole) // 2])
    frames = [Image.fromarray(PIXELS), Image.fromarray(PIXELS[::-1])]
    frames[0].save(folder / "clip.gif", save_all=True, append_images=frames[1:], duration=100)
    for name, reason in (
        ("../outside.png", "outside"),
        (str(tmp_path / "outside.png"), "outside"),
        ("none.png", "does not exist"),
        ("half.png", "cannot be decoded"),
        ("clip.gif", "a clip of 2 frames"),
        ("small.png", "20 x 30 pixels, and 21 a side"),
    ):
        with pytest.raises(ValueError, match=reason):
            first_frame(folder, name, min_side=21)
