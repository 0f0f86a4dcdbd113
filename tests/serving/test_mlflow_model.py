"""The reward as an MLflow model, loaded where nothing of this process is left."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vr_pipeline.checklist import Checklist, checklist_from_mapping
from vr_pipeline.datasets.reward_model import RewardModelDataset
from vr_pipeline.errors import InputError
from vr_pipeline.rewards.checklist.linear import dimension_scores, score
from vr_pipeline.rewards.checklist.model import ChecklistReward
from vr_pipeline.rewards.checklist.weights import RewardWeights
from vr_pipeline.serving.mlflow_model import save_reward_model, score_table
from vr_pipeline.video.write import write_video
from vr_pipeline.vlm.config import JudgeParameters
from vr_pipeline.vlm.loading import judge_identity

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
    "code": sys.modules["vr_pipeline"].__file__,
}))
"""


def weights_for(checklist: Checklist, kind: str = "probability") -> RewardWeights:
    values = np.random.default_rng(0).random(len(checklist.question_ids))
    return RewardWeights(tuple(checklist.question_ids), values, checklist_hash=checklist.hash, answers=kind)


def table_for(checklist: Checklist, rows: int = 5) -> pd.DataFrame:
    answers = np.random.default_rng(1).random((rows, len(checklist.question_ids)))
    return pd.DataFrame(answers, columns=checklist.question_ids).assign(prompt="a red ball")


# Nothing is installed under this package's name, as on a machine that serves the model.
NOT_INSTALLED = """
import sys
from importlib.machinery import PathFinder
from pathlib import Path
sys.path = [place for place in sys.path if not (Path(place) / "vr_pipeline").is_dir()]
sys.meta_path = [one for one in sys.meta_path if one is PathFinder or "editable" not in repr(one)]
"""


@pytest.mark.slow
@pytest.mark.parametrize("installed", [True, False])
def test_fresh_process_gives_the_same_rewards(checklist: Checklist, tmp_path: Path, installed: bool) -> None:
    weights, table = weights_for(checklist), table_for(checklist)
    save_reward_model(tmp_path / "model", ChecklistReward(checklist, weights))
    assert not list((tmp_path / "model").rglob("*.pkl"))
    table.to_json(tmp_path / "rows.json", orient="records", double_precision=15)
    program = ("" if installed else NOT_INSTALLED) + LOAD_AND_SCORE
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            program,
            str(tmp_path / "model"),
            str(tmp_path / "rows.json"),
        ],
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
    assert result["inputs"] == ["prompt", "video_path", "video_id", *checklist.question_ids]
    assert result["outputs"] == ["total", *(f"dim_{name}" for name in checklist.dimensions)]
    assert result["torch"] is False
    assert (".zip" in result["code"]) is not installed
    # Nothing is looked for in an index under this package's name; all else is named with its version.
    named = (tmp_path / "model/requirements.txt").read_text().splitlines()
    assert named
    assert all(re.fullmatch(r"[\w.-]+==[\w.+]+", line) for line in named)
    assert not any("vr" in line.split("==")[0] for line in named)


def test_catalog_keeps_it_as_the_same_bytes(checklist: Checklist, tmp_path: Path) -> None:
    model, table = ChecklistReward(checklist, weights_for(checklist)), table_for(checklist)
    contents = []
    for name in ("one", "two"):
        dataset = RewardModelDataset(path=str(tmp_path / name / "model"))
        assert not dataset.exists()
        dataset.save(model)
        dataset.save(model)  # over the former
        assert dataset.exists()
        pd.testing.assert_frame_equal(score_table(dataset.load(), table), score_table(model, table))
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        contents.append({str(path.relative_to(tmp_path / name)): path.read_bytes() for path in files})
    assert contents[0] == contents[1]
    assert not any(str(tmp_path).encode() in content for content in contents[0].values())


def test_binary_weights_cut_the_answers_and_gated_ones_may_be_empty() -> None:
    questions = [{"id": "hands", "text": "Are there hands?"}, {"id": "right", "text": "Right?", "gate": "hands"}]
    checklist = checklist_from_mapping(
        {
            "name": "hands",
            "modality": "image",
            "dimensions": [{"name": "d", "sub_dimensions": [{"name": "s", "questions": questions}]}],
        }
    )
    weights = RewardWeights(("hands", "right"), np.array([1.0, 2.0]), checklist_hash=checklist.hash, answers="binary")
    table = pd.DataFrame({"prompt": "x", "hands": [0.9, 0.4, 0.8], "right": [0.7, np.nan, 0.2]})
    scores = score_table(ChecklistReward(checklist, weights), table)
    assert scores["total"].tolist() == [3.0, 0.0, 1.0]
    with pytest.raises(InputError, match="row 1, field 'hands': a probability is nan"):
        score_table(ChecklistReward(checklist, weights), table.assign(hands=np.nan))


def test_useless_input_is_named(checklist: Checklist) -> None:
    model, table = ChecklistReward(checklist, weights_for(checklist)), table_for(checklist)
    first = checklist.question_ids[0]
    with pytest.raises(InputError, match="no column 'prompt'"):
        score_table(model, table.drop(columns="prompt"))
    with pytest.raises(InputError, match=f"no answers to question '{first}'"):
        score_table(model, table.drop(columns=first))
    with pytest.raises(InputError, match="the reward has no judge"):
        score_table(model, pd.DataFrame({"prompt": ["x"], "video_path": ["x.mp4"]}))
    with pytest.raises(InputError, match=f"row 2, field '{first}': a probability is 1.5"):
        score_table(model, table.assign(**{first: [0.1, 1.5, 0.2, 0.3, 0.4]}))
    open_question = next(question.question_id for question in checklist.questions if not question.gate)
    for value in (np.nan, np.inf, -np.inf):
        with pytest.raises(InputError, match=f"row 3, field '{open_question}': a probability is {value}"):
            score_table(model, table.assign(**{open_question: [0.1, 0.5, value, 0.3, 0.4]}))


def test_clips_are_judged_by_the_configured_judge_with_its_sampling(
    checklist: Checklist, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Judge:
        """Says yes with the share of white and the number of frames that it is shown."""

        num_frames, frames_per_second = 3, None

        def answer(self, clips, questions, prompts, *, frames_per_second):
            p = np.array([[clip.mean() / 255 * len(clip) / 10] * len(questions) for clip in clips])
            return (p * np.nan if "nothing" in prompts else p), np.zeros_like(p)

    monkeypatch.setattr("vr_pipeline.judges.load_judge", lambda configuration: Judge())
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge" / "config.json").write_text("{}", encoding="utf-8")
    judge = JudgeParameters(family="qwen2_vl", path=str(tmp_path / "judge"))
    for name, level in (("white", 255), ("black", 0)):
        write_video(tmp_path / f"{name}.mp4", np.full((8, 16, 16, 3), level, np.uint8), fps=8)
    weights = weights_for(checklist)
    model = ChecklistReward(checklist, weights, judge)
    paths = [str(tmp_path / "white.mp4"), str(tmp_path / "black.mp4")]
    scores = score_table(model, pd.DataFrame({"prompt": ["x", "y"], "video_path": paths}))
    gated = [question.question_id for question in checklist.questions if question.gate]
    open_weight = sum(w for q, w in zip(weights.question_ids, weights.weights, strict=True) if q not in gated)
    # 0.3 is no at every gate.
    np.testing.assert_allclose(scores["total"], [0.3 * open_weight, 0.0], atol=1e-9)
    for prompts, clips, message in (
        (["x", "nothing"], paths, "row 2.*the judge gave no probability"),
        (["x", "x"], [paths[0], str(tmp_path / "none.mp4")], "none.mp4, row 2"),
    ):
        with pytest.raises(InputError, match=message):
            score_table(model, pd.DataFrame({"prompt": prompts, "video_path": clips}))


def test_a_judge_that_is_not_there_or_another_is_an_error(
    checklist: Checklist, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    place = Path("models/judge")  # as a name on the hub reads
    place.mkdir(parents=True)
    (place / "config.json").write_text("{}", encoding="utf-8")
    judge = JudgeParameters(family="qwen2_vl", path=str(place))
    dataset = RewardModelDataset(path=str(tmp_path / "packaged"))
    dataset.save(ChecklistReward(checklist, weights_for(checklist), judge))
    described = json.loads((tmp_path / "packaged/artifacts/reward.json").read_text())
    assert described["judge"]["path"] == "./models/judge"
    assert described["judge_identity"] == judge_identity(judge)
    written = Path("clip.mp4")
    write_video(written, np.zeros((2, 16, 16, 3), np.uint8), fps=8)
    clips = pd.DataFrame({"prompt": ["x"], "video_path": [str(written)]})
    asked: list[str] = []

    def load(parameters: Any) -> Any:
        asked.append(parameters.path)
        raise InputError("this judge was found", remedy="Nothing")

    monkeypatch.setattr("vr_pipeline.judges.load_judge", load)
    with pytest.raises(InputError, match="this judge was found"):
        score_table(dataset.load(), clips)
    place.rename("moved")
    with pytest.raises(InputError, match=r"the judge of this reward model is missing.*VR_PIPELINE_JUDGE"):
        score_table(dataset.load(), clips)
    monkeypatch.setenv("VR_PIPELINE_JUDGE", "moved")
    with pytest.raises(InputError, match="this judge was found"):
        score_table(dataset.load(), clips)
    assert asked == ["./models/judge", "moved"]
    Path("moved/config.json").write_text('{"other": 1}', encoding="utf-8")
    with pytest.raises(InputError, match="differ from those packaged"):
        score_table(dataset.load(), clips)
    # Answers are weighed all the same.
    table = table_for(checklist)
    pd.testing.assert_frame_equal(
        score_table(dataset.load(), table), score_table(ChecklistReward(checklist, weights_for(checklist)), table)
    )
