"""Plans of evaluation: the same seeds for every policy, files of their own, one model in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import vr_pipeline.generators
from vr_pipeline.evaluation import policies as module
from vr_pipeline.evaluation.config import EvaluationParameters
from vr_pipeline.evaluation.policies import plan_policy_clips
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.plans import plan_clips
from vr_pipeline.generators.policy import ORIGINAL, Adapter
from vr_pipeline.identifiers import prompt_id

PROMPTS = pd.DataFrame({"prompt": [f"prompt {row}" for row in range(3)]}).assign(
    prompt_id=lambda table: table["prompt"].map(prompt_id)
)


def adapter(value: float) -> Adapter:
    return Adapter(
        tensors={"transformer.a": torch.full((2,), value)},
        config={"r": 1, "lora_alpha": 1.0, "target_modules": ["a"]},
        base="base",
    )


GENERATOR = GeneratorParameters(family="cogvideox", path="owner/model", revision="1", device="cpu", batch_size=4)


def parameters(**changes: Any) -> EvaluationParameters:
    return EvaluationParameters(**({"videos_per_prompt": 2, "seed": 5} | changes))


def items(adapters: dict[str, Adapter], **changes: Any) -> pd.DataFrame:
    plan = plan_policy_clips(PROMPTS, adapters, GENERATOR, parameters(**changes))
    return pd.DataFrame([{"key": item.key, "identity": item.identity, **item.metadata} for item in plan.items])


def test_all_policies_get_the_same_seeds_and_files_of_their_own() -> None:
    # The two adapters are equal: even then each policy has its own clips.
    table = items({"dpo": adapter(1.0), "mpo": adapter(1.0)})
    assert len(table) == 3 * 3 * 2
    assert table["key"].is_unique
    assert table["policy"].unique().tolist() == [ORIGINAL, "dpo", "mpo"]
    seeds = table.pivot(index=["prompt_id", "sample_index"], columns="policy", values="seed")
    assert seeds.nunique(axis=1).eq(1).all()
    assert seeds[ORIGINAL].is_unique
    assert table.groupby("policy")["generator"].nunique().eq(1).all()
    assert table["generator"].nunique() == 3


def test_a_changed_adapter_changes_its_own_clips_alone() -> None:
    before = items({"dpo": adapter(1.0), "mpo": adapter(2.0)}).set_index(["policy", "prompt_id", "sample_index"])
    after = items({"dpo": adapter(1.0), "mpo": adapter(3.0)}).set_index(["policy", "prompt_id", "sample_index"])
    changed = (before["identity"] != after["identity"]).groupby("policy").mean()
    assert changed.to_dict() == {ORIGINAL: 0.0, "dpo": 0.0, "mpo": 1.0}
    other_seed = items({"dpo": adapter(1.0), "mpo": adapter(2.0)}, seed=6).set_index(before.index.names)
    assert (before["identity"] != other_seed["identity"]).all()
    assert set(before["key"]).isdisjoint(other_seed["key"])


def test_more_samples_keep_those_that_were_there() -> None:
    few, many = items({}), items({}, videos_per_prompt=3)
    assert set(few["key"]) < set(many["key"])


@dataclass
class Recorder:
    """A generator that writes down what is asked of it; the clip's first pixel says which adapter was active."""

    current: float = 0.0
    loaded: list[float] = field(default_factory=list)
    batches: list[tuple[float, int]] = field(default_factory=list)

    def load_policy(self, given: Adapter | None) -> None:
        self.current = 0.0 if given is None else float(given.tensors["transformer.a"][0])
        self.loaded.append(self.current)

    def sample_each(self, prompts: list[str], seeds: list[int]) -> np.ndarray:
        assert len(prompts) == len(seeds)
        self.batches.append((self.current, len(prompts)))
        return np.full((len(prompts), 2, 4, 4, 3), int(self.current), np.uint8)


def test_every_clip_is_made_by_its_policy_and_the_model_is_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    recorders: list[Recorder] = []

    def load(_: GeneratorParameters) -> Recorder:
        recorders.append(Recorder())
        return recorders[-1]

    monkeypatch.setattr(vr_pipeline.generators, "load_generator", load)
    plan = plan_policy_clips(PROMPTS, {"dpo": adapter(7.0), "mpo": adapter(9.0)}, GENERATOR, parameters())
    context = plan.setup()
    value = {ORIGINAL: 0, "dpo": 7, "mpo": 9}
    for batch in plan.batches():
        clips = plan.make_batch(context, batch)
        assert [int(clip[0, 0, 0, 0]) for clip in clips] == [value[str(item.metadata["policy"])] for item in batch]
    assert len(recorders) == 1
    # Batches of four over six clips a policy: a batch may hold two policies, each adapter is loaded once.
    assert recorders[0].loaded == [7.0, 9.0]
    # Begun in the middle, as after a kill, the right policy is active as well.
    context = plan.setup()
    last = plan.batches()[-1]
    assert {int(clip[0, 0, 0, 0]) for clip in plan.make_batch(context, last)} == {9}
    assert isinstance(context, module._PolicyGenerator)


def test_plans_of_generation_have_the_prompts_and_samples_asked_for() -> None:
    settings = GENERATOR
    plan = plan_clips(PROMPTS, settings, videos_per_prompt=2, seed=5)
    table = pd.DataFrame([{"key": item.key, **item.metadata} for item in plan.items])
    assert len(table) == 6
    assert table["key"].is_unique
    assert plan.batch_size == 4
    # Rows in another order make the same clips.
    again = plan_clips(PROMPTS.iloc[::-1], settings, videos_per_prompt=2, seed=5)
    assert {item.key: item.identity for item in again.items} == {item.key: item.identity for item in plan.items}
    # The frame rate is no part of a clip's content, the number of steps is.
    slower = plan_clips(PROMPTS, settings.model_copy(update={"fps": 4.0}), videos_per_prompt=2, seed=5)
    assert [item.identity for item in slower.items] == [item.identity for item in plan.items]
    fewer = plan_clips(PROMPTS, settings.model_copy(update={"num_inference_steps": 9}), videos_per_prompt=2, seed=5)
    assert {item.identity for item in fewer.items}.isdisjoint(item.identity for item in plan.items)
