"""What the plan knows of vision-language models, against the classes at their published sizes, without weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_judges
from vr_pipeline.planning.models import known_models, reader_facts

KNOWN = known_models(Path(__file__).resolve().parents[2] / "conf")
ROTARY = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20], "mrope_interleaved": True}


def qwen3_vl(hidden: int, layers: int, heads: int, inner: int, **vision: Any) -> Any:
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    text = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads, "head_dim": 128}
    text |= {"num_key_value_heads": 8, "intermediate_size": inner, "rope_parameters": ROTARY}
    config = Qwen3VLConfig(text_config=text, vision_config=vision | {"out_hidden_size": hidden})
    return Qwen3VLForConditionalGeneration(config)


def internvl_3_5() -> Any:
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    text = {"model_type": "qwen3", "hidden_size": 4096, "num_hidden_layers": 36, "num_attention_heads": 32}
    text |= {"num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 12288, "vocab_size": 151936}
    return InternVLForConditionalGeneration(InternVLConfig(text_config=text, tie_word_embeddings=False))


def glm_4_6v() -> Any:
    from transformers import Glm46VConfig, Glm46VForConditionalGeneration

    return Glm46VForConditionalGeneration(Glm46VConfig())


PUBLISHED: dict[str, Callable[[], Any]] = {
    "Qwen/Qwen3-VL-8B-Instruct": lambda: qwen3_vl(
        4096, 36, 32, 12288, depth=27, hidden_size=1152, intermediate_size=4304, deepstack_visual_indexes=[8, 16, 24]
    ),
    "zai-org/GLM-4.6V-Flash": glm_4_6v,
    "OpenGVLab/InternVL3_5-8B-HF": internvl_3_5,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_of_the_class(name: str) -> None:
    with torch.device("meta"):
        model = PUBLISHED[name]()
    tower = getattr(model.model, "visual", None) or model.model.vision_tower
    vision = sum(weight.numel() for weight in tower.parameters())
    facts = KNOWN[name]
    assert facts["vision"]["parameters"] == vision
    assert facts["language_model"]["parameters"] == sum(weight.numel() for weight in model.parameters()) - vision


@pytest.mark.parametrize("name", ["qwen3_vl", "qwen3_5", "glm_4_6v", "internvl"])
def test_tokens_of_a_folder_are_those_that_the_family_makes(name: str, tmp_path: Path) -> None:
    import numpy as np

    family = tiny_judges.FAMILY_BUILDERS[name](tiny_judges.build_tokenizer())
    family.save(tmp_path)
    clip = np.zeros((4, 16, 16, 3), np.uint8)
    facts = reader_facts(str(tmp_path), "float32", {})
    assert facts is not None
    assert facts.tokens(4, 16 * 16) == int(family.is_visual(family.prepare(clip, 2.0).token_ids).sum())
