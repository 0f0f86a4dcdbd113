"""The pipelines from own clips and from compared clips to a latent reward, with the catalog of the project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from kedro.io import DataCatalog
from kedro.runner import SequentialRunner

import tiny_latent_reward
from tiny_latent_reward import Given, parameters
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.latent_reward import LatentReward
from vr_pipeline.pipelines.latent_reward_training.pipeline import create_pipeline
from vr_pipeline.storage.atomic import damaged_file
from vr_pipeline.training.latent_reward.config import LatentRewardTrainingParameters
from vr_pipeline.training.latent_reward.plots import latent_reward_figure
from vr_pipeline.video.write import write_video

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    return tiny_latent_reward.make(tmp_path_factory.mktemp("model") / "micro")


def catalog_in(folder: Path, given: Given, **entries: Any) -> DataCatalog:
    """The pipeline's catalog as the project has it, in a folder."""
    text = (ROOT / "conf/base/catalog/latent_reward_training.yml").read_text(encoding="utf-8")
    found = yaml.safe_load(text.replace("${globals:data}", "data"))
    for entry in found.values():
        for key in {"filepath", "path"} & set(entry):
            entry[key] = str(folder / entry[key])
    catalog = DataCatalog.from_config(found | entries)
    catalog["params:generator"] = given.settings
    catalog["params:latent_reward_training"] = parameters(steps=2, own_pairs={"pairs_per_prompt": 8})
    return catalog


def check_results(folder: Path, catalog: DataCatalog, given: Given, dimensions: list[str]) -> None:
    reward = LatentReward.load(Path(catalog.load("latent_reward")), load_generator(given.settings, ("denoiser",)))
    assert list(reward.dimensions) == dimensions
    assert damaged_file(folder / "data/06_models/latent_reward") is None
    report = catalog.load("latent_reward_report")
    assert report["dimension"].unique().tolist() == [*dimensions, "all"]
    metrics = catalog.load("latent_reward_metrics")
    assert set(metrics["by_dimension"]) == set(dimensions)
    assert catalog.load("latent_reward_log")["step"].tolist() == [1, 2]
    assert (folder / "data/08_reporting/latent_reward.png").stat().st_size > 10_000


def test_own_clips_to_a_reward(given: Given, tmp_path: Path) -> None:
    catalog = catalog_in(tmp_path, given)
    catalog["rewards"], catalog["video_index"], catalog["videos"] = given.rewards, given.index, Clips(given.frames)
    SequentialRunner().run(create_pipeline(), catalog)
    pairs = catalog.load("latent_reward_pairs")
    assert len(pairs) == 8 * pairs["prompt_id"].nunique()
    check_results(tmp_path, catalog, given, ["light", "motion"])


def test_compared_clips_to_a_reward(given: Given, tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    files = {clip: f"{number:02}.mp4" for number, clip in enumerate(given.frames)}
    for clip, file in files.items():
        # Larger and longer than what the generator takes.
        frames = np.kron(given.frames[clip], np.ones((1, 2, 2, 1), dtype=np.uint8))
        write_video(tmp_path / "clips" / file, np.concatenate([frames, frames]), fps=8, codec="libx264rgb", crf=0)
    broken = tmp_path / "clips" / files[next(iter(files))]
    broken.write_bytes(broken.read_bytes()[:200])
    pairs = given.pairs(own_pairs={"pairs_per_prompt": 8}).table
    said = pairs[["pair_id", "prompt", "video_id_a", "video_id_b"]].assign(annotator="x", source="people")
    said["preference"] = said["preference_light"] = pairs["label_light"].map({1.0: "a", 0.0: "tie", -1.0: "b"})

    videos = {"type": "vr_pipeline.datasets.clips.ClipFolderDataset", "path": str(tmp_path / "clips")}
    catalog = catalog_in(tmp_path, given, preference_videos=videos)
    catalog["preference_clips"] = given.index[["video_id", "prompt"]].assign(file=list(files.values()))
    catalog["human_preferences"] = said
    SequentialRunner().run(create_pipeline(of_people=True), catalog)
    used = catalog.load("latent_reward_pairs")
    lost = said[["video_id_a", "video_id_b"]].eq(next(iter(files))).any(axis=1)
    assert set(used["pair_id"]) == set(said.loc[~lost, "pair_id"])
    clips = catalog.load("latent_reward_clips")
    assert clips.loc[clips["status"] == "ok", "rule"].str.contains("reduced from 32 x 32 to 16 x 16").all()
    check_results(tmp_path, catalog, given, ["light"])
    # Reduced by whole pixels, and cut to the same frames, they are the clips that they were made from.
    own = catalog_in(tmp_path / "own", given)
    own["rewards"], own["video_index"], own["videos"] = given.rewards, given.index, Clips(given.frames)
    SequentialRunner().run(create_pipeline().to_outputs("latent_reward_latents"), own)
    found, expected = latents_of(catalog), latents_of(own)
    assert found.keys() == expected.keys() - {next(iter(files))}
    for clip, latents in found.items():
        torch.testing.assert_close(latents, expected[clip], rtol=0, atol=1e-5)


def latents_of(catalog: DataCatalog) -> dict[str, torch.Tensor]:
    from vr_pipeline.training.shards import TensorShards

    stored = TensorShards(catalog.load("latent_reward_latents"))
    return dict(stored)


def test_the_picture_says_nothing_of_bins_without_pairs() -> None:
    rows = [
        {"dimension": name, "time_from": low, "time_to": low + 0.5, "n": count}
        | dict.fromkeys(["accuracy", "accuracy_low", "accuracy_high"], value)
        | dict.fromkeys(["accuracy_apart", "accuracy_apart_low", "accuracy_apart_high"], value)
        for name, value, count in (("light", 0.8, 5), ("motion", float("nan"), 0), ("all", 0.8, 5))
        for low in (0.0, 0.5)
    ]
    log = pd.DataFrame({"step": [1, 2], "loss": [1.0, 0.9], "validation_accuracy": [float("nan"), 0.8]})
    figure = latent_reward_figure(pd.DataFrame(rows), log)
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert lines["light"].get_ydata().tolist() == [0.8, 0.8]
    assert len(lines["motion"].get_ydata()) == 0


def test_what_cannot_be_meant_is_rejected() -> None:
    given = yaml.safe_load((ROOT / "conf/base/parameters/latent_reward_training.yml").read_text(encoding="utf-8"))
    shipped = LatentRewardTrainingParameters.model_validate(given["latent_reward_training"])
    assert shipped.times == (0.0, 1.0)
    for change, told in (
        ({"times": (0.5, 0.2)}, "from the lowest"),
        ({"times": (0.0, 1.5)}, "less than or equal to 1"),
        ({"dimensions": [{"name": "a"}, {"name": "a"}]}, "same name"),
        ({"loss": "regression"}, "bt"),
    ):
        with pytest.raises(ValueError, match=told):
            parameters(**change)


class Clips:
    """Clips in memory, as a folder of items gives them."""

    def __init__(self, frames: dict[str, np.ndarray]) -> None:
        self.frames = frames

    def __contains__(self, name: object) -> bool:
        return name in self.frames

    def load(self, name: str) -> np.ndarray:
        return self.frames[name]
