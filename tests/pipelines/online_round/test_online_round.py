"""The graph of rounds, and what a round does after a stop."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from vr_pipeline.pipelines.online_round import nodes
from vr_pipeline.pipelines.systems import online_mpo
from vr_pipeline.schemas import ChecklistAnswers, Rewards, TrainingPairs
from vr_pipeline.training.online import OnlineParameters

STOPPED: dict[str, Any] = {"round": 1, "policy_of": 1, "stopped": "enough"}


@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_the_graph_has_one_pipeline_per_round(rounds: int) -> None:
    system = online_mpo(rounds)
    whole = system.pipeline()
    made = {name for name in whole.all_outputs() if name.startswith("policy_round_")}
    assert made == {f"policy_round_{number}" for number in range(1, rounds + 1)}
    # Nothing of a later round is needed by an earlier one, and clips of a round come from the last policy.
    for number in range(1, rounds + 1):
        one = system.stage(f"online_round_{number}")
        of_rounds = {name for name in one.inputs() if "_round_" in name}
        assert all(int(name.rpartition("_")[2]) == number - 1 for name in of_rounds if name.startswith("policy"))
        assert all(int(name.rpartition("_")[2]) < number for name in of_rounds)
        assert bool(of_rounds) == (number > 1)
    # The clips of mpo_dpo are not made.
    assert "videos" not in whole.datasets()
    assert "online_rounds" in whole.all_outputs()


def test_a_round_after_a_stop_makes_nothing_and_keeps_the_policy() -> None:
    prompts = pd.DataFrame({"prompt_id": ["p"], "prompt": ["t"], "source": ["s"], "split": ["train"]})
    parameters = OnlineParameters()
    none: Any = None
    assert len(nodes.choose_round_prompts(prompts, parameters, STOPPED | {"stopped": ""}, number=2)) == 1
    chosen = nodes.choose_round_prompts(prompts, parameters, STOPPED, number=2)
    assert chosen.empty
    answers = nodes.collect_round_answers(none, chosen, none, none)
    rewards = nodes.score_round_videos(answers, chosen, none, none, number=2)
    pairs = nodes.select_round_pairs(rewards, chosen, prompts, none, parameters, number=2)
    for table, schema in ((answers, ChecklistAnswers), (rewards, Rewards), (pairs, TrainingPairs)):
        assert schema.validate(table).empty
    last = ("policy", "log", "validated", STOPPED)
    assert nodes.train_round(pairs, none, none, none, parameters, none, 1, 2, *last, number=2) == last
    # A round without a pair is the last one.
    *kept, result = nodes.train_round(
        pairs, none, none, none, parameters, none, 1, 2, *last[:3], STOPPED | {"stopped": ""}, number=2
    )
    assert kept == list(last[:3])
    assert (result["round"], result["policy_of"], result["stopped"]) == (2, 1, "the rule selects no pair")
    listed = nodes.list_rounds(STOPPED | {"stopped": ""}, result, result)
    assert list(listed["rounds"]) == ["1", "2"]
    assert listed["stopped"] == "the rule selects no pair"
