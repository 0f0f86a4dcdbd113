"""Frames of a video by PyAV: from a seek point where the packets tell all, from the start elsewhere.

Every frame's time is compared with what was expected. Where one differs, the whole stream is decoded from its start:
what comes out of that, in that order, is what a player shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from vr_pipeline.video.clip import Choose, Frames, Reading, VideoInformation, VideoReadError
from vr_pipeline.video.fast import by_decord, may_decode
from vr_pipeline.video.limits import check_length, check_pixels
from vr_pipeline.video.packets import PacketIndex, index_packets, open_video, sees_through, stream_packets
from vr_pipeline.video.pixels import Painter
from vr_pipeline.video.sampling import plausible_rate, unless_steady, usable_times

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_LARGE = 1_000_000
"""Bytes; smaller files are decoded before more threads have started."""


def read_video(path: Path, choose: Choose, *, decord: bool = False) -> Reading:
    """Return the frames that are chosen of a video.

    Args:
        decord: let decord decode where its answer is proven.

    Raises:
        VideoReadError: no stream, a damaged frame, or too many pixels.
        av.error.FFmpegError: the file is no video, or damaged.
    """
    with open_video(path) as (container, stream):
        check_pixels(path, stream.height, stream.width, 1)
        index = index_packets(container, stream)
        check_length(path, index.packets)
        if index.plain:
            known = _information(stream, index.seconds, index.packets, index.longest)
            wanted = choose(known)
            check_pixels(path, known.height, known.width, len(wanted))
            decoder = _decoder(stream, path)
            frames = None
            # PyAV reads a whole clip faster than decord, whose answer is compared with a frame by PyAV.
            if decord and len(wanted) < index.packets and may_decode(container, stream, index):
                # One frame by PyAV shows whether both see the same picture, and whether it is turned.
                first = _by_seeking(container, stream, decoder, index, wanted[:1])
                frames = by_decord(path, index, wanted, first[0]) if first else None
            frames = frames or _by_seeking(container, stream, decoder, index, wanted)
            if frames is not None:
                return _reading(frames, wanted, known)
    return _from_the_start(path, index, choose)


def _information(
    stream: VideoStream, seconds: Sequence[float | None] | None, count: int, longest: float
) -> VideoInformation:
    """Return what is known of a clip. Its frames' size before they are turned upright is the stream's."""
    rate = plausible_rate(float(stream.average_rate or stream.guessed_rate or 0), seconds, longest)
    times = unless_steady(usable_times(seconds or [], longest))
    return VideoInformation(count, rate, stream.height, stream.width, times)


def _reading(frames: Sequence[Frames], wanted: list[int], known: VideoInformation) -> Reading:
    pixels = np.stack(frames)
    return pixels, wanted, replace(known, height=pixels.shape[1], width=pixels.shape[2])


def _decoder(stream: VideoStream, path: Path) -> VideoCodecContext:
    """Return the decoder of a stream; for VP8 and VP9 with transparency the one that sees it."""
    import av

    context = stream.codec_context
    if sees_through(stream):
        context = av.CodecContext.create({"vp8": "libvpx", "vp9": "libvpx-vp9"}[context.name], "r")
    context.thread_type = "AUTO"
    context.thread_count = 0 if path.stat().st_size > _LARGE else 1
    return context


def _decoded(container: InputContainer, stream: VideoStream, decoder: VideoCodecContext) -> Iterator[VideoFrame]:
    """Return frames in the order in which they are shown, from where the container stands.

    A stream that begins in the middle of a group of frames is shown from its first whole frame on. What cannot be
    decoded later is an error.
    """
    import av

    begun = False
    for packet in stream_packets(container, stream):
        try:
            frames = decoder.decode(packet)
        except (av.error.InvalidDataError, av.error.ArgumentError):
            if begun:
                raise
            continue
        begun = begun or bool(frames)
        yield from frames
    yield from decoder.decode(None)


def _by_seeking(
    container: InputContainer,
    stream: VideoStream,
    decoder: VideoCodecContext,
    index: PacketIndex,
    wanted: Sequence[int],
) -> list[Frames] | None:
    """Return frames of a stream whose packets tell all; None as soon as one has another time or size than they tell."""
    import av

    assert index.stamps is not None
    painter, taken = Painter(), []
    frames: Iterator[VideoFrame] = iter(())
    following = len(index.stamps)
    try:
        for position in wanted:
            place = index.start_of(position)
            if not place <= following <= position:
                container.seek(index.stamps[place], stream=stream)
                frames, following = _decoded(container, stream, decoder), place
            frame = None
            while following <= position:
                frame = next(frames, None)
                # Seeking may stop before the point that was asked for.
                while frame is not None and frame.pts is not None and frame.pts < index.stamps[place]:
                    frame = next(frames, None)
                if frame is None or frame.pts != index.stamps[following]:
                    return None
                following += 1
            if frame is None or (frame.height, frame.width) != (stream.height, stream.width):
                return None
            taken.append(painter.picture(frame))
    except av.error.InvalidDataError:
        return None
    return taken


def _from_the_start(path: Path, index: PacketIndex, choose: Choose) -> Reading:
    """Decode a stream from its start, keep the frames that its packets promise, and check the promise."""
    count, seconds = index.packets, cast("Sequence[float | None] | None", index.seconds)
    for _ in range(2):
        with open_video(path) as (container, stream):
            wanted = set(choose(_information(stream, seconds, count, index.longest)) if count else [])
            painter, taken, seen = Painter(), {}, []
            for position, frame in enumerate(_decoded(container, stream, _decoder(stream, path))):
                check_length(path, position + 1)
                seen.append(None if frame.pts is None else frame.pts * index.tick)
                if position == 0 or position in wanted:
                    check_pixels(path, frame.height, frame.width, len(wanted))
                    taken[position] = painter.picture(frame)
            if not seen:
                raise VideoReadError("the video has no frames that decode", remedy="Copy or make it again", file=path)
            known = _information(stream, seen, len(seen), index.longest)
        chosen = choose(known)
        if taken.keys() >= set(chosen):
            return _reading([taken[position] for position in chosen], chosen, known)
        count, seconds = len(seen), seen
    raise VideoReadError("decodes to other frames each time", remedy="Copy or make it again", file=path)
