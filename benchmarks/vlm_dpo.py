"""Does DPO on its own responses make a vision-language model answer better? Asked of the micro-world.

The shipped judge describes shipped clips of which it sees a part of the frames; its sampled descriptions are compared
and given points by a judge that sees all of them, sifted into pairs and trained on. Every seed splits the prompts anew,
samples other responses and trains from another start. Exact match of the likeliest description is counted on prompts
that nothing was trained on, and of drawn ones, before and after; the gain is paired, its interval by prompt over all
seeds together. Judges: the words that are right, counted (the most that can be had), and the shipped UnifiedReward.
Seeds share model and clips.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml

from vr_pipeline.datasets.clips import ClipFolder
from vr_pipeline.datasets.understanding import QuestionsDataset
from vr_pipeline.items.filling import fill_folder
from vr_pipeline.statistics.clustered import paired_gain
from vr_pipeline.understanding.candidates import collect_candidates, plan_candidates
from vr_pipeline.understanding.config import VlmDpoParameters
from vr_pipeline.understanding.evaluation import collect_answers, plan_answers, with_figures
from vr_pipeline.understanding.judging import ResponseJudge, RewardJudge, collect_judgements, plan_judgements
from vr_pipeline.understanding.media import QuestionMedia, index_questions, questions_of
from vr_pipeline.understanding.policy import trained_model
from vr_pipeline.understanding.selection import select_response_pairs
from vr_pipeline.understanding.task import train_vlm

ROOT = Path(__file__).resolve().parents[1]
JSON = {"type": "json"}


class RightWords:
    """Counts the words of a description that stand in the right place."""

    identity = "right words"

    def __init__(self, questions: pd.DataFrame) -> None:
        self.answers = {
            json.loads(str(files))[0]: str(answer).split()
            for files, answer in questions[["files", "answer"]].itertuples(index=False)
        }

    def points(self, clips: Sequence[Any], responses: Sequence[str]) -> np.ndarray:
        pairs = [(said.split(), self.answers[Path(clip).name]) for clip, said in zip(clips, responses, strict=True)]
        return np.array(
            [sum(a == b for a, b in zip(said, right, strict=False)) - abs(len(said) - 5) for said, right in pairs],
            float,
        )

    def compare_responses(
        self, clips: Sequence[Any], prompts: Sequence[str], responses_a: Sequence[str], responses_b: Sequence[str]
    ) -> pd.DataFrame:
        lead = self.points(clips, responses_a) - self.points(clips, responses_b)
        better = np.where(lead > 0, "a", np.where(lead < 0, "b", "tie"))
        said = {f"p_{name}": (better == name).astype(float) for name in ("a", "b", "tie")}
        return pd.DataFrame({**said, "position_bias": 0.0, "outside_mass": 0.0, "better": better})

    def score_responses(self, clips: Sequence[Any], prompts: Sequence[str], responses: Sequence[str]) -> pd.DataFrame:
        return pd.DataFrame({"total": self.points(clips, responses)})


def configuration(seed: int, changes: Mapping[str, Any]) -> VlmDpoParameters:
    """The parameters of the embedded default, of another seed."""
    block = yaml.safe_load((ROOT / "conf/base/parameters/vlm_dpo.yml").read_text(encoding="utf-8"))["vlm_dpo"]
    block["training"] |= {"seed": seed, "checkpoint_folder": None, **changes}
    block["candidates"]["seed"] = block["split"]["seed"] = seed
    return VlmDpoParameters.model_validate(block)


def one_seed(given: VlmDpoParameters, questions: pd.DataFrame, media: Any, judge: ResponseJudge) -> dict[str, Any]:
    """Train once; the held-out answers, and figures of the way there."""
    index = index_questions(questions, media, given.split)
    shown = QuestionMedia(media, index)
    asked, tested = questions_of(index, "train", "validation"), questions_of(index, "test")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = plan_candidates(asked, shown, given.model, given.dialogue, given.candidates)
        candidates = collect_candidates(fill_folder(folder / "candidates", JSON, plan))
        plan = plan_judgements(asked, candidates, shown, judge, given.judging)
        comparisons, points = collect_judgements(fill_folder(folder / "judgements", JSON, plan))
        pairs, figures = select_response_pairs(index, candidates, comparisons, points, given.judging)
        start = time.process_time()
        trained = train_vlm(pairs, index, media, given)
        seconds = time.process_time() - start
        (folder / "model").mkdir()
        trained.save(folder / "model")
        plan = plan_answers(tested, shown, trained_model(given.model, folder / "model"), given)
        answers = collect_answers(fill_folder(folder / "answers", JSON, plan), tested)
    right = RightWords(questions)
    clips = [json.loads(files)[0] for files in index.set_index("question_id").loc[pairs["question_id"], "files"]]
    lead = right.points(clips, pairs["chosen"].tolist()) - right.points(clips, pairs["rejected"].tolist())
    return {
        "answers": with_figures(answers, shown, None),
        "pairs": len(pairs),
        "truly_better": float((lead > 0).mean()),
        "truly_worse": float((lead < 0).mean()),
        "position_bias": figures.get("mean_absolute_position_bias", 0.0),
        "training_cpu_s": seconds,
    }


def gained(table: pd.DataFrame, made: Sequence[Mapping[str, Any]], figure: str) -> dict[str, Any]:
    """Return a figure before and after, its gain with an interval by prompt, and the gains of the seeds."""
    before, after = (table[f"{figure}_{model}"] for model in ("before", "after"))
    gain = paired_gain(after, table["group"], before, table["group"]).to_json()
    gains = [float((one["answers"][f"{figure}_after"] - one["answers"][f"{figure}_before"]).mean()) for one in made]
    return {
        "before": round(float(before.mean()), 4),
        "after": round(float(after.mean()), 4),
        "gain": {key: round(value, 4) if isinstance(value, float) else value for key, value in gain.items()},
        "gain_by_seed": [round(value, 4) for value in gains],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--judges", nargs="+", default=["right_words", "unifiedreward"])
    parser.add_argument("--training", type=json.loads, default={}, help="other settings of the training, as JSON")
    arguments = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    raw = ROOT / "data/01_raw/micro_world"
    media = ClipFolder(raw / "caption_videos")
    questions = QuestionsDataset(filepath=str(raw / "caption_questions.csv"), media=str(raw / "caption_videos")).load()
    report: dict[str, Any] = {}
    for name in arguments.judges:
        made = []
        for seed in range(arguments.seeds):
            given = configuration(seed, arguments.training)
            judge: ResponseJudge = RewardJudge(given.reward_model) if name == "unifiedreward" else RightWords(questions)
            one = one_seed(given, questions, media, judge)
            made.append(one)
            rest = {key: value for key, value in one.items() if key != "answers"}
            means = one["answers"].filter(regex="exact_").mean().round(3).to_dict()
            print(name, "seed", seed, means, rest, flush=True)
        table = pd.concat([one["answers"] for one in made], ignore_index=True)
        report[name] = {
            "answers": len(table),
            **{figure: gained(table, made, figure) for figure in ("exact", "drawn_exact")},
            **{
                key: round(float(np.mean([one[key] for one in made])), 4)
                for key in ("pairs", "truly_better", "truly_worse", "position_bias", "training_cpu_s")
            },
        }
    print(json.dumps({"benchmark": "vlm_dpo", "seeds": arguments.seeds, "judges": report}))


if __name__ == "__main__":
    main()
