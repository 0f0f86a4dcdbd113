"""A small world in which the true weights are known: clips, a judge's answers and people's preferences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vr_pipeline.checklist import Checklist, load_checklist
from vr_pipeline.identifiers import pair_id, prompt_id, video_id

CHECKLIST = Path(__file__).parents[3] / "conf/base/checklist.yml"


@pytest.fixture(scope="session")
def checklist() -> Checklist:
    return load_checklist(CHECKLIST)


def _clips(n_prompts: int, clips_a_prompt: int, producer: str) -> pd.DataFrame:
    rows = []
    for p in range(n_prompts):
        prompt = f"{producer} prompt {p}"
        identifier = prompt_id(prompt)
        rows += [
            {
                "video_id": video_id(identifier, i, producer),
                "prompt_id": identifier,
                "prompt": prompt,
                "sample_index": i,
                "seed": i,
                "generator": producer,
                "path": f"{p}_{i}.mp4",
                "num_frames": 8,
                "fps": 8.0,
                "height": 64,
                "width": 64,
                "sha256": "0" * 64,
                "status": "ok",
                "error": "",
            }
            for i in range(clips_a_prompt)
        ]
    return pd.DataFrame(rows)


def _answers(index: pd.DataFrame, questions: list[str], rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray]:
    probability = rng.beta(0.6, 0.6, size=(len(index), len(questions)))
    table = pd.DataFrame(
        {
            "video_id": np.repeat(index["video_id"].to_numpy(), len(questions)),
            "question_id": np.tile(questions, len(index)),
            "p_yes": probability.ravel(),
            "answer": probability.ravel() > 0.5,
            "outside_mass": 0.0,
            "gated": False,
        }
    )
    return table, probability


@pytest.fixture(scope="session")
def world(checklist: Checklist) -> dict[str, Any]:
    rng = np.random.default_rng(7)
    questions = checklist.question_ids
    truth = np.linspace(0.2, 2.5, len(questions))
    compared = _clips(24, 8, "compared")
    answers, probability = _answers(compared, questions, rng)
    reward = probability @ truth
    rows = []
    for _, group in compared.groupby("prompt_id", sort=False):
        members = list(group.index)
        for k in range(40):
            i, j = rng.choice(members, 2, replace=False)
            chance = 1 / (1 + np.exp(-(reward[i] - reward[j])))
            label = "tie" if k % 10 == 0 else ("a" if rng.random() < chance else "b")
            a, b = compared["video_id"][i], compared["video_id"][j]
            prompt = compared["prompt"][i]
            rows.append(
                {
                    "pair_id": pair_id(prompt_id(prompt), a, b),
                    "prompt": prompt,
                    "video_id_a": a,
                    "video_id_b": b,
                    "preference": label,
                    "annotator": f"simulated {k}",
                    "source": "simulated",
                }
            )
    generated = _clips(6, 8, "generated")
    generated_answers, _ = _answers(generated, questions, rng)
    return {
        "human_preferences": pd.DataFrame(rows),
        "preference_video_index": compared,
        "preference_answers": answers,
        "video_index": generated,
        "checklist_answers": generated_answers,
        "truth": truth,
    }
