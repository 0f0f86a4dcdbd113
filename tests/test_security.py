"""What the project promises about files that others made."""

from __future__ import annotations

import ast
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

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

    settings = yaml.safe_load((ROOT / "conf/base/parameters/video_generation.yml").read_text())
    load_generator(
        GeneratorParameters.model_validate(settings["video_generation"]["generator"] | {"path": str(folder)})
    )


def load_judge(folder: Path) -> None:
    from vr_pipeline.judges import load_judge

    settings = yaml.safe_load((ROOT / "conf/base/parameters/checklist_inference.yml").read_text())
    load_judge(settings["checklist_inference"]["judge"] | {"path": str(folder)})


LOADERS = {"generator": load_generator, "judge": load_judge}


@pytest.mark.parametrize("what", LOADERS)
@pytest.mark.parametrize("as_a_pickle_file", [False, True])
def test_pickled_weights_are_refused_and_never_run(tmp_path: Path, what: str, as_a_pickle_file: bool) -> None:
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


def test_nothing_in_the_package_reads_pickles() -> None:
    """Only a training in several processes does: launcher and workers read what the other wrote, nothing else."""
    forbidden = {
        ("pickle", "load"),
        ("pickle", "loads"),
        ("torch", "load"),
        ("joblib", "load"),
        ("cloudpickle", "load"),
        ("cloudpickle", "loads"),
        ("pandas", "read_pickle"),
        ("pd", "read_pickle"),
    }
    found = []
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and (node.value.id, node.attr) in forbidden
            ):
                found.append(path.relative_to(ROOT / "src").as_posix())
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and getattr(node.value, "value", True):
                found.append(path.relative_to(ROOT / "src").as_posix())
    assert set(found) == {"vr_pipeline/runners/torchrun_backend.py"}


@pytest.mark.parametrize("name", ["../secret.mp4", "/etc/hostname", "sub/../../secret.mp4"])
def test_a_table_cannot_name_a_clip_outside_its_folder(tmp_path: Path, name: str) -> None:
    import pandas as pd

    from vr_pipeline.datasets.clips import ClipFolder
    from vr_pipeline.video.index import index_given_clips

    (tmp_path / "clips").mkdir()
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    clips = pd.DataFrame({"video_id": ["a"], "prompt": ["a ball"], "file": [name]})
    index = index_given_clips(clips, ClipFolder(tmp_path / "clips"), source="clips.csv")
    assert index["status"].tolist() == ["failed"]
