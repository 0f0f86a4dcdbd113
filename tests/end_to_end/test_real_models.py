"""The whole run in the environments of real models, with tiny random checkpoints of the same classes on the CPU."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.end_to_end.conftest import copy_project, kedro

import tiny_judges
import tiny_models
from vr_pipeline.datasets.policy import PolicyDataset

pytestmark = pytest.mark.slow

PROMPTS = (
    "A brown dog runs across a wet beach at sunset",
    "Two chefs chop onions in a crowded kitchen",
    "An old train crosses a stone bridge in fog",
    "Children fly paper kites above green hills",
    "A violinist plays alone on an empty stage",
    "Snow falls slowly on a quiet mountain village",
    "A robot waters tomatoes inside a glass greenhouse",
    "Waves break against black rocks under a lighthouse",
    "A cyclist repairs a flat tyre beside the road",
    "Lanterns float down a river during a festival",
    "A cat sleeps on a pile of open books",
    "Workers paint a tall red crane in the harbour",
)
# Small in every respect, and forgiving: a judge with random weights agrees with nobody and answers with any word.
SMALL = {
    "prompt_filtering.split.test_fraction": 0.25,
    "prompt_filtering.split.validation_fraction": 0.25,
    "prompt_filtering.report.sample_size": 4,
    "prompt_filtering.language_model.clean": "false",
    "prompt_filtering.language_model.rewrite": "false",
    "video_generation.videos_per_prompt": 2,
    "judge.dtype": "float32",
    "judge.threads": 1,
    "checklist_inference.max_median_outside_mass": 1.0,
    "weight_regression.answers": "probability",
    "weight_regression.bootstrap_samples": 5,
    "weight_regression.folds": 2,
    "pair_selection.dominance_tolerance": 1000.0,
    "pair_selection.recipes.mpo.min_margin": 0.0,
    "pair_selection.recipes.dpo.min_margin": 0.0,
    "dpo_training.training.steps": 2,
    "dpo_training.training.batch_size": 2,
    "dpo_training.training.checkpoint_every": 1,
    "dpo_training.training.threads": 1,
    "dpo_training.validation.num_prompts": 1,
    "evaluation.videos_per_prompt": 1,
    "evaluation.report.num_prompts": 1,
}
GENERATOR = {"dtype": "float32", "device": "cpu", "threads": 1, "height": 32, "width": 32, "num_inference_steps": 2}
BUILDERS: dict[str, tuple[Callable[[Path], Path], dict[str, int]]] = {
    "cogvideox": (lambda folder: tiny_models.save_cogvideox(folder, rotary=False), {"num_frames": 9}),
    "wan": (tiny_models.save_wan, {"num_frames": 9}),
    "image": (tiny_models.save_sdxl, {"num_frames": 1}),
}


def supply(project: Path, environment: str) -> None:
    """What a user supplies: prompts, clips that people compared, and what they said."""
    from vr_pipeline.video.write import write_video

    raw = project / "data" / environment / "01_raw"
    (raw / "preference_videos").mkdir(parents=True)
    pd.DataFrame({"prompt": PROMPTS}).to_csv(raw / "prompts.csv", index=False)
    random = np.random.default_rng(0)
    rows = []
    for number in range(16):
        names = [f"{number}_{side}.mp4" for side in "ab"]
        for name in names:
            frames = random.integers(0, 256, (1 if environment == "image" else 9, 32, 32, 3), dtype=np.uint8)
            write_video(raw / "preference_videos" / name, frames, fps=8)
        rows.append(
            {
                "pair_id": f"pair {number}",
                "prompt": PROMPTS[number % len(PROMPTS)],
                "video_id_a": f"{number}a",
                "video_id_b": f"{number}b",
                "preference": "ab"[int(random.integers(2))],
                "annotator": "someone",
                "source": "test",
                "video_path_a": names[0],
                "video_path_b": names[1],
            }
        )
    pd.DataFrame(rows).to_csv(raw / "human_preferences.csv", index=False)


@pytest.mark.parametrize("environment", list(BUILDERS))
def test_the_whole_run_with_a_tiny_checkpoint(
    environment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    project = copy_project(tmp_path / "project")
    if environment != "cogvideox":
        # Recording is the same everywhere and takes a third of so small a run.
        (project / "conf" / environment / "mlflow.yml").write_text("enabled: false\n")
    build, size = BUILDERS[environment]
    generator, judge = build(tmp_path / "generator"), tmp_path / "judge"
    tiny_judges.qwen2_5_vl(tiny_judges.build_tokenizer()).save(judge)
    supply(project, environment)
    settings = SMALL | {"judge.path": judge}
    settings |= {f"generator.{name}": value for name, value in {**GENERATOR, **size, "path": generator}.items()}
    arguments = ",".join(f"{name}={value}" for name, value in settings.items())
    result = kedro(project, "run", f"--env={environment}", "--pipeline=mpo_dpo", f"--params={arguments}")
    output = result.stdout + result.stderr
    assert result.returncode == 0, output[-6000:]

    data = project / "data" / environment
    metrics = json.loads((data / "08_reporting/evaluation_metrics.json").read_text())
    assert set(metrics["policies"]) == {"original", "dpo", "mpo"}
    assert all("oracle" not in policy for policy in metrics["policies"].values()), "nobody knows the truth here"
    report = (data / "08_reporting/evaluation_report.html").read_text()
    assert "No measure independent of the training can confirm a gain" in report
    assert "16 x 16 pixels" not in report, "the note of the micro-world"
    validated = pd.read_parquet(data / "06_models/validation_log_mpo.parquet")
    assert list(validated["step"]) == [0, 1, 2]
    assert validated["chosen"].sum() == 1
    index = pd.read_parquet(data / "03_primary/video_index.parquet")
    assert (index["status"] == "ok").all()
    assert set(index["num_frames"]) == {size["num_frames"]}
    assert (data / "06_models/policy_mpo/pytorch_lora_weights.safetensors").is_file()
    assert (
        str(validated.loc[validated["chosen"], "step"].item()) in (data / "06_models/policy_mpo/README.md").read_text()
    )
    if environment == "cogvideox":
        with sqlite3.connect(project / "mlflow.db") as database:
            query = "select step, value from metrics where key = 'mpo/validation_reward' order by step"
            assert database.execute(query).fetchall() == [
                (step, pytest.approx(reward)) for step, reward in validated[["step", "reward"]].itertuples(index=False)
            ]
            dimension = next(name for name in validated if name.startswith("dim_"))
            query = f"select step from metrics where key = 'mpo/validation_{dimension}' order by step"
            assert database.execute(query).fetchall() == [(0,), (1,), (2,)]
        # The weights of every checkpoint, also of those that did not become the policy, can be fetched.
        [recorded] = project.glob("mlartifacts/*/artifacts/checkpoints/mpo")
        for step, identity in validated[["step", "policy"]].iloc[1:].itertuples(index=False):
            assert PolicyDataset(path=str(recorded / f"step-{step:06d}")).load().identity == identity
    # Nothing of the embedded default was read, nor anything written outside the environment's own folder.
    assert not (project / "data/03_primary").exists()
    assert not (project / "data/08_reporting").exists()


def test_what_a_user_has_to_supply_is_named_before_any_work(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    result = kedro(project, "run", "--env=cogvideox", "--pipeline=mpo_dpo")
    output = " ".join((result.stdout + result.stderr).split())
    assert result.returncode != 0
    assert "Traceback" not in output
    for expected in (
        "raw_prompts (data/cogvideox/01_raw/prompts.csv)",
        "human_preferences and preference_clips (data/cogvideox/01_raw/human_preferences.csv)",
        "preference_videos (data/cogvideox/01_raw/preference_videos)",
    ):
        assert expected in output, output[-3000:]
    assert not list((project / "data/cogvideox").rglob("*.parquet"))
