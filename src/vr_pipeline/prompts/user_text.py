"""Tokenise users' texts without control tokens of the model.

A tokenizer reads ``<|im_end|>``, ``<image>`` or ``</s>`` in a prompt as the end of a turn, the place of an image or the
end of the text. Here they become plain text; other texts get the usual tokens.
"""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from vr_pipeline.errors import InputError

# Tokens in brackets such as <tool_call> have a meaning even if a tokenizer does not declare them special.
_MARKER = re.compile(r"\s*[<\[{｜|].*[>\]}｜|]\s*", re.DOTALL)
_SHORTEST = 3


def control_tokens(tokenizer: Any, others: Collection[int] = ()) -> dict[int, str]:
    """Return the tokens with a special meaning to the model: number -> spelling.

    The token of unknown words and marks of one or two letters ("!" is the padding of some) are not included.

    Args:
        tokenizer: of the model.
        others: more numbers, such as those of visual tokens.
    """
    found = {
        int(number): str(token.content)
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.special or _MARKER.fullmatch(token.content)
    }
    found |= dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    found |= {number: name for number in others if (name := tokenizer.convert_ids_to_tokens(number)) is not None}
    meaning = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token}
    if tokenizer.unk_token not in meaning:
        found.pop(tokenizer.unk_token_id, None)
    return {number: text for number, text in found.items() if len(text.strip()) >= _SHORTEST or number in others}


def user_text_ids(tokenizer: Any, control: Mapping[int, str], before: str, text: str, after: str) -> list[int]:
    """Return tokens of a user's text between two pieces of a template, whose control tokens are kept.

    Args:
        tokenizer: of the model.
        control: of :func:`control_tokens`.
        before: template before the text.
        text: of the user.
        after: template after the text.

    Raises:
        InputError: a control token in the text cannot be avoided.
    """
    whole = _ids(tokenizer, before + text + after)
    of_template = sum(number in control for piece in (before, after) for number in _ids(tokenizer, piece))
    if sum(number in control for number in whole) == of_template:
        return whole
    start = max((before.rfind(mark) + len(mark) for mark in control.values() if mark in before), default=0)
    end = min((after.find(mark) for mark in control.values() if mark in after), default=len(after))
    middle = _plain_ids(tokenizer, control, before[start:], text, after[:end])
    return [*_ids(tokenizer, before[:start]), *middle, *_ids(tokenizer, after[end:])]


def written_plainly(text: str, tokenizers: Iterable[Any]) -> str:
    """Return a text that gives no control tokens, for pipelines that tokenise themselves.

    Control tokens get a space in them; other texts stay the same. HTML escapes are also checked, because the pipelines
    of Wan resolve them.
    """
    for tokenizer in tokenizers:
        control = control_tokens(tokenizer)
        for written in (text, html.unescape(html.unescape(text))):
            if not control.keys().isdisjoint(_ids(tokenizer, written)):
                text = _broken(written, control)
    return text


def _plain_ids(tokenizer: Any, control: Mapping[int, str], before: str, text: str, after: str) -> list[int]:
    """Return tokens of a text without control tokens."""
    for written in (text, _broken(text, control)):
        ids = _ids_without_added_tokens(tokenizer, before + written + after)
        if control.keys().isdisjoint(ids):
            return ids
    named = ", ".join(sorted({control[number] for number in ids if number in control}))
    raise InputError(
        f"the model's tokenizer reads a part of the text '{text[:80]}' as a control token ({named})",
        remedy="Remove it from the prompt or question",
        field="prompt",
    )


def _broken(text: str, control: Mapping[int, str]) -> str:
    """Return the text with a space in every control token, for vocabularies that have it as a word."""
    for mark in sorted(control.values(), key=len, reverse=True):
        inside = mark.strip()
        text = re.sub(re.escape(inside), lambda found: f"{found[0][0]} {found[0][1:]}", text, flags=re.IGNORECASE)
    return text


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []


def _ids_without_added_tokens(tokenizer: Any, text: str) -> list[int]:
    """Return tokens by the vocabulary only; ``split_special_tokens`` still matches some added tokens."""
    if not text:
        return []
    if not tokenizer.is_fast:
        return list(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])
    backend = tokenizer.backend_tokenizer
    if backend.normalizer is not None:
        text = backend.normalizer.normalize_str(text)
    pieces = [text]
    if backend.pre_tokenizer is not None:
        pieces = [piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
    return [token.id for piece in pieces for token in backend.model.tokenize(piece)]
