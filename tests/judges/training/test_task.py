"""Training of judges: what is learned, what is refused, and that an interrupted run ends as an uninterrupted one."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from kedro.io import DatasetError

from vr_pipeline.checklist import Checklist, checklist_from_mapping
from vr_pipeline.datasets.judge import JudgeFolderDataset
from vr_pipeline.engine import loop
from vr_pipeline.engine.config import LoopParameters
from vr_pipeline.engine.state import keep_newest
from vr_pipeline.errors import InputError
from vr_pipeline.judges import load_judge
from vr_pipeline.judges.plots import judge_report_figure
from vr_pipeline.judges.training import task as training
from vr_pipeline.judges.training.annotations import annotations_from_grades, collect_examples, read_annotations
from vr_pipeline.judges.training.config import JudgeTrainingParameters
from vr_pipeline.judges.training.drawing import Drawing
from vr_pipeline.judges.training.examples import JudgeExample, StoredFrames, balance_weights, count_answers, is_held_out
from vr_pipeline.judges.training.report import question_report
from vr_pipeline.judges.training.task import train_judge
from vr_pipeline.pipelines.judge_training.nodes import draw_judge_report
from vr_pipeline.video.write import write_video

TINY = {
    "hidden_size": 32,
    "layers": 2,
    "heads": 2,
    "intermediate_size": 48,
    "vision_size": 32,
    "patch_size": 4,
    "temporal_patch_size": 2,
    "num_frames": 4,
    "height": 8,
    "width": 8,
}
BASE = {
    "tiny": TINY,
    "threads": 1,
    "batch_size": 16,
    "learning_rate": 5e-3,
    "warmup_steps": 5,
    "checkpoint_every": 20,
    "validation_share": 0.25,
}


@pytest.fixture(scope="module")
def checklist() -> Checklist:
    questions = [
        {"id": "bright", "text": "is it bright ?"},
        {"id": "as_said", "text": 'is it " [[prompt]] " ?'},
    ]
    return checklist_from_mapping(
        {
            "name": "light",
            "modality": "video",
            "dimensions": [{"name": "light", "sub_dimensions": [{"name": "light", "questions": questions}]}],
        }
    )


@pytest.fixture(scope="module")
def graded_light() -> Checklist:
    sub = {"name": "light", "questions": [{"id": "bright", "text": "Is it bright?"}], "grades": {1: ["yes"], 0: ["no"]}}
    return checklist_from_mapping(
        {"name": "x", "modality": "video", "dimensions": [{"name": "light", "sub_dimensions": [sub]}]}
    )


@pytest.fixture(scope="module")
def examples() -> list[JudgeExample]:
    """Bright and dark clips under the prompts 'bright' and 'dark'."""
    random = np.random.default_rng(0)
    made = []
    for number in range(160):
        bright, prompt = bool(random.random() < 0.7), str(random.choice(["bright", "dark"]))
        frames = random.integers(0, 60, (4, 8, 8, 3)) + (170 if bright else 20)
        labels = {"bright": bright, "as_said": bright == (prompt == "bright")}
        caption = "bright" if bright else "dark"
        made.append(JudgeExample(f"clip{number}", frames.astype(np.uint8), prompt, labels, caption, 8.0))
    return made


def parameters(**changes: Any) -> JudgeTrainingParameters:
    return JudgeTrainingParameters.model_validate(BASE | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 70},
        {"steps": 70, "matrix_learning_rate": 0.02, "caption_weight": 0.5, "caption_question": "<caption>"},
        {"steps": 70, "questions_per_clip": 1, "batch_size": 32, "micro_batch_size": 16, "ema_decay": 0.9},
    ],
    ids=["all-questions", "muon-captions", "drawn-questions"],
)
def test_a_judge_learns_and_is_the_same_from_its_folder(
    changes: dict[str, Any], checklist: Checklist, examples: list[JudgeExample], tmp_path: Path
) -> None:
    trained = train_judge(examples, checklist, parameters(**changes))
    report = trained.report.set_index("question_id")
    assert report.loc["bright", "balanced_accuracy"] > 0.95
    assert trained.summary["median_outside_mass"] < 0.1
    assert trained.log["step"].tolist() == list(range(1, 71))
    dataset = JudgeFolderDataset(path=str(tmp_path / "judge"))
    assert not dataset.exists()
    dataset.save(trained)
    (tmp_path / "judge/MODEL_CARD.md").write_text("kept", encoding="utf-8")
    dataset.save(trained)
    assert (tmp_path / "judge/MODEL_CARD.md").read_text(encoding="utf-8") == "kept"
    judge = load_judge({"family": "qwen2_vl", "path": dataset.load(), "clip_batch": 16})
    held_out = [example for example in examples if is_held_out(example.video_id, 0.25)]
    texts = [question.text for question in checklist.questions]
    p_yes, _ = judge.answer([e.frames for e in held_out], texts, [e.prompt for e in held_out])
    right = np.mean([(p_yes[row, 0] > 0.5) == e.labels["bright"] for row, e in enumerate(held_out)])
    assert right == pytest.approx(report.loc["bright", "accuracy"])
    if "caption_weight" in changes:
        assert trained.log["caption_loss"].iloc[-1] < 0.3 < trained.log["caption_loss"].iloc[0]


def test_same_weights_twice_and_after_an_interruption(
    checklist: Checklist, examples: list[JudgeExample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = parameters(steps=50, questions_per_clip=1, matrix_learning_rate=0.02, ema_decay=0.9)
    folder = {"checkpoint_folder": str(tmp_path)}
    kept = options.model_copy(update=folder)

    def weights(trained: Any) -> dict[str, np.ndarray]:
        return {name: value.numpy() for name, value in trained.family.model.state_dict().items()}

    whole = train_judge(examples, checklist, options)
    real = loop.learning_rate

    def killed(step: int, given: LoopParameters) -> float:
        if step == 31:
            raise KeyboardInterrupt
        return real(step, given)

    monkeypatch.setattr(loop, "learning_rate", killed)
    with pytest.raises(KeyboardInterrupt):
        train_judge(examples, checklist, kept)
    steps = []
    monkeypatch.setattr(loop, "learning_rate", lambda step, given: steps.append(step) or real(step, given))
    resumed = train_judge(examples, checklist, kept)
    assert steps == list(range(21, 51))
    pd.testing.assert_frame_equal(resumed.log, whole.log)
    first, second = weights(whole), weights(resumed)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    # Until the judge is saved its state stays: killed now and started again, not a step is made.
    steps.clear()
    again = train_judge(examples, checklist, kept)
    assert steps == []
    pd.testing.assert_frame_equal(again.log, whole.log)
    pd.testing.assert_frame_equal(again.report, whole.report)
    third = weights(again)
    assert all(np.array_equal(first[name], third[name]) for name in first)
    # The state of other clips under the same names, of another split or of other examples is not taken.
    changed = [replace(examples[0], content="another file"), *examples[1:]]
    # One clip more for training, one less for validation, and the order of all as it was.
    short = parameters(steps=1, checkpoint_every=1, **folder)
    ordered = sorted(examples, key=lambda example: is_held_out(example.video_id, short.validation_share))
    parts, moved = (
        [replace(example, split="train" if at < count else "validation") for at, example in enumerate(ordered)]
        for count in (10, 11)
    )
    for first, second in ((examples, changed), (parts, moved)):
        train_judge(first, checklist, short)
        for again, expected in ((first, []), (second, [1])):
            steps.clear()
            train_judge(again, checklist, short)
            assert steps == expected
    steps.clear()
    train_judge(examples[:-8], checklist, parameters(steps=22, **folder))
    assert steps[0] == 1
    state = max(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    whole_state = state.read_bytes()
    state.write_bytes(whole_state[:-1])
    with pytest.raises(InputError, match=r"\.safetensors: the checkpoint of a training is damaged"):
        train_judge(examples[:-8], checklist, parameters(steps=22, **folder))
    state.write_bytes(whole_state)
    # What was finished is done again where that is asked for.
    steps.clear()
    train_judge(examples[:-8], checklist, parameters(steps=22, **folder))
    assert steps == []
    train_judge(examples[:-8], checklist, parameters(steps=22, retrain=True, **folder))
    assert steps == list(range(1, 23))
    keep_newest(tmp_path, 0)
    assert list(tmp_path.iterdir()) == []


def test_lora_changes_only_what_it_adapts_and_is_merged(
    checklist: Checklist, examples: list[JudgeExample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = train_judge(examples, checklist, parameters(steps=20))
    JudgeFolderDataset(path=str(tmp_path / "base")).save(base)
    lora = {"rank": 4, "alpha": 8, "target_modules": ["q_proj", "v_proj"]}
    start = {"family": "qwen2_vl", "path": str(tmp_path / "base")}
    options = parameters(steps=25, tiny=None, start=start, lora=lora, checkpoint_folder=str(tmp_path / "state"))
    tuned = train_judge(examples, checklist, options)
    before, after = base.family.model.state_dict(), tuned.family.model.state_dict()
    assert before.keys() == after.keys()
    changed = {name for name in before if not np.array_equal(before[name].numpy(), after[name].numpy())}
    assert changed == {name for name in before if name.endswith(("self_attn.q_proj.weight", "self_attn.v_proj.weight"))}
    # A stored state belongs to the weights that it was trained from, not to the folder's name.
    steps: list[int] = []

    def stopped(step: int, given: LoopParameters) -> float:
        steps.append(step)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "learning_rate", stopped)
    JudgeFolderDataset(path=str(tmp_path / "base")).save(base)
    train_judge(examples, checklist, options)
    assert steps == []
    JudgeFolderDataset(path=str(tmp_path / "base")).save(tuned)
    with pytest.raises(KeyboardInterrupt):
        train_judge(examples, checklist, options)
    assert steps == [1]


def test_labels_and_splits_are_checked(checklist: Checklist, examples: list[JudgeExample]) -> None:
    wrong = JudgeExample("x", examples[0].frames, "dark", {"loud": True})
    with pytest.raises(InputError, match="unknown question 'loud'"):
        train_judge([*examples, wrong], checklist, parameters(steps=1))
    with pytest.raises(InputError, match="for training"):
        train_judge([], checklist, parameters(steps=1))
    with pytest.raises(ValueError, match="either 'start'"):
        JudgeTrainingParameters.model_validate({"steps": 3})


def test_test_split_is_never_trained_on(checklist: Checklist, examples: list[JudgeExample]) -> None:
    # Labels of the test split are inverted: a judge that saw them could not be nearly always wrong there.
    split = [
        JudgeExample(
            e.video_id,
            e.frames,
            e.prompt,
            {q: not a for q, a in e.labels.items()} if number % 4 == 0 else e.labels,
            frames_per_second=8.0,
            split="test" if number % 4 == 0 else "train",
            source="inverted" if number % 4 == 0 else "true",
        )
        for number, e in enumerate(examples)
    ]
    trained = train_judge(split, checklist, parameters(steps=80))
    assert set(trained.report["source"]) == {"inverted"}
    assert trained.report.set_index("question_id").loc["bright", "balanced_accuracy"] < 0.1


def test_balance_makes_yes_and_no_weigh_the_same() -> None:
    frames = np.zeros((1, 4, 4, 3), np.uint8)
    made = [JudgeExample(str(n), frames, "", {"a": n < 2, "b": True}) for n in range(10)]
    weights = balance_weights(count_answers(made))
    assert 2 * weights["a", True] == pytest.approx(8 * weights["a", False])
    assert weights["b", True] == 1.0


def test_drawn_questions_are_about_balanced() -> None:
    random = np.random.default_rng(0)
    shares = random.uniform(0.05, 0.95, 64)
    names = [f"q{number}" for number in range(64)]
    made = [
        JudgeExample(str(number), np.zeros((1, 1, 1, 3), np.uint8), "", dict(zip(names, drawn, strict=True)))
        for number, drawn in enumerate((random.random((2000, 64)) < shares).tolist())
    ]
    drawing = Drawing(made, names, parameters(questions_per_clip=4))
    labels: dict[str, list[bool]] = {name: [] for name in names}
    for example in made:
        drawn = drawing._questions(example, random)
        assert len(drawn) == 4
        for name in drawn:
            labels[name].append(example.labels[name])
    assert np.abs(shares - 0.5).mean() > 0.2
    assert np.mean([abs(np.mean(of_one) - 0.5) for of_one in labels.values()]) < 0.06
    # Every question keeps its turn.
    assert min(map(len, labels.values())) > 2000 * 4 / 64 / 2


@pytest.mark.parametrize("drawn", [None, 1], ids=["all-questions", "drawn-questions"])
def test_yes_and_no_weigh_exactly_the_same_over_a_training(
    drawn: int | None, checklist: Checklist, examples: list[JudgeExample], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every fourth clip has one label only: that one is not drawn, but asked always.
    some = [
        replace(e, labels={"bright": e.labels["bright"]} if at % 4 == 0 else e.labels, split="train")
        for at, e in enumerate(examples[:37])
    ]
    some.append(replace(examples[38], split="validation"))
    passes: list[list[tuple[str, bool]]] = []
    weighed: list[tuple[list[float], float]] = []
    draw, mean = Drawing.of_pass, training._weighted_mean

    def watched_draw(drawing: Drawing, number: int) -> Any:
        drawn = draw(drawing, number)
        asked = zip(drawn.examples, drawn.questions, strict=True)
        passes.append([(q, drawing.examples[at].labels[q]) for at, of_one in asked for q in of_one])
        return drawn

    def watched_mean(losses: Any, weights: list[float], total: float | None = None) -> Any:
        if total is not None:
            weighed.append((weights, total))
        return mean(losses, weights, total)

    monkeypatch.setattr(Drawing, "of_pass", watched_draw)
    monkeypatch.setattr(training, "_weighted_mean", watched_mean)
    # 13 steps of two passes of 3 clips: two epochs and a bit.
    options = {"steps": 13, "batch_size": 6, "micro_batch_size": 3, "questions_per_clip": drawn}
    train_judge(some, checklist, parameters(**options))
    assert len(weighed) == 26
    sums: dict[tuple[str, bool], float] = {}
    counts: Counter[tuple[str, bool]] = Counter()
    for labels, (weights, total) in zip(passes, weighed, strict=True):
        for label, weight in zip(labels, weights, strict=True):
            sums[label] = sums.get(label, 0.0) + weight / total
            counts[label] += 1
    assert counts["bright", True] > 1.2 * counts["bright", False]
    for question in ("bright", "as_said"):
        assert sums[question, True] == pytest.approx(sums[question, False])
    # A question counts as much as it is asked, and a pass has the loss of a mean.
    asked = counts["bright", True] + counts["bright", False]
    assert 2 * sums["bright", True] == pytest.approx(26 * asked / counts.total())


def test_accumulated_passes_have_the_loss_of_one_large_pass(checklist: Checklist, examples: list[JudgeExample]) -> None:
    logs = [train_judge(examples, checklist, parameters(steps=2, micro_batch_size=clips)).log for clips in (16, 1)]
    np.testing.assert_allclose(logs[1]["answer_loss"], logs[0]["answer_loss"], rtol=1e-4)


def test_question_report_by_hand() -> None:
    p_yes = np.array([[0.9, 0.2], [0.8, 0.4], [0.3, 0.6], [0.6, 0.7]])
    labels = np.array([[1, 0], [1, np.nan], [0, 1], [0, np.nan]])
    report = question_report(p_yes, labels, ["a", "b"]).set_index("question_id")
    assert report.loc["a", "accuracy"] == 0.75
    assert report.loc["a", "balanced_accuracy"] == 0.75
    assert report.loc["a", "positives"] == 0.5
    assert report.loc["b", "n"] == 2
    assert report.loc["b", "accuracy"] == 1.0
    assert report.loc["a", "calibration_error"] == pytest.approx((0.1 + 0.2 + 0.3 + 0.6) / 4)
    assert json.loads(report.loc["b", "calibration"]) == [[0.2, 0.0, 1], [0.6, 1.0, 1]]


def test_learning_rate_course() -> None:
    for schedule, end in (("cosine", 0.0), ("linear_to_zero", 0.0), ("linear", 1 / 90), ("constant", 1.0)):
        options = parameters(steps=100, warmup_steps=10, learning_rate=1.0, schedule=schedule)
        rates = [loop.learning_rate(step, options) for step in range(1, 101)]
        assert rates[4] == 0.5
        assert max(rates) == rates[9] == 1.0
        assert rates[-1] == pytest.approx(end, abs=1e-12)


def test_validation_part_depends_on_the_clip_alone() -> None:
    names = [f"clip{number}" for number in range(4000)]
    held_out = {name for name in names if is_held_out(name, 0.2)}
    assert 0.17 < len(held_out) / len(names) < 0.23
    assert held_out < {name for name in names if is_held_out(name, 0.4)}


def test_tables_become_examples(tmp_path: Path) -> None:
    clip = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    write_video(tmp_path / "a.mp4", clip, fps=6)
    (tmp_path / "b.mp4").write_bytes(b"nothing")
    folder = {path.name: path for path in tmp_path.iterdir()}
    index = pd.DataFrame(
        {
            "video_id": ["b", "a", "c"],
            "prompt": ["two", "one", "three"],
            "path": ["b.mp4", "a.mp4", "c.mp4"],
            "status": ["ok", "ok", "failed"],
        }
    )
    rows = [("a", "q1", True), ("a", "q2", False), ("b", "q1", True), ("c", "q1", True)]
    table = pd.DataFrame(rows, columns=["video_id", "question_id", "label"])
    (example,) = collect_examples(table, index, folder, num_frames=3)
    assert (example.video_id, example.prompt, example.labels) == ("a", "one", {"q1": True, "q2": False})
    assert np.array_equal(example.frames, clip[[0, 3, 5]])
    assert example.frames_per_second == pytest.approx(3.0)
    asked_twice = pd.concat([table.assign(prompt="one"), table.assign(prompt="other", caption="hm")])
    assert [e.prompt for e in collect_examples(asked_twice, index, folder)] == ["one", "other"]
    with pytest.raises(InputError, match="two labels"):
        collect_examples(pd.concat([table, table]), index, folder)
    with pytest.raises(InputError, match="not in the video index"):
        collect_examples(table.assign(video_id="z"), index, folder)


def test_grades_become_labels() -> None:
    checklist = checklist_from_mapping(
        {
            "name": "x",
            "modality": "video",
            "dimensions": [
                {
                    "name": "d",
                    "sub_dimensions": [
                        {
                            "name": "lighting_aes",
                            "questions": [{"id": "fine", "text": "Fine?"}, {"id": "fair", "text": "Fair?"}],
                            "grades": {2: ["yes", "yes"], 1: ["no", "yes"], 0: ["no", None]},
                        }
                    ],
                }
            ],
        }
    )
    nested = pd.DataFrame({"video_path": ["a.mp4", "b.mp4"], "annotation": [{"Lighting aes": 1}, {"lighting_aes": 0}]})
    expected = [("a.mp4", "fine", False), ("a.mp4", "fair", True), ("b.mp4", "fine", False)]
    found = annotations_from_grades(nested, checklist)
    assert list(found[["video_id", "question_id", "label"]].itertuples(index=False, name=None)) == expected
    assert found["file"].tolist() == found["video_id"].tolist()
    flat = pd.DataFrame({"video_id": ["a.mp4", "b.mp4"], "lighting_aes": [1.0, 0.0]})
    pd.testing.assert_frame_equal(annotations_from_grades(flat, checklist), found.drop(columns="file"))
    texts = nested.assign(annotation=nested["annotation"].map(json.dumps))
    pd.testing.assert_frame_equal(annotations_from_grades(texts, checklist), found)
    with pytest.raises(InputError, match="row 3, field 'lighting_aes'"):
        annotations_from_grades(flat.assign(lighting_aes=[1, 9]), checklist)
    with pytest.raises(InputError, match="names the clips"):
        annotations_from_grades(flat.drop(columns="video_id"), checklist)
    # Columns are named as grades are, and a table with gaps writes its numbers with a point.
    gaps = pd.DataFrame({"video_id": ["a.mp4", "b.mp4", "c.mp4"], "Lighting aes": ["1.0", "0.0", ""]})
    pd.testing.assert_frame_equal(annotations_from_grades(gaps, checklist), found.drop(columns="file"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotation": "{'light': 1}"}, r"row 5, field 'annotation': the annotation is not valid JSON"),
        ({"annotation": "good"}, r"row 5, field 'annotation': the annotation is not valid JSON"),
        ({"annotation": [1, 2]}, r"row 5, field 'annotation': the annotation is '\[1, 2\]'"),
        ({"annotation": {"light": [1, 2]}}, r"row 5, field 'light': grade '\[1, 2\]' is not in the map"),
        ({"video_path": None}, r"row 5, field 'video_path': the cell is empty"),
    ],
)
def test_grades_that_cannot_be_read_are_refused(graded_light: Checklist, changes: dict[str, Any], message: str) -> None:
    rows = [{"video_path": name, "annotation": {"light": 1}} for name in ("a.mp4", "b.mp4")]
    with pytest.raises(InputError, match=message):
        annotations_from_grades(pd.DataFrame([rows[0], rows[1] | changes]), graded_light, first_row=4)


def test_grades_of_another_checklist_do_not_vanish_silently(
    graded_light: Checklist, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"video_path": "a.mp4", "annotation": {"light": 1, "colour": 2}}, {"video_path": "b.mp4"}]
    assert len(annotations_from_grades(pd.DataFrame(rows), graded_light)) == 1
    assert "Grades of colour are left out: the checklist maps grades of light." in caplog.text
    with pytest.raises(InputError, match=r"no grade of a sub-dimension .* as the checklist does \(light\)"):
        annotations_from_grades(pd.DataFrame([{"video_path": "a.mp4", "annotation": {"colour": 2}}]), graded_light)


def test_missing_texts_of_annotations_are_not_the_word_nan(graded_light: Checklist, tmp_path: Path) -> None:
    rows = [
        {"video_path": "a.mp4", "annotation": {"light": 1}, "prompt": "a cat", "caption": "cat"},
        {"video_path": "b.mp4", "annotation": {"light": 1}, "prompt": None},
    ]
    found = annotations_from_grades(pd.DataFrame(rows), graded_light)
    assert found[["prompt", "caption"]].to_numpy().tolist() == [["a cat", "cat"], ["", ""]]
    # A clip without a prompt of its own is judged against that of the index, and not lost.
    clip = np.zeros((2, 64, 64, 3), np.uint8)
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, clip, fps=6)
    index = pd.DataFrame({"video_id": ["a.mp4", "b.mp4"], "path": ["a.mp4", "b.mp4"], "prompt": ["a fox", "a dog"]})
    index = index.assign(num_frames=2, fps=6.0, status="ok")
    folder = {name: tmp_path / name for name in index["path"]}
    for table in (found, found.replace("", None)):
        examples = collect_examples(table, index, folder)
        assert [(one.prompt, one.caption) for one in examples] == [("a cat", "cat"), ("a dog", "")]
    labels = tmp_path / "labels.csv"
    labels.write_text("video,question_id,label\na.mp4,bright,yes\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"labels\.csv, field 'video_id': a column is missing"):
        read_annotations(labels, graded_light)


def test_report_figure_shows_every_question(checklist: Checklist, examples: list[JudgeExample]) -> None:
    trained = train_judge(examples, checklist, parameters(steps=20))
    figure = draw_judge_report(trained.report, trained.log)
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["bright", "as_said"]
    assert judge_report_figure(trained.report, trained.log).axes[1].get_lines()


def test_public_annotations_and_a_folder_of_clips_become_examples(tmp_path: Path) -> None:
    """The columns of VisionRewardDB, the project's own video checklist, clips as downloaded."""
    from vr_pipeline.checklist import load_checklist
    from vr_pipeline.datasets.annotations import JudgeAnnotationsDataset
    from vr_pipeline.datasets.clips import ClipFolderDataset
    from vr_pipeline.pipelines.judge_training.nodes import index_judge_training_videos
    from vr_pipeline.schemas import JudgeAnnotations

    path = Path(__file__).parents[3] / "conf/checklists/video.yml"
    clip = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    write_video(tmp_path / "clips/videos/a.mp4", clip, fps=6)
    write_video(tmp_path / "clips/videos/b.mp4", clip[:3], fps=6)
    entries = [
        {"video_path": "videos/a.mp4", "internal_id": 1, "prompt": "a cat", "annotation": {"alignment": 5, "focus": 2}},
        {"video_path": "videos/b.mp4", "internal_id": 2, "prompt": "a dog", "annotation": {"alignment": 1}},
        {"video_path": "videos/c.mp4", "internal_id": 3, "prompt": "a fox", "annotation": {"safety": 5}},
    ]
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(entry | {"meta_mask": []}) + "\n" for entry in entries), encoding="utf-8")
    dataset = JudgeAnnotationsDataset(filepath=str(file), checklist=str(path))
    table = JudgeAnnotations.validate(dataset.load())
    folder = ClipFolderDataset(path=str(tmp_path / "clips")).load()
    index = index_judge_training_videos(folder, table)
    assert index["status"].tolist() == ["ok", "ok", "failed"]
    first, second = collect_examples(table, index, folder, num_frames=3)
    checklist = load_checklist(path)
    expected = checklist.answers_from_grades({"alignment": 5, "focus": 2})
    assert (first.prompt, first.labels, len(first.frames)) == ("a cat", expected, 3)
    assert not any(second.labels.values())
    assert np.array_equal(second.frames, clip[:3])
    # Without memory for them, frames are read when they are needed, and are the same.
    stored, _ = collect_examples(table, index, folder, frames_per_second=2.0, num_frames=3, memory_mb=-1)
    whole, _ = collect_examples(table, index, folder, frames_per_second=2.0, num_frames=3)
    assert isinstance(stored.frames, StoredFrames)
    assert np.array_equal(stored.read(), whole.frames)
    assert stored.frames_per_second == pytest.approx(whole.frames_per_second)
    # The project's own form, in words.
    own = tmp_path / "own.csv"
    own.write_text("video_id,question_id,label,file,prompt\n7,q,yes,a.mp4,x\n8,q,no,b.mp4,x\n", encoding="utf-8")
    read = JudgeAnnotationsDataset(filepath=str(own), checklist=str(path)).load()
    assert read[["video_id", "label"]].to_numpy().tolist() == [["7", True], ["8", False]]
    own.write_text("video_id,question_id,label\n7,q,yes\n8,q,perhaps\n9,q,\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"own\.csv, row 3, field 'label': the label is 'perhaps'"):
        JudgeAnnotationsDataset(filepath=str(own), checklist=str(path)).load()
    file.write_text(json.dumps(entries[0] | {"annotation": {"alignment": 9}}), encoding="utf-8")
    with pytest.raises(DatasetError, match=r"train\.jsonl, row 1, field 'alignment'"):
        dataset.load()
