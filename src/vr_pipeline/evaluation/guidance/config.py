"""Parameters of guidance_report."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vr_pipeline.config import Parameters
from vr_pipeline.evaluation.config import EvaluationParameters, ReportParameters
from vr_pipeline.generators.config import GeneratorParameters, GuidanceReward
from vr_pipeline.generators.policy import ORIGINAL


class GuidanceReportParameters(Parameters):
    """Parameters of guidance_report."""

    scales: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        default=[0.25, 0.5, 1.0, 2.0],
        min_length=1,
        description="Strengths of guidance, compared to no guidance; see generator.guidance_reward.scale.",
    )
    weights: dict[str, float] = Field(
        default={}, description="Weights of the reward's dimensions; empty for equal weights."
    )
    clip: float | None = Field(
        10.0, gt=0, description="See generator.guidance_reward.clip; all noise levels are guided."
    )
    splits: list[Literal["train", "validation", "test"]] = Field(
        default=["test"], min_length=1, description="Splits of the prompts of the clips."
    )
    videos_per_prompt: int = Field(8, ge=1, description="Clips per strength and prompt.")
    seed: int = Field(10, description="Base seed of the clips; all strengths get the same seeds.")
    num_prompts: int = Field(6, ge=0, description="Prompts with clips side by side.")
    title: str = Field("Guidance by a latent reward", description="Heading of the page.")

    def steered(
        self, generator: GeneratorParameters, model: str, dimensions: tuple[str, ...]
    ) -> dict[str, GeneratorParameters]:
        """Return the generator without guidance and at every strength, by name."""
        weights = self.weights or dict.fromkeys(dimensions, 1.0 / len(dimensions))
        made = {ORIGINAL: generator.model_copy(update={"guidance_reward": None})}
        for scale in sorted(self.scales):
            guidance = GuidanceReward(model=model, weights=weights, scale=scale, clip=self.clip)
            made[f"{scale:g}"] = generator.model_copy(update={"guidance_reward": guidance})
        return made

    @property
    def titles(self) -> dict[str, str]:
        """Title of every strength on a page."""
        return {ORIGINAL: "unguided", **{f"{scale:g}": f"w = {scale:g}" for scale in sorted(self.scales)}}

    @property
    def as_evaluation(self) -> EvaluationParameters:
        """Parameters for the sections of the evaluation's report."""
        report = ReportParameters(title=self.title, num_prompts=self.num_prompts)
        return EvaluationParameters(
            splits=self.splits, videos_per_prompt=self.videos_per_prompt, seed=self.seed, report=report
        )
