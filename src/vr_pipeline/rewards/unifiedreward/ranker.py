"""UnifiedReward as a ranker: compares two clips or responses in both orders and averages."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from vr_pipeline.identifiers import content_hash
from vr_pipeline.rewards.contract import about_file
from vr_pipeline.rewards.unifiedreward.model import Clip, UnifiedReward, given, understanding
from vr_pipeline.rewards.unifiedreward.points import PairScore, both_orders
from vr_pipeline.rewards.unifiedreward.reading import ClipReader, Pair
from vr_pipeline.video.sampled import SampledClip, Sampling, sample_clip

_NUMBERS = ("p_a", "p_b", "p_tie")
COLUMNS = (
    *_NUMBERS,
    "position_bias",
    "better",
    "outside_mass",
    *(f"{name}_{order}" for order in ("first_order", "second_order") for name in _NUMBERS),
)
"""Columns of a table of comparisons, except the reasons of each order."""


class UnifiedRanker:
    """Compares clips of a prompt, or responses about a clip; see :class:`~vr_pipeline.rewards.ranker.Ranker`.

    Probabilities are relative among the template's answers; ``outside_mass`` is the rest. Both orders are averaged, and
    half their difference is ``position_bias``.
    """

    orders: ClassVar[int] = 2

    def __init__(self, model: UnifiedReward) -> None:
        self.model = model

    @property
    def identity(self) -> str:
        """Hash of everything that determines its comparisons."""
        return content_hash("ranker of a UnifiedReward", self.model.identity)

    def sampling(self) -> Sampling:
        """Return which frames the model reads."""
        return self.model.sampling(self.model.loaded())

    def compare(
        self, clips_a: Sequence[Clip], clips_b: Sequence[Clip], prompts: Sequence[str], fps: float | None = None
    ) -> pd.DataFrame:
        """Compare clips pair by pair; see :meth:`vr_pipeline.rewards.ranker.Ranker.compare`.

        Returns:
            :data:`COLUMNS`, one row per pair; with ``reasons_first_order`` and ``reasons_second_order`` if the model
            writes reasons.

        Raises:
            InputError: a clip cannot be read or compared; names it.
        """
        sampling, rows = self.sampling(), []
        for number, (a, b, prompt) in enumerate(zip(clips_a, clips_b, prompts, strict=True)):
            shown = {name: sample_clip(clip, prompt, sampling, fps=fps) for name, clip in (("a", a), ("b", b))}
            rows += self._compared(self._reader(shown), self.model.task, [Pair("a", "b", prompt)], [number], None)
        return _table(rows)

    def compare_group(
        self, clips: Mapping[str, SampledClip], pairs: Sequence[tuple[str, str]], prompt: str
    ) -> pd.DataFrame:
        """Compare pairs of clips of one prompt; see :meth:`vr_pipeline.rewards.ranker.Ranker.compare_group`.

        Each clip is encoded once, and all comparisons that begin with the same clip share its prefix.
        """
        needed = {name: clips[name] for name in dict.fromkeys(name for pair in pairs for name in pair)}
        asked = [Pair(a, b, prompt) for a, b in pairs]
        return _table(self._compared(self._reader(needed), self.model.task, asked, range(len(asked)), None))

    def compare_responses(
        self,
        clips: Sequence[Clip],
        prompts: Sequence[str],
        responses_a: Sequence[str],
        responses_b: Sequence[str],
        fps: float | None = None,
    ) -> pd.DataFrame:
        """Compare two responses to a question about a clip or image, row by row.

        Args:
            clips: the clip of each row; the same file or array is encoded once.
            prompts: the questions.
            responses_a, responses_b: the responses of each row.
            fps: frames per second of clips in memory.

        Returns:
            as :meth:`compare`.

        Raises:
            InputError: the template does not compare responses, or a row cannot be compared; names it.
        """
        texts = list(zip(prompts, responses_a, responses_b, strict=True))
        task = understanding(self.model.task)
        found: dict[int, dict[str, Any]] = {}
        for key, numbers, shown in self.model.by_clip(clips, prompts, fps):
            pairs = [Pair(key, None, texts[row][0], texts[row][1:]) for row in numbers]
            reader = self._reader({key: shown})
            found |= dict(zip(numbers, self._compared(reader, task, pairs, numbers, shown.path), strict=True))
        return _table([found[row] for row in sorted(found)])

    def _reader(self, clips: Mapping[str, SampledClip]) -> ClipReader:
        try:
            return self.model.reader(self.model.loaded(), clips)
        except ValueError as error:
            paths = {clip.path for clip in clips.values()}
            raise about_file(error, paths.pop() if len(paths) == 1 else None) from error

    def _compared(
        self, reader: ClipReader, task: str, pairs: Sequence[Pair], rows: Sequence[int], path: Path | None
    ) -> list[dict[str, Any]]:
        """Return the rows of comparisons; both orders are read together."""
        read = reader.pairs(task, [order for pair in pairs for order in (pair, pair.swapped)])
        template = self.model.template
        reasons = template.has(task, "pair") and template.pair(task).reasons is not None
        found = []
        for row, first, second in zip(rows, read[::2], read[1::2], strict=True):
            orders: list[PairScore] = [given(one, row, path) for one in (first, second)]
            why = {
                f"reasons_{name}": one.reasons
                for name, one in zip(("first_order", "second_order"), orders, strict=True)
            }
            found.append(both_orders(*orders) | (why if reasons else {}))
        return found


def _table(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows) if rows else pd.DataFrame({name: pd.Series(dtype=float) for name in COLUMNS})
