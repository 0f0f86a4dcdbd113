"""The tiny Wan that is shipped: real classes, made twice the same, sampled as diffusers samples it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from plain_diffusers import call_directly, plain_pipeline
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.micro_world.build import load_flow_generator, pretrain_flow
from vr_pipeline.micro_world.card import file_hashes
from vr_pipeline.micro_world.config import MicroWorldParameters
from vr_pipeline.micro_world.flow_card import flow_card, measure_samples
from vr_pipeline.micro_world.oracle import Oracle
from vr_pipeline.micro_world.world import all_prompts

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "data" / "06_models" / "micro_world"
SHIPPED = MODELS / "flow_generator"

SAMPLING = GeneratorParameters(
    family="micro_wan",
    path=str(SHIPPED),
    device="cpu",
    threads=1,
    num_frames=8,
    height=16,
    width=16,
    num_inference_steps=12,
    guidance_scale=1.0,
    batch_size=32,
)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_sampling_equals_the_pipeline_of_diffusers_bit_for_bit(guidance: float) -> None:
    parameters = SAMPLING.model_copy(update={"guidance_scale": guidance, "batch_size": 4})
    prompts, seeds = all_prompts()[::13], [3, 1, 4, 15]
    plain = plain_pipeline(parameters)
    assert type(plain).__name__ == "WanPipeline"
    theirs = call_directly(plain, parameters, seeds, prompts)
    assert np.array_equal(load_generator(parameters).sample(prompts, seeds), theirs)


def test_its_parts_are_the_published_classes_and_small() -> None:
    index = json.loads((SHIPPED / "model_index.json").read_text(encoding="utf-8"))
    named = {part: index[part][1] for part in ("transformer", "text_encoder", "scheduler", "vae")}
    assert index["_class_name"] == "WanPipeline"
    assert named == {
        "transformer": "WanTransformer3DModel",
        "text_encoder": "UMT5EncoderModel",
        "scheduler": "UniPCMultistepScheduler",
        "vae": "WanPatchVAE",
    }
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*")) < 800_000


def test_its_clips_show_what_the_prompts_say() -> None:
    figures = measure_samples(
        load_generator(SAMPLING), Oracle.load(MODELS / "oracle.safetensors"), seed=7, clips_per_prompt=2
    )
    assert figures.clips == 96
    # Without guidance, and so with headroom for preference training.
    assert figures.attributes["colour"] > 0.85
    assert figures.attributes["direction"] > 0.85
    assert figures.attributes["background"] > 0.9
    assert 0.6 < figures.attributes["shape"] < 0.99
    assert figures.utility < 11.0


def test_the_card_names_the_files_that_are_shipped() -> None:
    card = (SHIPPED / "README.md").read_text(encoding="utf-8")
    for path, digest in file_hashes(SHIPPED).items():
        assert f"| {path} | `{digest}` |" in card
    assert "flow_generator" not in (MODELS / "README.md").read_text(encoding="utf-8")


TINY = {
    "clips": {"num_pretraining_clips": 48},
    "flow_pretraining": {"steps": 12, "batch_size": 8, "num_layers": 1, "num_attention_heads": 1, "threads": 1},
}


def make(folder: Path) -> dict[str, str]:
    """A few steps of what ``micro_world`` does; hashes of the weights."""
    pipeline, log = pretrain_flow(SAMPLING, MicroWorldParameters.model_validate(TINY))
    pipeline.save_pretrained(folder, safe_serialization=True)
    assert np.isfinite(log["loss"]).all()
    return file_hashes(folder)


def test_two_processes_make_the_same_files_and_the_card_describes_them(tmp_path: Path) -> None:
    ours = make(tmp_path / "ours")
    assert set(ours) == {
        "text_encoder/model.safetensors",
        "transformer/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    }
    place = str(tmp_path / "theirs")
    program = f"from pathlib import Path; from tests.micro_world.test_flow import make; make(Path({place!r}))"
    path = os.pathsep.join(str(ROOT / part) for part in ("src", "tests/support", ""))
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, check=True)
    assert file_hashes(tmp_path / "theirs") == ours

    loaded: Any = load_flow_generator(tmp_path / "ours", SAMPLING.model_copy(update={"family": "micro_world"}))
    assert {value.dtype for value in loaded.denoiser.state_dict().values()} <= {torch.float32, torch.float64}
    figures = measure_samples(loaded, Oracle.load(MODELS / "oracle.safetensors"), seed=0, clips_per_prompt=1)
    card = flow_card(tmp_path / "ours", figures, figures, MicroWorldParameters.model_validate(TINY))
    weights = sum(value.numel() for value in loaded.denoiser.parameters())
    assert f"({weights:,} weights)" in " ".join(card.split())
    assert all(digest in card for digest in ours.values())
