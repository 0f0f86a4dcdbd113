"""A small made-up evaluation, for tests of its page and plots."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from vr_pipeline.checklist.schema import Checklist, Question, SubDimension
from vr_pipeline.evaluation.config import EvaluationParameters, ReportParameters
from vr_pipeline.evaluation.metrics import evaluation_metrics, judge_oracle_agreement
from vr_pipeline.evaluation.report import PROVENANCE, SECTIONS, join_sections, section_html
from vr_pipeline.evaluation.spread import measure_spread
from vr_pipeline.identifiers import content_hash
from vr_pipeline.rewards.checklist.linear import dimension_scores
from vr_pipeline.rewards.checklist.weights import RewardWeights

TITLES = {"original": "Original", "dpo": "DPO", "mpo": "MPO"}
HOSTILE_PROMPT = "<script>window.hacked = 1</script> a \"ball\" & <img src=x onerror='window.hacked=1'> 漢字 é"


def render_report(data: dict[str, Any]) -> str:
    """The page from datasets by name, as the pipeline makes it."""
    contents = {
        section.name: section_html(section.make(TITLES, *(data[name] for name in section.datasets(["dpo", "mpo"]))))
        for section in (*SECTIONS, PROVENANCE)
        if section.is_possible(["dpo", "mpo"], data)
    }
    return join_sections(data["params:evaluation"].report, contents)


def shown(**settings: Any) -> EvaluationParameters:
    """Parameters of evaluation with these settings of the report."""
    return EvaluationParameters(report=ReportParameters(**settings))


@dataclass
class ClipsInMemory:
    """The part of a folder of items that the page uses."""

    clips: dict[str, np.ndarray] = field(default_factory=dict)

    def load(self, key: str) -> np.ndarray:
        return self.clips[key]

    def __contains__(self, key: object) -> bool:
        return key in self.clips


def small_checklist() -> Checklist:
    parts = {"alignment": ["colour_matches", "shape_matches"], "quality": ["sharp", "bright"], "dynamics": ["moves"]}
    return Checklist(
        name="small <checklist>",
        modality="video",
        sub_dimensions=tuple(
            SubDimension(
                name=dimension,
                dimension=dimension,
                questions=tuple(
                    Question(
                        question_id=name, text=f"is {name} <b>true</b> ?", dimension=dimension, sub_dimension=dimension
                    )
                    for name in names
                ),
            )
            for dimension, names in parts.items()
        ),
    )


def moving_square(frames: int, height: int, width: int, colour: tuple[int, int, int], side: int) -> np.ndarray:
    clip = np.full((frames, height, width, 3), 245, dtype=np.uint8)
    for t in range(frames):
        x = int(t * (width - side) / max(1, frames - 1))
        clip[t, height // 2 - side // 2 : height // 2 + side // 2, x : x + side] = colour
    return clip


def validation_log(steps: int, gain: float) -> pd.DataFrame:
    """Five judged checkpoints; the last but one is the best of the trained ones."""
    at = [0, steps // 4, steps // 2, 3 * steps // 4, steps]
    reward = [2.0, 2.0 + gain / 2, 2.0 + gain - 0.1, 2.0 + gain, 2.0 + gain - 0.2]
    return pd.DataFrame(
        {"step": at, "policy": [f"p{step}" for step in at], "reward": reward, "se": 0.1, "clips": 16, "failed": 0}
        | {"chosen": [False, False, False, True, False], "dim_all": reward}
        | {"gap_low": [-gain - 0.5, -0.9, -0.2, math.nan, -0.3], "gap_high": [0.5 - gain, -0.1, 0.0, math.nan, -0.1]}
    )


def training_log(steps: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    step = np.arange(1, steps + 1)
    share = step / steps
    middle = 1.5 * share
    return pd.DataFrame(
        {
            "step": step,
            "loss": 0.693 - 0.25 * share + 0.03 * random.standard_normal(steps),
            "gradient_norm": 0.4 + 0.1 * random.random(steps),
            "learning_rate": 1e-3 * np.minimum(share * 5, 1.25 * (1 - share) + 1e-3),
            "logit_p10": middle - 1,
            "logit_p50": middle,
            "logit_p90": middle + 1.5,
            "implicit_accuracy": np.clip(0.5 + 0.4 * share + 0.1 * random.standard_normal(steps), 0, 1),
            "winner_change": -0.01 * share,
            "loser_change": 0.03 * share,
            "saturation": 0.5 + 0.3 * share,
            "winner_error": 0.2 - 0.01 * share,
            "loser_error": 0.2 + 0.03 * share,
        }
    )


def held_out_pairs(random: np.random.Generator) -> pd.DataFrame:
    """Scores of pairs on which the reward's probability is right."""
    difference = random.normal(0, 1.5, 60)
    wins = random.random(60) < 1 / (1 + np.exp(-difference))
    return pd.DataFrame(
        {"pair_id": [f"p{n}" for n in range(60)], "prompt_id": [f"q{n % 15}" for n in range(60)]}
        | {"difference": difference, "preference": np.where(wins, "a", "b"), "split": "held_out"}
    )


def accuracy_curve() -> pd.DataFrame:
    rows = [
        (kind, weighting, count, 0.5 + 0.07 * count, 0.45 + 0.07 * count, 0.55 + 0.07 * count)
        for kind in ("binary", "probability")
        for weighting in ("learned", "refitted", "equal")
        for count in range(1, 5)
    ]
    return pd.DataFrame(rows, columns=["answers", "weighting", "n_questions", "diff", "ci_low", "ci_high"])


def deviations(checklist: Checklist, size: float) -> pd.DataFrame:
    names = [(part.dimension, part.name) for part in checklist.sub_dimensions]
    table = pd.DataFrame(names, columns=["dimension", "sub_dimension"]).assign(score=0.5 + size, other_score=0.5)
    return table.assign(deviation=size, ci_low=size - 0.05, ci_high=size + 0.05)


def report_inputs(
    *,
    judge_gain: dict[str, float] | None = None,
    oracle_gain: dict[str, float] | None = None,
    oracle: bool = True,
    prompts: int = 12,
    samples: int = 3,
    frames: int = 8,
    size: tuple[int, int] = (16, 16),
    steps: int = 60,
    seed: int = 0,
    num_prompts: int = 3,
) -> dict[str, Any]:
    """Datasets that the report shows, by name.

    Args:
        judge_gain, oracle_gain: by how much each policy raises the probability of yes to the eyes of either.
        oracle: whether there is one.
    """
    judge_gain = judge_gain or {"dpo": 0.2, "mpo": 0.25}
    oracle_gain = oracle_gain or {"dpo": 0.2, "mpo": 0.2}
    random = np.random.default_rng(seed)
    checklist = small_checklist()
    questions = checklist.question_ids
    weights = RewardWeights(
        question_ids=tuple(questions),
        weights=np.array([1.2, 0.8, 0.6, 0.0, 0.4]),
        ci_low=np.array([0.9, 0.5, 0.1, np.nan, 0.1]),
        ci_high=np.array([1.5, 1.2, 1.1, np.nan, 0.7]),
        removed=np.array([False, False, False, True, False]),
        checklist_hash=checklist.hash,
        removals=({"step": 1, "question_id": "bright", "weight": -0.1, "reason": "negative weight"},),
        statistics={"n_pairs": 150, "n_ties": 12},
    )
    texts = [HOSTILE_PROMPT, *(f"square number {n} moves right" for n in range(1, prompts))]
    folder, rows, judge, truth = ClipsInMemory(), [], [], []
    colours = {"original": (120, 120, 120), "dpo": (220, 140, 20), "mpo": (20, 90, 220)}
    for n, text in enumerate(texts):
        for sample in range(samples):
            base = random.uniform(0.25, 0.65, len(questions))
            for policy in ("original", "dpo", "mpo"):
                name = content_hash("clip", n, sample, policy)
                folder.clips[name] = moving_square(frames, *size, colours[policy], max(4, size[0] // 4))
                rows.append(
                    {
                        "video_id": name,
                        "prompt_id": content_hash("prompt", text),
                        "prompt": text,
                        "sample_index": sample,
                        "seed": 1000 + sample,
                        "generator": f"generator-{policy}",
                        "path": f"{name}.mp4",
                        "num_frames": frames,
                        "fps": 8.0,
                        "height": size[0],
                        "width": size[1],
                        "sha256": content_hash("file", name, length=64),
                        "status": "ok",
                        "error": "",
                        "policy": policy,
                    }
                )
                for answers, gain in ((judge, judge_gain), (truth, oracle_gain)):
                    noise = random.normal(0, 0.03, len(questions))
                    answers.append(np.clip(base + gain.get(policy, 0.0) + noise, 0, 1))
    index = pd.DataFrame(rows)

    def rewards(answers: list[np.ndarray]) -> pd.DataFrame:
        scores = dimension_scores(np.array(answers), weights, checklist).reset_index(drop=True)
        scores.insert(0, "total", scores.sum(axis=1))
        return pd.concat([index[["video_id", "prompt_id", "policy"]], scores], axis=1)

    def long(answers: list[np.ndarray]) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "video_id": np.repeat(index["video_id"].to_numpy(), len(questions)),
                "question_id": np.tile(questions, len(index)),
                "p_yes": np.array(answers).ravel(),
            }
        )

    judge_rewards, oracle_rewards = rewards(judge), rewards(truth)
    judge_answers, oracle_answers = long(judge), long(truth)
    if not oracle:
        oracle_rewards, oracle_answers = oracle_rewards.head(0), oracle_answers.head(0)
    pair_folder, pair_rows, pairs = ClipsInMemory(), [], []
    for n in range(6):
        names = [content_hash("training clip", n, k) for k in range(2)]
        for k, name in enumerate(names):
            pair_folder.clips[name] = moving_square(frames, *size, ((200, 40, 40), (40, 160, 80))[k], 4)
            pair_rows.append({"video_id": name, "prompt": texts[n % len(texts)], "fps": 8.0, "sha256": name})
        gaps = {"dim_alignment_gap": 0.9, "dim_quality_gap": 0.2, "dim_dynamics_gap": 0.1}
        if n % 2:
            gaps[("dim_dynamics_gap", "dim_quality_gap")[n % 3 == 0]] = -0.1 * n
        pairs.append(
            {
                "prompt_id": content_hash("prompt", texts[n % len(texts)]),
                "winner_video_id": names[0],
                "loser_video_id": names[1],
                "margin": sum(gaps.values()),
                "dominates": min(gaps.values()) >= 0,
                **gaps,
            }
        )
    pairs_table = pd.DataFrame(pairs)
    agreement = {"tau": 0.81, "diff": 0.874, "epsilon": 0.05, "n": 150, "n_ties": 12}
    metrics = evaluation_metrics(
        judge_rewards=judge_rewards,
        oracle_rewards=oracle_rewards,
        same_answers=judge_oracle_agreement(judge_answers, oracle_answers),
        index=index,
        agreement=agreement,
        pairs={"dpo": pairs_table, "mpo": pairs_table[pairs_table["dominates"]]},
    )
    hidden = dict(zip(questions, [1.0, 0.9, 0.5, 0.1, 0.3], strict=True))
    fates = {"candidates": 40, "tied": 2, "rejected_by_rule": 0, "below_margin": 12, "over_cap": 20, "selected": 6}
    return {
        "evaluation_metrics": metrics,
        "evaluation_videos": folder,
        "evaluation_video_index": index,
        "evaluation_rewards": judge_rewards,
        "evaluation_oracle_rewards": oracle_rewards,
        "evaluation_auditor_rewards": None,
        "pair_audit": None,
        "reward_weights": weights.to_json(),
        "checklist": checklist,
        "training_log_mpo": training_log(steps, 1),
        "training_log_dpo": training_log(steps, 2),
        "validation_log_mpo": validation_log(steps, 1.5),
        "validation_log_dpo": validation_log(steps, -0.5),
        "prompt_overlaps": pd.DataFrame(
            [("test", "weights", "p1", "a red fox", "near", 0.8, "a red dog")],
            columns=["tested", "trained", "prompt_id", "prompt", "kind", "similarity", "nearest_prompt"],
        ),
        "preference_report": {"splits": {"fit": {"pairs": 10, "prompts": 3}}},
        "prompt_filter_report": {
            "read": 120,
            "kept": 48,
            "steps": [
                {"step": "clean", "in": 120, "out": 90, "dropped": 30, "rules": {"too short": 30}},
                {"step": "rouge", "in": 90, "out": 48, "dropped": 42, "rules": {"near <duplicate>": 42}},
            ],
            "splits": {"train": 32, "validation": 4, "test": 12},
            "something_new": [1, 2],
        },
        "pair_selection_report": {
            "strategies": {
                "dpo": {"n": 6, "dominating": 3, "not_dominating": 3, "fates": fates},
                "mpo": {"n": 3, "dominating": 3, "not_dominating": 0, "fates": {**fates, "selected": 3}},
            },
            "matched": {
                "dpo": {"n": 3, "dominating": 1, "not_dominating": 2, "margin": 0.9},
                "mpo": {"n": 3, "dominating": 3, "not_dominating": 0, "margin": 1.0},
            },
            "mean_gap": {"dpo": {"alignment": 0.9, "quality": 0.1, "dynamics": None}},
        },
        "params:evaluation": shown(title="A <small> test", num_prompts=num_prompts, note="Made-up & simulated."),
        "evaluation_answers": judge_answers,
        "evaluation_oracle_answers": oracle_answers,
        "preference_pairs_dpo": pairs_table,
        "videos": pair_folder,
        "video_index": pd.DataFrame(pair_rows),
        "reward_agreement": agreement,
        "pair_scores": held_out_pairs(random),
        "accuracy_curve": accuracy_curve(),
        "preference_answers": judge_answers,
        "preference_deviations": deviations(checklist, 0.1),
        "policy_deviations": pd.concat([deviations(checklist, 0.2).assign(policy=name) for name in ("dpo", "mpo")]),
        "oracle": SimpleNamespace(weights=hidden) if oracle else None,
        "clip_spread": measure_spread(folder, index),
    }
