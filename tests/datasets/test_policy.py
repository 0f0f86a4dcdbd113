"""Folders of policies: what is saved is what plain diffusers loads, and what is rejected."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from kedro.io import DatasetError

import tiny_models
from vr_pipeline.datasets.policy import CARD, CONFIG, FULL_CONFIG, WEIGHTS, PolicyDataset
from vr_pipeline.errors import InputError
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.contract import Generator
from vr_pipeline.generators.policy import Adapter, FullWeights
from vr_pipeline.micro_world.patch_vae import PatchVAE

FAMILIES = ("micro_world", "sdxl")
"""A transformer and a UNet; the conformance suite of generators loads adapters of all."""


@pytest.fixture(scope="module")
def generators(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Generator]:
    folder = tmp_path_factory.mktemp("models")
    return {
        name: load_generator(parameters)
        for name, parameters in {
            "micro_world": tiny_models.micro_world_parameters(tiny_models.save_micro_world(folder / "micro")),
            "sdxl": tiny_models.sdxl_parameters(tiny_models.save_sdxl(folder / "sdxl")),
        }.items()
    }


def random_adapter(generator: Generator, *, alpha: float = 7.0) -> Adapter:
    """An adapter that changes clips visibly and whose scale is not its rank."""
    random = torch.Generator().manual_seed(0)
    for value in generator.add_adapter(rank=2, alpha=alpha, targets=None, seed=0):
        value.data = 0.3 * torch.randn(value.shape, generator=random)
    adapter = replace(
        generator.policy(),
        provenance={"data": {"pairs": {"count": 12, "hash": "0"}}, "settings": {"loss": "diffusion_dpo"}},
    )
    generator.load_policy(None)
    return adapter


def random_weights(generator: Generator) -> FullWeights:
    """A denoiser that makes visibly other clips."""
    random = torch.Generator().manual_seed(0)
    for value in generator.train_all_weights(reference=False):
        value.data += 0.05 * torch.randn(value.shape, generator=random)
    policy = generator.policy()
    assert isinstance(policy, FullWeights)
    return replace(policy, provenance={"steps": 3})


@pytest.mark.parametrize("family", FAMILIES)
def test_plain_diffusers_loads_the_folder_and_makes_the_same_clip(
    family: str, generators: dict[str, Generator], tmp_path: Path
) -> None:
    from diffusers import DiffusionPipeline

    generator = generators[family]
    adapter = random_adapter(generator)
    original = generator.sample(tiny_models.PROMPTS[:1], [1])
    folder = tmp_path / "policy"
    PolicyDataset(path=str(folder)).save(adapter)
    loaded = PolicyDataset(path=str(folder)).load()
    assert loaded.identity == adapter.identity
    assert loaded == replace(adapter, tensors=loaded.tensors)
    generator.load_policy(loaded)
    ours = generator.sample(tiny_models.PROMPTS[:1], [1])
    assert not np.array_equal(ours, original)
    assert generator.policy().identity == adapter.identity

    settings = generator.parameters
    own = {"vae": PatchVAE.from_pretrained(f"{settings.path}/vae")} if family == "micro_world" else {}
    plain = DiffusionPipeline.from_pretrained(settings.path, **own)
    plain.load_lora_weights(folder)
    theirs = type(generator)(plain, settings, "plain").sample(tiny_models.PROMPTS[:1], [1])
    assert np.array_equal(ours, theirs)

    # Without the scale in the file's header the clip would be another.
    generator.load_policy(replace(adapter, config=adapter.config | {"lora_alpha": 2.0}))
    assert not np.array_equal(ours, generator.sample(tiny_models.PROMPTS[:1], [1]))
    generator.load_policy(None)
    assert np.array_equal(original, generator.sample(tiny_models.PROMPTS[:1], [1]))


@pytest.mark.parametrize("family", FAMILIES)
def test_plain_diffusers_loads_a_whole_denoiser_and_makes_the_same_clip(
    family: str, generators: dict[str, Generator], tmp_path: Path
) -> None:
    from diffusers import DiffusionPipeline

    generator = generators[family]
    original = generator.sample(tiny_models.PROMPTS[:1], [1])
    tuned = random_weights(generator)
    dataset = PolicyDataset(path=str(tmp_path / "policy"))
    dataset.save(tuned)
    assert dataset.exists()
    loaded = dataset.load()
    assert isinstance(loaded, FullWeights)
    assert loaded.identity == tuned.identity
    assert loaded.provenance == {"steps": 3}
    generator.load_policy(loaded)
    assert generator.policy().identity == tuned.identity
    ours = generator.sample(tiny_models.PROMPTS[:1], [1])
    assert not np.array_equal(ours, original)

    settings = generator.parameters
    own = {"vae": PatchVAE.from_pretrained(f"{settings.path}/vae")} if family == "micro_world" else {}
    denoiser = type(generator.denoiser).from_pretrained(tmp_path / "policy", subfolder=tuned.component)  # type: ignore[attr-defined]
    plain = DiffusionPipeline.from_pretrained(settings.path, **own)
    setattr(plain, tuned.component, denoiser)
    theirs = type(generator)(plain, settings, "plain").sample(tiny_models.PROMPTS[:1], [1])
    assert np.array_equal(ours, theirs)
    card = (tmp_path / "policy" / CARD).read_text()
    assert f'from_pretrained("THIS_FOLDER", subfolder="{tuned.component}")' in card
    # An adapter may follow, and the original.
    adapter = random_adapter(generator)
    generator.load_policy(loaded)
    generator.load_policy(adapter)
    assert generator.policy().identity == adapter.identity
    generator.load_policy(None)
    assert np.array_equal(original, generator.sample(tiny_models.PROMPTS[:1], [1]))


def test_a_whole_denoiser_is_kept_in_several_files_and_rejected_if_one_is_missing(
    generators: dict[str, Generator], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    tuned = random_weights(generators["micro_world"])
    generators["micro_world"].load_policy(None)
    dataset = PolicyDataset(path=str(tmp_path / "policy"))
    save = huggingface_hub.save_torch_state_dict
    monkeypatch.setattr(
        huggingface_hub, "save_torch_state_dict", lambda *given, **named: save(*given, max_shard_size="100KB", **named)
    )
    dataset.save(tuned)
    files = sorted((tmp_path / "policy" / "transformer").glob("*.safetensors"))
    assert len(files) > 1
    assert dataset.load().identity == tuned.identity
    # What an adapter leaves behind does not stay in the folder, nor the other way round.
    adapter = random_adapter(generators["micro_world"])
    dataset.save(adapter)
    assert not (tmp_path / "policy" / FULL_CONFIG).exists()
    dataset.save(tuned)
    assert not (tmp_path / "policy" / CONFIG).exists()
    files[0].unlink()
    with pytest.raises(DatasetError, match="not a safetensors file"):
        dataset.load()


def test_the_bytes_are_the_same_every_time_and_the_folder_is_replaced_as_a_whole(
    generators: dict[str, Generator], tmp_path: Path
) -> None:
    adapter = random_adapter(generators["micro_world"])
    dataset = PolicyDataset(path=str(tmp_path / "policy"))
    assert not dataset.exists()
    dataset.save(adapter)
    first = {path.name: path.read_bytes() for path in (tmp_path / "policy").iterdir()}
    (tmp_path / "policy" / "stale").write_text("from an earlier run")
    dataset.save(adapter)
    assert {path.name: path.read_bytes() for path in (tmp_path / "policy").iterdir()} == first
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]
    assert dataset.exists()
    card = first[CARD].decode()
    assert adapter.identity in card
    assert adapter.base in card
    assert "| pairs | 12 |" in card


def test_an_adapter_of_another_model_is_rejected(generators: dict[str, Generator]) -> None:
    adapter = random_adapter(generators["micro_world"])
    with pytest.raises(InputError, match="trained on another model"):
        generators["micro_world"].load_policy(replace(adapter, base="something else"))


def test_a_pickle_under_the_name_of_safetensors_is_rejected_and_not_run(
    generators: dict[str, Generator], tmp_path: Path
) -> None:
    dataset = PolicyDataset(path=str(tmp_path / "policy"))
    dataset.save(random_adapter(generators["micro_world"]))
    trace = tmp_path / "trace"

    class Harmful:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (trace,))

    weights = tmp_path / "policy" / WEIGHTS
    weights.write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(DatasetError, match="not a safetensors file"):
        dataset.load()
    torch.save({"weight": torch.zeros(2)}, weights)
    with pytest.raises(DatasetError, match="not a safetensors file"):
        dataset.load()
    assert not trace.exists()


def test_an_incomplete_folder_and_a_foreign_configuration_are_named(
    generators: dict[str, Generator], tmp_path: Path
) -> None:
    dataset = PolicyDataset(path=str(tmp_path / "policy"))
    with pytest.raises(DatasetError, match="not complete"):
        dataset.load()
    dataset.save(random_adapter(generators["micro_world"]))
    config = tmp_path / "policy" / CONFIG
    content = json.loads(config.read_text())
    assert content["lora_alpha"] == 7.0
    assert content["r"] == 2
    del content["base_model_identity"]
    config.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="base_model_identity"):
        dataset.load()
    config.write_text("{")
    with pytest.raises(DatasetError, match=CONFIG):
        dataset.load()
    config.unlink()
    with pytest.raises(DatasetError, match="not complete"):
        dataset.load()


def test_the_identity_depends_on_weights_scale_and_base() -> None:
    adapter = Adapter(
        tensors={"transformer.a": torch.ones(2)}, config={"r": 1, "lora_alpha": 1.0, "target_modules": ["a"]}, base="b"
    )
    others = [
        replace(adapter, tensors={"transformer.a": torch.zeros(2)}),
        replace(adapter, tensors={"transformer.b": torch.ones(2)}),
        replace(adapter, config=adapter.config | {"lora_alpha": 2.0}),
        replace(adapter, base="c"),
    ]
    assert len({adapter.identity, *(other.identity for other in others)}) == 5
    assert replace(adapter, provenance={"when": "later"}).identity == adapter.identity


@pytest.mark.parametrize("kind", [random_adapter, random_weights])
def test_a_flipped_bit_anywhere_in_a_policy_is_noticed(
    kind: Callable[[Generator], Adapter | FullWeights], generators: dict[str, Generator], tmp_path: Path
) -> None:
    dataset = PolicyDataset(path=str(tmp_path / "policy"))
    dataset.save(kind(load_generator(generators["micro_world"].parameters)))
    files = [path for path in (tmp_path / "policy").rglob("*") if path.is_file() and path.name != CARD]
    for path in files:
        whole = path.read_bytes()
        for place in (*range(0, len(whole), max(1, len(whole) // 40)), len(whole) - 1):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << place % 8
            path.write_bytes(damaged)
            # White space between the words of JSON says nothing.
            if path.suffix != ".json" or not same_json(whole, damaged):
                with pytest.raises((DatasetError, InputError), match=r"policy.*dpo_training"):
                    dataset.load()
        path.write_bytes(whole)
    dataset.load()


def same_json(one: bytes, other: bytes) -> bool:
    try:
        return json.loads(one) == json.loads(other)
    except ValueError:
        return False


def rewrite(file: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    """Change the tensors of a file and keep its header."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(file, "pt") as opened:
        header = opened.metadata()
    save_file(change(load_file(file)), file, metadata=header)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("kind", ["adapter", "full"])
def test_weights_of_any_precision_have_an_identity_and_make_clips(
    kind: str, dtype: torch.dtype, generators: dict[str, Generator], tmp_path: Path
) -> None:
    generator = generators["micro_world"]
    policy = random_adapter(generator) if kind == "adapter" else random_weights(generator)
    dataset = PolicyDataset(path=str(tmp_path / "policy"))
    dataset.save(policy)
    (file,) = (tmp_path / "policy").rglob("*.safetensors")
    rewrite(file, lambda tensors: {name: value.to(dtype) for name, value in tensors.items()})
    loaded = dataset.load()
    # As if the numbers had been rounded before they were saved.
    for name, value in policy.tensors.items():
        assert torch.equal(loaded.tensors[name].float(), value.to(dtype).float())
    assert (loaded.identity == policy.identity) == (dtype == torch.float64 and kind == "adapter")
    generator.load_policy(loaded)
    assert generator.sample(tiny_models.PROMPTS[:1], [1]).shape == (1, 8, 16, 16, 3)
    generator.load_policy(None)


def test_weights_of_eight_bits_and_weights_that_are_no_numbers_are_rejected(
    generators: dict[str, Generator], tmp_path: Path
) -> None:
    dataset = PolicyDataset(path=str(tmp_path / "policy"))
    adapter = random_adapter(generators["micro_world"])
    file = tmp_path / "policy" / WEIGHTS
    for dtype in (torch.float8_e4m3fn, torch.float8_e5m2, torch.int8):
        dataset.save(adapter)
        rewrite(file, lambda tensors, dtype=dtype: {name: value.to(dtype) for name, value in tensors.items()})
        with pytest.raises(DatasetError, match="without their scales"):
            dataset.load()
    name = min(adapter.tensors)
    lost = adapter.tensors[name].clone().index_fill(0, torch.tensor([0]), float("nan"))
    dataset.save(adapter)
    with pytest.raises(DatasetError, match=rf"'{name}' are no finite numbers"):
        dataset.save(replace(adapter, tensors=adapter.tensors | {name: lost}))
    assert dataset.load().identity == adapter.identity
    rewrite(file, lambda tensors: tensors | {name: lost})
    with pytest.raises(DatasetError, match=rf"'{name}' are no finite numbers"):
        dataset.load()
    rewrite(file, lambda tensors: {})
    with pytest.raises(DatasetError, match="no tensors"):
        dataset.load()


@pytest.mark.parametrize("damage", ["shape", "type", "cut"])
def test_a_damaged_header_is_one_sentence(damage: str, generators: dict[str, Generator], tmp_path: Path) -> None:
    dataset = PolicyDataset(path=str(tmp_path / "policy"))
    dataset.save(random_adapter(generators["micro_world"]))
    file = tmp_path / "policy" / WEIGHTS
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    entry = next(value for name, value in header.items() if name != "__metadata__")
    entry |= {"shape": {"shape": [10**18, 10**18]}, "type": {"dtype": "F9"}, "cut": {}}[damage]
    changed = json.dumps(header).encode()
    file.write_bytes(
        len(changed).to_bytes(8, "little") + changed + content[8 + length :][: -7 if damage == "cut" else None]
    )
    with pytest.raises(DatasetError, match="not a safetensors file, or not a whole one") as raised:
        dataset.load()
    assert str(raised.value.__cause__).count("\n") == 0


Change = Callable[[Adapter], Adapter]
CHANGES: dict[str, tuple[Change, str]] = {
    "missing": (lambda a: replace(a, tensors=dict(sorted(a.tensors.items())[1:])), "missing|lack"),
    "unknown": (
        lambda a: replace(a, tensors=a.tensors | {f"{a.component}.nowhere.lora_A.weight": torch.zeros(2, 4)}),
        "nowhere",
    ),
    "one layer less": (
        lambda a: replace(a, tensors={name: value for name, value in a.tensors.items() if "to_q" not in name}),
        "lack the layer",
    ),
    "rank": (lambda a: replace(a, config=a.config | {"r": 4}), "size mismatch|shape"),
    "width": (
        lambda a: replace(a, tensors={name: value[..., :-1].contiguous() for name, value in a.tensors.items()}),
        "size mismatch|shape",
    ),
    "targets": (lambda a: replace(a, config=a.config | {"target_modules": ["imaginary"]}), "its targets"),
    "part": (
        lambda a: replace(a, tensors={f"unet.{name.partition('.')[2]}": value for name, value in a.tensors.items()}),
        "changes the part 'unet'",
    ),
    "two parts": (
        lambda a: replace(a, tensors=a.tensors | {"unet.x.lora_A.weight": torch.zeros(2, 4)}),
        "different parts",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_adapter_that_does_not_fit_in_every_weight_is_rejected_and_leaves_the_original(
    change: str, generators: dict[str, Generator]
) -> None:
    generator = generators["micro_world"]
    adapter = random_adapter(generator)
    generator.load_policy(None)
    original = generator.sample(tiny_models.PROMPTS[:1], [1])
    make, message = CHANGES[change]
    with pytest.raises(InputError, match=f"does not fit this model.*({message})"):
        generator.load_policy(make(adapter))
    assert np.array_equal(original, generator.sample(tiny_models.PROMPTS[:1], [1]))
    generator.load_policy(adapter)
    assert generator.policy().identity == adapter.identity
    generator.load_policy(None)


def test_whole_weights_that_do_not_fit_are_rejected(generators: dict[str, Generator]) -> None:
    generator = generators["micro_world"]
    tuned = random_weights(generator)
    generator.load_policy(None)
    names = sorted(tuned.tensors)
    for tensors, message in (
        ({name: tuned.tensors[name] for name in names[1:]}, f"missing, such as '{names[0]}'"),
        (tuned.tensors | {"more": torch.zeros(2)}, "unknown, such as 'more'"),
        (tuned.tensors | {names[0]: torch.zeros(2, 9)}, r"of shape \[2, 9\]"),
    ):
        with pytest.raises(InputError, match=message):
            generator.load_policy(replace(tuned, tensors=tensors))
