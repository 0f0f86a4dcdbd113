"""The pipeline from clips to answers: gates, quarantine, resume, and the stop on a judge that does not answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from kedro.io import DataCatalog, DatasetError
from kedro.runner import SequentialRunner

from vr_pipeline import schemas
from vr_pipeline.checklist import Checklist, checklist_from_mapping
from vr_pipeline.datasets.manifest import ManifestFolderDataset
from vr_pipeline.errors import InputError
from vr_pipeline.judges.config import ChecklistInferenceParameters
from vr_pipeline.pipelines.checklist_inference.nodes import collect_answers, plan_checklist_answers
from vr_pipeline.pipelines.checklist_inference.pipeline import create_pipeline
from vr_pipeline.video.write import write_video
from vr_pipeline.vlm.config import JudgeParameters

ROOT = Path(__file__).parents[3]


class ArithmeticJudge:
    """Stands for a model: the answer to question k is the brightness of the clip, for even k, or its complement."""

    identity = "arithmetic"
    num_frames = 2
    frames_per_second = None

    def __init__(self, outside: float = 0.0) -> None:
        self.outside, self.asked = outside, []

    def answer(
        self, clips: Sequence[np.ndarray], questions: Sequence[str], prompts: Sequence[str], **rates: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        assert len(rates["frames_per_second"]) == len(clips)
        self.asked += list(prompts)
        brightness = np.array([clip.mean() / 255 for clip in clips]).reshape(-1, 1)
        signs = np.array([number % 2 for number in range(len(questions))])
        p_yes = np.abs(signs[None] - brightness)
        return p_yes, np.full(p_yes.shape, self.outside)


@pytest.fixture
def checklist() -> Checklist:
    questions = [
        {"id": "bright", "text": 'Is "[[prompt]]" bright?', "weighted": False},
        {"id": "dark", "text": "Is it dark?", "gate": "bright"},
        {"id": "pale", "text": "Is it pale?", "gate": "dark"},
    ]
    sub = {"name": "light", "questions": questions}
    dimensions = [{"name": "light", "sub_dimensions": [sub]}]
    return checklist_from_mapping({"name": "light", "modality": "video", "dimensions": dimensions})


@pytest.fixture
def clips(tmp_path: Path) -> tuple[dict[str, Path], pd.DataFrame]:
    """Seven clips of three prompts, from dark to bright; one does not decode, one was never made."""
    folder = tmp_path / "clips"
    rows = []
    for number in range(9):
        name = f"v{number}"
        path = folder / f"{name}.mp4"
        if number < 7:
            write_video(path, np.full((4, 64, 64, 3), 20 + 35 * number, np.uint8), fps=4)
        elif number == 7:
            path.write_bytes(b"\x00\x01 no video")
        rows.append(
            {
                "video_id": name,
                "prompt_id": f"p{number % 3}",
                "prompt": f"prompt {number % 3}",
                "sample_index": number // 3,
                "seed": 0,
                "generator": "test",
                "path": f"{name}.mp4",
                "num_frames": 4,
                "fps": 4.0,
                "height": 64,
                "width": 64,
                "sha256": f"hash{number}",
                "status": "failed" if number == 8 else "ok",
                "error": "no memory" if number == 8 else "",
            }
        )
    index = schemas.VideoIndex.validate(pd.DataFrame(rows))
    return {path.name: path for path in folder.iterdir()}, index


PARAMETERS = ChecklistInferenceParameters(clips_per_item=2)


@pytest.fixture
def configured(tmp_path: Path) -> JudgeParameters:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}", encoding="utf-8")
    return JudgeParameters(family="qwen2_vl", path=str(model))


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> ArithmeticJudge:
    made = ArithmeticJudge()
    monkeypatch.setattr("vr_pipeline.judges.load_judge", lambda config: made)
    return made


def test_answers_gates_and_quarantine(
    clips: Any, checklist: Checklist, configured: JudgeParameters, judge: ArithmeticJudge, tmp_path: Path
) -> None:
    folder, index = clips
    shards = ManifestFolderDataset(path=str(tmp_path / "shards"), format={"type": "table"})
    shards.save(plan_checklist_answers(folder, index, checklist, configured, PARAMETERS))
    table = schemas.ChecklistAnswers.validate(collect_answers(shards.load(), index, checklist, PARAMETERS))
    assert table["video_id"].unique().tolist() == [f"v{number}" for number in range(7)]
    assert table["question_id"].tolist() == checklist.question_ids * 7
    assert set(table["frames_judged"]) == {2}
    wide = table.pivot(index="video_id", columns="question_id")
    for number in range(7):
        brightness = (20 + 35 * number) / 255
        row = wide.loc[f"v{number}"]
        assert row["p_yes", "bright"] == pytest.approx(brightness, abs=0.01)
        assert row["answer", "bright"] == (brightness > 0.5)
        assert not row["gated", "bright"]
        assert row["gated", "dark"] == (brightness <= 0.5)
        # 'dark' says no where 'bright' says yes, and the other way round: a chain of gates that is always cut.
        assert row["gated", "pale"]
    assert sorted(judge.asked) == sorted(index["prompt"][:7])


def test_nothing_is_judged_twice_unless_something_changed(
    clips: Any, checklist: Checklist, configured: JudgeParameters, judge: ArithmeticJudge, tmp_path: Path
) -> None:
    folder, index = clips

    def run(index: pd.DataFrame, given: Any = configured, asked: Checklist = checklist) -> int:
        judge.asked.clear()
        shards = ManifestFolderDataset(path=str(tmp_path / "shards"), format={"type": "table"})
        shards.save(plan_checklist_answers(folder, index, asked, given, PARAMETERS))
        return len(judge.asked)

    assert run(index) == 7
    assert run(index) == 0
    assert run(index.sample(frac=1, random_state=0)) == 0
    changed = index.copy()
    changed.loc[changed["video_id"] == "v1", "sha256"] = "other"
    assert run(changed) == 2  # v1 and v4 are one group; the other prompts are left alone
    assert run(index[index["prompt_id"] != "p0"]) == 2  # back to the first v1
    asked_otherwise = index.copy()
    asked_otherwise.loc[asked_otherwise["prompt_id"] == "p0", "prompt"] = "another prompt"
    assert run(asked_otherwise) == 3
    assert run(index) == 3
    more_frames = configured.model_copy(update={"num_frames": 3})
    assert run(index, more_frames) == 7
    (Path(configured.path) / "config.json").write_text('{"changed": true}', encoding="utf-8")
    assert run(index, more_frames) == 7
    other = checklist_from_mapping(
        {
            "name": "other",
            "modality": "video",
            "dimensions": [
                {"name": "d", "sub_dimensions": [{"name": "s", "questions": [{"id": "q", "text": "Is it new?"}]}]}
            ],
        }
    )
    assert run(index, more_frames, other) == 7


def test_a_kill_loses_one_group_at_most(
    clips: Any, checklist: Checklist, configured: JudgeParameters, judge: ArithmeticJudge, tmp_path: Path
) -> None:
    folder, index = clips
    whole = judge.answer
    calls = []

    def killed(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(*arguments, **options)

    judge.answer = killed  # type: ignore[method-assign]
    shards = ManifestFolderDataset(path=str(tmp_path / "shards"), format={"type": "table"})
    with pytest.raises(KeyboardInterrupt):
        shards.save(plan_checklist_answers(folder, index, checklist, configured, PARAMETERS))
    done = len(judge.asked)
    assert done > 0
    judge.answer = whole  # type: ignore[method-assign]
    judge.asked.clear()
    shards.save(plan_checklist_answers(folder, index, checklist, configured, PARAMETERS))
    assert done + len(judge.asked) == 7


def test_a_clip_that_the_judge_cannot_take_is_set_aside_and_the_others_are_judged(
    clips: Any, checklist: Checklist, configured: JudgeParameters, judge: ArithmeticJudge, tmp_path: Path
) -> None:
    folder, index = clips
    whole = judge.answer

    def choosy(given: Sequence[np.ndarray], *more: Any, **options: Any) -> Any:
        if any(clip.mean() > 180 for clip in given):
            raise ValueError("too bright for this judge")
        return whole(given, *more, **options)

    judge.answer = choosy  # type: ignore[method-assign]
    shards = ManifestFolderDataset(path=str(tmp_path / "shards"), format={"type": "table"})
    shards.save(plan_checklist_answers(folder, index, checklist, configured, PARAMETERS))
    table = collect_answers(shards.load(), index, checklist, PARAMETERS)
    assert table["video_id"].unique().tolist() == ["v0", "v1", "v2", "v3", "v4"]
    parts = pd.concat([shards.load().load(key) for key in shards.load().keys])
    reasons = parts[parts["error"] != ""].set_index("video_id")["error"]
    assert set(reasons.index) == {"v5", "v7"}
    assert reasons["v5"] == "too bright for this judge"
    # v6 is alone in its group.
    failed = shards.load().records.query("status == 'failed'")
    assert failed["error"].tolist() == ["too bright for this judge"]


def test_where_no_clip_of_a_group_can_be_judged_the_next_run_tries_again(
    clips: Any, checklist: Checklist, configured: JudgeParameters, judge: ArithmeticJudge, tmp_path: Path
) -> None:
    folder, index = clips
    whole = judge.answer

    def broken(*_: Any, **__: Any) -> Any:
        raise ValueError("a scorer is at fault")

    judge.answer = broken  # type: ignore[method-assign]
    shards = ManifestFolderDataset(path=str(tmp_path / "shards"), format={"type": "table"})
    with pytest.raises(DatasetError, match="first reason: a scorer is at fault"):
        shards.save(plan_checklist_answers(folder, index[index["video_id"] != "v7"], checklist, configured, PARAMETERS))
    judge.answer = whole  # type: ignore[method-assign]
    shards.save(plan_checklist_answers(folder, index, checklist, configured, PARAMETERS))
    table = collect_answers(shards.load(), index, checklist, PARAMETERS)
    assert table["video_id"].nunique() == 7
    # Clips that do not decode are not tried again as long as they are the same.
    damaged = index[index["video_id"] == "v7"]
    shards.save(plan_checklist_answers(folder, damaged, checklist, configured, PARAMETERS))
    with pytest.raises(InputError, match="no clip could be judged; the first reason: "):
        collect_answers(shards.load(), damaged, checklist, PARAMETERS)


def test_a_judge_that_does_not_answer_stops_the_run(
    clips: Any, checklist: Checklist, configured: JudgeParameters, judge: ArithmeticJudge, tmp_path: Path
) -> None:
    folder, index = clips
    judge.outside = 0.9
    shards = ManifestFolderDataset(path=str(tmp_path / "shards"), format={"type": "table"})
    shards.save(plan_checklist_answers(folder, index, checklist, configured, PARAMETERS))
    with pytest.raises(InputError, match=r"0\.900, the limit is 0\.5.*judge\.json"):
        collect_answers(shards.load(), index, checklist, PARAMETERS)
    generous = PARAMETERS.model_copy(update={"max_median_outside_mass": 0.95})
    assert len(collect_answers(shards.load(), index, checklist, generous)) == 21


def test_it_is_stopped_after_the_first_answers_already(
    clips: Any,
    checklist: Checklist,
    configured: JudgeParameters,
    judge: ArithmeticJudge,
    tmp_path: Path,
    monkeypatch: Any,
) -> None:
    monkeypatch.setattr("vr_pipeline.rewards.contract.ROWS_BEFORE_A_CHECK", 9)
    folder, index = clips
    judge.outside = 0.9
    shards = ManifestFolderDataset(path=str(tmp_path / "shards"), format={"type": "table"})
    with pytest.raises(DatasetError, match=r"0\.900, the limit is 0\.5"):
        shards.save(plan_checklist_answers(folder, index, checklist, configured, PARAMETERS))
    assert len(judge.asked) == 3
    judge.asked.clear()
    # Two answers of three are real ones. The mean is above the limit, but the median is what counts.
    whole = judge.answer

    def mostly(given: Sequence[np.ndarray], *more: Any, **options: Any) -> Any:
        p_yes, outside = whole(given, *more, **options)
        outside[:, :2] = 0.4
        return p_yes, outside

    judge.answer = mostly  # type: ignore[method-assign]
    shards = ManifestFolderDataset(path=str(tmp_path / "mostly"), format={"type": "table"})
    shards.save(plan_checklist_answers(folder, index, checklist, configured, PARAMETERS))
    assert len(collect_answers(shards.load(), index, checklist, PARAMETERS)) == 21


def test_whole_pipeline_in_memory_of_the_catalog(
    clips: Any, checklist: Checklist, configured: JudgeParameters, judge: ArithmeticJudge, tmp_path: Path
) -> None:
    folder, index = clips
    text = (ROOT / "conf/base/catalog/checklist_inference.yml").read_text(encoding="utf-8")
    entries = yaml.safe_load(text.replace("${globals:data}", "data"))
    for name, entry in entries.items():
        for key in ("filepath", "path"):
            if key in entry and name != "checklist":
                entry[key] = str(tmp_path / entry[key])
    del entries["checklist"]
    catalog = DataCatalog.from_config(entries)
    given = {"videos": folder, "video_index": index, "preference_videos": folder, "preference_video_index": index[:6]}
    given |= {"checklist": checklist, "params:judge": configured, "params:checklist_inference": PARAMETERS}
    for name, value in given.items():
        catalog[name] = value
    SequentialRunner().run(create_pipeline(), catalog)
    report = catalog.load("checklist_inference_report")
    assert report["generated"] | {"share_of_yes": 0} == {
        "clips": 9,
        "clips_judged": 7,
        "clips_failed_before": 1,
        "clips_unreadable": 1,
        "unreadable_video_ids": ["v7"],
        "answers": 21,
        "gated": 11,
        "median_outside_mass": 0.0,
        "share_of_yes": 0,
    }
    assert report["preferences"]["clips_judged"] == 6
    assert len(catalog.load("preference_answers")) == 18
    assert {node.name for node in create_pipeline().nodes if "gpu" in node.tags} == {
        "answer_checklist",
        "answer_checklist_on_preferences",
    }
