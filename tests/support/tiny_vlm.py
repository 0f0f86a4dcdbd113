"""A tiny vision-language model to be trained on responses: clips of plain colours, questions, pairs, an exact judge."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import tiny_judges
from vr_pipeline.identifiers import content_hash
from vr_pipeline.understanding.config import VlmDpoParameters
from vr_pipeline.understanding.media import index_questions
from vr_pipeline.video.write import write_video

COLOURS = {"red": (200, 20, 20), "blue": (20, 20, 200), "black": (10, 10, 10)}
THINGS = ("ball", "ring", "picture", "colour")
TEXT = "<|im_start|> user [[clip]] [[prompt]] <|im_end|> <|im_start|> assistant"
OPTIONS: dict[str, Any] = {
    "dialogue": {"text": TEXT, "end": "<|im_end|>"},
    "split": {"validation_share": 0.2, "test_share": 0.3},
    "candidates": {"num_candidates": 4, "max_new_tokens": 3, "batch_size": 4},
    "reward_model": {"type": None},
    "training": {
        "steps": 6,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "warmup_steps": 2,
        "checkpoint_every": 2,
        "lora": {"rank": 4, "alpha": 8},
        "reader_threads": 1,
        "threads": 1,
    },
}


def write_model(folder: Path) -> dict[str, Any]:
    """Save the tiny model, and return the block that loads it."""
    tiny_judges.qwen2_vl(tiny_judges.build_tokenizer()).save(folder)
    return {"family": "qwen2_vl", "path": str(folder), "device": "cpu", "threads": 1}


def parameters(model: Mapping[str, Any], /, **changes: Any) -> VlmDpoParameters:
    """Settings of a training of a second; changes of a block are merged into it."""
    merged = {name: {**OPTIONS[name], **changes.pop(name, {})} for name in ("split", "candidates", "training")}
    return VlmDpoParameters.model_validate({**OPTIONS, **merged, "model": model, **changes})


def frames_of(colour: str, number: int) -> np.ndarray:
    """Frames of one colour with a little noise, uint8 [4, 24, 24, 3], of which a model sees two."""
    noise = np.random.default_rng(number).integers(0, 40, (4, 24, 24, 3))
    return np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8)


def write_clips(folder: Path, each: int = 8) -> dict[str, Path]:
    """Write clips of every colour, and return their files by name."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for colour in COLOURS:
        for number in range(each):
            path = folder / f"{colour}-{number}.mp4"
            write_video(path, frames_of(colour, number), fps=4, codec="libx264rgb", crf=0)
            found[path.name] = path
    return found


def questions(media: Mapping[str, Path]) -> pd.DataFrame:
    """A question about the colour of every clip; a clip is its own group."""
    rows = [
        {
            "question_id": name.partition(".")[0],
            "group": name,
            "prompt": f"is the {THINGS[at % len(THINGS)]} red or blue or black ?",
            "answer": f"{name.partition('-')[0]} {THINGS[at % len(THINGS)]}",
            "files": json.dumps([name]),
        }
        for at, name in enumerate(sorted(media))
    ]
    return pd.DataFrame(rows)


def index(media: Mapping[str, Path], given: VlmDpoParameters) -> pd.DataFrame:
    """The index of these questions."""
    return index_questions(questions(media), media, given.split)


def pairs(table: pd.DataFrame) -> pd.DataFrame:
    """A pair a question: the right answer, and one of another colour."""
    rows = table[["question_id", "group", "prompt", "files"]].assign(chosen=table["answer"])
    names = list(COLOURS)
    rows["rejected"] = [
        answer.replace(answer.split()[0], names[(names.index(answer.split()[0]) + 1) % 3]) for answer in table["answer"]
    ]
    rows["pair_id"] = [content_hash("pair", name) for name in rows["question_id"]]
    return rows.assign(chosen_score=1.0, rejected_score=0.0)


class ExactJudge:
    """Counts words of a response that stand in the right place; knows the right answer by the clip's file."""

    identity = "exact"

    def __init__(self, table: pd.DataFrame) -> None:
        self.answers = {json.loads(row.files)[0]: row.answer for row in table.itertuples()}
        self.scored = 0

    def _points(self, clips: Sequence[Any], responses: Sequence[str]) -> np.ndarray:
        found = []
        for clip, response in zip(clips, responses, strict=True):
            right = self.answers[Path(clip).name].split()
            found.append(sum(a == b for a, b in zip(response.split(), right, strict=False)))
        return np.array(found, dtype=float)

    def compare_responses(
        self, clips: Sequence[Any], prompts: Sequence[str], responses_a: Sequence[str], responses_b: Sequence[str]
    ) -> pd.DataFrame:
        a, b = self._points(clips, responses_a), self._points(clips, responses_b)
        better = np.where(a > b, "a", np.where(b > a, "b", "tie"))
        said = {f"p_{name}": (better == name).astype(float) for name in ("a", "b", "tie")}
        return pd.DataFrame({**said, "position_bias": 0.0, "outside_mass": 0.0, "better": better})

    def score_responses(self, clips: Sequence[Any], prompts: Sequence[str], responses: Sequence[str]) -> pd.DataFrame:
        self.scored += len(responses)
        return pd.DataFrame({"total": self._points(clips, responses)})
