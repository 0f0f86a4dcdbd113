"""The tokens before and behind a clip are those of the whole conversation in the form each family was trained on."""

from __future__ import annotations

import pkgutil
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tiny_judges import glm_4_6v, internvl, llava_onevision, qwen2_vl, qwen3_5, qwen3_vl, smolvlm

QUESTION = "Is the picture sharp?"
SPECIAL = ["<pad>", "<unk>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
SPECIAL += ["<|video_pad|>", "<image>", "<video>", "<img>", "</img>", "<global-img>", "<fake_token_around_image>"]
SPECIAL += ["<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>", "<|image|>"]
SPECIAL += ["[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<think>", "</think>", "/nothink"]
SPECIAL += ["<end_of_utterance>", *(f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2))]


@pytest.fixture(scope="module")
def byte_tokenizer() -> Any:
    """A byte-level tokenizer that joins what stands together, white space too, as those of the real models do."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    built = Tokenizer(models.BPE())
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    text = f"{QUESTION} Answer yes or no.\n\nFrame from 00:01: You are provided the following series of frames\n\n"
    built.train_from_iterator([text, "User: Assistant: Yes No yes no\n\n\n", "\n\n", "\n"] * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=built, pad_token="<pad>", unk_token="<unk>")


def asked(family: Any, frames: np.ndarray, rate: float | None) -> list[int]:
    settings = family.settings
    question = family.text_ids(settings.before_question + QUESTION + settings.after_question)
    return [*family.prepare(frames, rate).token_ids.tolist(), *question]


def clip(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 40, 40, 3), dtype=np.uint8)


def test_white_space_before_a_word_is_not_joined(byte_tokenizer: Any) -> None:
    family = smolvlm(byte_tokenizer)
    assert len(family.text_ids("\n\n")) == 1
    assert len(family.leading_ids("\n\n")) == 2


def test_smolvlm_clip(byte_tokenizer: Any) -> None:
    from transformers.models.smolvlm import processing_smolvlm as official

    family = smolvlm(byte_tokenizer)
    text = "<|im_start|>User: "
    text += official.DEFAULT_VIDEO_INTRO.format(frame_count="three", video_duration="0:01:30")
    for stamp in ("00:00", "00:30", "01:00"):
        text += official.FRAME_TIMESTAMP_MESSAGE.format(timestamp=stamp)
        text += official.get_image_prompt_string(0, 0, 4, "<fake_token_around_image>", "<image>", "<global-img>")
    text += official.DEFAULT_MEDIA_OUTTRO + f"{QUESTION} Answer yes or no.<end_of_utterance>\nAssistant:"
    assert asked(family, clip(3), 1 / 30) == family.text_ids(text)


@pytest.mark.parametrize("tiled", [True, False])
def test_smolvlm_image(byte_tokenizer: Any, tiled: bool) -> None:
    from transformers.models.smolvlm import processing_smolvlm as official

    family = smolvlm(byte_tokenizer)
    family.settings = family.settings.model_copy(update={"tile_images": tiled})
    grid = (2, 2) if tiled else (0, 0)
    image = official.get_image_prompt_string(*grid, 4, "<fake_token_around_image>", "<image>", "<global-img>")
    text = f"<|im_start|>User:{image}{QUESTION} Answer yes or no.<end_of_utterance>\nAssistant:"
    assert asked(family, clip(1), None) == family.text_ids(text)


def test_internvl(byte_tokenizer: Any) -> None:
    family = internvl(byte_tokenizer)
    end = f"\n{QUESTION} Answer yes or no.<|im_end|>\n<|im_start|>assistant\n"
    frames = "\n".join(f"Frame{number}: <img>{'<image>' * 4}</img>" for number in (1, 2, 3))
    assert asked(family, clip(3), None) == family.text_ids(f"<|im_start|>user\n{frames}{end}")
    tiles = len(family.prepare(clip(1), None).vision["pixel_values"])
    assert tiles > 1
    assert asked(family, clip(1), None) == family.text_ids(f"<|im_start|>user\n<img>{'<image>' * 4 * tiles}</img>{end}")


def test_llava_onevision(byte_tokenizer: Any) -> None:
    family = llava_onevision(byte_tokenizer)
    end = f"\n{QUESTION} Answer yes or no.<|im_end|><|im_start|>assistant\n"
    assert asked(family, clip(3), None) == family.text_ids(f"<|im_start|>user {'<video>' * (3 * 9 + 1)}{end}")
    visual = int((family.prepare(clip(1), None).token_ids == family.model.config.image_token_id).sum())
    assert visual > 2 * 36
    assert asked(family, clip(1), None) == family.text_ids(f"<|im_start|>user {'<image>' * visual}{end}")


def test_qwen2_vl(byte_tokenizer: Any) -> None:
    family = qwen2_vl(byte_tokenizer)
    start = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
    end = f"<|vision_end|>{QUESTION} Answer yes or no.<|im_end|>\n<|im_start|>assistant\n"
    for count, name in ((4, "<|video_pad|>"), (1, "<|image_pad|>")):
        visual = int(np.isin(family.prepare(clip(count), 2.0).token_ids, family.placeholder_ids).sum())
        assert asked(family, clip(count), 2.0) == family.text_ids(start + name * visual + end)


def official_frames(name: str, family: Any, count: int, rate: float) -> str:
    """What the processor of transformers writes for a clip; it is not built, which would need torchvision."""
    path = {
        "Qwen3VL": "qwen3_vl.processing_qwen3_vl:Qwen3VLProcessor",
        "Glm46V": "glm46v.processing_glm46v:Glm46VProcessor",
    }[name]
    kind = pkgutil.resolve_name(f"transformers.models.{path}")
    processor = kind.__new__(kind)
    words = family.tokenizer.convert_ids_to_tokens
    processor.image_token, processor.video_token = words([family.placeholder(of_image=at) for at in (True, False)])
    processor.vision_start_token, processor.vision_end_token = family.marks
    processor.video_processor = SimpleNamespace(merge_size=2, temporal_patch_size=2)
    grid = torch.from_numpy(family.prepare(clip(count), rate).vision["grid"])
    seconds = [at / rate for at in range(count)]
    metadata = SimpleNamespace(fps=rate, frames_indices=list(range(count)), timestamps=seconds)
    return str(processor.replace_video_token({"video_grid_thw": grid, "video_metadata": [metadata]}, 0))


@pytest.mark.parametrize(("build", "thought"), [(qwen3_vl, ""), (qwen3_5, "<think>\n\n</think>\n\n")])
@pytest.mark.parametrize(("count", "rate"), [(4, 2.0), (5, 1.5), (7, 8.0)])
def test_qwen3_vl_and_qwen3_5(build: Any, thought: str, count: int, rate: float, byte_tokenizer: Any) -> None:
    family = build(byte_tokenizer)
    end = f"{QUESTION} Answer yes or no.<|im_end|>\n<|im_start|>assistant\n{thought}"
    frames = official_frames("Qwen3VL", family, count, rate)
    assert frames.count(" seconds>") == -(-count // 2)
    assert asked(family, clip(count), rate) == family.text_ids(f"<|im_start|>user\n{frames}{end}")
    visual = int((family.prepare(clip(1), None).token_ids == family.model.config.image_token_id).sum())
    image = f"<|vision_start|>{'<|image_pad|>' * visual}<|vision_end|>"
    assert asked(family, clip(1), None) == family.text_ids(f"<|im_start|>user\n{image}{end}")


@pytest.mark.parametrize(("count", "rate"), [(4, 2.0), (5, 1.5), (7, 8.0)])
def test_glm_4_6v(count: int, rate: float, byte_tokenizer: Any) -> None:
    family = glm_4_6v(byte_tokenizer)
    start = "[gMASK]<sop><|user|>\n"
    end = f"{QUESTION} Answer yes or no./nothink<|assistant|>\n<think></think>\n"
    frames = official_frames("Glm46V", family, count, rate)
    assert frames.count(" seconds") == -(-count // 2)
    expected = f"{start}<|begin_of_video|>{frames}<|end_of_video|>{end}"
    assert asked(family, clip(count), rate) == family.text_ids(expected)
    visual = int((family.prepare(clip(1), None).token_ids == family.model.config.image_token_id).sum())
    image = f"<|begin_of_image|>{'<|image_pad|>' * visual}<|end_of_image|>"
    assert asked(family, clip(1), None) == family.text_ids(f"{start}{image}{end}")
