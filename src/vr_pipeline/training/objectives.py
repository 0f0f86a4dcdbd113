"""What preference training can minimise: a table of losses and what they need. A new one is a function and an entry."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, NamedTuple

from vr_pipeline.config import Parameters
from vr_pipeline.training import losses

if TYPE_CHECKING:
    from torch import Tensor

    from vr_pipeline.training.losses import Statistics


@dataclass(frozen=True)
class Inputs:
    """What is known of the pairs of a pass. A loss takes what it needs by these names, and settings by theirs.

    Attributes:
        winner_error: the policy's error on winners, [pairs].
        loser_error: the policy's error on losers, [pairs].
        winner_reference_error: the frozen original's error on winners, [pairs]; None if the loss needs none.
        loser_reference_error: the same on losers.
        error: the policy's error on winners, then on losers, [2 pairs].
        reward: normalised rewards of winners, then of losers, [2 pairs].
        pair_weights: weights of the pairs, [pairs]; None if all are 1.
        timesteps: share of noise of each pair, 0 to 1, [pairs]; None if beta does not depend on it.
    """

    winner_error: Tensor
    loser_error: Tensor
    winner_reference_error: Tensor | None
    loser_reference_error: Tensor | None
    error: Tensor
    reward: Tensor
    pair_weights: Tensor | None
    timesteps: Tensor | None


class Objective(NamedTuple):
    """A loss, and what it needs.

    Attributes:
        loss: pure function of fields of :class:`Inputs` and of settings, by name; gives the loss and its statistics,
            which are of shape [pairs] or, of winners and losers, [2 pairs].
        needs_reference: it compares with the frozen original.
        needs_rewards: it uses the clips' rewards.
        settings: what it reads of the training's settings; those that others know have to be left at their default.
    """

    loss: Callable[..., tuple[Tensor, Statistics]]
    needs_reference: bool = False
    needs_rewards: bool = False
    settings: tuple[str, ...] = ()

    @property
    def opposes_losers(self) -> bool:
        """Whether it raises the error on losers, so that their gradients can be scaled (SDPO)."""
        return "loser_error" in inspect.signature(self.loss).parameters

    def compute(self, inputs: Inputs, settings: Parameters) -> tuple[Tensor, Statistics]:
        """Return loss and statistics of some pairs."""
        known = {field.name: inputs for field in fields(inputs)} | dict.fromkeys(self.settings, settings)
        names = [name for name in inspect.signature(self.loss).parameters if name in known]
        return self.loss(**{name: getattr(known[name], name) for name in names})


_DPO = ("beta", "label_smoothing", "rarity_exponent")

OBJECTIVES: Mapping[str, Objective] = {
    "diffusion_dpo": Objective(losses.diffusion_dpo_loss, needs_reference=True, settings=_DPO),
    "flow_dpo": Objective(losses.flow_dpo_loss, needs_reference=True, settings=(*_DPO, "beta_falls_with_noise")),
    "reward_weighted": Objective(losses.reward_weighted_loss, needs_rewards=True),
    "mapo": Objective(losses.mapo_loss, settings=("beta",)),
    "supervised": Objective(losses.supervised_loss),
}
"""Values of ``training.loss``."""
