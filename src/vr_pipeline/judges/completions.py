"""What a judge behind a server sends and reads: clips as parts of a message, the first token's log-probabilities."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from vr_pipeline.judges.contract import NoNumbersError
from vr_pipeline.terminal import one_line
from vr_pipeline.video.read import Frames
from vr_pipeline.vlm.config import ServerParameters

FIELD = "judge.server"
_ROUNDING = 1e-6
_SUM_ROUNDING = 1e-2
_NONE = -9999.0
"""What servers write for a token without probability."""
_MARKS = "▁Ġ"
"""Marks of white space that some servers leave in tokens."""


class NoAnswerError(NoNumbersError):
    """A server gave no probabilities of yes and no; another setting of the server may help, so it is asked again."""

    of_clip = False


class Answer(NamedTuple):
    """The probability of yes among yes and no, the mass outside both, and the part of it that no token is known of."""

    p_yes: float
    outside_mass: float
    unknown_mass: float


def read_answer(document: Mapping[str, Any], question: str) -> Answer:
    """Return the probabilities in a chat completion.

    Args:
        document: the server's answer.
        question: what was asked, for errors.

    Raises:
        NoAnswerError: there are no log-probabilities, they are none, or neither yes nor no is among the tokens.
    """
    listed = _listed(document, question)
    words = [token.strip(_MARKS + " \t\r\n").lower() for token, _ in listed]
    masses = [math.exp(value) for _, value in listed]
    yes, no = (
        math.fsum(mass for word, mass in zip(words, masses, strict=True) if word == one) for one in ("yes", "no")
    )
    total = math.fsum(masses)
    if total > 1 + _SUM_ROUNDING:
        raise _no_answer(f"tokens of together {total:.4g} instead of at most 1", question, "Check the server")
    if yes + no == 0:
        likely = max(listed, key=lambda pair: pair[1], default=("", 0.0))[0]
        raise _no_answer(
            f"neither yes nor no among the most likely tokens, of which the first is '{one_line(likely[:40])}'",
            question,
            f"Raise '{FIELD}.top_logprobs', change '{FIELD}.after_question', or keep the model from thinking before it "
            f"answers (for example {FIELD}.extra_body: {{chat_template_kwargs: {{enable_thinking: false}}}})",
        )
    outside, unknown = (min(1.0, max(0.0, 1 - mass)) for mass in (yes + no, total))
    return Answer(yes / (yes + no), outside, unknown)


def _listed(document: Mapping[str, Any], question: str) -> list[tuple[str, float]]:
    """Return the most likely first tokens with their log-probabilities, those without probability left out."""
    try:
        listed = document["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        pairs = [(entry["token"], entry["logprob"]) for entry in listed]
    except (KeyError, IndexError, TypeError):
        raise _no_answer(
            "no log-probabilities",
            question,
            "Use a server and a model that return 'top_logprobs', as vLLM does; many hosted models do not",
        ) from None
    for token, value in pairs:
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not isinstance(token, str) or not number or value > _ROUNDING:
            raise _no_answer(
                f"the log-probability {one_line(str(value)[:40])}",
                question,
                "Check the precision that the server computes in",
            )
    return [(token, min(0.0, float(value))) for token, value in pairs if value > _NONE]


def _no_answer(given: str, question: str, remedy: str) -> NoAnswerError:
    asked = one_line(question if len(question) <= 200 else f"{question[:200]}...")
    return NoAnswerError(f"the server gave {given} when asked '{asked}'", remedy=remedy, field=FIELD)


_CONTROL = re.compile(r"<(?=[|｜/!A-Za-z_])|\[(?=/?[A-Z_]{2,}\])")
"""Where a control token of a chat template can begin: <|im_end|>, </s>, <image>, [INST]."""


def plain_text(text: str) -> str:
    """Return a user's text with a space in everything that a server could take for a control token.

    Its tokenizer is not known here, so the forms count: ``<|im_end|>`` becomes ``< |im_end|>``.
    """
    return _CONTROL.sub(lambda found: f"{found[0]} ", text)


def image_parts(frames: Frames, server: ServerParameters) -> list[dict[str, Any]]:
    """Return frames as one image each."""
    from PIL import Image

    options = {"quality": server.jpeg_quality} if server.image_format == "jpeg" else {}
    detail = {"detail": server.image_detail} if server.image_detail else {}
    parts = []
    for frame in frames:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, server.image_format, **options)
        url = _data_url(f"image/{server.image_format}", buffer.getvalue())
        parts.append({"type": "image_url", "image_url": {"url": url, **detail}})
    return parts


def video_parts(frames: Frames, rate: float | None, server: ServerParameters) -> list[dict[str, Any]]:
    """Return frames as one mp4 at their rate; an unknown rate is 1 per second."""
    from vr_pipeline.video.write import encode_clip

    content = encode_clip(frames, fps=rate or 1.0, codec=server.video_codec)
    return [{"type": "video_url", "video_url": {"url": _data_url("video/mp4", content)}}]


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
