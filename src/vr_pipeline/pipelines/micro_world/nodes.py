"""Nodes of micro_world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.micro_world.config import MicroWorldParameters
from vr_pipeline.micro_world.oracle import Oracle
from vr_pipeline.work import WorkPlan


def write_prompts() -> pd.DataFrame:
    """List all prompts of the micro-world."""
    from vr_pipeline.micro_world.world import all_prompts

    return pd.DataFrame({"prompt": all_prompts(), "source": "micro_world"})


def pretrain_micro_generator(
    generator: GeneratorParameters, parameters: MicroWorldParameters
) -> tuple[Any, pd.DataFrame]:
    """Render clips, fit the patch autoencoder and train denoiser and text encoder from scratch."""
    from vr_pipeline.micro_world.build import pretrain

    return pretrain(generator, parameters)


def fit_oracle(micro_generator: Path, generator: GeneratorParameters, parameters: MicroWorldParameters) -> Oracle:
    """Fit the oracle on rendered clips, as drawn and as the autoencoder gives them back."""
    from vr_pipeline.micro_world.build import fit_oracle

    return fit_oracle(micro_generator, generator, parameters)


def prepare_judge_clips(
    micro_generator: Path,
    oracle: Oracle,
    checklist: Checklist,
    generator: GeneratorParameters,
    parameters: MicroWorldParameters,
) -> tuple[WorkPlan, pd.DataFrame]:
    """Make rendered clips with exact answers and generated clips with the oracle's answers to train the judge on."""
    from vr_pipeline.micro_world.build import judge_clips, load_micro_generator

    return judge_clips(load_micro_generator(micro_generator, generator), oracle, checklist, parameters)


def simulate_human_preferences(
    micro_generator: Path,
    oracle: Oracle,
    checklist: Checklist,
    generator: GeneratorParameters,
    parameters: MicroWorldParameters,
) -> tuple[WorkPlan, pd.DataFrame, pd.DataFrame]:
    """Sample clips, and compare pairs of them as simulated people would."""
    from vr_pipeline.micro_world.build import load_micro_generator, preferences

    return preferences(load_micro_generator(micro_generator, generator), oracle, checklist, parameters)


def write_model_card(
    micro_generator: Path,
    oracle: Oracle,
    trained_judge: Any,
    judge_question_report: pd.DataFrame,
    checklist: Checklist,
    parameters: MicroWorldParameters,
) -> str:
    """Say what the models are, how they were made, their hashes and what they reach on held-out clips."""
    from vr_pipeline.micro_world.card import file_hashes, model_card, test_oracle

    # All models lie in one folder; the judge is an input because the card describes it too.
    return model_card(
        judge_question_report,
        test_oracle(oracle, checklist.question_ids, parameters),
        file_hashes(micro_generator.parent),
        parameters,
    )
