"""The pipeline from annotated clips to a judge's folder, with the catalog of the project."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from kedro.io import DataCatalog
from kedro.runner import SequentialRunner

from vr_pipeline.checklist import checklist_from_mapping
from vr_pipeline.identifiers import content_hash
from vr_pipeline.judges import load_judge
from vr_pipeline.judges.training.config import JudgeTrainingParameters
from vr_pipeline.pipelines.judge_training import create_pipeline
from vr_pipeline.work import WorkItem, WorkPlan

ROOT = Path(__file__).parents[3]


def test_annotations_to_judge(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    names = [f"clip{number:03}" for number in range(90)]
    bright = {name: bool(random.random() < 0.5) for name in names}
    frames = {
        name: (random.integers(0, 50, (4, 8, 8, 3)) + (180 if bright[name] else 10)).astype(np.uint8) for name in names
    }
    metadata = {"prompt_id": "p", "prompt": "light", "sample_index": 0, "seed": 0, "generator": "test", "fps": 4.0}
    clips = WorkPlan(
        items=[WorkItem(name, content_hash(frames[name].tobytes()), metadata) for name in names],
        make_batch=lambda _, items: [frames[item.key] for item in items],
        batch_size=30,
    )
    questions = [{"id": "bright", "text": "is it bright ?"}]
    checklist = checklist_from_mapping(
        {
            "name": "light",
            "modality": "video",
            "dimensions": [{"name": "light", "sub_dimensions": [{"name": "light", "questions": questions}]}],
        }
    )
    annotations = pd.DataFrame(
        {"video_id": names, "question_id": "bright", "label": [bright[name] for name in names], "source": "made"}
    )
    annotations["split"] = ["test" if number % 3 == 0 else "train" for number in range(90)]
    parameters = JudgeTrainingParameters.model_validate(
        {
            "tiny": {"hidden_size": 32, "layers": 1, "heads": 2, "intermediate_size": 32, "vision_size": 32}
            | {"temporal_patch_size": 2, "num_frames": 4, "height": 8, "width": 8},
            "threads": 1,
            "steps": 40,
            "batch_size": 16,
            "learning_rate": 5e-3,
            "warmup_steps": 4,
            "validation_share": 0.2,
            "checkpoint_every": 20,
        }
    )
    text = (ROOT / "conf/base/catalog/judge_training.yml").read_text(encoding="utf-8")
    entries = yaml.safe_load(text.replace("${globals:data}", "data"))
    for entry in entries.values():
        for key in ("filepath", "path"):
            if key in entry:
                entry[key] = str(tmp_path / entry[key])
    catalog = DataCatalog.from_config(entries)
    catalog.save("judge_annotations", annotations)
    catalog.save("judge_training_videos", clips)
    catalog["checklist"] = checklist
    catalog["params:judge_training"] = parameters
    SequentialRunner().run(create_pipeline(), catalog)

    # The report a question, the log of steps, the figures and the picture go to MLflow, and the judge itself.
    tracked = {key for key, entry in entries.items() if entry.get("metadata", {}).get("mlflow")}
    made = {"trained_judge", "judge_question_report", "judge_training_log", "judge_training_metrics"}
    assert tracked == made | {"judge_report_figure"}
    metrics = catalog.load("judge_training_metrics")
    assert metrics["held_out_examples"] == 30
    assert metrics["held_out_chose_the_checkpoint"] is False
    assert metrics["by_source"]["made"]["balanced_accuracy"] > 0.9
    report = catalog.load("judge_question_report")
    assert report[["source", "question_id", "n"]].to_numpy().tolist() == [["made", "bright", 30]]
    assert report["positives"][0] == pytest.approx(np.mean([bright[name] for name in names[::3]]))
    curve = np.array(json.loads(report["calibration"][0]))
    assert curve[:, 2].sum() == 30
    assert (curve[:, 2] * curve[:, 1]).sum() / 30 == pytest.approx(report["positives"][0], abs=1e-3)
    assert len(catalog.load("judge_training_log")) == 40
    assert (tmp_path / "data/08_reporting/judge_report.png").stat().st_size > 10_000
    judge = load_judge({"family": "qwen2_vl", "path": catalog.load("trained_judge")})
    held_out = names[::3]
    p_yes, _ = judge.answer([frames[name] for name in held_out], ["is it bright ?"])
    assert np.mean((p_yes[:, 0] > 0.5) == [bright[name] for name in held_out]) > 0.9


def test_settings_of_the_embedded_default_are_valid() -> None:
    content = yaml.safe_load((ROOT / "conf/base/parameters/judge_training.yml").read_text(encoding="utf-8"))
    parameters = JudgeTrainingParameters.model_validate(content["judge_training"])
    assert parameters.tiny is not None
