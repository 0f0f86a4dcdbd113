"""Images from which clips start: in tables they are ``<SHA-256 of the file>:<path>``, so that their content is known.

The path is that of the configured folder followed by what the user wrote; relative ones start at the project.
"""

from functools import lru_cache
from pathlib import Path

from vr_pipeline.errors import InputError
from vr_pipeline.storage.atomic import sha256_once
from vr_pipeline.video.clip import Frames, VideoReadError
from vr_pipeline.video.read import probe, read_frames

MIN_SIDE = 64
"""Fewest pixels of a side of an image, unless the catalog says otherwise."""


def first_frame(folder: Path, name: str, min_side: int) -> str:
    """Return how tables name an image.

    Args:
        folder: the images.
        name: the image's path in it.
        min_side: fewest pixels of a side.

    Raises:
        ValueError: the image lies outside the folder, cannot be read, is a clip or is too small.
    """
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"the image '{name}' lies outside {folder}")
    try:
        found = probe(path)
    except VideoReadError as error:
        raise ValueError(f"the image '{name}' cannot be used: {error.problem}") from None
    if found.num_frames != 1:
        raise ValueError(f"'{name}' is no image but a clip of {found.num_frames} frames")
    if min(found.height, found.width) < min_side:
        size = f"{found.height} x {found.width} pixels"
        raise ValueError(f"the image '{name}' is too small: {size}, and {min_side} a side are needed")
    return f"{sha256_once(path)}:{path.as_posix()}"


@lru_cache(maxsize=8)
def read_first_frame(image: str) -> Frames:
    """Return an image that a table names, uint8 [height, width, 3].

    Raises:
        InputError: it is no longer there, or has changed.
    """
    content, _, place = image.partition(":")
    path = Path(place)
    frame: Frames = read_frames(path)[0]
    if sha256_once(path) != content:
        raise InputError(
            "the image is another than when the prompts were filtered",
            remedy="run the pipeline prompt_filtering again, or put the former image back",
            file=path,
        )
    return frame
