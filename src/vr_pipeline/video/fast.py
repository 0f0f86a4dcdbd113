"""Frames by decord, where its answer is proven; see :func:`may_decode`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vr_pipeline.video.clip import Frames
from vr_pipeline.video.packets import PacketIndex

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

logger = logging.getLogger(__name__)

_PIXELS = ("yuv420p", "gbrp")
"""Formats of pixels that both readers convert to the same RGB."""


def may_decode(container: InputContainer, stream: VideoStream, index: PacketIndex) -> bool:
    """Return whether decord's answer on a file is proven.

    decord counts frames by packets, finds them by skipping, fills what it cannot find with copies, and waits forever
    where a packet holds no frame. None of this happens in an mp4 file of H.264 in closed groups, with a time for every
    packet and no hidden one.
    """
    return (
        container.format.name.startswith("mov,")
        and stream.codec_context.name == "h264"
        and stream.codec_context.pix_fmt in _PIXELS
        and index.plain
        and index.closed
    )


def by_decord(path: Path, index: PacketIndex, wanted: Sequence[int], first: Frames) -> list[Frames] | None:
    """Return the chosen frames; None if decord fails or disagrees with the packets or the first frame.

    Args:
        path: a file that :func:`may_decode` accepts.
        wanted: which frames.
        first: the first of them by another decoder.
    """
    try:
        import decord
        from decord import DECORDError, DECORDLimitReachedError
    except ImportError:  # there is no build for this platform
        return None
    try:
        decord.logging.set_level(decord.logging.QUIET)
        threads = 1 if path.stat().st_size < 1_000_000 else 0
        # The tolerance makes an error of the first frame that would be a copy of its neighbour.
        reader = decord.VideoReader(f"file:{path.absolute()}", num_threads=threads, fault_tol=1e-6)
        times = reader.get_frame_timestamp(np.arange(len(reader)))[:, 0]
        expected = np.array(index.seconds)
        if len(times) != len(expected) or np.abs(times - (expected - expected[0])).max() > index.tick:
            return None
        frames = reader.get_batch(list(wanted)).asnumpy()
    except (DECORDError, DECORDLimitReachedError, RuntimeError, IndexError, ValueError) as error:
        # A width it does not take, a name it cannot pass on, or a damaged frame.
        logger.debug("%s: decord failed: %s", path, error)
        return None
    return list(frames) if len(frames) == len(wanted) and np.array_equal(frames[0], first) else None
