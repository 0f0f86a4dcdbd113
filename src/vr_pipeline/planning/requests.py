"""What a judge behind a server is asked in a run: requests, images, megabytes, tokens and money."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vr_pipeline.planning.settings import Settings
from vr_pipeline.planning.stages import Work
from vr_pipeline.planning.storage import BITS_PER_PIXEL
from vr_pipeline.vlm.config import ServerParameters

BITS_OF_IMAGES = {"png": 16.0, "jpeg": 4.0}
"""Bits per pixel of an image, of 24. An assumption: content decides."""
BASE64 = 4 / 3
"""Bytes sent per byte of a file."""


def planned_requests(settings: Settings, works: Sequence[Work]) -> dict[str, Any] | None:
    """Return what a server is asked, by stage and in total; None for a judge that is loaded here.

    Finished items are not subtracted. Tokens and cost are None if the tokens of a frame or the prices are not known.
    """
    server = settings.server
    if server is None:
        return None
    asked = [_asked(settings, server, work) for work in works if work.requests]
    total = {name: _sum([one[name] for one in asked]) for name in ("requests", "images", "megabytes", "tokens", "cost")}
    return {"url": server.url, "currency": server.currency, "source": "calculated", "stages": asked, "total": total}


def _asked(settings: Settings, server: ServerParameters, work: Work) -> dict[str, Any]:
    frames, area = settings.shown
    video = server.media == "video" and frames > 1
    bits = BITS_PER_PIXEL[server.video_codec] if video else BITS_OF_IMAGES[server.image_format]
    if server.tokens_per_frame is not None:
        visual: float | None = frames * server.tokens_per_frame
    else:
        visual = settings.visual_tokens if settings.reader is not None else None
    tokens = None if visual is None else work.requests * visual + work.number * settings.question_tokens
    price, cost = server.price_per_million_input_tokens, None
    if tokens is not None and price is not None:
        # An answer is one token.
        cost = (tokens * price + work.requests * server.price_per_million_output_tokens) / 1e6
    return {
        "stage": work.stage,
        "what": work.what,
        "requests": work.requests,
        "images": 0 if video else work.requests * frames,
        "megabytes": work.requests * frames * area * bits / 8 * BASE64 / 1e6,
        "tokens": tokens,
        "cost": cost,
    }


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
