"""Make a small judge from nothing: a Qwen2-VL of a few hundred thousand parameters with a word-level tokenizer."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from vr_pipeline.judges.training.config import TinyJudgeParameters
from vr_pipeline.vlm.families.base import Settings

SPECIAL_TOKENS = ("<pad>", "<unk>", "<clip>", "<frame>", "<image>", "</clip>", "<answer>", "<caption>", "<end>")
PAD, UNKNOWN, CLIP, FRAME, IMAGE, CLIP_END, ANSWER, CAPTION, END = SPECIAL_TOKENS


def words_of(texts: Iterable[str]) -> list[str]:
    """Return lower-case words and punctuation marks of texts, sorted, as the word-level tokenizer splits them."""
    found: set[str] = set()
    for text in texts:
        found.update(re.findall(r"\w+|[^\w\s]+", text.lower()))
    return sorted(found)


def word_tokenizer(vocabulary: Iterable[str]) -> Any:
    """Return a word-level tokenizer as a transformers fast tokenizer; words it lacks become one unknown token."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [*SPECIAL_TOKENS, *sorted({"yes", "no", *vocabulary} - set(SPECIAL_TOKENS))]
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        additional_special_tokens=[CLIP, FRAME, IMAGE, CLIP_END, ANSWER, CAPTION],
    )


def tiny_settings(parameters: TinyJudgeParameters) -> Settings:
    """Return how clips and questions are shown to a tiny judge."""
    return Settings(
        before_clip=CLIP,
        after_clip=CLIP_END,
        before_question="",
        after_question=ANSWER,
        num_frames=parameters.num_frames,
        height=parameters.height,
        width=parameters.width,
        resize="area",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        single_frame_is_image=False,
        world=parameters.world,
    )


def create_tiny_judge(parameters: TinyJudgeParameters, vocabulary: Iterable[str], *, seed: int) -> Any:
    """Return a :class:`~vr_pipeline.vlm.families.qwen2_vl.Qwen2VL` with random weights, on the CPU.

    Args:
        parameters: sizes.
        vocabulary: the words it knows.
        seed: of the weights.
    """
    import torch
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    from vr_pipeline.vlm.families.qwen2_vl import Qwen2VL

    tokenizer = word_tokenizer(vocabulary)
    ids = dict(zip(SPECIAL_TOKENS, tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)), strict=True))
    half = parameters.hidden_size // parameters.heads // 2
    time = half // 4
    height = (half - time) // 2
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": parameters.hidden_size,
            "intermediate_size": parameters.intermediate_size,
            "num_hidden_layers": parameters.layers,
            "num_attention_heads": parameters.heads,
            "num_key_value_heads": parameters.heads,
            "max_position_embeddings": 2048,
            "initializer_range": parameters.initial_std,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": parameters.rope_theta,
                "mrope_section": [time, height, half - time - height],
            },
            "bos_token_id": ids[CLIP],
            "eos_token_id": ids[END],
            "pad_token_id": ids[PAD],
        },
        vision_config={
            "depth": parameters.vision_depth,
            "embed_dim": parameters.vision_size,
            "hidden_size": parameters.hidden_size,
            "mlp_ratio": 2,
            "num_heads": parameters.heads,
            "patch_size": parameters.patch_size,
            "temporal_patch_size": parameters.temporal_patch_size,
            "spatial_merge_size": parameters.merge_size,
            "initializer_range": parameters.initial_std,
        },
        image_token_id=ids[IMAGE],
        video_token_id=ids[FRAME],
        vision_start_token_id=ids[CLIP],
        vision_end_token_id=ids[CLIP_END],
        tie_word_embeddings=False,
        initializer_range=parameters.initial_std,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2VLForConditionalGeneration(config)
    return Qwen2VL(model, tokenizer, tiny_settings(parameters))
