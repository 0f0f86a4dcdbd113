"""Pretraining on a handful of clips: it learns, and twice the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vr_pipeline.engine import loop
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.micro_world import flow, pretraining
from vr_pipeline.micro_world.clips import render_clips
from vr_pipeline.micro_world.config import FlowPretrainingParameters, PretrainingParameters
from vr_pipeline.micro_world.patch_vae import PatchVAE, WanPatchVAE
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
@pytest.mark.parametrize("family", ["micro_world", "micro_wan"])
def test_the_loss_falls_and_a_killed_training_resumes_to_the_identical_weights(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = render_clips(48, seed=0, purpose="pretraining")
    sampling = GeneratorParameters(
        family=family, path="unused", device="cpu", num_frames=8, height=16, width=16, guidance_scale=1.0
    )
    prompts = [scene.prompt for scene in clips.scenes]

    def train(**changes: object) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
        settings = {"steps": 60, "batch_size": 8, "warmup_steps": 5, "num_layers": 1, "num_attention_heads": 2}

        def make() -> Any:
            if family == "micro_wan":
                own = FlowPretrainingParameters.model_validate(settings | changes)
                return flow.untrained(WanPatchVAE.fit(clips.frames, latent_channels=8), sampling, own, 0)
            vae = PatchVAE.fit(clips.frames, latent_channels=8)
            return pretraining.untrained(vae, sampling, PretrainingParameters.model_validate(settings | changes), 0)

        parameters = PretrainingParameters.model_validate(settings | changes)
        pipeline, log = pretrain_generator(clips.frames, prompts, make, parameters, seed=0)
        return {**pipeline.transformer.state_dict(), **pipeline.text_encoder.state_dict()}, log

    whole, log = train()
    assert [row["step"] for row in log] == [60]
    # A network that says nothing has 1 at velocities of a variance-preserving path, and 2 at those of a straight one.
    assert log[-1]["loss"] < {"micro_world": 1.0, "micro_wan": 2.0}[family]
    row, kept = loop.log_row, {"checkpoint_folder": str(tmp_path), "checkpoint_every": 20}

    def killed(step: int, *rest: Any) -> dict[str, float]:
        if step == 31:
            raise KeyboardInterrupt
        return row(step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "log_row", killed)
        with pytest.raises(KeyboardInterrupt):
            train(**kept)
    steps: list[int] = []
    monkeypatch.setattr(loop, "log_row", lambda step, *rest: steps.append(step) or row(step, *rest))
    for expected in (list(range(21, 61)), []):
        # The second time it was finished before.
        resumed, again = train(**kept)
        assert steps == expected
        assert again == log
        assert resumed.keys() == whole.keys()
        assert all(torch.equal(value, whole[name]) for name, value in resumed.items())
        steps.clear()
