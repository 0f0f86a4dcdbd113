"""Pretraining on a handful of clips: it learns, and twice the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.micro_world.clips import render_clips
from vr_pipeline.micro_world.config import PretrainingParameters
from vr_pipeline.micro_world.patch_vae import PatchVAE
from vr_pipeline.micro_world.pretraining import TEXT_LENGTH, build_tokenizer, pretrain_generator
from vr_pipeline.micro_world.world import all_prompts


def test_every_prompt_has_its_own_tokens_of_exactly_the_length_of_the_text() -> None:
    tokenizer = build_tokenizer()
    tokens = tokenizer(all_prompts(), padding="max_length", max_length=TEXT_LENGTH).input_ids
    assert {len(row) for row in tokens} == {TEXT_LENGTH}
    assert len({tuple(row) for row in tokens}) == 48
    assert all(row[-1] == tokenizer.eos_token_id for row in tokens)
    assert tokenizer.unk_token_id not in np.ravel(tokens)
    assert tokenizer.unk_token_id in tokenizer("a word nobody knows").input_ids


@pytest.mark.filterwarnings("ignore")
def test_the_loss_falls_and_two_trainings_are_identical() -> None:
    clips = render_clips(48, seed=0, purpose="pretraining")
    vae = PatchVAE.fit(clips.frames, latent_channels=8)
    sampling = GeneratorParameters(
        family="micro_world", path="unused", device="cpu", num_frames=8, height=16, width=16, guidance_scale=1.0
    )
    parameters = PretrainingParameters(
        steps=60, batch_size=8, warmup_steps=5, num_layers=1, num_attention_heads=2, threads=1
    )
    prompts = [scene.prompt for scene in clips.scenes]
    weights = []
    for _ in range(2):
        pipeline, log = pretrain_generator(clips.frames, prompts, vae, sampling, parameters, seed=0)
        weights.append({**pipeline.transformer.state_dict(), **pipeline.text_encoder.state_dict()})
    assert log[-1]["step"] == 60
    assert log[-1]["loss"] < 1.3
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
