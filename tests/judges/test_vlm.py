"""A judge over a vision-language model: memory that runs out, spellings of answers, and what is rejected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tiny_judges import FAMILY_BUILDERS, PROMPTS, QUESTIONS
from vr_pipeline.errors import InputError


def test_memory_that_runs_out_halves_the_chunk_then_the_batch(
    tokenizer: Any, clips: list[np.ndarray], make_judge: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    import torch

    judge = make_judge(FAMILY_BUILDERS["qwen2_vl"](tokenizer), clip_batch=3, prefix="cached", question_chunk_size=5)
    expected, _ = judge.answer(clips, QUESTIONS, PROMPTS)
    whole = judge._read_chunks
    sizes = []

    def scarce(prepared: Any, segments: Any, chunk: int, lead: Any) -> Any:
        sizes.append((len(prepared), chunk))
        if len(prepared) * chunk > 2:
            raise torch.OutOfMemoryError("no memory")
        return whole(prepared, segments, chunk, lead)

    judge._read_chunks = scarce
    p_yes, _ = judge.answer(clips, QUESTIONS, PROMPTS)
    np.testing.assert_allclose(p_yes, expected, atol=1e-5)
    assert sizes == [(3, 5), (3, 2), (3, 1), (1, 1), (1, 1), (1, 1)]
    assert caplog.text.count("Memory ran out") == 3
    # What was learned is kept: the next clips do not run out of memory again.
    sizes.clear()
    judge.answer(clips[:2], QUESTIONS, PROMPTS[:2])
    assert sizes == [(1, 1), (1, 1)]

    def none_left(prepared: Any, segments: Any, chunk: int, lead: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    judge._read_chunks = none_left
    with pytest.raises(InputError, match=r"one clip of [0-9]+ tokens and one question"):
        judge.answer(clips, QUESTIONS, PROMPTS)

    def broken(prepared: Any, segments: Any, chunk: int, lead: Any) -> Any:
        raise RuntimeError("shapes differ")

    judge._read_chunks = broken
    with pytest.raises(RuntimeError, match="shapes differ"):
        judge.answer(clips, QUESTIONS, PROMPTS)


def test_a_clip_that_is_too_large_does_not_slow_down_the_others(
    tokenizer: Any, clips: list[np.ndarray], make_judge: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from vr_pipeline.judges import vlm

    judge = make_judge(FAMILY_BUILDERS["qwen2_vl"](tokenizer), clip_batch=3, prefix="cached", question_chunk_size=5)
    expected, _ = judge.answer(clips, QUESTIONS, PROMPTS)
    large = max(len(judge.prepare(clip).token_ids) for clip in clips)
    tried: list[int] = []

    class Scarce(vlm.CachedPrefix):
        limit = 2 * large

        def __init__(self, family: Any, prepared: Any, lead: Any) -> None:
            tried.append(len(prepared))
            if sum(len(clip.token_ids) for clip in prepared) > self.limit:
                raise torch.OutOfMemoryError("no memory")
            super().__init__(family, prepared, lead)

    monkeypatch.setattr(vlm, "CachedPrefix", Scarce)
    # Too many clips at a time: fewer questions would not help, and stay as many.
    three = [clips[int(np.argmax([len(clip) for clip in clips]))]] * 3
    judge.answer(three, QUESTIONS, PROMPTS)
    assert tried == [3, 1, 1, 1]
    assert (judge._chunk, judge._clips) == (5, 1)
    Scarce.limit = large - 1
    tried.clear()
    with pytest.raises(InputError, match=r"one clip of [0-9]+ tokens and one question"):
        judge.answer(three[:1], QUESTIONS, PROMPTS[:1])
    whole = judge._read_chunks

    def questions_do_not_fit(prepared: Any, segments: Any, chunk: int, lead: Any) -> Any:
        raise torch.OutOfMemoryError("no memory")

    judge._read_chunks = questions_do_not_fit
    with pytest.raises(InputError, match=r"one clip of [0-9]+ tokens and one question"):
        judge.answer(three[:1], QUESTIONS, PROMPTS[:1])
    judge._read_chunks, Scarce.limit = whole, 10 * large
    assert (judge._chunk, judge._clips) == (5, 1)
    np.testing.assert_allclose(judge.answer(clips, QUESTIONS, PROMPTS)[0], expected, atol=1e-5)


def test_spellings_are_looked_up_in_the_vocabulary() -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from vr_pipeline.judges.vlm import answer_token_ids

    words = [
        "<unk>",
        "yes",
        "\u0120Yes",
        "yEs",
        "\u010ayes",
        "Yesterday",
        "eyes",
        "no",
        "\u0120NO",
        "not",
        "\u0120piano",
    ]
    built = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="<unk>"))
    built.pre_tokenizer, built.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    family: Any = type("F", (), {"tokenizer": PreTrainedTokenizerFast(tokenizer_object=built, unk_token="<unk>")})()
    family.text_ids = lambda text: family.tokenizer(text, add_special_tokens=False)["input_ids"]
    yes, no = answer_token_ids(family)
    assert [words[at] for at in yes] == ["yes", "\u0120Yes", "yEs", "\u010ayes"]
    assert [words[at] for at in no] == ["no", "\u0120NO"]
    without = Tokenizer(models.WordLevel({"<unk>": 0, "yes": 1}, unk_token="<unk>"))
    family.tokenizer = PreTrainedTokenizerFast(tokenizer_object=without, unk_token="<unk>")
    with pytest.raises(InputError, match="no single token for 'no'"):
        answer_token_ids(family)


def test_refusals(tokenizer: Any, clips: list[np.ndarray], make_judge: Callable[..., Any]) -> None:
    judge = make_judge(FAMILY_BUILDERS["qwen2_vl"](tokenizer))
    with pytest.raises(InputError, match="prompt"):
        judge.answer(clips, QUESTIONS)
    with pytest.raises(ValueError, match="3 clips, 2 prompts"):
        judge.answer(clips, QUESTIONS, PROMPTS[:2])
    with pytest.raises(ValueError, match="uint8"):
        judge.answer([clips[0].astype(np.float32)], ["is it red ?"])
    assert judge.answer([], QUESTIONS, [])[0].shape == (0, len(QUESTIONS))


def test_an_overflow_of_an_answer_is_no_sure_answer(tokenizer: Any, make_judge: Callable[..., Any]) -> None:
    import torch

    judge = make_judge(FAMILY_BUILDERS["qwen2_vl"](tokenizer))
    logits = torch.zeros(6, len(tokenizer))
    assert np.isfinite(judge._probabilities(logits)[0]).all()
    for row, (place, value) in enumerate(
        [(judge.yes_ids[0], -torch.inf), (judge.no_ids[-1], torch.inf), (0, torch.inf), (0, torch.nan)]
    ):
        logits[row, place] = value
    assert np.isnan(judge._probabilities(logits)[0]).tolist() == [True] * 4 + [False] * 2
