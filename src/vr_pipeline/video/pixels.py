"""From a decoded frame to the picture that a player shows: RGB, upright, white where it is transparent."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from vr_pipeline.video.clip import Frames

if TYPE_CHECKING:
    from av.buffer import Buffer
    from av.video.frame import VideoFrame


class Painter:
    """Turns the frames of one clip into pictures of one size, that of its first frame.

    Colours are converted by what the stream states of its matrix and range, and as BT.601 in limited range where it
    states nothing, as FFmpeg does. Pixels stay as they are stored: interlaced lines are woven, and pixels that are no
    squares are not stretched.
    """

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        self._convert = VideoReformatter().reformat
        self._size: tuple[int, int] | None = None

    def picture(self, frame: VideoFrame) -> Frames:
        """Return a frame as uint8 [height, width, 3]. The first call decides on the size of all."""
        self._size = self._size or (frame.width, frame.height)
        see_through = frame.format.has_palette or any(part.is_alpha for part in frame.format.components)
        pixels = self._converted(frame, "rgba" if see_through else "rgb24")
        if see_through:
            alpha = pixels[..., 3:].astype(np.uint16)
            pixels = ((pixels[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
        matrix = frame.side_data.get("DISPLAYMATRIX")
        return pixels if matrix is None else turned(pixels, np.frombuffer(memoryview(cast("Buffer", matrix)), np.int32))

    def _converted(self, frame: VideoFrame, form: str) -> Frames:
        import av

        assert self._size is not None
        width, height = self._size
        try:
            converted = self._convert(frame, width=width, height=height, format=form, threads=1)
        except av.error.FFmpegError:
            # A matrix that the converter does not know (reserved, or of another kind of colour): BT.709 stands in.
            converted = self._convert(
                frame, width=width, height=height, format=form, threads=1, src_colorspace=1, dst_colorspace=1
            )
        return cast("Frames", converted.to_ndarray())


def turned(pixels: Frames, matrix: np.ndarray) -> Frames:
    """Return a picture turned and mirrored as a display matrix says, by whole quarters.

    Args:
        pixels: [height, width, 3].
        matrix: nine integers a b u, c d v, x y w: the point (p, q) is shown at (a p + c q + x, b p + d q + y).
    """
    a, b, _, c, d, *_ = (int(number) for number in matrix)
    if abs(a) + abs(d) >= abs(b) + abs(c):
        across, down = a, d
    else:
        pixels, across, down = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])
