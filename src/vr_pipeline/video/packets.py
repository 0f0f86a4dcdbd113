"""What a video file says of its frames, read from its packets without decoding them.

Nothing but the file itself is opened: names are no addresses, and formats that lead to other files (playlists, numbered
pictures) are not on the list.
"""

from __future__ import annotations

import bisect
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vr_pipeline.video.clip import VideoReadError
from vr_pipeline.video.sampling import LONGEST

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

_FORMATS = "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,asf,gif,ogg,ivf,h264,hevc,m4v,obu,mxf,dv"
"""Demuxers of FFmpeg: none of them opens another file."""
_SEEKABLE = ("mov", "matroska")
"""Containers with an index and a time for every frame."""
_FRAME_A_PACKET = ("h264", "hevc", "vp9", "av1", "libdav1d", "mjpeg", "prores", "ffv1", "png", "qtrle", "dnxhd")
"""Decoders of codecs of which one packet is one frame that is shown, in those containers."""

_OF_PICTURES = ("mjpeg", "png", "bmp", "webp", "gif")
"""Decoders of covers and thumbnails, where another stream lies beside them."""
_LONGEST_IN_RECORDINGS = 10.0
"""Seconds, as FFmpeg has it."""


@contextmanager
def open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and the video stream that a player shows: the default one, or the first; never a cover picture.

    Raises:
        VideoReadError: there is none, or nobody can decode it.
        av.error.FFmpegError: the file is none of the formats that are read, or damaged.
    """
    import av

    # Without a protocol in front, '16:9.mp4' is an address and 'concat:a|b' two other files.
    name = "file:" + os.path.abspath(path)
    with av.open(name, options={"format_whitelist": _FORMATS, "protocol_whitelist": "file"}) as container:
        stream = _stream(container)
        if stream is None:
            raise VideoReadError(
                "has sound but no picture" if container.streams.audio else "holds no video stream",
                remedy="Give a file with a video stream",
                file=path,
            )
        if stream.codec_context is None:
            raise VideoReadError(
                "is compressed by a codec that nobody here can decode", remedy="Convert it to H.264 in mp4", file=path
            )
        yield container, stream


def _stream(container: InputContainer) -> VideoStream | None:
    from av.stream import Disposition

    def rank(stream: VideoStream) -> tuple[bool, bool]:
        still = stream.codec_context is not None and stream.codec_context.name in _OF_PICTURES
        return still, not Disposition(stream.disposition) & Disposition.default

    streams = [
        stream for stream in container.streams.video if not Disposition(stream.disposition) & Disposition.attached_pic
    ]
    return min(streams, key=rank, default=None)


@dataclass(frozen=True)
class PacketIndex:
    """The frames of a stream as its packets tell them.

    Attributes:
        stamps: time stamp of every shown frame in order of time, in ticks; None where the file has none.
        tick: seconds a tick.
        seek_points: places among the frames of those from which on nothing refers back; empty where the packets do not
            tell how the stream decodes: then it is decoded from its start.
        packets: number of packets that hold a shown frame.
        closed: whether every key frame is a seek point.
        longest: seconds that a frame may stay; a recording's time may jump from one part to the next.
    """

    stamps: Sequence[int] | None
    tick: float
    seek_points: Sequence[int]
    packets: int
    closed: bool
    longest: float

    @property
    def plain(self) -> bool:
        """Whether the order, the time and the decoding of every frame are known."""
        return bool(self.seek_points)

    @cached_property
    def seconds(self) -> list[float] | None:
        """Time of every frame in seconds."""
        return None if self.stamps is None else [stamp * self.tick for stamp in self.stamps]

    def start_of(self, index: int) -> int:
        """Return the last seek point that is not behind a frame."""
        return self.seek_points[bisect.bisect_right(self.seek_points, index) - 1]


def stream_packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """Yield the packets of a stream that are not empty: an empty one (a repeated frame in AVI) would end decoding."""
    # Where a stream turns up late, as in joined recordings, PyAV fails at the end, when all packets are out.
    with suppress(IndexError):
        yield from (packet for packet in container.demux(stream) if packet.size)


def index_packets(container: InputContainer, stream: VideoStream) -> PacketIndex:
    """Read all packets of a stream."""
    packets = list(stream_packets(container, stream))
    tick = float(stream.time_base or 0)
    shown = [packet for packet in packets if not packet.is_discard]
    stamps = sorted(packet.pts for packet in shown if packet.pts is not None)
    timed = len(stamps) == len(shown) > 0 and tick > 0
    plain = (
        timed
        and len(shown) == len(packets)
        and len(set(stamps)) == len(stamps)
        and _well_known(container, stream)
        and not any(packet.is_corrupt or packet.has_sidedata("new_extradata") for packet in packets)
    )
    points = _seek_points(packets) if plain else []
    closed = len(points) == sum(packet.is_keyframe for packet in packets)
    longest = _LONGEST_IN_RECORDINGS if container.format.name in ("mpegts", "mpeg") else LONGEST
    return PacketIndex(stamps if timed else None, tick, points, len(shown), closed, longest)


def _well_known(container: InputContainer, stream: VideoStream) -> bool:
    context = stream.codec_context
    return (
        container.format.name.split(",")[0] in _SEEKABLE
        and context.name in _FRAME_A_PACKET
        # 1 is progressive, 0 unknown: the fields of a frame may lie in two packets.
        and context.field_order in (0, 1)
        and not sees_through(stream)
    )


def sees_through(stream: VideoStream) -> bool:
    """Return whether a stream of VP8 or VP9 carries its transparency beside the picture."""
    return stream.metadata.get("alpha_mode") == "1" and stream.codec_context.name in ("vp8", "vp9")


def _seek_points(packets: Sequence[Packet]) -> list[int]:
    """Return the key frames at which decoding can start: earlier packets are shown earlier, later ones later.

    Frames of an open group come behind their key frame and are shown before it; they need what lies before.
    """
    pts = np.array([packet.pts for packet in packets], dtype=np.int64)
    first_shown_behind = np.minimum.accumulate(pts[::-1])[::-1]
    last_shown_before = np.concatenate([[np.iinfo(np.int64).min], np.maximum.accumulate(pts)[:-1]])
    parts = (last_shown_before < pts) & (first_shown_behind == pts) & [packet.is_keyframe for packet in packets]
    # Without one at its very start a stream does not decode from there.
    return [int(at) for at in np.flatnonzero(parts)] if parts[0] else []
