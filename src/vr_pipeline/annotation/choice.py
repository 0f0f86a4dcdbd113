"""Order of a study's pairs by what is known about them: answers of the judge, weights, and tables of rewards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vr_pipeline.annotation.active import covariance_of_weights, disagreement, most_informative
from vr_pipeline.annotation.queue import Order, Pair, ordered
from vr_pipeline.errors import InputError
from vr_pipeline.rewards.checklist.linear import encoded_answers
from vr_pipeline.rewards.checklist.tables import answers_matrix, probability_questions, weighted_questions
from vr_pipeline.rewards.checklist.weights import RewardWeights
from vr_pipeline.schemas.parts import parts_of
from vr_pipeline.statistics.labels import FloatArray
from vr_pipeline.storage.scores import read_scores

ANSWERS = {"generated": "checklist_answers", "policies": "evaluation_answers"}
"""Answers of the judge about the clips of a source; those of others are the answers about compared clips."""
_COMPARED = "preference_answers"


@dataclass(frozen=True)
class Selection:
    """Which pairs of a study are shown, and in which order.

    Attributes:
        order: see :func:`order_pairs`.
        seed: of all draws.
        pairs: largest number, with those answered before; None for all.
        per_prompt: candidates of each prompt; None for all.
        rewards: tables of rewards for the order ``disagreement``.
        asked: identifiers of pairs answered before in the study, in the order of the answers.
    """

    order: Order = "random"
    seed: int = 0
    pairs: int | None = 200
    per_prompt: int | None = 40
    rewards: tuple[Path, ...] = ()
    asked: tuple[str, ...] = ()


def order_pairs(
    candidates: Sequence[Pair], selection: Selection, catalog: Any, source: str, predicted: Mapping[str, float] | None
) -> list[Pair]:
    """Return the pairs of the orders ``active`` and ``disagreement``.

    Pairs answered before come first, so that every annotator of the study gets them; the others are chosen given those.
    With the same weights and tables, a study that is opened again thus keeps its order.

    Args:
        candidates: pairs without an order.
        selection: the order and its limits.
        catalog: with ``load`` and ``exists`` by name.
        source: of the clips.
        predicted: reward of each clip by the environment's reward; None if there is none.

    Raises:
        InputError: the judge has not answered about the clips, or there are fewer than two rewards of them.
    """
    shuffled = ordered(candidates, "random", seed=selection.seed, limit=None)
    by_id = {pair.pair_id: pair for pair in shuffled}
    asked = [by_id[name] for name in selection.asked if name in by_id][: selection.pairs]
    before = {pair.pair_id for pair in asked}
    left = [pair for pair in shuffled if pair.pair_id not in before]
    number = None if selection.pairs is None else selection.pairs - len(asked)
    if not left or number == 0:
        return asked
    if selection.order == "disagreement":
        tables = [table for table in (predicted, *map(_totals, selection.rewards)) if table is not None]
        score = disagreement([[_margin(pair, table) for pair in left] for table in tables])
        places = np.argsort(-np.round(score, 9), kind="stable")[:number].tolist()
    else:
        places = _active(left, asked, catalog, source, number)
    return asked + [left[place] for place in places]


def _active(left: Sequence[Pair], asked: Sequence[Pair], catalog: Any, source: str, number: int | None) -> list[int]:
    checklist = catalog.load("checklist")
    weights = RewardWeights(tuple(weighted_questions(checklist)), np.zeros(len(weighted_questions(checklist))))
    if catalog.exists("reward_weights"):
        weights = RewardWeights.from_json(catalog.load("reward_weights"))
    always = probability_questions(checklist)

    def differences(answers: Any, pairs: Sequence[tuple[str, str]]) -> FloatArray:
        clips = sorted({clip for pair in pairs for clip in pair})
        wanted = set(clips)
        table = pd.concat([part[part["video_id"].isin(wanted)] for part in parts_of(answers)], ignore_index=True)
        matrix = answers_matrix(table, clips, weights.question_ids, kind=weights.answers, always_probability=always)
        encoded = dict(zip(clips, encoded_answers(matrix, weights), strict=True))
        return np.array([encoded[a] - encoded[b] for a, b in pairs]).reshape(len(pairs), len(weights.question_ids))

    name = ANSWERS.get(source, _COMPARED)
    if not catalog.exists(name):
        raise InputError(
            f"the judge has not answered about these clips yet ({name} is missing)",
            remedy="run the pipelines up to checklist_inference (or evaluation) first, or use --order random",
            field="--order",
        )
    answers = catalog.load(name)
    pairs = [(pair.first.video_id, pair.second.video_id) for pair in [*asked, *left]]
    z = differences(answers, pairs)
    known = z[: len(asked)]
    if catalog.exists("human_preferences") and catalog.exists(_COMPARED):
        own = {frozenset(pair) for pair in pairs[: len(asked)]}
        compared = catalog.load(_COMPARED)
        there = {str(name) for part in parts_of(compared) for name in part["video_id"].unique()}
        fitted = catalog.load("human_preferences").query("preference != 'tie'")
        named = {frozenset(two): two for two in zip(fitted["video_id_a"], fitted["video_id_b"], strict=True)}
        further = [
            two for key, two in sorted(named.items(), key=lambda item: item[1]) if key <= there and key not in own
        ]
        known = np.r_[known, differences(compared, further)]
    return most_informative(
        z[len(asked) :],
        weights.weights,
        covariance_of_weights(known, weights.weights),
        prompts=[pair.prompt_id for pair in left],
        number=number,
        asked=[pair.prompt_id for pair in asked],
        pool=z,
    )


def _totals(path: Path) -> dict[str, float]:
    return {names[0]: score for names, score in read_scores(path, value="total").items()}


def _margin(pair: Pair, table: Mapping[str, float]) -> float:
    for clip in (pair.first, pair.second):
        if clip.video_id not in table:
            raise InputError(
                f"clip '{clip.video_id}' has no reward in one of the tables",
                remedy="give tables with video_id and total of all clips, or use --order random",
                field="--rewards",
            )
    return table[pair.first.video_id] - table[pair.second.video_id]
