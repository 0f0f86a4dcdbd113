"""Tiny random models of the real transformers classes."""

from __future__ import annotations

from typing import Any

import torch

from vr_pipeline.vlm.families.base import Family

QUESTIONS = [
    "is it red ?",
    "is the picture of the ball very sharp and clear ?",
    'does it show " [[prompt]] " ?',
    "moves ?",
    'is the colour as in " [[prompt]] " or not ?',
]
PROMPTS = ["red ball", "a blue ring moves left on the black picture", "ball"]

LANGUAGE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
}


WORDS = (
    "is it red ? the picture of ball very sharp and clear does show moves colour as in or not a blue ring left on black"
)


def build_tokenizer(words: str = WORDS) -> Any:
    """A word-level tokenizer with the special tokens of all families."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = [
        "<pad>",
        "<unk>",
        "<|im_start|>",
        "<|im_end|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|image_pad|>",
        "<|video_pad|>",
        "<image>",
        "<video>",
    ]
    words = dict.fromkeys([*special, "yes", "Yes", "no", "No", *words.split(), "system", "user", "assistant", ":", '"'])
    built = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="<unk>"))
    built.pre_tokenizer = pre_tokenizers.Whitespace()
    built.add_special_tokens(special)
    return PreTrainedTokenizerFast(tokenizer_object=built, pad_token="<pad>", unk_token="<unk>")


def _ids(tokenizer: Any, *tokens: str) -> list[int]:
    return list(tokenizer.convert_tokens_to_ids(list(tokens)))


def qwen2_vl(tokenizer: Any) -> Family:
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    from vr_pipeline.vlm.families.qwen2_vl import Qwen2VL

    image, video, start, end = _ids(tokenizer, "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    torch.manual_seed(0)
    config = Qwen2VLConfig(
        text_config=LANGUAGE
        | {"vocab_size": len(tokenizer), "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]}},
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "patch_size": 4, "mlp_ratio": 2}
        | {"temporal_patch_size": 2, "spatial_merge_size": 2, "initializer_range": 0.3},
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    model = Qwen2VLForConditionalGeneration(config).eval()
    return Qwen2VL(model, tokenizer, _small(Qwen2VL))


def qwen2_5_vl(tokenizer: Any) -> Family:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    from vr_pipeline.vlm.families.qwen2_vl import Qwen25VL

    image, video, start, end = _ids(tokenizer, "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    torch.manual_seed(1)
    config = Qwen2_5_VLConfig(
        text_config=LANGUAGE
        | {"vocab_size": len(tokenizer), "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]}},
        vision_config={"depth": 2, "hidden_size": 32, "out_hidden_size": 32, "num_heads": 2, "patch_size": 4}
        | {"intermediate_size": 48, "temporal_patch_size": 2, "spatial_merge_size": 2, "window_size": 16}
        | {"fullatt_block_indexes": [1], "tokens_per_second": 2, "initializer_range": 0.3},
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    model = Qwen2_5_VLForConditionalGeneration(config).eval()
    return Qwen25VL(model, tokenizer, _small(Qwen25VL))


def qwen3_vl(tokenizer: Any) -> Family:
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    from vr_pipeline.vlm.families.qwen3_vl import Qwen3VL

    image, video, start, end = _ids(tokenizer, "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    torch.manual_seed(5)
    rotary = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 1, 1], "mrope_interleaved": True}
    config = Qwen3VLConfig(
        text_config=LANGUAGE | {"vocab_size": len(tokenizer), "head_dim": 8, "rope_parameters": rotary},
        vision_config={"depth": 3, "hidden_size": 32, "out_hidden_size": 32, "num_heads": 2, "patch_size": 4}
        | {"intermediate_size": 48, "temporal_patch_size": 2, "spatial_merge_size": 2, "initializer_range": 0.3}
        | {"num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]},
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    model = Qwen3VLForConditionalGeneration(config).eval()
    return Qwen3VL(model, tokenizer, _small(Qwen3VL))


def qwen3_5(tokenizer: Any) -> Family:
    from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration

    from vr_pipeline.vlm.families.qwen3_5 import Qwen35

    image, video, start, end = _ids(tokenizer, "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    torch.manual_seed(9)
    rotary = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 1, 1], "mrope_interleaved": True}
    config = Qwen3_5Config(
        text_config=LANGUAGE
        | {"vocab_size": len(tokenizer), "head_dim": 16, "rope_parameters": rotary | {"partial_rotary_factor": 0.5}}
        | {"layer_types": ["linear_attention", "full_attention", "linear_attention"], "linear_key_head_dim": 8}
        | {"linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4},
        vision_config={"depth": 2, "hidden_size": 32, "out_hidden_size": 32, "num_heads": 2, "patch_size": 4}
        | {"intermediate_size": 48, "temporal_patch_size": 2, "spatial_merge_size": 2, "initializer_range": 0.3}
        | {"num_position_embeddings": 16},
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    model = Qwen3_5ForConditionalGeneration(config).eval()
    return Qwen35(model, tokenizer, _small(Qwen35))


def glm_4_6v(tokenizer: Any) -> Family:
    from transformers import Glm46VConfig, Glm46VForConditionalGeneration

    from vr_pipeline.vlm.families.glm_4_6v import Glm46V

    image, video, start, end = _ids(tokenizer, "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    torch.manual_seed(6)
    rotary = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 1, 1]}
    config = Glm46VConfig(
        text_config=LANGUAGE | {"model_type": "glm4v_text", "vocab_size": len(tokenizer), "rope_parameters": rotary},
        vision_config={"model_type": "glm4v_vision", "depth": 2, "hidden_size": 32, "out_hidden_size": 32}
        | {"num_heads": 2, "patch_size": 4, "image_size": 16, "intermediate_size": 48, "temporal_patch_size": 2}
        | {"spatial_merge_size": 2, "initializer_range": 0.3},
        image_token_id=image,
        video_token_id=video,
        image_start_token_id=start,
        image_end_token_id=end,
    )
    model = Glm46VForConditionalGeneration(config).eval()
    return Glm46V(model, tokenizer, _small(Glm46V))


def llava_onevision(tokenizer: Any) -> Family:
    from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

    from vr_pipeline.vlm.families.llava_onevision import LlavaOnevision

    image, video = _ids(tokenizer, "<image>", "<video>")
    torch.manual_seed(2)
    config = LlavaOnevisionConfig(
        text_config=LANGUAGE | {"model_type": "qwen2", "vocab_size": len(tokenizer)},
        vision_config={"model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 48}
        | {"num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 24, "patch_size": 4}
        | {"vision_use_head": False, "initializer_range": 0.3},
        image_token_id=image,
        video_token_id=video,
        vision_feature_layer=-1,
        image_grid_pinpoints=[[24, 24], [24, 48], [48, 24], [48, 48]],
    )
    model = LlavaOnevisionForConditionalGeneration(config).eval()
    return LlavaOnevision(model, tokenizer, LlavaOnevision.default_settings)


def internvl(tokenizer: Any, language: str = "qwen2") -> Family:
    """InternVL 3; with the language model "qwen3" InternVL 3.5."""
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    from vr_pipeline.vlm.families.internvl import InternVL

    torch.manual_seed(3)
    config = InternVLConfig(
        text_config=LANGUAGE | {"model_type": language, "vocab_size": len(tokenizer), "head_dim": 8},
        vision_config={"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
        | {"image_size": [16, 16], "patch_size": [4, 4], "initializer_range": 0.3},
        image_token_id=_ids(tokenizer, "<image>")[0],
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    model = InternVLForConditionalGeneration(config).eval()
    return InternVL(model, tokenizer, InternVL.default_settings.model_copy(update={"max_tiles": 6}))


def smolvlm(tokenizer: Any) -> Family:
    from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration

    from vr_pipeline.vlm.families.smolvlm import SmolVLM

    torch.manual_seed(4)
    config = SmolVLMConfig(
        text_config=LANGUAGE | {"model_type": "llama", "vocab_size": len(tokenizer), "pad_token_id": 0},
        vision_config={"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
        | {"image_size": 16, "patch_size": 4, "initializer_range": 0.3},
        image_token_id=_ids(tokenizer, "<image>")[0],
        scale_factor=2,
        tie_word_embeddings=False,
    )
    model = SmolVLMForConditionalGeneration(config).eval()
    return SmolVLM(model, tokenizer, SmolVLM.default_settings.model_copy(update={"image_side_tiles": 2}))


def _small(cls: type[Family]) -> Any:
    """The family's own settings with frames of a few patches."""
    return cls.default_settings.model_copy(update={"min_pixels": 16 * 16, "max_pixels": 40 * 40})


FAMILY_BUILDERS = {
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "qwen3_5": qwen3_5,
    "glm_4_6v": glm_4_6v,
    "llava_onevision": llava_onevision,
    "internvl": internvl,
    "smolvlm": smolvlm,
}
