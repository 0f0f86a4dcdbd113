"""Which weights of a VideoReward are trained, and at which rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vr_pipeline.engine.fine_tuning import FineTuning
from vr_pipeline.engine.optimisation import make_optimizer
from vr_pipeline.rewards.videoreward.training.config import PreferenceRewardTrainingParameters

if TYPE_CHECKING:
    import torch

    from vr_pipeline.rewards.videoreward.network import VideoRewardNetwork

_LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

NARROWEST = 1.001
"""Width of ties above which a trained one stays: at 1 a tie would be impossible."""


class TrainedParts:
    """Makes a network ready to be trained, and puts it back into its form and precision.

    The head over the vocabulary takes no part and stays as it is.
    """

    def __init__(self, network: VideoRewardNetwork, parameters: PreferenceRewardTrainingParameters) -> None:
        import torch

        self.network, self.parameters = network, parameters
        model, language = network.family.model, network.family.language_model
        of_language = {id(weight) for weight in language.parameters()}
        model.requires_grad_(False)
        self.tunings: list[FineTuning] = []
        if parameters.language != "frozen":
            lora = parameters.lora if parameters.language == "lora" else None
            self.tunings.append(FineTuning(language, lora, _LORA_TARGETS))
        self.vision: list[torch.nn.Parameter] = []
        if parameters.vision == "full":
            # All that stands before the language model: tower, merger, projector.
            unused = {id(weight) for weight in model.get_output_embeddings().parameters()}
            self.vision = [
                weight
                for name, weight in model.named_parameters()
                if id(weight) not in of_language | unused and "lora_" not in name
            ]
        self._dtypes = [weight.dtype for weight in self.vision]
        for weight in self.vision:
            weight.requires_grad_(True)
            weight.data = weight.data.float()
        for weight in network.own_weights.values():
            weight.requires_grad_(True)
        width = torch.tensor(parameters.theta - NARROWEST, device=network.family.device)
        self._tie_width = torch.nn.Parameter(width.clamp_min(1e-6).log())

    @property
    def theta(self) -> torch.Tensor | float:
        """Width of ties: fixed, or trained as the exponential of a weight, so that it stays above 1."""
        return NARROWEST + self._tie_width.exp() if self._learns_theta else self.parameters.theta

    @property
    def theta_now(self) -> float:
        """Width of ties as a number."""
        return NARROWEST + float(self._tie_width.detach().exp()) if self._learns_theta else self.parameters.theta

    @property
    def _learns_theta(self) -> bool:
        return self.parameters.learn_theta and self.parameters.loss == "btt"

    def _of_model(self) -> list[torch.nn.Parameter]:
        return [weight for tuning in self.tunings for weight in tuning.weights()] + self.vision

    def weights(self) -> list[torch.nn.Parameter]:
        """Return all that is trained, in a fixed order."""
        width = [self._tie_width] if self._learns_theta else []
        return [*self._of_model(), *self.network.own_weights.values(), *width]

    def optimizers(self) -> Sequence[torch.optim.Optimizer]:
        """Return AdamW for the model's weights, the tokens, the head and the width of ties, each at its rate."""
        given = self.parameters
        own = self.network.own_weights
        groups = [
            (self._of_model(), given.learning_rate, given.weight_decay),
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
        """Add low-rank updates to their weights, and go back to the precision of before."""
        for tuning in self.tunings:
            tuning.finish()
        for weight, dtype in zip(self.vision, self._dtypes, strict=True):
            weight.data = weight.data.to(dtype)
        for weight in (*self.network.family.model.parameters(), *self.network.own_weights.values()):
            weight.requires_grad_(False)
