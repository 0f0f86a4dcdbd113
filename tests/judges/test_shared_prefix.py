"""The shared prefix computes what one full forward pass a question computes, for each family and the real classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tiny_judges import FAMILY_BUILDERS, PROMPTS, QUESTIONS, full_forward
from vr_pipeline.errors import InputError

RATES = [2.0, 4.0, 1.0]


def reference(judge: Any, clips: list[np.ndarray], rates: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """One full forward pass a clip and question."""
    p_yes, outside = np.empty((len(clips), len(QUESTIONS))), np.empty((len(clips), len(QUESTIONS)))
    for row, clip in enumerate(clips):
        prepared = judge.prepare(clip, rates[row])
        for column, question in enumerate(QUESTIONS):
            segment = judge.question_segment(question.replace("[[prompt]]", PROMPTS[row]))
            logits = full_forward(judge.family, prepared, segment.token_ids, rates[row])
            p_yes[row, column], outside[row, column] = judge._probabilities(logits)
    return p_yes, outside


@pytest.mark.parametrize("name", FAMILY_BUILDERS)
@pytest.mark.parametrize(
    "options",
    [
        {"prefix": "packed", "clip_batch": 3},
        {"prefix": "packed", "clip_batch": 2, "question_chunk_size": 2},
        {"prefix": "cached", "clip_batch": 3, "question_chunk_size": 2},
        {"prefix": "cached", "clip_batch": 1, "question_chunk_size": 5},
        {"prefix": "auto", "clip_batch": 1, "question_chunk_size": 3},
    ],
    ids=lambda options: "-".join(str(value) for value in options.values()),
)
def test_same_as_one_forward_a_question(
    name: str, options: dict[str, Any], tokenizer: Any, clips: list[np.ndarray], make_judge: Callable[..., Any]
) -> None:
    judge = make_judge(FAMILY_BUILDERS[name](tokenizer), **options)
    for chosen in (clips, [clips[0], clips[1][:1], clips[2]]):
        expected_p, expected_outside = reference(judge, chosen, RATES)
        p_yes, outside = judge.answer(chosen, QUESTIONS, PROMPTS, frames_per_second=RATES)
        # Answers that hardly differ would make any mistake invisible.
        assert expected_p.std() > 0.02
        np.testing.assert_allclose(p_yes, expected_p, atol=1e-4)
        np.testing.assert_allclose(outside, expected_outside, atol=1e-4)


@pytest.mark.parametrize("name", FAMILY_BUILDERS)
@pytest.mark.parametrize("prefix", ["packed", "cached"])
def test_questions_stand_behind_a_long_clip(
    name: str, prefix: str, tokenizer: Any, make_judge: Callable[..., Any]
) -> None:
    family = FAMILY_BUILDERS[name](tokenizer)
    # Small frames: the clip is longer in time than in rows and columns.
    judge = make_judge(family, prefix=prefix, question_chunk_size=2, num_frames=64)
    random = np.random.default_rng(1)
    long = [random.integers(0, 256, (64, 16, 24, 3), dtype=np.uint8)]
    for rate in (2.0, 0.5) if name.startswith("qwen") else (2.0,):
        prepared = judge.prepare(long[0], rate)
        assert prepared.next_position == prepared.positions.max() + 1
        # Nothing after the clip stands below anything in it.
        visual = np.flatnonzero(np.isin(prepared.token_ids, family.placeholder_ids))
        behind = prepared.positions[:, visual[-1] + 1 :]
        assert behind.size == 0 or behind.min() > prepared.positions[:, visual].max()
        p_yes, _ = judge.answer(long, QUESTIONS, PROMPTS[:1], frames_per_second=[rate])
        np.testing.assert_allclose(p_yes, reference(judge, long, [rate])[0], atol=1e-4)


@pytest.mark.parametrize("name", ["llava_onevision", "internvl", "smolvlm"])
def test_images_are_read_in_high_resolution_unless_the_settings_say_no(
    name: str, tokenizer: Any, clips: list[np.ndarray], make_judge: Callable[..., Any]
) -> None:
    family = FAMILY_BUILDERS[name](tokenizer)
    judge = make_judge(family, clip_batch=2)
    images = [clips[0][:1], clips[1][:1]]
    tiled = [len(judge.prepare(image).token_ids) for image in images]
    family.settings = family.settings.model_copy(update={"tile_images": False})
    assert all(len(judge.prepare(image).token_ids) < before for image, before in zip(images, tiled, strict=True))
    p_yes, _ = judge.answer(images, QUESTIONS, PROMPTS[:2])
    np.testing.assert_allclose(p_yes, reference(judge, images, RATES)[0], atol=1e-4)


@pytest.mark.parametrize("name", FAMILY_BUILDERS)
def test_answers_depend_on_clip_prompt_and_order_only_where_they_should(
    name: str, tokenizer: Any, clips: list[np.ndarray], make_judge: Callable[..., Any]
) -> None:
    judge = make_judge(FAMILY_BUILDERS[name](tokenizer), clip_batch=3)
    p_yes, _ = judge.answer(clips, QUESTIONS, PROMPTS, frames_per_second=RATES)
    order = [4, 2, 0, 3, 1]
    shuffled, _ = judge.answer(
        clips[::-1], [QUESTIONS[at] for at in order], PROMPTS[::-1], frames_per_second=RATES[::-1]
    )
    np.testing.assert_allclose(shuffled, p_yes[::-1][:, order], atol=1e-5)
    other, _ = judge.answer(clips, QUESTIONS, ["blue ring", *PROMPTS[1:]], frames_per_second=RATES)
    changed = np.abs(other - p_yes) > 1e-6
    assert changed[0].tolist() == [False, False, True, False, True]
    assert not changed[1:].any()
    assert np.abs(p_yes[0] - p_yes[1]).max() > 1e-3


def test_memory_that_runs_out_halves_the_chunk_then_the_batch(
    tokenizer: Any, clips: list[np.ndarray], make_judge: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    import torch

    judge = make_judge(FAMILY_BUILDERS["qwen2_vl"](tokenizer), clip_batch=3, prefix="cached", question_chunk_size=5)
    expected, _ = judge.answer(clips, QUESTIONS, PROMPTS)
    whole = judge._read_chunks
    sizes = []

    def scarce(prepared: Any, segments: Any, chunk: int) -> Any:
        sizes.append((len(prepared), chunk))
        if len(prepared) * chunk > 2:
            raise torch.OutOfMemoryError("no memory")
        return whole(prepared, segments, chunk)

    judge._read_chunks = scarce
    p_yes, _ = judge.answer(clips, QUESTIONS, PROMPTS)
    np.testing.assert_allclose(p_yes, expected, atol=1e-5)
    assert sizes == [(3, 5), (3, 2), (3, 1), (1, 1), (1, 1), (1, 1)]
    assert caplog.text.count("Memory ran out") == 3
    # What was learned is kept: the next clips do not run out of memory again.
    sizes.clear()
    judge.answer(clips[:2], QUESTIONS, PROMPTS[:2])
    assert sizes == [(1, 1), (1, 1)]

    def none_left(prepared: Any, segments: Any, chunk: int) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    judge._read_chunks = none_left
    with pytest.raises(InputError, match=r"one clip of [0-9]+ tokens and one question"):
        judge.answer(clips, QUESTIONS, PROMPTS)

    def broken(prepared: Any, segments: Any, chunk: int) -> Any:
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

        def __init__(self, family: Any, prepared: Any) -> None:
            tried.append(len(prepared))
            if sum(len(clip.token_ids) for clip in prepared) > self.limit:
                raise torch.OutOfMemoryError("no memory")
            super().__init__(family, prepared)

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

    def questions_do_not_fit(prepared: Any, segments: Any, chunk: int) -> Any:
        raise torch.OutOfMemoryError("no memory")

    judge._read_chunks = questions_do_not_fit
    with pytest.raises(InputError, match=r"one clip of [0-9]+ tokens and one question"):
        judge.answer(three[:1], QUESTIONS, PROMPTS[:1])
    judge._read_chunks, Scarce.limit = whole, 10 * large
    assert (judge._chunk, judge._clips) == (5, 1)
    np.testing.assert_allclose(judge.answer(clips, QUESTIONS, PROMPTS)[0], expected, atol=1e-5)


@pytest.mark.parametrize("name", FAMILY_BUILDERS)
def test_chunks_and_batches_do_not_move_answers(
    name: str, tokenizer: Any, clips: list[np.ndarray], make_judge: Callable[..., Any]
) -> None:
    family = FAMILY_BUILDERS[name](tokenizer)
    every = [
        make_judge(family, prefix=prefix, question_chunk_size=chunk, clip_batch=batch).answer(
            clips, QUESTIONS, PROMPTS, frames_per_second=RATES
        )
        for prefix, chunk, batch in [("packed", 5, 1), ("packed", 1, 3), ("cached", 1, 1), ("cached", 3, 2)]
    ]
    for p_yes, outside in every[1:]:
        np.testing.assert_allclose(p_yes, every[0][0], atol=1e-5)
        np.testing.assert_allclose(outside, every[0][1], atol=1e-5)


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


def test_all_spellings_of_yes_and_no_count(
    tokenizer: Any, clips: list[np.ndarray], make_judge: Callable[..., Any]
) -> None:
    judge = make_judge(FAMILY_BUILDERS["qwen2_vl"](tokenizer))
    assert tokenizer.convert_ids_to_tokens(judge.yes_ids) == ["yes", "Yes"]
    assert tokenizer.convert_ids_to_tokens(judge.no_ids) == ["no", "No"]
    p_yes, outside = judge.answer(clips[:1], QUESTIONS[:1])
    logits = full_forward(judge.family, judge.prepare(clips[0]), judge.question_segment(QUESTIONS[0]).token_ids, None)
    probability = np.exp(logits.double().numpy() - logits.double().logsumexp(0).item())
    yes, no = probability[judge.yes_ids].sum(), probability[judge.no_ids].sum()
    assert p_yes[0, 0] == pytest.approx(yes / (yes + no), abs=1e-6)
    assert outside[0, 0] == pytest.approx(1 - yes - no, abs=1e-6)


def test_refusals(tokenizer: Any, clips: list[np.ndarray], make_judge: Callable[..., Any]) -> None:
    judge = make_judge(FAMILY_BUILDERS["qwen2_vl"](tokenizer))
    with pytest.raises(InputError, match="prompt"):
        judge.answer(clips, QUESTIONS)
    with pytest.raises(ValueError, match="3 clips, 2 prompts"):
        judge.answer(clips, QUESTIONS, PROMPTS[:2])
    with pytest.raises(ValueError, match="uint8"):
        judge.answer([clips[0].astype(np.float32)], ["is it red ?"])
    assert judge.answer([], QUESTIONS, [])[0].shape == (0, len(QUESTIONS))


@pytest.mark.parametrize("name", FAMILY_BUILDERS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_clip_that_overflows_has_no_answer_and_leaves_the_others_theirs(
    name: str, value: float, tokenizer: Any, clips: list[np.ndarray], make_judge: Callable[..., Any]
) -> None:
    import torch

    from vr_pipeline.judges.answers import ask
    from vr_pipeline.judges.contract import NoNumbersError
    from vr_pipeline.video.sampled import SampledClip

    family = FAMILY_BUILDERS[name](tokenizer)
    judge = make_judge(family, clip_batch=3)
    expected, _ = judge.answer(clips, QUESTIONS, PROMPTS, frames_per_second=RATES)
    features, length = family.vision_features, len(judge.prepare(clips[1], RATES[1]).token_ids)

    def overflow(prepared: Any) -> torch.Tensor:
        return torch.cat([features([one]) * (value if len(one.token_ids) == length else 1) for one in prepared])

    family.vision_features = overflow
    with pytest.raises(NoNumbersError, match=r"no probability \(nan\) when asked 'is it red \?'.*bfloat16"):
        judge.answer(clips, QUESTIONS, PROMPTS, frames_per_second=RATES)
    shown = [
        SampledClip(f"v{at}", prompt, clip, list(range(len(clip))), rate)
        for at, (prompt, clip, rate) in enumerate(zip(PROMPTS, clips, RATES, strict=True))
    ]
    first, second, third = ask(judge, None, shown, QUESTIONS)
    assert isinstance(second, NoNumbersError)
    np.testing.assert_allclose([first[0], third[0]], expected[[0, 2]], atol=1e-5)


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


@pytest.mark.parametrize("name", FAMILY_BUILDERS)
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (1, 200), (200, 1), (1, 4000), (700, 2)])
@pytest.mark.parametrize("count", [1, 3])
def test_tiny_and_elongated_pictures_are_judged_or_named(
    name: str, shape: tuple[int, int], count: int, tokenizer: Any, make_judge: Callable[..., Any]
) -> None:
    judge = make_judge(FAMILY_BUILDERS[name](tokenizer))
    clip = np.random.default_rng(0).integers(0, 256, (count, *shape, 3), dtype=np.uint8)
    if name.startswith("qwen") and max(shape) > 200 * min(shape):
        with pytest.raises(ValueError, match="too elongated"):
            judge.answer([clip], QUESTIONS[:1])
        return
    p_yes, outside = judge.answer([clip], QUESTIONS[:1])
    assert p_yes.shape == outside.shape == (1, 1)
