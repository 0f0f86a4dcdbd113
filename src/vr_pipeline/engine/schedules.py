"""Schedules of the learning rate, given its peak, the step (from 1), the warm-up steps and all steps.

``get_scheduler`` of diffusers and transformers is not used, because its warm-up starts with a step of length 0, and the
shipped models were trained with these formulas, which give the same bits on every machine.
"""

import math
from collections.abc import Callable, Mapping


def _linear(peak: float, step: int, warmup: int, steps: int) -> float:
    warmup = min(warmup, steps)
    return peak * (step / warmup if step <= warmup else (steps - step + 1) / (steps - warmup))


def _after_warmup(course: Callable[[float], float]) -> Callable[[float, int, int, int], float]:
    """Return a schedule: linear warm-up, then ``course`` from 0 (end of the warm-up) to 1 (last step)."""

    def rate(peak: float, step: int, warmup: int, steps: int) -> float:
        if step <= warmup:
            return peak * step / warmup
        return peak * course((step - warmup) / max(steps - warmup, 1))

    return rate


def _half_cosine(share: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * share))


def _cosine_throughout(peak: float, step: int, warmup: int, steps: int) -> float:
    return peak * (min(1.0, step / max(1, warmup)) * _half_cosine(step / steps))


SCHEDULES: Mapping[str, Callable[[float, int, int, int], float]] = {
    "linear": _linear,
    "linear_to_zero": _after_warmup(lambda share: 1.0 - share),
    "cosine": _after_warmup(_half_cosine),
    "constant": _after_warmup(lambda share: 1.0),
    "cosine_throughout": _cosine_throughout,
}
