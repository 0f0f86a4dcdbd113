"""What a network is configured to be, and what contradicts itself."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from vr_pipeline.rewards.videoreward.settings import NetworkSettings, VideoRewardArtifact

TWO = [{"name": "visual"}, {"name": "text", "sees_prompt": True, "criterion": "alignment", "token": "<|TA_reward|>"}]


def test_names_tokens_and_criteria_have_defaults() -> None:
    settings = NetworkSettings.model_validate({"dimensions": TWO})
    assert settings.names == ("visual", "text")
    assert settings.free_of_prompt == ("visual",)
    assert [settings.token_of(one) for one in settings.dimensions] == ["<|visual_reward|>", "<|TA_reward|>"]
    assert [one.labelled_by for one in settings.dimensions] == ["visual", "alignment"]
    late = NetworkSettings.model_validate({"dimensions": TWO, "pooling": "last", "head": "separate"})
    assert late.free_of_prompt == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dimensions": []}, "at least 1"),
        ({"dimensions": [TWO[0], TWO[0]]}, "same name"),
        ({"dimensions": [{"name": "a", "token": "<t>"}, {"name": "b", "token": "<t>"}]}, "same token"),
        ({"dimensions": [{"name": "total"}]}, "'total'"),
        ({"dimensions": [{"name": "visual quality"}]}, "pattern"),
        ({"prompt_text": "no place"}, r"\[\[prompt\]\] once"),
        ({"prompt_text": "[[prompt]] [[prompt]]"}, r"\[\[prompt\]\] once"),
        ({"pooling": "mean"}, "set head to 'separate'"),
        ({"pooling": "first"}, "'special', 'last' or 'mean'"),
    ],
)
def test_networks_that_cannot_be_are_rejected(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        NetworkSettings.model_validate({"dimensions": TWO} | change)


def test_a_calibration_of_other_dimensions_is_rejected() -> None:
    content: dict[str, Any] = {"family": "qwen2_vl", "network": {"dimensions": TWO}}
    one = {"mean": {"visual": 0.0, "motion": 0.0}, "deviation": {"visual": 1.0, "text": 1.0}}
    with pytest.raises(ValidationError, match=r"'calibration\.mean' must have"):
        VideoRewardArtifact.model_validate(content | {"calibration": one})
