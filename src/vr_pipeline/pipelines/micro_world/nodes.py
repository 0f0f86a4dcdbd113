"""Nodes of micro_world."""

from pathlib import Path
from typing import Any

import pandas as pd

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.micro_world.auditor import Auditor
from vr_pipeline.micro_world.build import (
    judge_clips,
    load_flow_generator,
    load_micro_generator,
    preferences,
)
from vr_pipeline.micro_world.captions import caption_questions
from vr_pipeline.micro_world.card import file_hashes, model_card, test_recogniser
from vr_pipeline.micro_world.config import MicroWorldParameters
from vr_pipeline.micro_world.flow_card import flow_card, measure_samples
from vr_pipeline.micro_world.oracle import Oracle
from vr_pipeline.micro_world.world import UNTIDY_PROMPTS, all_prompts
from vr_pipeline.work import WorkPlan


def write_prompts() -> pd.DataFrame:
    """List all prompts of the micro-world, then some that the filter has to reject."""
    named = [(prompt, "micro_world") for prompt in all_prompts()] + [(prompt, "untidy") for prompt in UNTIDY_PROMPTS]
    return pd.DataFrame(named, columns=["prompt", "source"])


def fit_oracle(micro_generator: Path, generator: GeneratorParameters, parameters: MicroWorldParameters) -> Oracle:
    """Fit the oracle on rendered clips, before and after the autoencoder."""
    from vr_pipeline.micro_world.build import fit_oracle

    return fit_oracle(micro_generator, generator, parameters)


def prepare_judge_clips(
    micro_generator: Path,
    oracle: Oracle,
    checklist: Checklist,
    generator: GeneratorParameters,
    parameters: MicroWorldParameters,
) -> tuple[WorkPlan, pd.DataFrame]:
    """Make the judge's training clips: rendered ones with exact answers, generated ones with the oracle's answers."""
    return judge_clips(load_micro_generator(micro_generator, generator), oracle, checklist, parameters)


def simulate_human_preferences(
    micro_generator: Path,
    oracle: Oracle,
    checklist: Checklist,
    generator: GeneratorParameters,
    parameters: MicroWorldParameters,
) -> tuple[WorkPlan, pd.DataFrame, pd.DataFrame]:
    """Sample clips, and compare pairs of them as simulated people would."""
    return preferences(load_micro_generator(micro_generator, generator), oracle, checklist, parameters)


def ask_for_captions(parameters: MicroWorldParameters) -> tuple[WorkPlan, pd.DataFrame]:
    """Render clips with a question about the content of each, and the right answer."""
    return caption_questions(parameters.captions, seed=parameters.seed, scenes=parameters.scenes)


def write_model_card(
    micro_generator: Path,
    micro_judge: Any,
    judge_question_report: pd.DataFrame,
    checklist: Checklist,
    parameters: MicroWorldParameters,
    *recognisers: Oracle | Auditor,
) -> str:
    """Describe the models: how they were made, hashes, and accuracy on held-out clips."""
    # All models are in one folder; the judge is an input because the card describes it too.
    oracle, auditor = (test_recogniser(one, checklist.question_ids, parameters) for one in recognisers)
    return model_card(judge_question_report, oracle, auditor, file_hashes(micro_generator.parent), parameters)


def write_flow_card(
    micro_flow_generator: Path,
    micro_generator: Path,
    oracle: Oracle,
    generator: GeneratorParameters,
    parameters: MicroWorldParameters,
) -> str:
    """Describe the tiny Wan, with the oracle's answers about its clips and those of the tiny CogVideoX."""
    flow = load_flow_generator(micro_flow_generator, generator)
    beside = load_micro_generator(micro_generator, generator)
    return flow_card(
        micro_flow_generator,
        measure_samples(flow, oracle, seed=parameters.seed),
        measure_samples(beside, oracle, seed=parameters.seed),
        parameters,
    )
