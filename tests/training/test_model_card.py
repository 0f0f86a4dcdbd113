"""The card beside a policy says what it is, what it was trained on, how well it did and how to load it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from vr_pipeline.checklist import checklist_from_mapping
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.policy import Adapter
from vr_pipeline.judges.config import ChecklistInferenceParameters
from vr_pipeline.training.checkpoint_reward import ChecklistParts, CheckpointReward
from vr_pipeline.training.config import DpoTrainingParameters, PreferenceTrainingParameters, ValidationParameters
from vr_pipeline.training.judged import no_validation
from vr_pipeline.training.model_card import model_card, training_facts
from vr_pipeline.training.table import join_pairs
from vr_pipeline.vlm.config import JudgeParameters

PAIRS = pd.DataFrame({"prompt_id": ["p", "q"], "winner_video_id": ["a", "c"], "loser_video_id": ["b", "d"]})
PROMPTS = pd.DataFrame({"prompt_id": ["p", "q", "r"], "prompt": ["a red ball", "a blue ring", "unused"]})
INDEX = pd.DataFrame({"video_id": list("abcde"), "sha256": [letter * 64 for letter in "12345"]})
CHECKLIST = checklist_from_mapping(
    {
        "name": "toy",
        "modality": "video",
        "dimensions": [
            {"name": "all", "sub_dimensions": [{"name": "all", "questions": [{"id": "a", "text": "ok ?"}]}]}
        ],
    }
)
JUDGE = JudgeParameters(family="qwen2_vl", path="owner/judge", revision="a" * 40)
PARTS = ChecklistParts(checklist=CHECKLIST, weights={}, judge=JUDGE, judging=ChecklistInferenceParameters())
REWARD = CheckpointReward(prompts=[], reward=PARTS)
GENERATOR = GeneratorParameters(family="cogvideox", path="owner/model", revision="123", dtype="bfloat16")
PARAMETERS = DpoTrainingParameters(
    training=PreferenceTrainingParameters(beta=500.0),
    validation=ValidationParameters(videos_per_prompt=2),
)
VALIDATION = pd.DataFrame(
    {
        "step": [0, 40, 80],
        "policy": ["original", "x", "y"],
        "reward": np.array([1.0, 1.5, 1.25]),
        "se": [0.1, np.nan, 0.1],
        "clips": [4, 4, 4],
        "failed": [0, 0, 0],
        "chosen": [False, True, False],
        "dim_all": [1.0, 1.5, 1.25],
    }
)


def facts(
    pairs: pd.DataFrame = PAIRS,
    prompts: pd.DataFrame = PROMPTS,
    index: pd.DataFrame = INDEX,
    validation: pd.DataFrame = VALIDATION,
) -> dict:
    rewards = index[["video_id"]].assign(total=0.0)
    joined = join_pairs({"mpo": pairs}, {"mpo": rewards}, prompts, index)
    return training_facts(joined, validation, REWARD.facts(), GENERATOR, PARAMETERS)


def adapter() -> Adapter:
    return Adapter(
        tensors={"transformer.a.lora_A.weight": torch.ones(2, 3)},
        config={"r": 2, "lora_alpha": 4.0, "target_modules": ["a"]},
        base="basehash",
    )


def test_hashes_follow_the_data_of_the_pairs_and_nothing_else() -> None:
    data = facts()["data"]
    assert {name: entry["count"] for name, entry in data.items()} == {"pairs": 2, "prompts": 2, "clips": 4}
    assert facts(PAIRS.iloc[::-1], PROMPTS.iloc[::-1], INDEX.iloc[::-1])["data"] == data
    unused = INDEX.assign(sha256=[*INDEX["sha256"][:4], "9" * 64])
    assert facts(index=unused)["data"] == data, "clips of no pair do not matter"
    changed = facts(index=INDEX.assign(sha256=["9" * 64, *INDEX["sha256"][1:]]))["data"]
    assert {name for name in data if data[name] != changed[name]} == {"clips"}
    changed = facts(prompts=PROMPTS.replace("a red ball", "a green ball"))["data"]
    assert {name for name in data if data[name] != changed[name]} == {"prompts"}
    turned = PAIRS.rename(columns={"winner_video_id": "loser_video_id", "loser_video_id": "winner_video_id"})
    changed = facts(turned)["data"]
    assert {name for name in data if data[name] != changed[name]} == {"pairs"}


def test_the_card_has_all_its_parts() -> None:
    card = model_card(replace(adapter(), provenance=facts()))
    for expected in (
        "| path | owner/model |",
        "| identity of the weights | basehash |",
        "| clips | 4 |",
        "| beta | 500.0 |",
        "`owner/judge` at revision aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa, checklist toy",
        "| 0 | 1.0000 | 0.1000 | 4 | 1.0000 |  |",
        "| 40 | 1.5000 |  | 4 | 1.5000 | yes |",
        'DiffusionPipeline.from_pretrained("owner/model", revision="123", torch_dtype=torch.bfloat16)',
        'pipeline.load_lora_weights("THIS_FOLDER")',
    ):
        assert expected in card, expected
    assert "No checkpoint got a higher" not in card
    assert card == model_card(replace(adapter(), provenance=facts(PAIRS.iloc[::-1])))


def test_a_training_that_did_not_help_is_said_to_be_one() -> None:
    worse = VALIDATION.assign(reward=[2.0, 1.5, 1.25])
    assert "No checkpoint got a higher validation reward" in model_card(
        replace(adapter(), provenance=facts(validation=worse))
    )


def test_without_validation_the_card_says_so() -> None:
    card = model_card(replace(adapter(), provenance=facts(validation=no_validation())))
    assert "No checkpoint was validated" in card


def test_the_code_of_the_card_is_python() -> None:
    card = model_card(replace(adapter(), provenance=facts()))
    compile(card.split("```python")[1].split("```")[0], "card", "exec")


def test_a_training_that_went_wrong_is_said_to_have() -> None:
    for kept, said in ((35, "The weights are those after step 35."), (0, "The weights are those of the base model.")):
        stopped = {"step": 60, "trouble_step": 41, "kept_step": kept}
        card = model_card(replace(adapter(), provenance=facts() | {"training": {"stopped": stopped}}))
        assert f"It failed from step 41 on and was ended after step 60. {said}" in card
    assert "went wrong" not in model_card(replace(adapter(), provenance=facts()))
