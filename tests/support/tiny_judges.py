"""Tiny random models of the real transformers classes, and the plain way of asking them one question."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch

from vr_pipeline.vlm.families.base import Family, PreparedClip

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


def internvl(tokenizer: Any) -> Family:
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    from vr_pipeline.vlm.families.internvl import InternVL

    torch.manual_seed(3)
    config = InternVLConfig(
        text_config=LANGUAGE | {"model_type": "qwen2", "vocab_size": len(tokenizer)},
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
    "llava_onevision": llava_onevision,
    "internvl": internvl,
    "smolvlm": smolvlm,
}


def qwen_positions(visual: list[bool], grid: tuple[int, int, int], interval: float) -> torch.Tensor:
    """Positions (time, row, column) of a text with one clip in it, token by token as the paper of Qwen2-VL says.

    Text counts on from one above the highest number so far on any axis.
    """
    places = [(int(at * interval), row, col) for at, row, col in itertools.product(*map(range, grid))]
    found: list[tuple[int, ...]] = []
    start = 0
    for number, is_visual in enumerate(visual):
        if is_visual:
            first = visual.index(True)
            if number == first:
                start = max((max(one) for one in found), default=-1) + 1
            found.append(tuple(start + part for part in places[number - first]))
        else:
            found.append((max((max(one) for one in found), default=-1) + 1,) * 3)
    return torch.tensor(found).T


def full_forward(family: Family, clip: PreparedClip, question_ids: tuple[int, ...], rate: float | None) -> torch.Tensor:
    """Last logits of the model's own forward on clip and one question, with its own mask and positions."""
    with torch.no_grad():
        logits: torch.Tensor = family.model(**forward_inputs(family, clip, question_ids, rate)).logits[0, -1].float()
    return logits


def forward_inputs(
    family: Family, clip: PreparedClip, text_ids: tuple[int, ...], rate: float | None
) -> dict[str, torch.Tensor]:
    """What the model's own forward takes of a clip and the text behind it.

    Qwen's positions are computed here, because transformers 5.23 places text behind a long clip inside it.
    """
    ids = torch.from_numpy(np.append(clip.token_ids, text_ids))[None]
    config = family.model.config
    name = type(family).__name__
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if name in ("Qwen2VL", "Qwen25VL"):
        image = bool((ids == config.image_token_id).any())
        patches, grid = torch.from_numpy(clip.vision["patches"]), torch.from_numpy(clip.vision["grid"])
        inputs |= (
            {"pixel_values": patches, "image_grid_thw": grid}
            if image
            else {"pixel_values_videos": patches, "video_grid_thw": grid}
        )
        seconds = config.vision_config.temporal_patch_size / (rate or 2.0)
        interval = 1.0 if image or name == "Qwen2VL" else seconds * config.vision_config.tokens_per_second
        visual = (ids[0] == config.image_token_id) | (ids[0] == config.video_token_id)
        rows_columns = [int(side) // config.vision_config.spatial_merge_size for side in grid[0, 1:]]
        inputs["position_ids"] = qwen_positions(visual.tolist(), (int(grid[0, 0]), *rows_columns), interval)[:, None]
    else:
        inputs |= {key: torch.from_numpy(value) for key, value in clip.vision.items()}
    return inputs
