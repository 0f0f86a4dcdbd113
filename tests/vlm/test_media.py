"""Clips and images among text: tokens, positions and pixels of several in a row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from plain_likelihood import plain_inputs
from tiny_judges import FAMILY_BUILDERS, WORDS
from vr_pipeline.errors import InputError
from vr_pipeline.vlm.media import Request
from vr_pipeline.vlm.packing import Segment
from vr_pipeline.vlm.prefix import packed_logits

RATES = [2.0, 4.0, 1.0]


@pytest.mark.parametrize("name", FAMILY_BUILDERS)
def test_one_visual_between_the_settings_texts_is_the_prepared_clip(
    name: str, tokenizer: Any, clips: list[np.ndarray]
) -> None:
    family = FAMILY_BUILDERS[name](tokenizer)
    texts = [family.settings.before_clip, family.settings.after_clip]
    if name.startswith("qwen2"):
        # There the marks around the clip are a part of the texts.
        assert texts[0].endswith("<|vision_start|>")
        assert texts[1].startswith("<|vision_end|>")
        texts = [texts[0].removesuffix("<|vision_start|>"), texts[1].removeprefix("<|vision_end|>")]
    if name == "smolvlm":
        # Real tokenizers know what the frames begin with as one token, which a colon does not join; this one does not.
        texts[0] = texts[0].replace(":", " ")
        family.settings = family.settings.model_copy(update={"before_clip": texts[0]})
    before, after = (family.text_ids(text) for text in texts)
    for clip, rate in [*zip(clips, RATES, strict=True), (clips[0][:1], None)]:
        visual, prepared = family.visual(clip, rate), family.prepare(clip, rate)
        joined = family.joined([before, visual, after])
        assert joined.token_ids.tolist() == prepared.token_ids.tolist()
        assert joined.positions.tolist() == prepared.positions.tolist()
        assert joined.next_position == prepared.next_position == len(before) + visual.span + len(after)
        assert joined.vision.keys() == prepared.vision.keys()
        assert all(np.array_equal(joined.vision[key], prepared.vision[key]) for key in prepared.vision)
        assert visual.positions.min() == 0
        assert visual.span == visual.positions.max() + 1


@pytest.mark.parametrize("name", FAMILY_BUILDERS)
def test_questions_behind_several_clips_are_answered_as_by_the_plain_class(
    name: str, tokenizer: Any, clips: list[np.ndarray]
) -> None:
    family = FAMILY_BUILDERS[name](tokenizer)
    text, question = tuple(family.text_ids("the ball")), tuple(family.text_ids("is it red ?"))
    # One number of frames: the plain class of LLaVA-OneVision takes clips of equal length only.
    visuals = {"a": family.visual(clips[0][:3], 2.0), "b": family.visual(clips[1], 2.0)}
    # Two clips without a word between them, and none at all, in one batch.
    requests = [(text, "a", text, "b"), (text, "a", "b"), (text,)]
    joined = [family.joined([visuals.get(piece, piece) for piece in pieces]) for pieces in requests]
    assert [len(one.shown) for one in joined] == [2, 2, 0]
    with torch.no_grad():
        logits = packed_logits(family, joined, [[Segment(question, (len(question) - 1,))]] * len(joined))
        for row, pieces in enumerate(requests):
            inputs = plain_inputs(family, visuals, Request(pieces, ()), question, {})
            expected = family.model(**inputs).logits[0, -1].float()
            np.testing.assert_allclose(logits[row], expected, rtol=1e-4, atol=1e-4)
    assert float((logits[0] - logits[1]).abs().max()) > 0.1


@pytest.mark.parametrize("name", FAMILY_BUILDERS)
def test_text_cannot_hold_the_place_of_a_clip(name: str, tokenizer: Any, clips: list[np.ndarray]) -> None:
    family = FAMILY_BUILDERS[name](tokenizer)
    visual = family.visual(clips[1], None)
    with pytest.raises(InputError, match="in whose place"):
        family.joined([family.text_ids(WORDS), visual, [family.placeholder_ids[-1]]])
