"""Clips of every policy for the same prompts and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pandas as pd

from vr_pipeline.evaluation.config import EvaluationParameters
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import sampling_identity
from vr_pipeline.generators.plans import sample_items, video_items
from vr_pipeline.generators.policy import ORIGINAL, Policy
from vr_pipeline.identifiers import content_hash
from vr_pipeline.work import WorkItem, WorkPlan

if TYPE_CHECKING:
    from vr_pipeline.generators.contract import Generator


@dataclass
class _PolicyGenerator:
    """One model in memory, whose adapter or weights change with the policy."""

    generator: Generator
    policies: Mapping[str, Policy]
    current: str = ORIGINAL

    def switch_to(self, policy: str) -> Generator:
        if policy != self.current:
            self.generator.load_policy(self.policies.get(policy))
            self.current = policy
        return self.generator


def plan_policy_clips(
    prompts: pd.DataFrame,
    policies: Mapping[str, Policy],
    generator: GeneratorParameters,
    parameters: EvaluationParameters,
) -> WorkPlan:
    """Plan the clips of the original generator, then of each policy.

    Args:
        prompts: table with prompt_id and prompt.
        policies: policies by name.
        generator: the original generator.
        parameters: of the evaluation.
    """
    base = sampling_identity(generator)
    producers = {ORIGINAL: base} | {
        name: content_hash("policy", base, policy.identity) for name, policy in policies.items()
    }
    items = [
        item
        for policy, producer in producers.items()
        for item in video_items(
            prompts,
            # The name is part of the identity, since equal policies must not share files.
            producer=content_hash(policy, producer),
            parameters=generator,
            videos_per_prompt=parameters.videos_per_prompt,
            seed=parameters.seed,
            metadata={"policy": policy},
        )
    ]

    def setup() -> _PolicyGenerator:
        from vr_pipeline.generators import load_generator

        return _PolicyGenerator(load_generator(generator), policies)

    def make_batch(policies: _PolicyGenerator, batch: Sequence[WorkItem]) -> list[Any]:
        made: list[Any] = []
        for policy, group in groupby(batch, key=lambda item: str(item.metadata["policy"])):
            made += sample_items(policies.switch_to(policy), list(group))
        return made

    return WorkPlan(
        items=items,
        make_batch=make_batch,
        batch_size=generator.batch_size,
        description="evaluation videos",
        setup=setup,
    )
