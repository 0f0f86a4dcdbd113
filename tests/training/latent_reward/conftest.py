"""Tiny trainings of latent rewards, made once a session."""

from __future__ import annotations

import pytest

import tiny_latent_reward
from tiny_latent_reward import Given
from vr_pipeline.training.latent_reward.training import TrainedLatentReward


@pytest.fixture(scope="session")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    return tiny_latent_reward.make(tmp_path_factory.mktemp("latent_reward") / "micro")


@pytest.fixture(scope="session")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Given:
    return tiny_latent_reward.make(tmp_path_factory.mktemp("latent_reward") / "wan", "wan")


@pytest.fixture(scope="session")
def trained(given: Given) -> TrainedLatentReward:
    """A training of six steps."""
    return given.train()
