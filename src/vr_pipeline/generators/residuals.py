"""What a network predicts beside what a perfect one would: errors, norms and inner products of samples."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Residuals:
    """Predictions and targets of a batch, in the generator's error space.

    Attributes:
        prediction: what the network predicts, [batch, ...]; without latent frames that are given.
        target: what a perfect network would predict, of the same shape.
        frame_axis: axis of the latent frames; None for pictures.
    """

    prediction: torch.Tensor
    target: torch.Tensor
    frame_axis: int | None = None

    @cached_property
    def residual(self) -> torch.Tensor:
        """Prediction minus target, [batch, ...], float32."""
        return self.prediction.float() - self.target.float()

    def error(self) -> torch.Tensor:
        """Return the squared residual averaged over all latent elements of a sample, [batch], float32."""
        return (self.residual**2).flatten(1).mean(dim=1)

    def frame_error(self) -> torch.Tensor:
        """Return the squared residual averaged over the elements of a latent frame, [batch, frames], float32.

        A picture has one frame. The mean over frames is :meth:`error` up to rounding.
        """
        return self.frame_means(self.residual**2)

    def frame_means(self, values: torch.Tensor) -> torch.Tensor:
        """Return means over the elements of a latent frame, [batch, frames], of values by element, [batch, ...]."""
        frames = values.unsqueeze(1) if self.frame_axis is None else values.movedim(self.frame_axis, 1)
        return frames.flatten(2).mean(dim=2)

    def norm(self) -> torch.Tensor:
        """Return the norm of the prediction, its root mean square over all elements of a sample, [batch], float32."""
        # Where everything is 0 the derivative of the root is no number.
        tiny = 1e-12
        return (self.prediction.float() ** 2).flatten(1).mean(dim=1).clamp_min(tiny**2).sqrt()


def mean_product(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the inner product of two batches divided by the number of elements of a sample, [batch]."""
    return (first * second).flatten(1).mean(dim=1)
