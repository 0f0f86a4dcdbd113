"""Tiny UnifiedRewards over random models of the real transformers classes, and a template of words that they know."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np

from tiny_judges import FAMILY_BUILDERS, WORDS, build_tokenizer
from vr_pipeline.rewards.unifiedreward.settings import UnifiedArtifact
from vr_pipeline.rewards.unifiedreward.template import UnifiedTemplate
from vr_pipeline.video.sampled import SampledClip
from vr_pipeline.vlm.families.base import Family

KNOWN = WORDS + " first second better tie response question look than " + " ".join(map(str, range(13)))
OPENING, CLOSING, END = "<|im_start|> user", "<|im_end|> <|im_start|> assistant", "<|im_end|>"
LINES: list[dict[str, Any]] = [
    {"dimension": "look", "before": "look ", "after": " and", "low": 1, "high": 12},
    {"dimension": "moves", "before": "moves ", "low": 1, "high": 4},
]
TEMPLATE: dict[str, Any] = {
    "name": "toy",
    "opening": OPENING,
    "closing": CLOSING,
    "end": END,
    "video_generation": {
        "pair": {
            "text": "[[first]] and [[second]] show [[prompt]] ?",
            "answers": {"first": "first is better", "second": "second is better", "tie": "ball is better"},
        },
        "point": {"text": "[[clip]] does it show [[prompt]] ?", "lines": LINES},
    },
    "video_understanding": {
        "pair": {
            "text": "[[clip]] question [[prompt]] first [[response_a]] second [[response_b]]",
            "answers": {"first": "first is better", "second": "second is better"},
        },
        "point": {
            "text": "[[clip]] [[dimension]] question [[prompt]] response [[response]]",
            "lines": [{"dimension": "clear", "low": 1, "high": 5}, {"dimension": "sharp", "low": 0, "high": 3}],
        },
    },
}
SHAPES = [(4, 24, 32), (4, 32, 32), (5, 32, 24)]
PROMPTS = ["red ball", "a blue ring moves left on the black picture", "ball"]


def toy_template(**changes: Any) -> UnifiedTemplate:
    """The template with other values, by dotted place with double underscores: ``video_generation__pair=None``."""
    content = copy.deepcopy(TEMPLATE)
    for place, value in changes.items():
        *way, last = place.split("__")
        entry = content
        for step in way:
            entry = entry.setdefault(step, {})
        entry[last] = value
    return UnifiedTemplate.model_validate(content)


def toy_family(name: str = "qwen2_vl") -> Family:
    """A random model that knows the template's words and numbers."""
    return FAMILY_BUILDERS[name](build_tokenizer(KNOWN))


def toy_clips(seed: int = 0, *, prompt: str = "red ball") -> dict[str, SampledClip]:
    """Clips of different length, size and rate, by name."""
    random = np.random.default_rng(seed)
    frames = [random.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in SHAPES]
    return {
        name: SampledClip(name, prompt, one, list(range(len(one))), rate)
        for name, one, rate in zip(("a", "b", "c"), frames, (2.0, 4.0, 1.0), strict=True)
    }


def saved_reward(folder: Path, family: str = "qwen2_vl", template: UnifiedTemplate | None = None) -> Path:
    """A UnifiedReward's folder, as training writes it."""
    (folder / "model").mkdir(parents=True)
    toy_family(family).save(folder / "model")
    UnifiedArtifact(family=family, template=template or toy_template()).write(folder)
    return folder
