"""The pipeline from questions to a trained model and its test, with the catalog of the project."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from kedro.io import DataCatalog
from kedro.runner import SequentialRunner

import tiny_vlm
from vr_pipeline.datasets.clips import ClipFolder
from vr_pipeline.datasets.understanding import QuestionsDataset
from vr_pipeline.pipelines.vlm_dpo import nodes as steps
from vr_pipeline.pipelines.vlm_dpo.pipeline import create_pipeline
from vr_pipeline.storage.atomic import damaged_file
from vr_pipeline.understanding import answering, task
from vr_pipeline.understanding.config import VlmDpoParameters

ROOT = Path(__file__).parents[3]


def the_catalog(folder: Path, given: VlmDpoParameters) -> tuple[DataCatalog, dict[str, Any]]:
    """The project's entries below a folder, with questions about the tiny clips."""
    text = (ROOT / "conf/base/catalog/vlm_dpo.yml").read_text(encoding="utf-8")
    entries = yaml.safe_load(text.replace("${globals:data}", "data"))
    for name, entry in entries.items():
        for key in {"filepath", "path", "media"} & set(entry):
            entry[key] = str(folder / ("clips" if "caption_videos" in entry[key] else entry[key]))
        if name == "understanding_questions":
            entry["filepath"] = str(folder / "questions.jsonl")
    catalog = DataCatalog.from_config(entries)
    catalog["params:vlm_dpo"] = given
    return catalog, entries


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("vlm_dpo")
    media = tiny_vlm.write_clips(found / "clips")
    broken = found / "clips" / "broken.mp4"
    broken.write_bytes(media["red-0.mp4"].read_bytes()[:300])
    table = tiny_vlm.questions({**media, "red-broken.mp4": broken})
    rows = [
        {"id": row.question_id, "video": json.loads(row.files)[0].replace("red-broken", "broken")}
        | {"prompt": row.prompt, "answer": row.answer, "group": row.group}
        for row in table.itertuples()
    ]
    lines = [json.dumps(row) for row in rows]
    (found / "questions.jsonl").write_text("\n".join(lines), encoding="utf-8")
    tiny_vlm.write_model(found / "model")
    return found


def test_questions_to_a_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = {"family": "qwen2_vl", "path": str(folder / "model"), "device": "cpu", "threads": 1}
    given = tiny_vlm.parameters(
        model,
        candidates={"temperature": 4.0, "num_candidates": 8, "batch_size": 8},
        reward_model={"type": "videoreward", "path": "none"},
        training={"steps": 30, "learning_rate": 5e-3, "batch_size": 8, "checkpoint_every": 10},
    )
    catalog, entries = the_catalog(folder, given)
    judge = tiny_vlm.ExactJudge(catalog.load("understanding_questions"))
    monkeypatch.setattr(steps, "RewardJudge", lambda _: judge)
    SequentialRunner().run(create_pipeline(), catalog)

    index = catalog.load("question_index").set_index("question_id")
    assert index.loc["red-broken", "status"] == "failed"
    assert (index["status"] == "ok").sum() == 24
    pairs, figures = catalog.load("response_pairs"), catalog.load("response_pair_figures")
    assert 0 < len(pairs) == figures["sifting"]["selected"] <= figures["questions"]
    assert (pairs["chosen_score"] > pairs["rejected_score"]).all()
    assert "test" not in set(index.loc[pairs["question_id"], "split"])
    log = catalog.load("vlm_dpo_training_log")
    assert log["step"].tolist() == list(range(1, 31))
    assert log["margin"].iloc[-5:].mean() > 0.1 > abs(log["margin"].iloc[0])
    answers, metrics = catalog.load("vlm_answers"), catalog.load("vlm_dpo_metrics")
    assert set(answers["question_id"]) == set(index.index[(index["split"] == "test") & (index["status"] == "ok")])
    # The judge's points rise on questions that nothing was trained on.
    assert metrics["points"]["gain"]["mean"] > 0
    assert metrics["questions"] == len(answers)
    empty = (answers[["response_before", "response_after"]] == "").any(axis=1)
    assert metrics["points"]["before"]["n"] == len(answers) - empty.sum() >= 5
    assert (folder / "data/08_reporting/vlm_dpo.png").stat().st_size > 10_000
    assert damaged_file(Path(catalog.load("trained_vlm"))) is None
    reported = {name for name in entries if name.startswith(("vlm_dpo", "trained_vlm", "response_pair", "vlm_answers"))}
    assert reported == {name for name, entry in entries.items() if entry["metadata"].get("mlflow")}

    # A second run makes nothing anew: neither responses nor judgements nor answers.
    scored = judge.scored
    monkeypatch.setattr(answering.Answerer, "answer", lambda *_: pytest.fail("a response was generated again"))
    nodes = create_pipeline().only_nodes("sample_responses", "judge_responses", "answer_held_out")
    SequentialRunner().run(nodes, catalog)
    assert judge.scored == scored

    # Pairs that somebody has, with the questions in the same file.
    asked = index.reset_index()
    kept = tiny_vlm.pairs(asked[asked["status"] == "ok"])
    rows = kept.assign(id=kept["question_id"], video=[json.loads(files)[0] for files in kept["files"]])
    path = folder / "pairs.json"
    path.write_text(rows[["id", "video", "prompt", "chosen", "rejected"]].to_json(orient="records"), encoding="utf-8")
    catalog["response_pairs"] = QuestionsDataset(filepath=str(path), media=str(folder / "clips"), pairs=True)
    loaded = catalog.load("response_pairs")
    assert loaded["question_id"].tolist() == kept["question_id"].tolist()
    assert loaded["chosen"].tolist() == kept["chosen"].tolist()
    sides = task.pairs_by_side(loaded, asked)
    assert sum(map(len, sides.values())) == (index.loc[loaded["question_id"], "split"] != "test").sum()


def test_settings_of_the_embedded_default_are_valid() -> None:
    content = yaml.safe_load((ROOT / "conf/base/parameters/vlm_dpo.yml").read_text(encoding="utf-8"))
    given = VlmDpoParameters.model_validate(content["vlm_dpo"])
    assert given.training.lora is not None
    assert given.model.num_frames == 3


def test_published_settings_are_the_defaults() -> None:
    """Against UnifiedReward (arXiv 2503.05236); ten candidates, neighbours compared."""
    given = VlmDpoParameters.model_validate(
        {"model": {"family": "qwen2_vl", "path": "."}, "reward_model": {"type": None}}
    )
    assert (given.training.beta, given.training.learning_rate, given.training.batch_size) == (0.1, 5e-7, 16)
    assert (given.candidates.num_candidates, given.judging.ranking.pairs) == (10, "adjacent")


def test_the_shipped_questions_are_about_the_shipped_clips() -> None:
    from vr_pipeline.settings import CONFIG_LOADER_ARGS, CONFIG_LOADER_CLASS

    catalog = CONFIG_LOADER_CLASS(str(ROOT / "conf"), env="base", **CONFIG_LOADER_ARGS)["catalog"]
    entry = catalog["understanding_questions"]
    found = QuestionsDataset(filepath=str(ROOT / entry["filepath"]), media=str(ROOT / entry["media"])).load()
    clips = ClipFolder(ROOT / catalog["understanding_media"]["path"])
    assert {json.loads(files)[0] for files in found["files"]} == set(clips)
    assert found["group"].nunique() == 48
    # The right answer is what the clip was rendered from.
    for group, answer in found[["group", "answer"]].itertuples(index=False):
        colour, shape, _, direction, _, background = group.split()
        assert answer.split()[:4] == [colour, shape, direction, background]
