"""The contract of rankers, which compare two clips; part of :mod:`vr_pipeline.rewards.contract`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Protocol

import pandas as pd

from vr_pipeline.video.clip import Frames
from vr_pipeline.video.sampled import SampledClip, Sampling


class Ranker(Protocol):
    """Decides which of two clips of a prompt is better."""

    orders: ClassVar[int]
    """Times that a pair is shown to the model: 2 for both orders; 0 if each clip is scored alone."""

    @property
    def identity(self) -> str:
        """Hash of everything that determines its comparisons."""
        ...

    def sampling(self) -> Sampling | None:
        """Load the model and return which frames of a clip it reads; None if it reads no clip."""
        ...

    def compare(
        self,
        clips_a: Sequence[str | Path | Frames],
        clips_b: Sequence[str | Path | Frames],
        prompts: Sequence[str],
        fps: float | None = None,
    ) -> pd.DataFrame:
        """Compare clips pair by pair.

        Returns:
            p_a, p_b and p_tie, which add up to 1; better ('a', 'b' or 'tie'); position_bias: how much p_a depends on
            the order; for rankers that read answers, outside_mass: the probability of other answers.
        """
        ...

    def compare_group(
        self, clips: Mapping[str, SampledClip], pairs: Sequence[tuple[str, str]], prompt: str
    ) -> pd.DataFrame:
        """Compare pairs of clips of one prompt, and encode each clip once.

        Args:
            clips: by name, sampled as :meth:`sampling` returns.
            pairs: names of both clips.
            prompt: text of all clips.

        Returns:
            the columns of :meth:`compare`, one row per pair.

        Raises:
            InputError: the model cannot process a clip or the prompt.
        """
        ...
