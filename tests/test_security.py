"""What the project promises about files that others made."""

from __future__ import annotations

import ast
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from kedro.io import DatasetError

from vr_pipeline.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "data" / "06_models" / "micro_world"


class Harmful:
    """Unpickled, it leaves a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.trace),)


def load_generator(folder: Path) -> None:
    from vr_pipeline.generators import load_generator
    from vr_pipeline.generators.config import GeneratorParameters

    settings = yaml.safe_load((ROOT / "conf/base/parameters/generator.yml").read_text())
    load_generator(GeneratorParameters.model_validate(settings["generator"] | {"path": str(folder)}))


def load_judge(folder: Path) -> None:
    from vr_pipeline.judges import load_judge

    settings = yaml.safe_load((ROOT / "conf/base/parameters/judge.yml").read_text())
    load_judge(settings["judge"] | {"path": str(folder)})


LOADERS = {"generator": load_generator, "judge": load_judge}


@pytest.mark.parametrize("what", LOADERS)
@pytest.mark.parametrize("as_a_pickle_file", [False, True])
def test_pickled_weights_are_rejected_and_never_run(tmp_path: Path, what: str, as_a_pickle_file: bool) -> None:
    folder, trace = tmp_path / what, tmp_path / "trace"
    shutil.copytree(SHIPPED / what, folder)
    for weights in folder.rglob("*.safetensors"):
        weights.write_bytes(pickle.dumps(Harmful(trace)))
        if as_a_pickle_file:
            weights.rename(weights.with_name({"model": "pytorch_model"}.get(weights.stem, weights.stem) + ".bin"))
    with pytest.raises(InputError) as caught:
        LOADERS[what](folder)
    assert not trace.exists()
    assert "safetensors" in str(caught.value)


def load_text_model(folder: Path) -> None:
    from vr_pipeline.prompts.config import LanguageModelParameters
    from vr_pipeline.prompts.language_model import load_text_model

    load_text_model(LanguageModelParameters(clean=True, model=str(folder)))


def load_embedder(folder: Path) -> None:
    pytest.importorskip("sentence_transformers")
    from vr_pipeline.prompts.embedders import SentenceTransformerEmbedder

    SentenceTransformerEmbedder(str(folder), "cpu", 1)


def load_policy(folder: Path) -> None:
    from vr_pipeline.datasets.policy import PolicyDataset

    PolicyDataset(path=str(folder)).load()


OTHER_LOADERS = {
    "text model": (load_text_model, "model", "pytorch_model"),
    "embedder": (load_embedder, "model", "pytorch_model"),
    "policy": (load_policy, "pytorch_lora_weights", "pytorch_lora_weights"),
}


@pytest.mark.parametrize("what", OTHER_LOADERS)
@pytest.mark.parametrize("as_a_pickle_file", [False, True])
def test_pickles_of_other_models_are_rejected_too(tmp_path: Path, what: str, as_a_pickle_file: bool) -> None:
    load, safe, pickled = OTHER_LOADERS[what]
    folder, trace = tmp_path / "model", tmp_path / "trace"
    folder.mkdir()
    configuration = {"model_type": "gpt2", "r": 1, "lora_alpha": 1, "target_modules": [], "base_model_identity": "x"}
    for name in ("config.json", "adapter_config.json", "modules.json"):
        (folder / name).write_text(json.dumps(configuration))
    (folder / (f"{pickled}.bin" if as_a_pickle_file else f"{safe}.safetensors")).write_bytes(
        pickle.dumps(Harmful(trace))
    )
    with pytest.raises((InputError, DatasetError), match="safetensors"):
        load(folder)
    assert not trace.exists()


def test_an_adapter_of_a_judge_has_to_be_the_file_that_is_read(tmp_path: Path) -> None:
    # Beside any safetensors a pickle is let through as never read; the library would read this one.
    trace, folder = tmp_path / "trace", tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Harmful(trace)))
    weights = next((SHIPPED / "judge").rglob("*.safetensors"))
    shutil.copy(weights, folder / "other.safetensors")
    settings = yaml.safe_load((ROOT / "conf/base/parameters/judge.yml").read_text())
    from vr_pipeline.judges import load_judge

    judge = settings["judge"] | {"path": str(SHIPPED / "judge"), "adapter": str(folder)}
    with pytest.raises(InputError, match=r"adapter_model\.safetensors"):
        load_judge(judge)
    assert not trace.exists()


@pytest.mark.parametrize("name", ["../other", "/etc", "..", "a/b", "a\\b", "", 3, "file:///etc"])
def test_files_of_a_policy_name_nothing_outside_of_it(tmp_path: Path, name: object) -> None:
    content = {"component": name, "base_model_identity": "x"}
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "policy.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="is not a valid name of a file or folder in it"):
        load_policy(tmp_path / "policy")


def test_nothing_in_the_package_reads_pickles() -> None:
    """Nor opens archives, nor asks a shell.

    Only trainings in processes of their own read pickles: launchers and workers read what the others wrote, no more.
    A public checkpoint is a pickle too; it is read in one place, as tensors alone.
    """
    forbidden = {
        ("pickle", "load"),
        ("pickle", "loads"),
        ("torch", "load"),
        ("joblib", "load"),
        ("cloudpickle", "load"),
        ("cloudpickle", "loads"),
        ("pandas", "read_pickle"),
        ("pd", "read_pickle"),
        ("dill", "load"),
        ("dill", "loads"),
        ("marshal", "loads"),
        ("shelve", "open"),
        ("yaml", "load"),
        ("yaml", "unsafe_load"),
        ("yaml", "full_load"),
        ("os", "system"),
        ("os", "popen"),
        ("shutil", "unpack_archive"),
        ("zipfile", "ZipFile"),
        ("tarfile", "open"),
    }
    found, tensors_alone = [], []
    for path in (ROOT / "src").rglob("*.py"):
        tree = ast.parse(path.read_text())
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        limited = {
            id(call.func)
            for call in calls
            if ast.unparse(call.func) == "torch.load"
            and any(word.arg == "weights_only" and getattr(word.value, "value", None) is True for word in call.keywords)
        }
        tensors_alone += [path.relative_to(ROOT / "src").as_posix()] * len(limited)
        # An archive that is written is nobody else's.
        written = {id(call.func) for call in calls if [getattr(one, "value", None) for one in call.args[1:2]] == ["w"]}
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Attribute)
                and id(node) not in written | limited
                and isinstance(node.value, ast.Name)
                and (node.value.id, node.attr) in forbidden
            ):
                found.append(path.relative_to(ROOT / "src").as_posix())
            if (
                isinstance(node, ast.keyword)
                and node.arg in {"allow_pickle", "shell"}
                and getattr(node.value, "value", True)
            ):
                found.append(path.relative_to(ROOT / "src").as_posix())
    assert set(found) == {f"vr_pipeline/runners/{name}_backend.py" for name in ("process", "torchrun")}
    assert tensors_alone == ["vr_pipeline/rewards/videoreward/public_weights.py"]


OUTSIDE = [
    *("../secret.mp4", "sub/../../secret.mp4", "..\\secret.mp4", "clips/../../secret.mp4", "./../secret.mp4"),
    *("{folder}/secret.mp4", "file://{folder}/secret.mp4", "file:../secret.mp4", "~/secret.mp4", "%2e%2e/secret.mp4"),
    *("\\\\server\\secret.mp4", "C:\\secret.mp4", "secret", "secret.mp4", "clips/../../{name}/secret.mp4"),
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_preferences_cannot_name_a_clip_outside_its_folder(tmp_path: Path, name: str, monkeypatch) -> None:
    from vr_pipeline.datasets.clips import ClipFolder
    from vr_pipeline.preferences.clip_names import ClipNames

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "clips").mkdir()
    for place in (tmp_path, tmp_path / "clips"):
        (place / {tmp_path: "secret.mp4"}.get(place, "a.mp4")).write_bytes(b"")
    names = ClipNames(tmp_path / "clips", ClipFolder(tmp_path / "clips"), near=tmp_path)
    # The same spellings of a clip that is there are understood, so that it is the place that is rejected.
    assert names.find("clips/../clips/a.mp4") == names.find(".\\clips\\a.mp4") == "a.mp4"
    assert names.find(name.format(folder=tmp_path, name=tmp_path.name)) is None


@pytest.mark.parametrize("name", [*OUTSIDE, "/etc/hostname"])
def test_a_table_cannot_name_a_clip_outside_its_folder(tmp_path: Path, name: str) -> None:
    import pandas as pd

    from vr_pipeline.datasets.clips import ClipFolder
    from vr_pipeline.items.video_index import index_given_clips

    (tmp_path / "clips").mkdir()
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    clips = pd.DataFrame(
        {"video_id": ["a"], "prompt": ["a ball"], "file": [name.format(folder=tmp_path, name=tmp_path.name)]}
    )
    index = index_given_clips(clips, ClipFolder(tmp_path / "clips"), source="clips.csv")
    assert index["status"].tolist() == ["failed"]
