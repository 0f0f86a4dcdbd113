"""Still and animated images as frames, the way a viewer shows them.

An orientation in the file is applied, what is transparent is white, and 16 bits of grey become 8. WebP and PNG can be
animated (some tools write generated clips so); they are clips with a rate.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vr_pipeline.video.clip import Frames
from vr_pipeline.video.limits import check_length, check_pixels
from vr_pipeline.video.sampling import plausible_rate

if TYPE_CHECKING:
    from PIL.Image import Image

# First bytes of the image formats that are read; the content counts, not the file's extension.
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\x00", b"MM\x00*", b"\x00\x00\x00\x0cjP  ")
# Of these the further frames are moments; the pages of a TIFF, say, are not.
_ANIMATED = ("PNG", "WEBP", "AVIF")


def is_picture(head: bytes) -> bool:
    """Return whether a file that begins so is an image: PNG, JPEG, BMP, TIFF, WebP, AVIF or JPEG 2000."""
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    return head.startswith(_SIGNATURES) or head[4:12] in (b"ftypavif", b"ftypavis")


PICTURE_ERRORS = (OSError, EOFError, ValueError, SyntaxError, RuntimeError, ArithmeticError, LookupError, struct.error)
"""What Pillow's decoders raise where an image is damaged: each its own kind."""


@dataclass(frozen=True, eq=False)
class Picture:
    """An open image.

    Attributes:
        times: when each frame is shown, in seconds after the first.
        fps: frames a second on average; 0 where nothing moves.
        first: place in the file of the first of them.
    """

    image: Image
    times: Sequence[float]
    fps: float
    first: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """Height and width as stored."""
        return self.image.height, self.image.width

    def frames(self, indices: Sequence[int]) -> Frames:
        """Return the chosen frames, uint8 [frames, height, width, 3]. Raises one of :data:`PICTURE_ERRORS`."""
        taken = []
        for index in indices:
            if len(self.times) > 1:
                self.image.seek(self.first + index)
            taken.append(_as_shown(self.image))
        return np.stack(taken)


@contextmanager
def open_picture(path: Path) -> Iterator[Picture]:
    """Open an image.

    Raises:
        VideoReadError: it has too many pixels.
        one of PICTURE_ERRORS: it is damaged.
    """
    from PIL import Image

    with warnings.catch_warnings():
        # Large photographs are welcome; what is too large is said below, before anything is decoded.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            opened = Image.open(path)
        except Image.DecompressionBombError as error:
            raise ValueError(str(error)) from None
        with opened as image:
            check_pixels(path, image.height, image.width, 1)
            count = getattr(image, "n_frames", 1) if image.format in _ANIMATED else 1
            check_length(path, count)
            # A PNG may begin with a picture for viewers that know no animation.
            first = 1 if count > 1 and getattr(image, "default_image", False) else 0
            if count - first == 1:
                image.seek(first)
                yield Picture(image, (0.0,), 0.0, first)
                return
            seconds = []
            for index in range(first, count):
                image.seek(index)
                image.load()  # Only then is it known how long a frame stays.
                seconds.append(_duration(image.info.get("duration", 0)))
            times = [0.0, *np.cumsum(seconds).tolist()]
            yield Picture(image, times[:-1], plausible_rate(0.0, times), first)


def _duration(milliseconds: float) -> float:
    """Return how long viewers show a frame, in seconds: what is shorter than a hundredth they show for a tenth."""
    return milliseconds / 1000 if milliseconds >= 10 and np.isfinite(milliseconds) else 0.1


def _as_shown(image: Image) -> Frames:
    from PIL import Image as Images
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(image)
    if upright.mode == "F" and not np.isfinite(np.asarray(upright)).all():
        raise ValueError("it has values that are no numbers")
    if upright.mode.startswith("I;16"):
        # Conversion to RGB would cut off at 255.
        upright = Images.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    if upright.has_transparency_data:
        shown = upright.convert("RGBA")
        upright = Images.new("RGB", shown.size, "white")
        upright.paste(shown, mask=shown)
    return np.asarray(upright.convert("RGB"), dtype=np.uint8)
