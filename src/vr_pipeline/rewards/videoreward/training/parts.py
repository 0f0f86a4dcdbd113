"""The trained weights of a VideoReward and their learning rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vr_pipeline.engine.optimisation import make_optimizer
from vr_pipeline.rewards.training.parts import ModelParts
from vr_pipeline.rewards.videoreward.network import VideoRewardNetwork
from vr_pipeline.rewards.videoreward.training.config import PreferenceRewardTrainingParameters

if TYPE_CHECKING:
    import torch

NARROWEST = 1.001
"""Lower bound of a trained width of ties; at 1, ties are impossible."""


class TrainedParts:
    """Prepares a network for training, and restores its form and precision; output embeddings are not trained."""

    def __init__(self, network: VideoRewardNetwork, parameters: PreferenceRewardTrainingParameters) -> None:
        import torch

        self.network, self.parameters = network, parameters
        self.parts = ModelParts(network.family, parameters.vision, parameters.language, parameters.lora, head=False)
        for weight in network.own_weights.values():
            weight.requires_grad_(True)
        width = torch.tensor(parameters.theta - NARROWEST, device=network.family.device)
        self._tie_width = torch.nn.Parameter(width.clamp_min(1e-6).log())

    @property
    def theta(self) -> torch.Tensor | float:
        """Width of ties: fixed, or a trained exponential above 1."""
        return NARROWEST + self._tie_width.exp() if self._learns_theta else self.parameters.theta

    @property
    def theta_now(self) -> float:
        """Width of ties as a number."""
        return NARROWEST + float(self._tie_width.detach().exp()) if self._learns_theta else self.parameters.theta

    @property
    def _learns_theta(self) -> bool:
        return self.parameters.learn_theta and self.parameters.loss == "btt"

    def weights(self) -> list[torch.nn.Parameter]:
        """Return the trained weights in a fixed order."""
        width = [self._tie_width] if self._learns_theta else []
        return [*self.parts.weights(), *self.network.own_weights.values(), *width]

    def optimizers(self) -> Sequence[torch.optim.Optimizer]:
        """Return AdamW for the model, the special tokens, the head and the width of ties, each with its rate."""
        given = self.parameters
        own = self.network.own_weights
        groups = [
            (self.parts.weights(), given.learning_rate, given.weight_decay),
            ([own["token_rows"]] if "token_rows" in own else [], given.token_learning_rate, given.weight_decay),
            ([own["head.weight"]], given.head_learning_rate, given.weight_decay),
            ([self._tie_width] if self._learns_theta else [], given.theta_learning_rate, 0.0),
        ]
        return [
            make_optimizer(
                weights,
                given.model_copy(update={"learning_rate": rate or given.learning_rate, "weight_decay": decay}),
            )
            for weights, rate, decay in groups
            if weights
        ]

    def finish(self) -> None:
        """Merge LoRA, and restore the precision."""
        self.parts.finish()
        for weight in self.network.own_weights.values():
            weight.requires_grad_(False)
