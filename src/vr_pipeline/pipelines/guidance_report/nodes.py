"""Nodes of guidance_report."""

import pandas as pd

from vr_pipeline.evaluation.guidance.clips import plan_guided_clips
from vr_pipeline.evaluation.guidance.config import GuidanceReportParameters
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.pipelines.video_generation.nodes import prompts_of_splits
from vr_pipeline.work import WorkPlan


def generate_guided_videos(
    filtered_prompts: pd.DataFrame,
    latent_reward: str,
    generator: GeneratorParameters,
    parameters: GuidanceReportParameters,
) -> WorkPlan:
    """Make clips without guidance and with each strength, from the same seeds."""
    prompts = prompts_of_splits(filtered_prompts, parameters.splits, "guidance_report.splits")
    return plan_guided_clips(prompts, latent_reward, generator, parameters)
