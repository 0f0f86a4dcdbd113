"""Judges in fewer bits, and what is refused."""

from __future__ import annotations

import errno
import importlib.util
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tiny_judges import FAMILY_BUILDERS, PROMPTS, QUESTIONS, qwen2_vl
from vr_pipeline.errors import InputError
from vr_pipeline.judges import load_judge
from vr_pipeline.judges.config import JudgeParameters, JudgeTrainingParameters
from vr_pipeline.judges.families import family_class
from vr_pipeline.judges.loading import read_settings


@pytest.fixture(scope="module")
def folder(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("judge")
    qwen2_vl(tokenizer).save(made)
    return made


def test_without_bitsandbytes_fewer_bits_are_refused_plainly(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "bitsandbytes" else found(name)
    )
    for bits in ("8bit", "4bit"):
        with pytest.raises(InputError, match=f"loading in {bits} needs the package bitsandbytes.*gpu"):
            load_judge({"family": "qwen2_vl", "path": str(folder), "device": "cpu", "quantisation": bits})


@pytest.mark.parametrize(("bits", "layer", "error"), [("8bit", "Linear8bitLt", 0.01), ("4bit", "Linear4bit", 0.12)])
def test_fewer_bits(folder: Path, clips: list[np.ndarray], bits: str, layer: str, error: float) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    whole: Any = load_judge({"family": "qwen2_vl", "path": str(folder), "device": "cpu"})
    small: Any = load_judge({"family": "qwen2_vl", "path": str(folder), "device": "cpu", "quantisation": bits})
    assert small.identity != whole.identity
    model = small.family.model
    projection = model.model.language_model.layers[0].self_attn.q_proj
    original = whole.family.model.model.language_model.layers[0].self_attn.q_proj.weight.detach()
    assert type(projection).__name__ == layer
    # The head, where the answers are read, stays as it is.
    assert type(model.lm_head).__name__ == "Linear"
    if bits == "4bit":
        stored = bitsandbytes.functional.dequantize_4bit(projection.weight.data, projection.weight.quant_state)
    else:
        stored = projection.weight.data.float() * projection.weight.SCB[:, None] / 127
    assert 0 < float((stored - original).norm() / original.norm()) < error
    expected, _ = whole.answer(clips, QUESTIONS, PROMPTS)
    p_yes, outside = small.answer(clips, QUESTIONS, PROMPTS)
    assert np.corrcoef(p_yes.ravel(), expected.ravel())[0, 1] > (0.98 if bits == "8bit" else 0.2)
    assert ((outside >= 0) & (outside <= 1)).all()


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


def test_a_model_of_another_kind_is_refused_before_one_is_made(
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


def test_settings_that_do_not_fit_are_refused(folder: Path) -> None:
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
