"""Files that hold clips or images, by paths, patterns and folders."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from vr_pipeline.video.clip import VideoReadError

_IMAGE_SUFFIXES = frozenset({".png", ".apng", ".jpg", ".jpeg", ".bmp", ".webp", ".avif", ".tif", ".tiff"})
VIDEO_SUFFIXES = frozenset(
    {
        *(".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".mkv", ".webm", ".avi", ".gif"),
        *(".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".vob", ".flv", ".wmv", ".asf", ".ogv"),
    }
)
MEDIA_SUFFIXES = _IMAGE_SUFFIXES | VIDEO_SUFFIXES


def find_media(patterns: Sequence[str | Path]) -> list[Path]:
    """Return files by paths, globs and folders (their media files), each once, in the order given, sorted within one.

    Raises:
        VideoReadError: a pattern matches nothing, or a folder holds no media.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        if os.path.isdir(path):
            matches = sorted(child for child in path.iterdir() if child.suffix.lower() in MEDIA_SUFFIXES)
            problem = "the folder holds no videos or images"
        elif os.path.exists(path):  # unlike Path's, it takes a text that is too long for a name
            matches, problem = [path], ""
        else:
            matches = sorted(Path(match) for match in glob.glob(str(pattern), recursive=True))
            problem = "no file has this name or matches this pattern"
        if not matches:
            raise VideoReadError(problem, remedy="Give a video, an image, a folder or a pattern", file=path)
        found.update(dict.fromkeys(matches))
    return list(found)
