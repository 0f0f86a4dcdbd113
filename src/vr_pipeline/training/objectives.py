"""The objectives of preference training: a table of losses with their inputs. Add one as a function and an entry."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, NamedTuple

from vr_pipeline.config import Parameters
from vr_pipeline.training import clip_losses, losses, segment_losses
from vr_pipeline.training.losses import Statistics

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Inputs:
    """Inputs of losses for the samples of a pass. A loss has parameters with these names, or with names of settings.

    Attributes:
        error: the policy's error on winners, then on losers, [2 pairs]; or on single clips, [clips].
        reference_error: the frozen original's, in the same order; None if the loss needs none.
        deviation: squared difference of both predictions, averaged over the elements of a sample; None likewise.
        reward: rewards as needed by the loss, in the same order.
        winner_error: the policy's error on winners, [pairs]; None for single clips, like all that belongs to pairs.
        loser_error: the policy's error on losers, [pairs].
        winner_reference_error: the frozen original's error on winners, [pairs]; None if the loss needs none.
        loser_reference_error: the same on losers.
        pair_weights: weights of the pairs, [pairs]; None if all are 1.
        winner_frame_error, loser_frame_error: the policy's errors on latent frames, [pairs, frames]; None if the loss
            needs none.
        winner_reference_frame_error, loser_reference_frame_error: the frozen original's likewise.
        segments: number of the segment of every latent frame, [pairs, frames]; above 0 the winner is better in it,
            below 0 the loser, 0 is no label.
        timesteps: share of noise of each pair, 0 to 1, [pairs]; None if beta does not depend on it.
        training_timesteps: number of timesteps of the generator's training.
    """

    error: Tensor
    reward: Tensor
    reference_error: Tensor | None = None
    deviation: Tensor | None = None
    winner_error: Tensor | None = None
    loser_error: Tensor | None = None
    winner_reference_error: Tensor | None = None
    loser_reference_error: Tensor | None = None
    winner_frame_error: Tensor | None = None
    loser_frame_error: Tensor | None = None
    winner_reference_frame_error: Tensor | None = None
    loser_reference_frame_error: Tensor | None = None
    segments: Tensor | None = None
    pair_weights: Tensor | None = None
    timesteps: Tensor | None = None
    training_timesteps: int = 1000


class Objective(NamedTuple):
    """A loss, and what it needs.

    Attributes:
        loss: pure function of fields of :class:`Inputs` and of settings, by name; returns the loss and statistics of
            shape [pairs] or [clips].
        needs_reference: it compares with the frozen original.
        needs_rewards: it uses the clips' rewards.
        group_rewards: rewards are normalised within the clips of a prompt to 0 to 1.
        of_clips: it learns from all judged single clips instead of pairs.
        settings: settings that it reads; settings of other objectives must have their default.
    """

    loss: Callable[..., tuple[Tensor, Statistics]]
    needs_reference: bool = False
    needs_rewards: bool = False
    group_rewards: bool = False
    of_clips: bool = False
    settings: tuple[str, ...] = ()

    @property
    def opposes_losers(self) -> bool:
        """Whether it raises the error on losers, so that their gradients can be scaled (SDPO)."""
        return self.takes("loser_error") or self.of_segments

    @property
    def of_segments(self) -> bool:
        """Whether it compares segments of clips, by the errors of latent frames."""
        return self.takes("segments")

    def takes(self, name: str) -> bool:
        """Return whether the loss uses this field of :class:`Inputs`."""
        return name in inspect.signature(self.loss).parameters

    def compute(self, inputs: Inputs, settings: Parameters) -> tuple[Tensor, Statistics]:
        """Return loss and statistics of some pairs."""
        known = {field.name: inputs for field in fields(inputs)} | dict.fromkeys(self.settings, settings)
        names = [name for name in inspect.signature(self.loss).parameters if name in known]
        return self.loss(**{name: getattr(known[name], name) for name in names})


_WEIGHED = ("beta", "rarity_exponent")
_DPO = ("beta", "label_smoothing", "rarity_exponent")

OBJECTIVES: Mapping[str, Objective] = {
    "diffusion_dpo": Objective(losses.diffusion_dpo_loss, needs_reference=True, settings=(*_DPO, "strength", "omega")),
    "flow_dpo": Objective(losses.flow_dpo_loss, needs_reference=True, settings=(*_DPO, "beta_falls_with_noise")),
    "ipo": Objective(losses.ipo_loss, needs_reference=True, settings=_WEIGHED),
    "linear_dpo": Objective(losses.linear_dpo_loss, needs_reference=True, settings=("beta", "floor")),
    "reg_dpo": Objective(losses.reg_dpo_loss, needs_reference=True, settings=(*_WEIGHED, "regularisation")),
    "segment_dpo": Objective(segment_losses.segment_dpo_loss, needs_reference=True, settings=("beta",)),
    "mapo": Objective(losses.mapo_loss, settings=("beta",)),
    "reward_weighted": Objective(clip_losses.reward_weighted_loss, needs_rewards=True, of_clips=True),
    "nft": Objective(
        clip_losses.nft_loss,
        needs_reference=True,
        needs_rewards=True,
        group_rewards=True,
        of_clips=True,
        settings=("mixing",),
    ),
    "supervised": Objective(losses.supervised_loss),
}
"""Values of ``training.loss``."""
