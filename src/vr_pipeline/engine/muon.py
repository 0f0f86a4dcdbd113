"""Muon: momentum whose update is orthogonalised, for the matrices of hidden layers.

Source: Jordan et al. 2024 (kellerjordan.github.io/posts/muon), with the scaling of the step by the shape of the matrix.
torch.optim.Muon computes in bfloat16, which CPUs emulate slowly; this one computes in float32 and takes matrices of
one shape together.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from vr_pipeline.engine.config import LoopParameters
from vr_pipeline.engine.optimisation import make_optimizer


class Muon(torch.optim.Optimizer):
    """Steepest descent under the spectral norm, with Nesterov momentum.

    Args:
        matrices: parameters of two dimensions.
        lr: size of a step: the spectral norm of an update is about lr, times sqrt(n / m) for [n, m] with n > m.
        momentum: decay of the gradient average.
        weight_decay: decoupled.
    """

    def __init__(
        self, matrices: Iterable[torch.Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update all matrices that have a gradient."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[torch.Tensor]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    by_shape.setdefault(tuple(weight.shape), []).append(weight)
            for shape, weights in by_shape.items():
                updates = []
                for weight in weights:
                    gradient = weight.grad
                    assert gradient is not None
                    state = self.state[weight]
                    if "momentum" not in state:
                        state["momentum"] = torch.zeros_like(weight)
                    state["momentum"].lerp_(gradient, 1 - group["momentum"])
                    updates.append(torch.lerp(gradient, state["momentum"], group["momentum"]))
                directions = orthogonalise(torch.stack(updates))
                scale = max(1.0, shape[0] / shape[1]) ** 0.5
                for weight, direction in zip(weights, directions, strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.add_(direction, alpha=-group["lr"] * scale)


def orthogonalise(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Move the singular values of matrices [batch, n, m] towards 1 by a quintic Newton-Schulz iteration.

    Its coefficients trade exactness for speed: singular values end between about 0.7 and 1.2.
    """
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.mT
    x = x / (x.flatten(1).norm(dim=1).clamp_min(1e-7)[:, None, None])
    for _ in range(steps):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x if wide else x.mT


def adam_and_muon(
    weights: Sequence[torch.Tensor], settings: LoopParameters, rate: float | None, *, model: Any
) -> list[torch.optim.Optimizer]:
    """Return AdamW for all weights, or AdamW with Muon for the layers' matrices.

    Args:
        weights: all trained weights.
        settings: of AdamW, and the weight decay of both.
        rate: peak learning rate of Muon; None: AdamW only.
        model: a language model of transformers; AdamW trains its embeddings and its head over the vocabulary.
    """
    if rate is None:
        return [make_optimizer(weights, settings)]
    excepted = {id(ends.weight) for ends in (model.get_input_embeddings(), model.get_output_embeddings())}
    matrices = [weight for weight in weights if weight.ndim == 2 and id(weight) not in excepted]
    chosen = {id(weight) for weight in matrices}
    others = [weight for weight in weights if id(weight) not in chosen]
    return [make_optimizer(others, settings), Muon(matrices, lr=rate, weight_decay=settings.weight_decay)]
