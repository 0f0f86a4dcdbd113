"""A trained policy in a folder that plain diffusers loads: safetensors, a configuration and a model card.

The configuration (``adapter_config.json`` of an adapter, ``policy.json`` of a whole denoiser) has under
``provenance.training`` the training of the policy with its inputs (:mod:`vr_pipeline.training.inputs`), and the SHA-256
of the other files and of itself; loading verifies them.
"""

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vr_pipeline.datasets.places import FolderDataset
from vr_pipeline.errors import InputError
from vr_pipeline.generators.comfyui import comfyui_tensors
from vr_pipeline.generators.policy import Adapter, FullWeights, Policy
from vr_pipeline.identifiers import content_hash
from vr_pipeline.storage.atomic import replaced_folder, sha256_of
from vr_pipeline.storage.tensors import check_numbers, read_tensors
from vr_pipeline.training.model_card import model_card

WEIGHTS = "pytorch_lora_weights.safetensors"
COMFYUI = "comfyui"
CONFIG = "adapter_config.json"
FULL_CONFIG = "policy.json"
CARD = "README.md"
_FILES, _SEAL, _PRECISION = "sha256", "sha256_of_this_file", "saved_in"
_FULL_WEIGHTS = "diffusion_pytorch_model{suffix}.safetensors"
_REMEDY = "run the pipeline dpo_training, or copy the whole folder; only safetensors of 16 bits or more are read"

logger = logging.getLogger(__name__)


class PolicyDataset(FolderDataset[Policy, Policy]):
    """Saves and loads adapters and fully trained denoisers.

    An adapter is kept as ``pipeline.load_lora_weights`` reads it, and in ``comfyui`` under the names that ComfyUI reads
    where they are known (:mod:`vr_pipeline.generators.comfyui`), a denoiser in a folder of its own (``transformer``
    or ``unet``) as its class's ``from_pretrained`` reads it. The folder is replaced as a whole: it is written beside
    its place and renamed before the old one is deleted, so that a kill loses neither.
    """

    def save(self, data: Policy) -> None:
        for name, value in data.tensors.items():
            check_numbers(name, value, self._path, remedy="train again with a lower learning rate or in float32")
        with replaced_folder(self._path) as folder:
            if isinstance(data, Adapter):
                _save_adapter(data, folder)
            else:
                _save_full_weights(data, folder)
            (folder / CARD).write_text(model_card(data), encoding="utf-8")

    def load(self) -> Policy:
        return _load_full_weights(self._path) if (self._path / FULL_CONFIG).is_file() else _load_adapter(self._path)

    def _exists(self) -> bool:
        return (self._path / FULL_CONFIG).is_file() or _is_adapter(self._path)


def _write_json(content: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _save_adapter(adapter: Adapter, folder: Path) -> None:
    from safetensors.torch import save_file

    # The header diffusers itself writes; without it, a scale other than the rank would be lost on loading.
    named = {f"{part}.{key}": value for part in adapter.components for key, value in adapter.config.items()}
    header = json.dumps(named, sort_keys=True)
    tensors = {name: value.contiguous() for name, value in adapter.tensors.items()}
    # One key only: several are written in an order that changes from run to run.
    save_file(tensors, folder / WEIGHTS, metadata={"lora_adapter_metadata": header})
    base = adapter.provenance.get("base")
    for part, renamed in comfyui_tensors(adapter, str(base.get("family")) if isinstance(base, dict) else "").items():
        (folder / COMFYUI).mkdir(exist_ok=True)
        save_file(
            {name: value.contiguous() for name, value in renamed.items()}, folder / COMFYUI / f"{part}.safetensors"
        )
    content = {"peft_type": "LORA", "base_model_identity": adapter.base, **adapter.config}
    content |= {"provenance": adapter.provenance, _PRECISION: _precision(tensors)}
    _write_sealed(content, folder / CONFIG)


def _save_full_weights(weights: FullWeights, folder: Path) -> None:
    from huggingface_hub import save_torch_state_dict

    place = folder / weights.component
    place.mkdir()
    save_torch_state_dict(dict(weights.tensors), place, filename_pattern=_FULL_WEIGHTS)
    _write_json(weights.config, place / "config.json")
    content = {"component": weights.component, "base_model_identity": weights.base, "provenance": weights.provenance}
    _write_sealed(content | {_PRECISION: _precision(weights.tensors)}, folder / FULL_CONFIG)


def _write_sealed(content: dict[str, Any], path: Path) -> None:
    """Write a configuration with the hashes of all files beside it, and of itself."""
    files = sorted(file for file in path.parent.rglob("*") if file.is_file())
    content = content | {_FILES: {file.relative_to(path.parent).as_posix(): sha256_of(file) for file in files}}
    _write_json(content | {_SEAL: _hash_of(content)}, path)


def _hash_of(content: dict[str, Any]) -> str:
    text = json.dumps({name: value for name, value in content.items() if name != _SEAL}, sort_keys=True)
    return content_hash("policy", text, length=64)


def _precision(tensors: Mapping[str, Any]) -> list[str]:
    return sorted({str(value.dtype) for value in tensors.values()})


def _verify(content: dict[str, Any], path: Path, tensors: Mapping[str, Any]) -> None:
    """Compare a policy with the hashes in its configuration.

    Raises:
        InputError: a file is missing or damaged.
    """
    damaged = [path] if content.get(_SEAL) != _hash_of(content) else []
    # Damage does not change the precision of all weights, but a conversion does.
    converted = content.get(_PRECISION, _precision(tensors)) != _precision(tensors)
    if converted:
        logger.warning(
            "%s: its weights were saved again in %s; their hash cannot be checked", path, _precision(tensors)
        )
    for name, digest in content.get(_FILES, {}).items() if not damaged else ():
        if converted and ".safetensors" in str(name):
            continue
        file = path.parent
        for part in str(name).split("/"):
            file = _within(file, part)
        if not file.is_file() or sha256_of(file) != digest:
            damaged.append(file)
    if damaged:
        raise InputError(
            "the policy is damaged: the file is missing or its content is not what was recorded when it was saved",
            file=damaged[0],
            remedy=_REMEDY,
        )


def _is_adapter(folder: Path) -> bool:
    return (folder / WEIGHTS).is_file() and (folder / CONFIG).is_file()


def _load_adapter(folder: Path) -> Adapter:
    if not _is_adapter(folder):
        raise InputError(
            f"the policy is not complete: {WEIGHTS} and {CONFIG}, or {FULL_CONFIG} and its weights, are needed",
            file=folder,
            remedy=_REMEDY,
        )
    names = ("r", "lora_alpha", "target_modules")
    content = _read_json(folder / CONFIG, (*names, "base_model_identity"))
    tensors = read_tensors(folder / WEIGHTS, remedy=_REMEDY)
    _verify(content, folder / CONFIG, tensors)
    return Adapter(
        # An adapter is used, hashed and saved again in float32, whatever its precision in the file.
        tensors={name: value.float() for name, value in tensors.items()},
        config={name: content[name] for name in names},
        base=content["base_model_identity"],
        provenance=content.get("provenance", {}),
    )


def _load_full_weights(folder: Path) -> FullWeights:
    content = _read_json(folder / FULL_CONFIG, ("component", "base_model_identity"))
    place = _within(folder, content["component"])
    config = _read_json(place / "config.json", ("_class_name",))
    index = place / _FULL_WEIGHTS.format(suffix="").replace(".safetensors", ".safetensors.index.json")
    if index.is_file():
        files = sorted({_within(place, name) for name in _read_json(index, ("weight_map",))["weight_map"].values()})
    else:
        files = [place / _FULL_WEIGHTS.format(suffix="")]
    tensors: dict[str, Any] = {}
    for file in files:
        tensors |= read_tensors(file, remedy=_REMEDY)
    _verify(content, folder / FULL_CONFIG, tensors)
    return FullWeights(
        tensors=tensors,
        config=config,
        component=content["component"],
        base=content["base_model_identity"],
        provenance=content.get("provenance", {}),
    )


def _read_json(path: Path, needed: tuple[str, ...]) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for name in needed:
            _ = content[name]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"not the configuration of a policy that this project made ({error!r})", file=path, remedy=_REMEDY
        ) from error
    return content


def _within(folder: Path, name: object) -> Path:
    """Return the path of a name in a folder of the policy, which cannot lie outside it."""
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*", name):
        raise InputError(f"{name!r} is not a valid name of a file or folder in it", file=folder, remedy=_REMEDY)
    return folder / name
