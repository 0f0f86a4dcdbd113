"""The pipeline from people's labels to a UnifiedReward's folder, with the catalog of the project."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from kedro.io import DataCatalog
from kedro.runner import SequentialRunner

import tiny_unified_training as tiny
import vr_pipeline as vr
from vr_pipeline.pipelines.unified_reward_training.pipeline import create_pipeline
from vr_pipeline.rewards.unifiedreward.settings import read_artifact
from vr_pipeline.rewards.unifiedreward.training.config import UnifiedItemSources, UnifiedRewardTrainingParameters
from vr_pipeline.storage.atomic import damaged_file
from vr_pipeline.video.write import write_video

ROOT = Path(__file__).parents[3]


def test_labels_to_a_reward(tmp_path: Path) -> None:
    prompts = tiny.PROMPTS[:6]
    table = tiny.preferences(prompts)
    for end in "ab":
        table[f"grade_{end}_look"] = [3.0 * int(name[-1]) + 1 for name in table[f"video_id_{end}"]]
    names = sorted({*table["video_id_a"], *table["video_id_b"]})
    files = {name: f"{number:02}.mp4" for number, name in enumerate(names)}
    folder = tmp_path / "clips"
    folder.mkdir()
    for name, file in files.items():
        write_video(folder / file, tiny.frames_of(name), fps=4, codec="libx264rgb", crf=0)
    broken = folder / files["blue ball/0"]
    broken.write_bytes(broken.read_bytes()[:200])
    # Items that come as such: grades of one more clip, in a format of its own.
    write_video(folder / "new.mp4", np.repeat(tiny.frames_of("red ball/2"), 2, axis=0), fps=4, crf=0)
    turns = [
        {"from": "human", "value": "<video>\nText Caption: [red ring]\nScore it."},
        {"from": "gpt", "value": "look: 7\nmoves: 2\nFinal Score: 7"},
    ]
    rows = [{"id": "1", "video": "new.mp4", "conversations": turns}]
    (tmp_path / "labels.json").write_text(json.dumps(rows), encoding="utf-8")

    text = (ROOT / "conf/base/catalog/unified_reward_training.yml").read_text(encoding="utf-8")
    entries = yaml.safe_load(text.replace("${globals:data}", "data"))
    assert entries["unified_labels"]["filepath"] is None
    for name, entry in entries.items():
        for key in {"filepath", "path"} & set(entry):
            entry[key] = str(tmp_path / (entry[key] or f"{name}.json"))
    labels = {"filepath": str(tmp_path / "labels.json"), "format": "unified_reward_items"}
    entries["unified_labels"] |= labels | {"videos": {"path": str(folder)}}
    given = {"type": "vr_pipeline.datasets.clips.ClipFolderDataset", "path": str(folder)}
    catalog = DataCatalog.from_config(entries | {"preference_videos": given})
    clips = pd.DataFrame({"video_id": names, "file": list(files.values())})
    catalog["preference_clips"] = clips.assign(prompt=clips["video_id"].str.partition("/")[0])
    catalog["human_preferences"] = table
    catalog["params:unified_item_sources"] = UnifiedItemSources()
    start = tiny.write_model(tmp_path / "model")
    catalog["params:unified_reward_training"] = tiny.parameters(start, steps=4, batch_size=8, checkpoint_every=2)
    SequentialRunner().run(create_pipeline(), catalog)

    items = catalog.load("unified_items")
    assert set(items["source"]) == {"made", "unified_reward_items"}
    assert set(zip(items["form"], items["dimension"], strict=True)) >= {("pair", ""), ("point", "look")}
    assert catalog.load("unified_training_video_index").set_index("video_id")["status"]["blue ball/0"] == "failed"
    metrics = catalog.load("unified_reward_metrics")
    assert metrics["left_out"]["items"] > 0
    report = catalog.load("unified_reward_report")
    assert set(report["form"]) == {"pair", "point"}
    assert metrics["by_task"]["video_generation_pair"]["n"] == report.loc[report["form"] == "pair", "n"].item()
    log = catalog.load("unified_reward_log")
    assert log["validation_accuracy"].notna().sum() == 2
    assert (tmp_path / "data/08_reporting/unified_reward.png").stat().st_size > 10_000
    tracked = {name for name, entry in entries.items() if entry["metadata"].get("mlflow")}
    assert tracked == {"trained_unified_reward"} | {name for name in entries if name.startswith("unified_reward_")}
    made = Path(catalog.load("trained_unified_reward"))
    assert damaged_file(made) is None
    assert read_artifact(made).provenance["step"] == metrics["best_step"]
    scores = vr.load_reward_model(made).score([folder / "new.mp4"], ["red ring"])
    assert 1 <= scores["dim_look"][0] <= 12


def test_settings_of_the_embedded_default_and_published_ones_are_valid() -> None:
    from vr_pipeline.settings import CONFIG_LOADER_ARGS, CONFIG_LOADER_CLASS

    base = yaml.safe_load((ROOT / "conf/base/parameters/unified_reward_training.yml").read_text(encoding="utf-8"))
    assert UnifiedRewardTrainingParameters.model_validate(base["unified_reward_training"]).start_reward is not None
    loader = CONFIG_LOADER_CLASS(str(ROOT / "conf"), env="wan", **CONFIG_LOADER_ARGS)
    published = UnifiedRewardTrainingParameters.model_validate(loader["parameters"]["unified_reward_training"])
    # arXiv 2503.05236, section 4.1 and appendix.
    assert (published.learning_rate, published.schedule, published.epochs) == (2.5e-6, "cosine", 3)
    assert (published.batch_size, published.template) == (32, "own")
