"""The contract of an oracle: a second opinion that shares nothing with the judge.

Real data have none; then rewards by people (or by another judge) take its place. The embedded default has one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt


class Oracle(Protocol):
    """Knows, or estimates independently of the judge, the answers to the checklist."""

    @property
    def weights(self) -> Mapping[str, float]:
        """Value of a yes to each question."""

    def probabilities(
        self, clips: npt.NDArray[np.uint8], prompts: Sequence[str], question_ids: Sequence[str]
    ) -> npt.NDArray[np.float64]:
        """Probability of yes, [clips, questions], of clips uint8 [clips, frames, height, width, 3]."""
