"""Judges in fewer bits, and what is rejected."""

from __future__ import annotations

import errno
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tiny_judges import FAMILY_BUILDERS, PROMPTS, QUESTIONS, qwen2_vl
from vr_pipeline.errors import InputError
from vr_pipeline.judges import load_judge
from vr_pipeline.judges.training.config import JudgeTrainingParameters
from vr_pipeline.vlm.config import JudgeParameters
from vr_pipeline.vlm.families import family_class
from vr_pipeline.vlm.loading import read_settings


@pytest.fixture(scope="module")
def folder(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("judge")
    qwen2_vl(tokenizer).save(made)
    return made


def test_without_bitsandbytes_fewer_bits_are_rejected_plainly(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "bitsandbytes" else found(name)
    )
    for bits in ("8bit", "4bit"):
        with pytest.raises(InputError, match=f"loading in {bits} needs the package bitsandbytes.*gpu"):
            load_judge({"family": "qwen2_vl", "path": str(folder), "device": "cpu", "quantisation": bits})


@pytest.mark.parametrize(("bits", "layer"), [("8bit", "Linear8bitLt"), ("4bit", "Linear4bit")])
def test_fewer_bits(folder: Path, clips: list[np.ndarray], bits: str, layer: str) -> None:
    pytest.importorskip("bitsandbytes")
    import torch

    whole: Any = load_judge({"family": "qwen2_vl", "path": str(folder), "device": "cpu"})
    small: Any = load_judge({"family": "qwen2_vl", "path": str(folder), "device": "cpu", "quantisation": bits})
    assert small.identity != whole.identity
    # The head, where the answers are read, stays as it is.
    assert type(small.family.model.lm_head).__name__ == "Linear"
    layers = [(name, one) for name, one in small.family.model.named_modules() if type(one).__name__ == layer]
    assert layers
    # Most have other numbers of inputs than the blocks of 64 in which four bits are stored.
    assert {one.in_features % 64 for _, one in layers} > {0}
    whole_before, _ = whole.answer(clips, QUESTIONS, PROMPTS)
    for name, one in layers:
        original = whole.family.model.get_submodule(name).weight.detach()
        stored = torch.from_numpy(nf4(one) if bits == "4bit" else int8(one))
        assert 0 < float((stored - original).norm() / original.norm()) < {"8bit": 0.01, "4bit": 0.12}[bits]
        whole.family.model.get_submodule(name).weight.data = stored
    # A model with the numbers that are stored, multiplied by torch, answers the same.
    expected, expected_outside = whole.answer(clips, QUESTIONS, PROMPTS)
    p_yes, outside = small.answer(clips, QUESTIONS, PROMPTS)
    # Eight bits round their inputs too.
    tolerance = {"8bit": 0.1, "4bit": 1e-4}[bits]
    np.testing.assert_allclose(p_yes, expected, atol=tolerance)
    np.testing.assert_allclose(outside, expected_outside, atol=tolerance)
    assert np.abs(expected - whole_before).max() > 1e-4


# The 4-bit normal float of QLoRA (arXiv 2305.14314, appendix E).
NF4 = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334]
NF4 += [-0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224]
NF4 += [0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]


def nf4(layer: Any) -> np.ndarray:
    """What a 4-bit layer stores: two codes a byte, high one first, scaled in blocks of 64 over the flat matrix."""
    packed, shape = layer.weight.data.numpy().reshape(-1), layer.weight.quant_state.shape
    codes = np.stack([packed >> 4, packed & 15], axis=1).reshape(-1)[: shape.numel()]
    scales = np.repeat(layer.weight.quant_state.absmax.numpy(), 64)[: shape.numel()]
    return (np.array(NF4, np.float32)[codes] * scales).reshape(shape)


def int8(layer: Any) -> np.ndarray:
    """What an 8-bit layer stores: whole numbers, scaled by row."""
    return (layer.weight.data.float() * layer.weight.SCB[:, None] / 127).numpy()


@pytest.mark.parametrize("shape", [(33, 64), (64, 80), (8, 4304), (3, 5), (7, 9), (96, 3420)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_four_bits_of_every_shape_are_unpacked_rightly(shape: tuple[int, int], dtype: str) -> None:
    pytest.importorskip("bitsandbytes")
    import torch
    from bitsandbytes.nn import Linear4bit, Params4bit

    from vr_pipeline.vlm.quantisation import compute_exactly_on_cpu

    outputs, inputs = shape
    random = torch.Generator().manual_seed(0)
    kind = getattr(torch, dtype)
    layer = Linear4bit(inputs, outputs, compute_dtype=kind, quant_type="nf4", compress_statistics=False).eval()
    weight = torch.randn(shape, generator=random)
    layer.weight = Params4bit(weight, requires_grad=False, quant_type="nf4", compress_statistics=False, module=layer)
    layer.to("cpu")
    model = torch.nn.Sequential(layer)
    compute_exactly_on_cpu(model)
    values = torch.randn((2, 4, inputs), generator=random)
    expected = values.numpy() @ nf4(layer).T + layer.bias.detach().numpy()
    with torch.inference_mode():
        found = model(values).numpy()
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < {"float32": 1e-4, "bfloat16": 0.03}[dtype] * np.abs(expected).max()


def test_an_adapter_beside_four_bits(folder: Path, clips: list[np.ndarray], tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    import torch
    from peft import LoraConfig, get_peft_model

    settings = {"family": "qwen2_vl", "path": str(folder), "device": "cpu"}
    whole: Any = load_judge(settings)
    target = "language_model.layers.0.self_attn.q_proj"
    lora = LoraConfig(r=2, lora_alpha=8, target_modules=[target], init_lora_weights=False)
    adapted = get_peft_model(load_judge(settings).family.model, lora)  # type: ignore[attr-defined]
    adapted.save_pretrained(tmp_path)
    small: Any = load_judge(settings | {"quantisation": "4bit", "adapter": str(tmp_path)})
    for name, one in small.family.model.named_modules():
        if type(one).__name__ == "Linear4bit" and "lora" not in name:
            weight = whole.family.model.get_submodule(name.replace(".base_layer", "")).weight
            weight.data = torch.from_numpy(nf4(one))
    update = adapted.base_model.model.model.get_submodule(target)
    weight = whole.family.model.model.get_submodule(target).weight
    weight.data += 4 * update.lora_B.default.weight.detach() @ update.lora_A.default.weight.detach()
    p_yes, _ = small.answer(clips, QUESTIONS, PROMPTS)
    np.testing.assert_allclose(p_yes, whole.answer(clips, QUESTIONS, PROMPTS)[0], atol=1e-4)


def test_nobody_is_told_to_install_kernels() -> None:
    pytest.importorskip("bitsandbytes")
    command = "from vr_pipeline.runtime.environment import prepare_environment as p; p(); import bitsandbytes"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert "kernels" not in done.stdout + done.stderr


def test_a_model_that_cannot_be_fetched_is_told_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import Qwen2VLConfig

    def unreachable(error: OSError) -> Any:
        def load(*given: Any, **options: Any) -> Any:
            raise error

        return load

    hub = {"family": "qwen2_vl", "path": "owner/model", "revision": "0" * 40, "device": "cpu"}
    # What transformers raises; the disk's own errors are another matter.
    monkeypatch.setattr(Qwen2VLConfig, "get_config_dict", unreachable(OSError("We couldn't connect.")))
    with pytest.raises(InputError, match=r"the model 'owner/model' cannot be loaded: We couldn't connect\. Where the"):
        load_judge(hub)
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(Qwen2VLConfig, "get_config_dict", unreachable(full))
    with pytest.raises(OSError, match="No space"):
        load_judge(hub)


def test_a_model_of_another_kind_is_rejected_before_one_is_made(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import PreTrainedModel

    def made(*given: Any, **options: Any) -> Any:
        raise AssertionError("a model of billions of random weights")

    # Without the check, transformers makes one, of the default size of its class.
    monkeypatch.setattr(PreTrainedModel, "from_pretrained", made)
    for family in ("qwen2_5_vl", "llava_onevision", "smolvlm", "internvl"):
        with pytest.raises(InputError, match=f"holds a model of kind 'qwen2_vl'.*Family '{family}' reads"):
            load_judge({"family": family, "path": str(folder), "device": "cpu"})
    for file in folder.glob("*.json"):
        if file.name != "config.json":
            shutil.copy(file, tmp_path)
    shutil.copy(folder / "model.safetensors", tmp_path)
    with pytest.raises(InputError, match=r"lacks a config\.json"):
        load_judge({"family": "qwen2_vl", "path": str(tmp_path), "device": "cpu"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a"', r"judge\.json: it is not a JSON object"),
        ("[1]", r"judge\.json: it is not a JSON object"),
        ('{"before_klip": "x"}', r"judge\.json, field 'before_klip': there is no such setting"),
        ('{"num_frames": 0}', r"judge\.json, field 'num_frames': Input should be greater"),
    ],
)
def test_wrong_settings_beside_the_weights_are_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "judge.json").write_text(content, encoding="utf-8")
    parameters = JudgeParameters.model_validate({"family": "qwen2_vl", "path": str(tmp_path)})
    with pytest.raises(InputError, match=message):
        read_settings(family_class("qwen2_vl"), str(tmp_path), parameters)


def test_an_adapter_of_peft_is_merged(folder: Path, clips: list[np.ndarray], tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base: Any = load_judge({"family": "qwen2_vl", "path": str(folder), "device": "cpu"})
    expected, _ = base.answer(clips, QUESTIONS, PROMPTS)
    adapted = get_peft_model(base.family.model, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path)
    # The layers were wrapped in place: the judge in memory answers with the adapter.
    with_adapter, _ = base.answer(clips, QUESTIONS, PROMPTS)
    settings = {"family": "qwen2_vl", "path": str(folder), "device": "cpu", "adapter": str(tmp_path)}
    merged: Any = load_judge(settings)
    p_yes, _ = merged.answer(clips, QUESTIONS, PROMPTS)
    np.testing.assert_allclose(p_yes, with_adapter, atol=1e-5)
    assert np.abs(p_yes - expected).max() > 1e-3
    assert merged.identity != base.identity
    with pytest.raises(InputError, match="there is no adapter"):
        load_judge(settings | {"adapter": str(tmp_path / "none")})


@pytest.mark.parametrize("name", FAMILY_BUILDERS)
def test_a_judge_with_a_third_of_its_weights_missing_is_rejected(name: str, tokenizer: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    FAMILY_BUILDERS[name](tokenizer).save(tmp_path)
    settings = {"family": name, "path": str(tmp_path), "device": "cpu"}
    load_judge(settings)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    kept = {key: value for at, (key, value) in enumerate(sorted(tensors.items())) if at % 3}
    save_file(kept, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=f"{len(tensors) - len(kept)} weights, such as .* are missing"):
        load_judge(settings)


def test_an_adapter_that_does_not_fit_is_rejected(folder: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file, save_file

    base: Any = load_judge({"family": "qwen2_vl", "path": str(folder), "device": "cpu"})
    get_peft_model(base.family.model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(tmp_path)
    settings = {"family": "qwen2_vl", "path": str(folder), "device": "cpu", "adapter": str(tmp_path)}
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_file(file)
    first, *others = sorted(tensors)
    changed = {
        "is missing": {key: tensors[key] for key in others},
        "is unknown": tensors | {first.replace("layers.0", "layers.9"): tensors[first].clone()},
        "size mismatch": tensors | {first: tensors[first][:1].clone()},
    }
    for message, content in changed.items():
        save_file(content, file, metadata={"format": "pt"})
        with pytest.raises(InputError, match=message):
            load_judge(settings)


def test_settings_that_do_not_fit_are_rejected(folder: Path) -> None:
    with pytest.raises(ValidationError, match="quantised model cannot be trained"):
        JudgeTrainingParameters.model_validate(
            {"start": {"family": "qwen2_vl", "path": str(folder), "quantisation": "4bit"}}
        )
    with pytest.raises(ValidationError, match="set 'revision'"):
        JudgeParameters(family="qwen2_vl", path="Qwen/Qwen2-VL-2B-Instruct")
    with pytest.raises(ValidationError, match="revision"):
        JudgeParameters(family="qwen2_vl", path="Qwen/Qwen2-VL-2B-Instruct", revision="main")
    with pytest.raises(InputError, match="no judge family 'gpt'"):
        load_judge({"family": "gpt", "path": str(folder)})
