"""Tiny VideoRewards over random models of the real transformers classes, and the plain way of scoring with them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from plain_likelihood import clip_inputs
from tiny_judges import FAMILY_BUILDERS, build_tokenizer
from vr_pipeline.rewards.videoreward.network import VideoRewardNetwork, new_network
from vr_pipeline.rewards.videoreward.settings import NetworkSettings
from vr_pipeline.vlm.families.base import PreparedClip

DIMENSIONS: list[dict[str, Any]] = [
    {"name": "text", "rubric": " does it show it ?", "sees_prompt": True},
    {"name": "visual", "rubric": "is the picture very sharp and clear ?"},
    {"name": "motion", "rubric": "moves ?"},
    {"name": "colour", "rubric": " or not as the colour", "sees_prompt": True},
]
NETWORK: dict[str, Any] = {
    "dimensions": DIMENSIONS,
    "introduction": "is it the ball : ",
    "prompt_text": ' does it show " [[prompt]] "',
    "end": " or not <|im_end|>",
}
SHAPES = [(8, 32, 48), (3, 40, 40), (5, 56, 30)]
PROMPTS = ["red ball", "a blue ring moves left on the black picture", "ball"]
RATES = [2.0, 4.0, 1.0]


def tiny_network(family: str = "qwen2_vl", **settings: Any) -> VideoRewardNetwork:
    """A network with random weights, whose scores differ by about 1."""
    network = new_network(
        FAMILY_BUILDERS[family](build_tokenizer()), NetworkSettings.model_validate(NETWORK | settings), seed=0
    )
    with torch.no_grad():
        network.head.weight.mul_(10.0)
    return network


def some_clips(seed: int = 0) -> list[np.ndarray]:
    """Clips of different length and size."""
    random = np.random.default_rng(seed)
    return [random.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in SHAPES]


def prepared(network: VideoRewardNetwork, seed: int = 0) -> list[PreparedClip]:
    """These clips as the network takes them."""
    return [network.family.prepare(clip, rate) for clip, rate in zip(some_clips(seed), RATES, strict=True)]


def scores(network: VideoRewardNetwork, clips: Sequence[PreparedClip], prompts: Sequence[str], **how: Any) -> Any:
    """Scores without gradients."""
    with torch.no_grad():
        return network.scores(clips, prompts, **how)


def written_out(network: VideoRewardNetwork, prompt: str) -> str:
    """The text behind the clip, in the order of the paper, with the special tokens written as text."""
    settings = network.settings
    special = settings.pooling == "special"

    def rubrics(sees_prompt: bool) -> str:
        return "".join(
            one.rubric + (settings.token_of(one) if special else "")
            for one in settings.dimensions
            if one.sees_prompt is sees_prompt
        )

    text = settings.introduction + rubrics(False) + settings.prompt_text.replace("[[prompt]]", prompt) + rubrics(True)
    return text + settings.end


def reference_scores(
    network: VideoRewardNetwork, clips: Sequence[PreparedClip], prompts: Sequence[str], rates: Sequence[float]
) -> torch.Tensor:
    """Scores by one plain forward of the transformers class a clip, as the public code computes them.

    The special tokens are added to the tokenizer and the vocabulary, and the whole text is tokenised at once.
    """
    family, settings = copy.deepcopy(network.family), network.settings
    before = family.model.get_input_embeddings().weight.shape[0]
    names = [settings.token_of(one) for one in settings.dimensions]
    special = settings.pooling == "special"
    if special:
        family.tokenizer.add_special_tokens({"additional_special_tokens": names})
        family.model.resize_token_embeddings(before + len(names), mean_resizing=False)
    added = range(before, before + len(names))
    rows = []
    with torch.no_grad():
        if special:
            family.model.get_input_embeddings().weight[before:] = network.token_rows
        for clip, prompt, rate in zip(clips, prompts, rates, strict=True):
            ids = tuple(family.tokenizer(written_out(network, prompt), add_special_tokens=False)["input_ids"])
            inputs = clip_inputs(family, clip, ids, rate)
            hidden = family.model.model(**inputs).last_hidden_state[0]
            if special:
                found = inputs["input_ids"][0].tolist()
                states = hidden[[found.index(number) for number in added]]
            else:
                states = (hidden[-1] if settings.pooling == "last" else hidden.mean(dim=0)).expand(len(names), -1)
            heads = network.head.weight.expand(len(names), -1)
            rows.append((states * heads).sum(dim=1))
    return torch.stack(rows)
