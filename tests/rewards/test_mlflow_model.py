"""The reward as an MLflow model, loaded where nothing of this process is left."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vr_pipeline.checklist import Checklist
from vr_pipeline.datasets.reward_model import RewardModelDataset
from vr_pipeline.errors import InputError
from vr_pipeline.rewards.linear import RewardWeights, dimension_scores, score
from vr_pipeline.rewards.mlflow_model import RewardModel, save_reward_model

LOAD_AND_SCORE = """
import json, sys
import mlflow, pandas as pd
model = mlflow.pyfunc.load_model(sys.argv[1])
rows = pd.read_json(sys.argv[2], orient="records", dtype={"prompt": str})
print(json.dumps({
    "scores": model.predict(rows).to_dict(orient="list"),
    "inputs": model.metadata.get_input_schema().input_names(),
    "outputs": model.metadata.get_output_schema().input_names(),
    "torch": "torch" in sys.modules,
}))
"""


def weights_for(checklist: Checklist, kind: str = "probability") -> RewardWeights:
    values = np.random.default_rng(0).random(len(checklist.question_ids))
    return RewardWeights(tuple(checklist.question_ids), values, checklist_hash=checklist.hash, answers=kind)


def table_for(checklist: Checklist, rows: int = 5) -> pd.DataFrame:
    answers = np.random.default_rng(1).random((rows, len(checklist.question_ids)))
    return pd.DataFrame(answers, columns=checklist.question_ids).assign(prompt="a red ball")


@pytest.mark.slow
def test_fresh_process_gives_the_same_rewards(checklist: Checklist, tmp_path: Path) -> None:
    weights, table = weights_for(checklist), table_for(checklist)
    save_reward_model(tmp_path / "model", weights, checklist)
    assert not list((tmp_path / "model").rglob("*.pkl"))
    table.to_json(tmp_path / "rows.json", orient="records", double_precision=15)
    run = subprocess.run(
        [sys.executable, "-c", LOAD_AND_SCORE, str(tmp_path / "model"), str(tmp_path / "rows.json")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout.strip().splitlines()[-1])
    answers = table[checklist.question_ids].to_numpy()
    np.testing.assert_allclose(result["scores"]["total"], score(answers, weights))
    expected = dimension_scores(answers, weights, checklist)
    for name in expected.columns:
        np.testing.assert_allclose(result["scores"][name], expected[name])
    assert result["inputs"] == ["prompt", "video_path", *checklist.question_ids]
    assert result["outputs"] == ["total", *(f"dim_{name}" for name in checklist.dimensions)]
    assert result["torch"] is False


def test_catalog_keeps_it_as_the_same_bytes(checklist: Checklist, tmp_path: Path) -> None:
    model, table = RewardModel(weights_for(checklist), checklist), table_for(checklist)
    contents = []
    for name in ("one", "two"):
        dataset = RewardModelDataset(path=str(tmp_path / name / "model"))
        assert not dataset.exists()
        dataset.save(model)
        dataset.save(model)  # over the former
        assert dataset.exists()
        pd.testing.assert_frame_equal(dataset.load().score_table(table), model.score_table(table))
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        contents.append({str(path.relative_to(tmp_path / name)): path.read_bytes() for path in files})
    assert contents[0] == contents[1]
    assert not any(str(tmp_path).encode() in content for content in contents[0].values())


def test_binary_weights_cut_the_answers(checklist: Checklist) -> None:
    weights, table = weights_for(checklist, "binary"), table_for(checklist)
    table.loc[0, checklist.question_ids[0]] = np.nan
    scores = RewardModel(weights, checklist).score_table(table)
    cut = np.where(table[checklist.question_ids].isna(), np.nan, table[checklist.question_ids] > 0.5)
    np.testing.assert_allclose(scores["total"], score(cut.astype(float), weights))


def test_useless_input_is_named(checklist: Checklist) -> None:
    model, table = RewardModel(weights_for(checklist), checklist), table_for(checklist)
    first = checklist.question_ids[0]
    with pytest.raises(InputError, match="no column 'prompt'"):
        model.score_table(table.drop(columns="prompt"))
    with pytest.raises(InputError, match=f"no answers to question '{first}'"):
        model.score_table(table.drop(columns=first))
    with pytest.raises(InputError, match="the model has no judge"):
        model.score_table(pd.DataFrame({"prompt": ["x"], "video_path": ["x.mp4"]}))
    with pytest.raises(InputError, match=f"row 2, field '{first}': a probability is 1.5"):
        model.score_table(table.assign(**{first: [0.1, 1.5, 0.2, 0.3, 0.4]}))


def test_clips_are_judged_by_the_configured_judge(checklist: Checklist, monkeypatch: pytest.MonkeyPatch) -> None:
    class Judge:
        def answer(self, clips: list, questions: list[str], prompts: list[str]) -> tuple[np.ndarray, np.ndarray]:
            p = np.full((1, len(questions)), clips[0].mean() / 255)
            return p, np.zeros_like(p)

    judges = type(sys)("vr_pipeline.judges")
    judges.load_judge = lambda configuration: Judge() if configuration["family"] == "test" else None
    video = type(sys)("vr_pipeline.video.read")
    video.read_frames = lambda path: np.full((2, 4, 4, 3), 255 * float(path), dtype=np.uint8)
    monkeypatch.setitem(sys.modules, "vr_pipeline.judges", judges)
    monkeypatch.setitem(sys.modules, "vr_pipeline.video.read", video)
    weights = weights_for(checklist)
    scores = RewardModel(weights, checklist, {"family": "test"}).score_table(
        pd.DataFrame({"prompt": ["x", "y"], "video_path": ["1.0", "0.0"]})
    )
    np.testing.assert_allclose(scores["total"], [weights.weights.sum(), 0.0])
