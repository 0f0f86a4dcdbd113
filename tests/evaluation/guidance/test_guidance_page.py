"""The page on guidance: clips along its strength, drift, and what is said of them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

import tiny_models
from report_inputs import HOSTILE_PROMPT
from vr_pipeline.evaluation.guidance.clips import measure_drift, plan_guided_clips
from vr_pipeline.evaluation.guidance.config import GuidanceReportParameters
from vr_pipeline.evaluation.guidance.report import by_source, gains, guidance_page
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.config import GeneratorParameters, GuidanceReward
from vr_pipeline.generators.contract import weights_identity
from vr_pipeline.generators.latent_reward import LatentReward, LatentRewardSettings
from vr_pipeline.identifiers import prompt_id, sample_seed
from vr_pipeline.items.filling import fill_folder
from vr_pipeline.items.folder import ItemFolder
from vr_pipeline.items.video_index import index_made_clips
from vr_pipeline.schemas import EvaluationVideoIndex, GuidanceDrift

TEXTS = [*tiny_models.PROMPTS, HOSTILE_PROMPT, "red ball moves right on black"]
PROMPTS = pd.DataFrame({"prompt_id": [prompt_id(text) for text in TEXTS], "prompt": TEXTS})
PARAMETERS = GuidanceReportParameters(scales=[40.0, 5.0], videos_per_prompt=2, seed=3, num_prompts=5)


class Made(NamedTuple):
    """A tiny generator with its latent reward, and the clips of the page."""

    generator: GeneratorParameters
    reward: Path
    videos: ItemFolder
    index: pd.DataFrame
    drift: pd.DataFrame


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("guidance")
    generator = tiny_models.micro_world_parameters(tiny_models.save_micro_world(folder / "micro"))
    settings = {"dimensions": ("motion", "text"), "network": {"blocks": 1}, "base": weights_identity(generator)}
    reward = folder / "reward"
    reward.mkdir()
    LatentReward(load_generator(generator), LatentRewardSettings.model_validate(settings), seed=1).save(reward)
    plan = plan_guided_clips(PROMPTS, str(reward), generator, PARAMETERS)
    videos = fill_folder(folder / "videos", {"type": "video", "codec": "libx264rgb"}, plan)
    index = index_made_clips(videos)
    return Made(generator, reward, videos, index, measure_drift(videos, index, str(reward), generator, PARAMETERS))


def clip(made: Made, policy: str, text: str, sample: int) -> np.ndarray:
    index = made.index
    (row,) = index[(index["policy"] == policy) & (index["prompt"] == text) & (index["sample_index"] == sample)].to_dict(
        "records"
    )
    return made.videos.load(str(row["video_id"]))


def test_clips_come_from_the_same_seeds_at_every_strength(made: Made) -> None:
    EvaluationVideoIndex.validate(made.index)
    assert set(made.index["policy"]) == {"original", "5", "40"}
    assert len(made.index) == 3 * 2 * len(TEXTS)
    text = TEXTS[1]
    seeds = [sample_seed(3, prompt_id(text), sample) for sample in range(2)]
    assert (made.index.groupby(["prompt_id", "sample_index"])["seed"].nunique() == 1).all()
    for policy, scale in (("original", None), ("5", 5.0), ("40", 40.0)):
        chosen = {"model": str(made.reward), "weights": {"motion": 0.5, "text": 0.5}, "scale": scale or 1.0}
        guidance = None if scale is None else GuidanceReward.model_validate(chosen)
        expected = load_generator(made.generator.model_copy(update={"guidance_reward": guidance})).sample(
            [text] * 2, seeds
        )
        assert np.array_equal(np.stack([clip(made, policy, text, sample) for sample in range(2)]), expected)


def test_drift_is_the_distance_from_the_unguided_clip(made: Made) -> None:
    drift = made.drift
    GuidanceDrift.validate(drift)
    assert len(drift) == len(made.index)
    unguided = drift[drift["policy"] == "original"]
    assert (unguided[["pixel_drift", "latent_drift"]] == 0.0).all(axis=None)
    # Stronger guidance leads further away.
    by_scale = drift.groupby("policy")[["pixel_drift", "latent_drift"]].mean()
    assert (by_scale.loc["40"] > by_scale.loc["5"]).all()
    assert (by_scale.loc["5"] > 0).all()
    text = TEXTS[0]
    away = clip(made, "40", text, 1).astype(float) - clip(made, "original", text, 1).astype(float)
    chosen = made.index[(made.index["policy"] == "40") & (made.index["prompt"] == text)]
    name = chosen.loc[chosen["sample_index"] == 1, "video_id"].iloc[0]
    shown = float(drift.set_index("video_id").loc[name, "pixel_drift"])
    assert shown == pytest.approx(np.sqrt((away**2).mean()) / 255)


def test_a_clip_whose_unguided_one_failed_has_no_drift(made: Made) -> None:
    lost = made.index[made.index["policy"] == "original"]["video_id"].iloc[0]
    index = made.index.assign(status=np.where(made.index["video_id"] == lost, "failed", "ok"))
    drift = measure_drift(made.videos, index, str(made.reward), made.generator, PARAMETERS)
    assert len(drift) == len(made.drift) - 3


def test_gains_are_against_the_unguided_clips_of_the_prompt(made: Made) -> None:
    table = by_source(pd.DataFrame(), pd.DataFrame(), made.drift)["latent"]
    assert list(table.columns) == ["prompt_id", "policy", "motion", "text"]
    means = table.groupby("policy")["motion"].mean()
    found = gains(table, "motion", ["5", "40"])
    assert found["40"].mean == pytest.approx(means["40"] - means["original"])
    assert found["40"].n_prompts == len(TEXTS)
    # The gradient of the reward raises the reward.
    assert found["40"].mean > 0


def rewards_of(made: Made) -> pd.DataFrame:
    table = made.index[["video_id", "prompt_id", "policy"]].copy()
    strength = table["policy"].map({"original": 0.0, "5": 1.0, "40": 2.0})
    spread = np.arange(len(table)) % 3 / 10
    # Rewards may say more of a clip than their dimensions.
    return table.assign(total=strength + spread, dim_motion=strength - spread, model="a name")


def test_the_page_shows_rewards_drift_and_clips(made: Made) -> None:
    rewards = rewards_of(made)
    page = guidance_page(made.videos, made.index, rewards, rewards.iloc[:0], made.drift, PARAMETERS)
    for said in ("Change by the latent reward", "Change by the reward model", "Distance in latents", "w = 40"):
        assert said in page
    assert "Change by the oracle" not in page
    assert page.count("<video") == 3 * len(TEXTS)
    assert "<script>window.hacked" not in page
    assert "http-equiv" in page
    assert page == guidance_page(made.videos, made.index, rewards, rewards.iloc[:0], made.drift, PARAMETERS)
    with_oracle = guidance_page(made.videos, made.index, rewards.iloc[:0], rewards, made.drift, PARAMETERS)
    assert "Change by the oracle" in with_oracle
    assert "Change by the reward model" not in with_oracle


def test_strengths_are_in_order_and_weights_are_the_same_unless_given() -> None:
    generator = GeneratorParameters(family="wan", path="x", revision="a")
    steered = PARAMETERS.steered(generator, "reward", ("motion", "text"))
    assert list(steered) == list(PARAMETERS.titles) == ["original", "5", "40"]
    assert steered["original"].guidance_reward is None
    guidance = steered["40"].guidance_reward
    assert guidance is not None
    assert guidance.weights == {"motion": 0.5, "text": 0.5}
    given = PARAMETERS.model_copy(update={"weights": {"text": 2.0}}).steered(generator, "reward", ("motion", "text"))
    assert given["5"].guidance_reward is not None
    assert given["5"].guidance_reward.weights == {"text": 2.0}
