"""What every family of judges keeps, against the plain class of transformers: one suite for all of them.

A new family is an entry of ``tests/support/judge_families.py``: its tiny model and its official processors.
"""

from __future__ import annotations

import functools
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from judge_families import FAMILIES, Arrays
from plain_likelihood import SPELLINGS, blocks_of, clip_inputs, pixel_inputs, plain_answers, positions_of
from tiny_judges import PROMPTS, QUESTIONS
from vr_pipeline.checklist import checklist_from_mapping
from vr_pipeline.judges import load_judge
from vr_pipeline.judges.answers import ask
from vr_pipeline.judges.contract import NoNumbersError
from vr_pipeline.judges.training.config import JudgeTrainingParameters
from vr_pipeline.judges.training.examples import JudgeExample
from vr_pipeline.judges.training.task import train_judge
from vr_pipeline.video.sampled import SampledClip
from vr_pipeline.vlm.config import JudgeParameters
from vr_pipeline.vlm.families.base import SETTINGS_FILE
from vr_pipeline.vlm.loading import judge_identity

MakeJudge = Callable[..., Any]
RATES = [2.0, 4.0, 1.0]
SIZES = [(96, 96), (40, 250), (333, 120), (600, 410), (48, 47)]


@pytest.fixture(params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def family(name: str, tokenizer: Any) -> Any:
    return FAMILIES[name].build(tokenizer)


# -- answers ----------------------------------------------------------------------------------------------------------


def test_answers_equal_one_plain_forward_a_question(
    family: Any, clips: list[np.ndarray], make_judge: MakeJudge
) -> None:
    """Whatever is read at a time: clips and images of several lengths and sizes, prompts inside questions."""
    for chosen in (clips, [clips[0], clips[1][:1], clips[2]]):
        expected = plain_answers(make_judge(family), chosen, PROMPTS, RATES)
        # Answers that hardly differ would make any mistake invisible.
        assert expected[0].std() > 0.02
        every = []
        for prefix, chunk, batch in [
            ("packed", 5, 3),
            ("packed", 2, 2),
            ("packed", 1, 1),
            ("cached", 2, 3),
            ("cached", 5, 1),
            ("cached", 1, 2),
            ("auto", 3, 1),
        ]:
            judge = make_judge(family, prefix=prefix, question_chunk_size=chunk, clip_batch=batch)
            every.append(np.stack(judge.answer(chosen, QUESTIONS, PROMPTS, frames_per_second=RATES)))
            np.testing.assert_allclose(every[-1], expected, atol=1e-4)
            np.testing.assert_allclose(every[-1], every[0], atol=1e-5)


def test_answers_depend_on_clip_prompt_and_order_only_where_they_should(
    family: Any, clips: list[np.ndarray], make_judge: MakeJudge
) -> None:
    judge = make_judge(family, clip_batch=3)
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


def test_every_spelling_of_yes_and_no_counts(family: Any, make_judge: MakeJudge) -> None:
    judge = make_judge(family)
    words = family.tokenizer.convert_ids_to_tokens
    assert (words(judge.yes_ids), words(judge.no_ids)) == tuple(map(list, SPELLINGS))


def test_padding_on_either_side_of_the_plain_class_gives_the_same(
    name: str, family: Any, clips: list[np.ndarray], make_judge: MakeJudge
) -> None:
    shown = [clips[0][:3], clips[1][:3]] if FAMILIES[name].one_length else clips[:2]
    judge = make_judge(family, clip_batch=2)
    p_yes, outside = judge.answer(shown, QUESTIONS[:1], frames_per_second=RATES[:2])
    prepared = [judge.prepare(clip, rate) for clip, rate in zip(shown, RATES, strict=False)]
    question = judge.question_segment(QUESTIONS[0]).token_ids
    # The second text is longer by a few tokens, so that rows differ in every family.
    texts = [question, (*judge.question_segment(QUESTIONS[1]).token_ids, *question)]
    alone = [clip_inputs(family, clip, text, rate) for clip, text, rate in zip(prepared, texts, RATES, strict=False)]
    expected = [family.model(**inputs).logits[0, -1] for inputs in alone]
    lengths = [inputs["input_ids"].shape[1] for inputs in alone]
    assert lengths[0] != lengths[1]
    for left in (False, True):
        batch = pixel_inputs(family, prepared) | {"use_cache": False}
        for key in ("input_ids", "attention_mask", "position_ids"):
            if key in alone[0]:
                rows = [inputs[key] for inputs in alone]
                pads = [max(lengths) - row.shape[-1] for row in rows]
                padded = [
                    torch.nn.functional.pad(row, (pad, 0) if left else (0, pad))
                    for row, pad in zip(rows, pads, strict=True)
                ]
                batch[key] = torch.cat(padded, dim=1 if key == "position_ids" else 0)
        logits = family.model(**batch).logits
        for row, length in enumerate(lengths):
            last = -1 if left else length - 1
            torch.testing.assert_close(logits[row, last], expected[row], rtol=1e-4, atol=1e-4)
    family.tokenizer.padding_side = "left" if family.tokenizer.padding_side == "right" else "right"
    again = make_judge(family, clip_batch=2).answer(shown, QUESTIONS[:1], frames_per_second=RATES[:2])
    np.testing.assert_array_equal(again, (p_yes, outside))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_clip_that_overflows_has_no_answer_and_leaves_the_others_theirs(
    value: float, family: Any, clips: list[np.ndarray], make_judge: MakeJudge
) -> None:
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


# -- positions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["packed", "cached"])
def test_questions_stand_behind_a_long_clip(prefix: str, family: Any, make_judge: MakeJudge) -> None:
    # Small frames: the clip is longer in time than in rows and columns.
    judge = make_judge(family, prefix=prefix, question_chunk_size=2, num_frames=64)
    long = [np.random.default_rng(1).integers(0, 256, (64, 16, 24, 3), dtype=np.uint8)]
    for rate in (2.0, 0.5):
        prepared = judge.prepare(long[0], rate)
        assert prepared.next_position == prepared.positions.max() + 1
        # Nothing after the clip stands below anything in it.
        visual = np.flatnonzero(np.isin(prepared.token_ids, family.placeholder_ids))
        behind = prepared.positions[:, visual[-1] + 1 :]
        assert behind.size == 0 or behind.min() > prepared.positions[:, visual].max()
        p_yes, _ = judge.answer(long, QUESTIONS, PROMPTS[:1], frames_per_second=[rate])
        np.testing.assert_allclose(p_yes, plain_answers(judge, long, PROMPTS[:1], [rate])[0], atol=1e-4)


def test_positions_are_those_of_the_models_own_rule(family: Any, clips: list[np.ndarray]) -> None:
    """Of several clips and images in a row; only behind a clip that is longer in time, Qwen2-VL's starts too early."""
    if not hasattr(family.model.model, "get_rope_index"):
        assert family.position_axes == 1
        return
    random = np.random.default_rng(1)
    long = random.integers(0, 256, (24, 16, 24, 3), dtype=np.uint8)
    flat = random.integers(0, 256, (4, 40, 40, 3), dtype=np.uint8)
    text = family.text_ids("is it red ?")
    for shown, rates in [
        ([long, flat, clips[0][:1]], [0.5, 2.0, 2.0]),
        ([clips[0][:1], flat, clips[1][:1], flat], [2.0, 4.0, 2.0, 8.0]),
    ]:
        visuals = [family.visual(clip, rate) for clip, rate in zip(shown, rates, strict=True)]
        joined = family.joined([text, *(piece for visual in visuals for piece in (visual, text))])
        assert joined.next_position == joined.positions.max() + 1
        blocks = [
            block for visual, rate in zip(visuals, rates, strict=True) for block in blocks_of(family, visual, rate)
        ]
        by_rule = positions_of(family.placeholder_ids, joined.token_ids.tolist(), blocks)
        assert joined.positions.tolist() == by_rule.tolist()
        images = [len(clip) == 1 for clip in shown]
        grids = [torch.from_numpy(visual.vision["grid"]) for visual in visuals]
        # 1 at tokens of an image, 2 at those of a clip, as the processors mark them.
        kinds = [
            np.isin(piece.token_ids, family.placeholder_ids) * (1 if image else 2)
            for piece, image in zip(visuals, images, strict=True)
        ]
        kind = np.concatenate([np.zeros(len(text)), *(part for one in kinds for part in (one, np.zeros(len(text))))])
        official, _ = family.model.model.get_rope_index(
            torch.from_numpy(joined.token_ids)[None],
            mm_token_type_ids=torch.from_numpy(kind).long()[None],
            image_grid_thw=torch.cat(list(itertools.compress(grids, images))),
            video_grid_thw=torch.cat([grid for grid, image in zip(grids, images, strict=True) if not image]),
            second_per_grid_ts=torch.tensor([2 / rate for rate, image in zip(rates, images, strict=True) if not image]),
        )
        agrees = bool((official[:, 0] == torch.from_numpy(joined.positions)).all())
        assert agrees == (shown[0] is not long or not type(family).__name__.startswith("Qwen2"))


# -- pixels -----------------------------------------------------------------------------------------------------------


def picture(frames: int, size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(sum(size)).integers(0, 256, (frames, *size, 3), dtype=np.uint8)


def published(name: str, family: Any) -> None:
    """Give a model its published settings, and larger frames; nothing is computed with it then."""
    family.settings = type(family).default_settings
    for place, value in FAMILIES[name].pixels.sizes.items():
        *way, last = place.split(".")
        setattr(functools.reduce(getattr, way, family.model.config), last, value)


def assert_same_pixels(ours: Arrays, theirs: Arrays) -> None:
    assert ours.keys() == theirs.keys()
    for key, values in theirs.items():
        np.testing.assert_allclose(ours[key], values, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("size", SIZES)
def test_images_have_the_official_pixels(size: tuple[int, int], name: str, family: Any) -> None:
    published(name, family)
    before, image = family.settings, picture(1, size)
    for changes in FAMILIES[name].pixels.settings:
        family.settings = before.model_copy(update=changes)
        assert_same_pixels(family.visual(image, None).vision, FAMILIES[name].pixels.image(family, image))


@pytest.mark.parametrize("size", [(200, 310), (48, 30), (480, 720)])
def test_clips_have_the_official_pixels(size: tuple[int, int], name: str, family: Any) -> None:
    pytest.importorskip("torchvision")
    published(name, family)
    clip = picture(4, size)
    assert_same_pixels(family.visual(clip, 2.0).vision, FAMILIES[name].pixels.clip(family, clip))


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (1, 200), (200, 1), (1, 4000), (700, 2)])
@pytest.mark.parametrize("count", [1, 3])
def test_tiny_and_elongated_pictures_are_judged_or_named(
    shape: tuple[int, int], count: int, name: str, family: Any, make_judge: MakeJudge
) -> None:
    judge = make_judge(family)
    clip = np.random.default_rng(0).integers(0, 256, (count, *shape, 3), dtype=np.uint8)
    if not FAMILIES[name].elongated and max(shape) > 200 * min(shape):
        with pytest.raises(ValueError, match="too elongated"):
            judge.answer([clip], QUESTIONS[:1])
        return
    p_yes, outside = judge.answer([clip], QUESTIONS[:1])
    assert p_yes.shape == outside.shape == (1, 1)


@pytest.mark.parametrize("name", ["llava_onevision", "internvl", "smolvlm"])
def test_images_are_read_in_high_resolution_unless_the_settings_say_no(
    family: Any, clips: list[np.ndarray], make_judge: MakeJudge
) -> None:
    judge = make_judge(family, clip_batch=2)
    images = [clips[0][:1], clips[1][:1]]
    tiled = [len(judge.prepare(image).token_ids) for image in images]
    family.settings = family.settings.model_copy(update={"tile_images": False})
    assert all(len(judge.prepare(image).token_ids) < before for image, before in zip(images, tiled, strict=True))
    p_yes, _ = judge.answer(images, QUESTIONS, PROMPTS[:2])
    np.testing.assert_allclose(p_yes, plain_answers(judge, images, PROMPTS, RATES)[0], atol=1e-4)


# -- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lora", [None, {"rank": 2, "alpha": 4}], ids=["full", "lora"])
def test_a_training_step_changes_answers_and_the_merged_judge_comes_back_from_its_folder(
    lora: dict[str, int] | None, name: str, family: Any, clips: list[np.ndarray], tmp_path: Path
) -> None:
    questions = [{"id": f"q{at}", "text": text} for at, text in enumerate(QUESTIONS[:3])]
    sub = {"name": "all", "questions": questions}
    checklist = checklist_from_mapping(
        {"name": "all", "modality": "video", "dimensions": [{"name": "all", "sub_dimensions": [sub]}]}
    )
    examples = [
        JudgeExample(f"clip{at}", clip, "red ball", {"q0": at % 2 == 0, "q2": at % 3 == 0}, frames_per_second=2.0)
        for at, clip in enumerate([*clips, clips[0][:1]] * 3)
    ]
    start, saved = tmp_path / "start", tmp_path / "saved"
    start.mkdir()
    saved.mkdir()
    family.save(start)
    settings = {"family": FAMILIES[name].family or name, "path": str(start), "device": "cpu"}
    given = {"threads": 1, "steps": 1, "batch_size": 2, "learning_rate": 1e-2, "warmup_steps": 0}
    options = given | {"checkpoint_every": 1, "validation_share": 0.3, "schedule": "constant", "lora": lora}
    before = {key: value.clone() for key, value in family.model.state_dict().items()}
    trained = train_judge(examples, checklist, JudgeTrainingParameters.model_validate(options | {"start": settings}))
    after = trained.family.model.state_dict()
    assert before.keys() == after.keys()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed
    assert any("mlp" in key for key in changed)
    if lora is None:
        assert any("vis" in key for key in changed)
    else:
        targets = tuple(f"{layer}.weight" for layer in trained.family.lora_targets)
        assert all(key.endswith(targets) for key in changed)
        # Every layer of the decoder is changed, whichever kind of attention it has.
        layers = len(trained.family.language_model.layers)
        assert {at for at in range(layers) if any(f".layers.{at}." in key for key in changed)} == set(range(layers))
    trained.save(saved)
    again: Any = load_judge(settings | {"path": str(saved)})
    reloaded = again.family.model.state_dict()
    assert all(torch.equal(reloaded[key], after[key]) for key in after)
    answers = [
        judge.answer(clips, QUESTIONS, PROMPTS, frames_per_second=RATES)[0] for judge in (load_judge(settings), again)
    ]
    assert np.abs(answers[0] - answers[1]).max() > 1e-3
    np.testing.assert_allclose(answers[1], plain_answers(again, clips, PROMPTS, RATES)[0], atol=1e-4)


# -- identity ---------------------------------------------------------------------------------------------------------


def test_identities_change_with_weights_and_settings_and_with_nothing_else(
    name: str, family: Any, tmp_path: Path
) -> None:
    folder, copied = tmp_path / "judge", tmp_path / "copy"
    folder.mkdir()
    family.save(folder)
    given = {"family": FAMILIES[name].family or name, "path": str(folder), "device": "cpu"}

    def identity(**changes: Any) -> str:
        return judge_identity(JudgeParameters.model_validate(given | changes))

    first = identity()
    assert load_judge(given).identity == first
    shutil.copytree(folder, copied)
    assert identity(path=str(copied), device="auto", threads=1) == first
    changes: list[dict[str, Any]] = [
        {"dtype": "bfloat16"},
        {"quantisation": "8bit"},
        {"num_frames": 7},
        {"frames_per_second": 3.0},
        {"min_pixels": 100},
        {"max_pixels": 10_000},
        {"before_clip": "[[prompt]]"},
        {"prefix": "packed"},
        {"question_chunk_size": 3},
        {"clip_batch": 2},
    ]
    # The last four belong to models of the hub, with adapters, or behind a server.
    neutral = {"family", "path", "device", "threads", "revision", "trust_remote_code", "adapter", "server"}
    assert {key for change in changes for key in change} == JudgeParameters.model_fields.keys() - neutral
    seen = {first, *(identity(**change) for change in changes)}
    assert len(seen) == 1 + len(changes)
    for file in ("model.safetensors", "config.json", "tokenizer.json", SETTINGS_FILE):
        content = bytearray((copied / file).read_bytes())
        (copied / file).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        seen.add(identity(path=str(copied)))
        (copied / file).write_bytes(content)
    assert len(seen) == 1 + len(changes) + 4
