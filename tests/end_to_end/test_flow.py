"""mpo_dpo on the micro-world's rectified flow: ``kedro run --env=flow``, in the smallest form."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from tests.end_to_end.conftest import ROOT, SMALLEST, data_files, kedro, run_once

from vr_pipeline.generators import load_generator
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.video.read import read_frames

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with few clips and steps."""
    arguments = ("run", "--env=flow", "--pipeline=mpo_dpo", f"--params={SMALLEST}")
    return run_once(tmp_path_factory, "flow", lambda folder: kedro(folder, *arguments))[0]


@pytest.fixture(scope="module")
def parameters() -> GeneratorParameters:
    """The generator of the run."""
    files = (ROOT / "conf/base/parameters/generator.yml", ROOT / "conf/flow/parameters.yml")
    settings = OmegaConf.merge(*map(OmegaConf.load, files))["generator"]
    settings.update(path=str(ROOT / settings["path"]), batch_size=32, num_inference_steps=4)
    return GeneratorParameters.model_validate(OmegaConf.to_container(settings))


def test_policies_are_compared_as_in_the_embedded_default(run: Path) -> None:
    metrics = json.loads((run / "data/flow/08_reporting/evaluation_metrics.json").read_text())
    assert set(metrics["policies"]) == {"original", "dpo", "mpo"}
    for name in ("dpo", "mpo"):
        assert set(metrics["gain"][name]) == {"judge", "oracle", "auditor"}
        assert metrics["pairs"][name]["n"] > 0
    assert (run / "data/flow/08_reporting/evaluation_report.html").is_file()


def test_results_lie_in_the_data_folder_of_the_environment(run: Path) -> None:
    outside = {name for name in data_files(run) if not name.startswith("data/flow/")}
    assert outside
    assert all((ROOT / name).is_file() for name in outside)
    assert all(name.startswith(("data/01_raw/", "data/06_models/micro_world/")) for name in outside)


def test_clips_are_those_of_the_flow_generator_from_their_seeds(run: Path, parameters: GeneratorParameters) -> None:
    index = pd.read_parquet(run / "data/flow/03_primary/video_index.parquet").sort_values("video_id").head(2)
    generator = load_generator(parameters)
    assert set(index["generator"]) == {generator.identity}
    made = generator.sample(index["prompt"].tolist(), index["seed"].tolist())
    for path, clip in zip(index["path"], made, strict=True):
        # Stored clips are enlarged without loss; another processor may round a value the other way.
        stored = read_frames(run / "data/flow/03_primary/videos" / path)[:, ::4, ::4]
        assert np.abs(stored.astype(int) - clip).max() <= 1


@pytest.mark.parametrize("recipe", ["dpo", "mpo"])
def test_policies_are_trained_by_flow_dpo_and_fit_the_generator(
    recipe: str, run: Path, parameters: GeneratorParameters
) -> None:
    from vr_pipeline.datasets.policy import PolicyDataset

    policy = PolicyDataset(path=str(run / f"data/flow/06_models/policy_{recipe}")).load()
    objective = policy.provenance["objective"]
    assert objective["loss"] == "flow_dpo"  # type: ignore[index]
    assert objective["prediction"] == "flow"  # type: ignore[index]
    generator = load_generator(parameters)
    before = generator.sample(["red ball moves right on black"], [1])
    generator.load_policy(policy)
    assert not np.array_equal(before, generator.sample(["red ball moves right on black"], [1]))
