"""Clips as data URLs for a page: re-encoded for browsers, within a size limit, with reproducible bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import pandas as pd

from vr_pipeline.evaluation.report.elements import EmbeddedClip, ShownClip
from vr_pipeline.video.clip import Frames
from vr_pipeline.video.resize import LARGEST_SIDE, resize
from vr_pipeline.video.write import encode_clip

if TYPE_CHECKING:
    from vr_pipeline.items.folder import ItemFolder

T = TypeVar("T")

_SMALLEST_CLIP, _LARGEST_CLIP = 24_000, 300_000
"""Smallest and largest size of a clip in bytes, before base64."""

_STEPS = ((12, LARGEST_SIDE), (20, LARGEST_SIDE), (28, LARGEST_SIDE), (34, 240), (40, 160))
"""Rate factor of the encoder and longest side, from best to smallest."""


def embed_clip(frames: Frames, *, fps: float, max_bytes: int) -> EmbeddedClip:
    """Encode a clip within a number of bytes, reducing quality, then size, then frames as needed.

    Args:
        frames: uint8 [frames, height, width, 3], RGB.
        fps: frames per second; 8 if not above 0.
        max_bytes: limit of the encoded clip before base64 (which adds a third).
    """
    rate = fps if fps > 0 else 8.0
    if len(frames) == 1:
        return _embed_image(frames[0], max_bytes)
    for crf, side in _STEPS:
        sized = resize(frames, side)
        content = encode_clip(sized, fps=rate, crf=crf)
        if len(content) <= max_bytes:
            break
    while len(content) > max_bytes and len(sized) > 2:
        # The encoder spends more bits on longer frames, so the rate factor must rise too.
        sized, rate, crf = sized[::2], rate / 2, min(51, crf + 4)
        content = encode_clip(sized, fps=rate, crf=crf)
    height, width = sized.shape[1:3]
    return EmbeddedClip(_data_url("video/mp4", content), "video", width, height, len(sized) / rate)


def room_for(sets: Sequence[T], clips: int, limit: int) -> tuple[Sequence[T], int]:
    """Return the sets of ``clips`` clips that fit into ``limit`` bytes, and the bytes per clip."""
    fitting = sets[: max(1, limit // _SMALLEST_CLIP // clips)]
    return fitting, max(_SMALLEST_CLIP, min(_LARGEST_CLIP, limit // max(1, len(fitting) * clips)))


def side_by_side(
    clips: Mapping[str, str], videos: ItemFolder, index: pd.DataFrame, room: int
) -> tuple[str, list[ShownClip]]:
    """Return the prompt of clips, and the clips as they are shown.

    Args:
        clips: heading -> identifier.
        videos: their folder.
        index: their video index.
        room: bytes per clip before base64.
    """
    known = {str(row["video_id"]): row for row in index[index["video_id"].isin(clips.values())].to_dict("records")}
    prompt = next((str(known[name]["prompt"]) for name in list(clips.values())[:1] if name in known), "")
    shown = []
    for heading, name in clips.items():
        if name not in known or name not in videos:
            shown.append(ShownClip(heading, problem="This clip is not in the folder of clips."))
            continue
        clip = embed_clip(videos.load(name), fps=float(known[name]["fps"]), max_bytes=room)
        shown.append(ShownClip(heading, f"{heading}: {prompt}", clip))
    return prompt, shown


def _embed_image(pixels: Frames, max_bytes: int) -> EmbeddedClip:
    from PIL import Image

    attempts: Sequence[tuple[int, int | None]] = (
        (LARGEST_SIDE, None),
        (LARGEST_SIDE, 90),
        (LARGEST_SIDE, 70),
        (240, 60),
        (160, 40),
    )
    for side, quality in attempts:
        image = Image.fromarray(resize(pixels[None], side)[0])
        buffer = io.BytesIO()
        if quality is None:
            image.save(buffer, "PNG", optimize=True)
        else:
            image.save(buffer, "JPEG", quality=quality)
        if len(buffer.getvalue()) <= max_bytes:
            break
    kind = "image/png" if quality is None else "image/jpeg"
    return EmbeddedClip(_data_url(kind, buffer.getvalue()), "image", image.width, image.height, 0.0)


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
