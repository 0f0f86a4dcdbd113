"""The closed forms against torch's own count, tensor by tensor, and against the tables of the documentation."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.planning.denoisers import Costs, transformer_costs
from vr_pipeline.planning.models import GeneratorFacts, ReaderFacts, known_models

ROOT = Path(__file__).resolve().parents[2]
KNOWN = known_models(ROOT / "conf")
GIB = 2**30


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    specification = importlib.util.spec_from_file_location("gpu_training", ROOT / "benchmarks" / "gpu_training.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def cogvideox(module: ModuleType) -> tuple[Any, dict[str, Any]]:
    return module.cogvideox(num_layers=2, num_attention_heads=3), module.cogvideox_inputs(rotary=False)


def wan(module: ModuleType) -> tuple[Any, dict[str, Any]]:
    from diffusers import WanTransformer3DModel

    changed = {"num_attention_heads": 2, "attention_head_dim": 64, "ffn_dim": 320, "num_layers": 2, "text_dim": 4096}
    return WanTransformer3DModel(**changed), module.wan_inputs()


@pytest.mark.parametrize(("make", "latent"), [(cogvideox, (13, 60, 90)), (wan, (21, 60, 104))])
def test_weights_and_operations_are_those_that_torch_counts(
    make: Any, latent: tuple[int, int, int], benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        benchmark.MODELS, "small", (lambda: make(benchmark)[0], lambda: make(benchmark)[1], "small clips")
    )
    counted = benchmark.calculated("small")
    config = dict(make(benchmark)[0].config) | {"_class_name": type(make(benchmark)[0]).__name__}
    costs = transformer_costs(config, latent, benchmark.RANK)
    assert costs.parameters == counted["parameters"]
    assert costs.adapter == counted["adapter_parameters"]
    assert 2 * costs.forward == counted["forward"]
    assert 2 * costs.backward == counted["backward"]
    assert 2 * (costs.backward + costs.recomputed) == counted["backward_checkpointed"]
    assert costs.sample < costs.forward
    # What does not grow with the width counts in a narrow network; published ones are below, to half a percent.
    assert 2 * costs.activations == pytest.approx(counted["activations"], rel=0.15)
    assert 2 * costs.checkpointed == pytest.approx(counted["activations_checkpointed"], rel=0.05)


# -- the tables of docs/gpu_and_clusters.md ---------------------------------------------------------------------------

PAGE = (ROOT / "docs" / "gpu_and_clusters.md").read_text(encoding="utf-8")
CLIPS: dict[str, dict[str, Any]] = {
    "zai-org/CogVideoX-2b": {"family": "cogvideox"},
    "zai-org/CogVideoX-5b": {"family": "cogvideox"},
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": {"family": "wan", "num_frames": 81, "height": 480, "width": 832},
    "stabilityai/stable-diffusion-xl-base-1.0": {"family": "sdxl", "num_frames": 1, "height": 1024, "width": 1024},
}
VIDEOS: dict[str, dict[str, Any]] = {
    "zai-org/CogVideoX1.5-5B": {"family": "cogvideox", "num_frames": 81, "height": 768, "width": 1360},
    "Wan-AI/Wan2.2-TI2V-5B-Diffusers": {"family": "wan", "num_frames": 121, "height": 704, "width": 1280},
    "Wan-AI/Wan2.2-T2V-A14B-Diffusers": {"family": "wan_experts", "num_frames": 81, "height": 480, "width": 832},
    "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v": {
        "family": "hunyuan_video_1_5",
        **{"num_frames": 121, "height": 480, "width": 848},
    },
    "Lightricks/LTX-2": {"family": "ltx_2", "num_frames": 121, "height": 512, "width": 768},
}
_SQUARE = {"num_frames": 1, "height": 1024, "width": 1024}
IMAGES: dict[str, dict[str, Any]] = {
    "stabilityai/stable-diffusion-3.5-medium": {"family": "stable_diffusion_3", **_SQUARE},
    "Qwen/Qwen-Image": {"family": "qwen_image", "num_frames": 1, "height": 1328, "width": 1328},
    "Tongyi-MAI/Z-Image": {"family": "z_image", **_SQUARE},
    "black-forest-labs/FLUX.2-klein-base-4B": {"family": "flux2_klein", **_SQUARE},
}
TABLES = (CLIPS, VIDEOS, IMAGES)
"""Models and clips of the page's tables, in their order."""


def facts_of(path: str) -> GeneratorFacts:
    (clip,) = (table[path] for table in TABLES if path in table)
    return GeneratorFacts(KNOWN[path], GeneratorParameters(path=path, dtype="bfloat16", **clip))


def cells(name: str) -> list[tuple[str, str]]:
    """The cells of the rows that begin so, and the model of each."""
    rows = PAGE.split(f"| {name} |")[1:]
    assert len(rows) == len(TABLES)
    return [
        (cell, path)
        for row, table in zip(rows, TABLES, strict=True)
        for cell, path in zip(row.split("\n")[0].strip(" |").split(" | "), table, strict=True)
    ]


ROWS = {
    "parameters of the denoiser (billions)": lambda costs: costs.parameters / 1e9,
    "its weights (GiB)": lambda costs: 2 * costs.parameters / GIB,
    "adapter (millions of parameters)": lambda costs: costs.adapter / 1e6,
    "adapter with gradients and AdamW, float32 (GiB)": lambda costs: 16 * costs.adapter / GIB,
    "activations kept for the backward pass (GiB)": lambda costs: 2 * costs.activations / GIB,
    "the same with gradient checkpointing (GiB)": lambda costs: 2 * costs.checkpointed / GIB,
    "operations of a pair (TFLOP)": lambda costs: costs.pair / 1e12,
    "the same with gradient checkpointing (TFLOP)": lambda costs: costs.pair_checkpointed / 1e12,
}


@pytest.mark.parametrize("name", ROWS)
def test_the_table_of_what_training_needs_is_calculated_so(name: str) -> None:
    for cell, path in cells(name):
        costs: Costs = facts_of(path).costs(64)
        unit = 10.0 ** -len(cell.partition(".")[2])
        # Activations are counted within a percent.
        assert ROWS[name](costs) == pytest.approx(float(cell.replace(",", "")), abs=0.51 * unit, rel=0.005), path


def test_encoding_and_shares_are_calculated_so() -> None:
    encoding = cells("operations to encode a clip, its prompt (TFLOP)")
    shares = cells("share of policy forward, reference, backward (% of operations)")
    for (numbers, path), (cell, _) in zip(encoding, shares, strict=True):
        facts = facts_of(path)
        clip, *prompt = (float(number) for number in re.findall(r"[\d.]+", numbers))
        assert facts.encode / 1e12 == pytest.approx(clip, rel=0.005)
        if prompt:
            assert facts.encode_prompt / 1e12 == pytest.approx(prompt[0], abs=0.051)
        costs = facts.costs(64)
        parts = [2 * part / costs.pair for part in (costs.forward, costs.forward, costs.backward)]
        assert [100 * part for part in parts] == pytest.approx([float(text) for text in cell.split(",")], abs=0.51)


def test_times_of_the_documentation_are_calculated_so() -> None:
    cogvideox = facts_of("zai-org/CogVideoX-2b")
    step = 32 * cogvideox.costs(64).pair_checkpointed / 300e12
    assert f"a step of 32 pairs of CogVideoX-2B would take {step:.0f} s" in PAGE
    assert f"500 steps {500 * step / 3600:.0f} hours" in PAGE
    # What the authors published is what the closed form says of a GPU that sustains 300 TFLOP/s, within a tenth.
    published = cogvideox.published_seconds("H100")
    assert published == 45
    assert cogvideox.make / 300e12 == pytest.approx(published, rel=0.1)
    assert f"| generation, CogVideoX-2B, 50 steps, 49 frames of 720 x 480 | {published:.0f} s (H100)" in PAGE
    other = GeneratorParameters(family="cogvideox", path="zai-org/CogVideoX-2b", num_inference_steps=25)
    assert GeneratorFacts(KNOWN["zai-org/CogVideoX-2b"], other).published_seconds("H100") is None


def test_a_judgement_of_the_documentation_is_calculated_so() -> None:
    judge = ReaderFacts(KNOWN["Qwen/Qwen2.5-VL-7B-Instruct"], "bfloat16")
    visual = judge.tokens(12, 448 * 448)
    assert visual == 1536
    assert f"{judge.read(visual, 1300) / 300e12:.2f} s at 300 TFLOP/s" in PAGE
    assert f"{judge.weights / GIB:.1f} GiB), which" in PAGE
    # What was seen before costs the language model alone.
    assert judge.read(visual, 0, seen=0) == 2 * 7615616512 * visual
