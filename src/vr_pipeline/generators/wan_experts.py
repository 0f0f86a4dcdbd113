"""Wan 2.2 A14B text-to-video: two experts, one for times of much noise and one for those of little.

Source: Wan 2.2 (Wan Team 2025) and its pipeline in diffusers: at times of at least ``boundary_ratio`` of the schedule
the first transformer denoises, below it the second. Training draws one time for a pair; it decides which expert is
asked and therefore trained, so that each gets the share of the steps that sampling gives it. An adapter has both parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from vr_pipeline.errors import InputError
from vr_pipeline.generators.contract import Condition, Part
from vr_pipeline.generators.settings import PIPELINE, Relied, one_of, share
from vr_pipeline.generators.wan import WanGenerator

if TYPE_CHECKING:
    import torch

    from vr_pipeline.generators.experts import Experts


class WanExpertsGenerator(WanGenerator):
    """A ``WanPipeline`` of diffusers with two transformers behind the contract."""

    experts: ClassVar[tuple[str, str]] = ("transformer", "transformer_2")

    relied_on: ClassVar[Relied] = WanGenerator.relied_on | {
        PIPELINE: {
            "_class_name": WanGenerator.relied_on[PIPELINE]["_class_name"],
            "boundary_ratio": (share, "the second transformer denoises below this share of the schedule"),
            "expand_timesteps": (one_of(False), "there is one time for all tokens"),
        },
        "transformer_2": WanGenerator.relied_on["transformer"],
    }

    @classmethod
    def _component_names(cls, part: Part) -> tuple[str, ...]:
        return cls.experts if part == "denoiser" else super()._component_names(part)

    @property
    def denoiser(self) -> torch.nn.Module:
        from vr_pipeline.generators.experts import Experts

        made: Experts | None = self.__dict__.get("_experts")
        parts = self.denoisers()
        if made is None or dict(made.named_children()) != parts:
            made = self._experts = Experts(parts)
        return made

    def train_all_weights(self, *, reference: bool) -> list[Any]:
        raise InputError(
            "both experts of this model are trained, and a policy of all weights holds one network",
            field="training.method",
            remedy="choose lora",
        )

    def predict(self, noised: torch.Tensor, timesteps: torch.Tensor, condition: Condition) -> torch.Tensor:
        import torch

        boundary = self.pipeline.config.boundary_ratio * self.training_timesteps
        much = timesteps >= boundary
        order, made = [], []
        for network, mask in zip(self.denoisers().values(), (much, ~much), strict=True):
            if rows := mask.nonzero().flatten().tolist():
                text = {name: value[rows] for name, value in condition.items()}
                made.append(self.predict_by(network, noised[rows], timesteps[rows], text))
                order += rows
        return torch.cat(made)[torch.tensor(order, device=noised.device).argsort(stable=True)]
