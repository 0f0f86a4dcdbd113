"""Training of judges: what is learned, what is rejected, and that an interrupted run ends as an uninterrupted one."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vr_pipeline.checklist import Checklist, checklist_from_mapping
from vr_pipeline.datasets.judge import JudgeFolderDataset
from vr_pipeline.engine import loop
from vr_pipeline.engine.config import LoopParameters
from vr_pipeline.engine.state import keep_newest
from vr_pipeline.errors import InputError
from vr_pipeline.judges import load_judge
from vr_pipeline.judges.plots import judge_report_figure
from vr_pipeline.judges.training import task as training
from vr_pipeline.judges.training.config import JudgeTrainingParameters
from vr_pipeline.judges.training.drawing import Drawing
from vr_pipeline.judges.training.examples import JudgeExample, balance_weights, count_answers, is_held_out
from vr_pipeline.judges.training.report import question_report
from vr_pipeline.judges.training.task import JudgeTask, train_judge

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
        # The question of captions is the configuration's own: its token is meant, and no text to be spelled out.
        asking = SimpleNamespace(family=judge.family, judge=judge, parameters=parameters(**changes))
        segment, _ = JudgeTask._caption_segment(asking, "bright")  # type: ignore[arg-type]
        caption = judge.family.tokenizer.convert_tokens_to_ids("<caption>")
        assert caption != judge.family.tokenizer.unk_token_id
        assert segment.token_ids[0] == caption


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


def test_validation_part_depends_on_the_clip_alone() -> None:
    names = [f"clip{number}" for number in range(4000)]
    held_out = {name for name in names if is_held_out(name, 0.2)}
    assert 0.17 < len(held_out) / len(names) < 0.23
    assert held_out < {name for name in names if is_held_out(name, 0.4)}


def test_report_figure_shows_every_question(checklist: Checklist, examples: list[JudgeExample]) -> None:
    trained = train_judge(examples, checklist, parameters(steps=20))
    figure = judge_report_figure(trained.report, trained.log)
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["bright", "as_said"]
    assert judge_report_figure(trained.report, trained.log).axes[1].get_lines()
