"""Parts of a model whose weights are not whole are rejected before anything is computed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vr_pipeline.errors import InputError
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.config import GeneratorParameters

Tensors = dict[str, torch.Tensor]
PARTS = [
    *(
        (model, part)
        for model in ("cogvideox_2b", "micro_world", "wan")
        for part in ("vae", "transformer", "text_encoder")
    ),
    *(("sdxl", part) for part in ("vae", "unet", "text_encoder", "text_encoder_2")),
]


def with_weights(
    parameters: GeneratorParameters, folder: Path, part: str, change: Callable[[Tensors], Tensors]
) -> GeneratorParameters:
    """The same model with other weights in a part."""
    shutil.copytree(parameters.path, folder)
    (file,) = (folder / part).glob("*.safetensors")
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    return parameters.model_copy(update={"path": str(folder)})


def in_two_files(folder: Path) -> tuple[Path, list[Path]]:
    """Spread the weights of a part over two files with an index; returns the index and the files."""
    (file,) = folder.glob("*.safetensors")
    tensors = load_file(file)
    file.unlink()
    halves = [folder / f"{file.stem}-0000{number}-of-00002.safetensors" for number in (1, 2)]
    place = {name: halves[row % 2].name for row, name in enumerate(sorted(tensors))}
    for half in halves:
        save_file({name: tensors[name] for name in place if place[name] == half.name}, half, metadata={"format": "pt"})
    index = folder / f"{file.name}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": place}), encoding="utf-8")
    return index, halves


@pytest.mark.parametrize(("model", "part"), PARTS)
def test_a_missing_weight_of_any_part_is_named(
    model: str, part: str, settings: dict[str, GeneratorParameters], tmp_path: Path
) -> None:
    (file,) = (Path(settings[model].path) / part).glob("*.safetensors")
    lost = sorted(load_file(file))[-1]
    other = with_weights(
        settings[model], tmp_path / "m", part, lambda tensors: {k: v for k, v in tensors.items() if k != lost}
    )
    with pytest.raises(InputError, match=rf"{part}' do not make a whole model: .*missing"):
        load_generator(other)


CHANGES: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "unknown": (lambda tensors: tensors | {"more": torch.zeros(2)}, "'more' is unknown"),
    "another shape": (lambda tensors: tensors | {min(tensors): torch.zeros(3, 1)}, "do not make a whole model.*shape"),
    "eight bits": (
        lambda tensors: {name: value.to(torch.float8_e4m3fn) for name, value in tensors.items()},
        "stored as F8_E4M3",
    ),
    "nothing": (lambda tensors: {}, "are missing"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("part", ["vae", "transformer", "text_encoder"])
def test_weights_that_do_not_belong_are_rejected(
    part: str, change: str, settings: dict[str, GeneratorParameters], tmp_path: Path
) -> None:
    make, message = CHANGES[change]
    with pytest.raises(InputError, match=message):
        load_generator(with_weights(settings["cogvideox_2b"], tmp_path / "m", part, make))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_of_another_precision_are_converted(
    dtype: torch.dtype, settings: dict[str, GeneratorParameters], tmp_path: Path
) -> None:
    other = with_weights(
        settings["wan"],
        tmp_path / "m",
        "transformer",
        lambda tensors: {name: value.to(dtype) for name, value in tensors.items()},
    )
    expected = load_generator(settings["wan"], ("denoiser",)).denoiser.state_dict()
    for name, value in load_generator(other, ("denoiser",)).denoiser.state_dict().items():
        assert torch.equal(value, expected[name].to(dtype).float())


@pytest.mark.parametrize("part", ["transformer", "text_encoder"])
def test_weights_in_several_files_are_whole_or_rejected(
    part: str, settings: dict[str, GeneratorParameters], tmp_path: Path
) -> None:
    folder = tmp_path / "m"
    shutil.copytree(settings["cogvideox_2b"].path, folder)
    index, halves = in_two_files(folder / part)
    parameters = settings["cogvideox_2b"].model_copy(update={"path": str(folder)})
    whole = {path: path.read_bytes() for path in (index, *halves)}
    load_generator(parameters)
    tensors = load_file(halves[0])
    lost = min(tensors)
    save_file({name: value for name, value in tensors.items() if name != lost}, halves[0], metadata={"format": "pt"})
    with pytest.raises(InputError, match=f"1 of its .* weights are not in the files it names, such as '{lost}'"):
        load_generator(parameters)
    halves[0].unlink()
    with pytest.raises(InputError, match="weights are not in the files it names"):
        load_generator(parameters)
    halves[0].write_bytes(whole[halves[0]])
    for text in ("{", "[]", '{"weight_map": 3}'):
        index.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match="no index of weights"):
            load_generator(parameters)


def test_a_part_without_weights_is_named(settings: dict[str, GeneratorParameters], tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(settings["wan"].path, folder)
    for file in (folder / "vae").glob("*.safetensors"):
        file.unlink()
    with pytest.raises(InputError, match=r"vae.*no model weights"):
        load_generator(settings["wan"].model_copy(update={"path": str(folder)}))
