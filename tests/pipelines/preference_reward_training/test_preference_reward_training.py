"""The pipeline from labelled pairs to a reward's folder, with the catalog of the project."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from kedro.io import DataCatalog
from kedro.runner import SequentialRunner

import tiny_rewards
import vr_pipeline as vr
from vr_pipeline.pipelines.preference_reward_training.pipeline import create_pipeline
from vr_pipeline.rewards.training.parameters import for_samples
from vr_pipeline.rewards.videoreward.settings import read_artifact
from vr_pipeline.rewards.videoreward.training.config import PreferenceRewardTrainingParameters
from vr_pipeline.storage.atomic import damaged_file
from vr_pipeline.video.write import write_video

ROOT = Path(__file__).parents[3]


def test_pairs_to_a_reward(tmp_path: Path) -> None:
    preferences, index = tiny_rewards.tables()
    names = {clip: f"{number:02}.mp4" for number, clip in enumerate(index["video_id"])}
    (tmp_path / "clips").mkdir()
    for clip, file in names.items():
        # A longer clip than what is shown of it; one file is broken.
        frames = np.repeat(tiny_rewards.frames_of(clip), 2, axis=0)
        write_video(tmp_path / "clips" / file, frames, fps=4, codec="libx264rgb", crf=0)
    broken = tmp_path / "clips" / names["blue ring/0"]
    broken.write_bytes(broken.read_bytes()[:200])
    clips = pd.DataFrame({"video_id": list(names), "file": names.values()})
    clips["prompt"] = [name.partition("/")[0] for name in names]

    text = (ROOT / "conf/base/catalog/preference_reward_training.yml").read_text(encoding="utf-8")
    entries = yaml.safe_load(text.replace("${globals:data}", "data"))
    for entry in entries.values():
        for key in {"filepath", "path"} & set(entry):
            entry[key] = str(tmp_path / entry[key])
    given = {"type": "vr_pipeline.datasets.clips.ClipFolderDataset", "path": str(tmp_path / "clips")}
    catalog = DataCatalog.from_config(entries | {"preference_videos": given})
    catalog["preference_clips"], catalog["human_preferences"] = clips, preferences
    start = tiny_rewards.write_model(tmp_path / "model")
    catalog["params:preference_reward_training"] = tiny_rewards.parameters(
        start, loss="bt", steps=30, batch_size=16, learning_rate=3e-3, checkpoint_every=10, reader_threads=2
    )
    SequentialRunner().run(create_pipeline(), catalog)

    assert catalog.load("reward_training_video_index").set_index("video_id")["status"]["blue ring/0"] == "failed"
    metrics = catalog.load("preference_reward_metrics")
    assert metrics["left_out"]["pairs"] == 1
    assert metrics["pairs"]["train"]["clips"] > 0
    report = catalog.load("preference_reward_report").set_index("dimension")
    assert list(report.index) == ["visual", "text", "total"]
    assert metrics["by_dimension"]["visual"]["n"] == report.loc["visual", "n"] > 0
    log = catalog.load("preference_reward_log")
    assert log["step"].tolist() == list(range(1, 31))
    assert log["validation_accuracy"].notna().sum() == 3
    assert (tmp_path / "data/08_reporting/preference_reward.png").stat().st_size > 10_000
    tracked = {name for name, entry in entries.items() if entry["metadata"].get("mlflow")}
    assert tracked == set(entries) - {"reward_training_video_index"}

    # The folder is a reward: it scores files, ranks pairs, and says what it was made from.
    folder = Path(catalog.load("trained_reward"))
    assert damaged_file(folder) is None
    reward = vr.load_reward_model(folder)
    files = [tmp_path / "clips" / names[f"red ball/{level}"] for level in (0, 3)]
    scores = reward.score(files, ["red ball"] * 2)
    assert scores["dim_visual"][1] > scores["dim_visual"][0]
    ranking = vr.load_ranker(folder).compare(files[:1], files[1:], ["red ball"])
    assert ranking["p_b"][0] > ranking["p_a"][0]
    assert ranking[["p_a", "p_b", "p_tie"]].sum(axis=1)[0] == pytest.approx(1.0)
    artifact = read_artifact(folder)
    assert artifact.provenance["step"] == metrics["best_step"]
    assert artifact.calibration is not None
    assert artifact.calibration.pairs["visual"] == sum(
        metrics["pairs"]["validation"]["labels"]["visual"][label] for label in ("a", "b", "tie")
    )

    # Documents beside the model are kept when it is made again; half of a folder is none.
    (folder / "MODEL_CARD.md").write_text("kept", encoding="utf-8")
    (folder / "left.json").write_text("{}", encoding="utf-8")

    class Again:
        def save(self, place: Path) -> None:
            artifact.write(place)

    catalog.save("trained_reward", Again())
    assert sorted(path.name for path in folder.iterdir()) == ["MODEL_CARD.md", "reward.json"]
    assert catalog.exists("trained_reward")


def test_settings_of_the_embedded_default_are_valid() -> None:
    content = yaml.safe_load((ROOT / "conf/base/parameters/preference_reward_training.yml").read_text(encoding="utf-8"))
    parameters = PreferenceRewardTrainingParameters.model_validate(content["preference_reward_training"])
    assert parameters.network is not None
    assert parameters.network.names == ("visual", "motion", "text")
    assert parameters.network.free_of_prompt == ("visual", "motion")


def test_published_settings() -> None:
    """Against the paper (arXiv 2501.13918): settings of training and of what is shown."""
    from vr_pipeline.settings import CONFIG_LOADER_ARGS, CONFIG_LOADER_CLASS

    loader = CONFIG_LOADER_CLASS(str(ROOT / "conf"), env="wan", **CONFIG_LOADER_ARGS)
    block = loader["parameters"]["preference_reward_training"]
    parameters = PreferenceRewardTrainingParameters.model_validate(block)
    assert parameters.start is not None
    assert (parameters.start.frames_per_second, parameters.start.min_pixels, parameters.start.max_pixels) == (
        2.0,
        100352,
        200704,
    )
    assert (parameters.loss, parameters.theta, parameters.learn_theta) == ("btt", 5.0, False)
    assert (parameters.vision, parameters.language, parameters.start.dtype) == ("full", "lora", "bfloat16")
    assert (parameters.lora.rank, parameters.lora.alpha, parameters.lora.target_modules) == (64, 128, None)
    assert (parameters.learning_rate, parameters.schedule, parameters.batch_size) == (2e-6, "constant", 32)
    steps = for_samples(parameters, 16_000)
    assert (steps.steps, steps.warmup_steps) == (1000, 50)
