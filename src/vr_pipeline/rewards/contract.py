"""What every reward does, whatever is inside: clips are measured, which costs; measurements become rewards.

A reward is one subclass of :class:`RewardModel` and one line in :mod:`vr_pipeline.rewards.registry`. Pipelines store
what :meth:`RewardModel.measure` makes, item by item; commands, the served model and notebooks ask
:meth:`RewardModel.score`. Both take the same steps, so a clip has one reward whoever asks.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pandas as pd

from vr_pipeline.config import Parameters
from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash
from vr_pipeline.runtime.memory import free_memory
from vr_pipeline.video.clip import Frames, VideoReadError
from vr_pipeline.video.sampled import SampledClip, Sampling, clip_path, sample_clip
from vr_pipeline.work import ItemFailure, Scalar, WorkItem, WorkPlan, run_in_process

logger = logging.getLogger(__name__)

ROWS_BEFORE_A_CHECK = 2000
"""After so many rows measurements are checked, so that a model that measures nothing stops before all clips."""

Outcome = pd.DataFrame | Exception
"""What a model says of a clip: rows of a table without video_id and error, or why there is nothing to say."""


class RewardModel(ABC):
    """Clips in, rewards out: ``total``, and ``dim_<name>`` for each dimension."""

    Settings: ClassVar[type[Parameters]] = Parameters
    """What a configuration says of it, beside its ``type``; see :func:`~.registry.load_reward_model`."""

    kind: ClassVar[str] = "measurements"
    """What is stored of clips: part of the names and identities of items, and shown in progress."""

    ranks_by: ClassVar[str] = "vr_pipeline.rewards.ranking:RewardRanker"
    """``package.module:class`` of the :class:`Ranker` that compares clips by it; called with the reward."""

    clips_per_item: int = 32
    """Clips measured and stored together."""

    reader_threads: int = 1
    """Threads that decode clips."""

    dimensions: tuple[str, ...]
    """Names of the dimensions."""

    # -- what a reward says of itself -------------------------------------------------------------------------------

    @property
    @abstractmethod
    def measured_by(self) -> tuple[str, ...]:
        """Content hashes and settings that measurements depend on: models, sampling, questions, their version."""

    @property
    def depends_on(self) -> tuple[str, ...]:
        """All that rewards depend on: by default what measurements do."""
        return self.measured_by

    @property
    def identity(self) -> str:
        """Hash of all that rewards depend on."""
        return content_hash("reward", type(self).__name__, *self.depends_on)

    @property
    def recorded(self) -> Mapping[str, Scalar]:
        """What is recorded beside every stored item."""
        return {}

    @classmethod
    def from_settings(cls, settings: Any, folder: Path) -> RewardModel:
        """Make it from its settings, whose relative paths start from a folder; by default they are its arguments."""
        return cls(**dict(settings))

    # -- what it does -----------------------------------------------------------------------------------------------

    def load(self) -> Any:
        """Load the models; called once, and only if a clip is to be measured."""
        return None

    def sampling(self, loaded: Any) -> Sampling | None:
        """Which frames of a clip it looks at; every frame by default, None where it reads no clip."""
        return Sampling()

    @abstractmethod
    def look(self, loaded: Any, clips: Sequence[SampledClip]) -> list[Outcome]:
        """Measure clips: for each, in order, its rows, or the error that says why it cannot be measured.

        Args:
            loaded: what :meth:`load` returned.
            clips: their frames.
        """

    def unmeasured(self, loaded: Any) -> Mapping[str, Any]:
        """Values that stand in the columns of a clip that could not be measured; by default they are empty."""
        return {}

    def arrange(self, table: pd.DataFrame, index: pd.DataFrame) -> pd.DataFrame:
        """Arrange the rows of measured clips as the catalog keeps them; by default they stay as they are."""
        return table

    def check(self, measured: pd.DataFrame) -> None:
        """Stop a run whose measurements mean nothing. Raises :class:`InputError`."""
        return None

    def rewards(self, measured: pd.DataFrame, index: pd.DataFrame) -> pd.DataFrame:
        """Make rewards of measurements, which costs little.

        By default a measurement is one row a clip with the columns ``dim_<name>``, and ``total`` or their sum.

        Args:
            measured: what :meth:`collect` or :meth:`measure_clip` returned.
            index: the clips, schema ``VideoIndex``; those that were not measured are left out.

        Returns:
            schema ``Rewards``.
        """
        table = measured_clips(index, measured)
        names = [f"dim_{name}" for name in self.dimensions]
        rows = measured.set_index("video_id").loc[table["video_id"]].reset_index(drop=True)
        total = rows["total"] if "total" in rows else rows[names].sum(axis=1)
        return pd.concat([table.assign(total=total), rows[names]], axis=1)

    # -- what all have alike ----------------------------------------------------------------------------------------

    _loaded: Any = None

    def loaded(self) -> Any:
        """Return the models, which stay in memory until :meth:`close`."""
        if self._loaded is None:
            self._loaded = self.load()
        return self._loaded

    def close(self) -> None:
        """Free the models."""
        if self._loaded is not None:
            self._loaded = None
            free_memory()

    def __getstate__(self) -> dict[str, Any]:
        """Leave loaded models behind: workers load their own."""
        return {name: value for name, value in self.__dict__.items() if name != "_loaded"}

    def measure(self, videos: Any, index: pd.DataFrame) -> WorkPlan:
        """Plan the measurement of clips, in groups of clips of one prompt.

        A group is stored once all its clips are measured; after an interruption only missing groups are measured. Its
        identity holds what measurements depend on, the clips' content and their prompts, so that a change of any of
        them measures again, and another prompt's clips are left alone.

        Args:
            videos: the folder of clips.
            index: schema ``VideoIndex``; clips of status 'failed' are left out.

        Returns:
            a plan whose items are tables: a clip that cannot be measured has one row with the reason in ``error``.
        """
        usable = index[index["status"] == "ok"].sort_values(["prompt_id", "sample_index", "video_id"], kind="stable")
        measured_by, recorded = self.measured_by, self.recorded
        groups: dict[str, list[dict[str, Any]]] = {}
        items = []
        for _, of_prompt in usable.groupby("prompt_id", sort=True):
            rows = of_prompt[["video_id", "prompt", "path", "sha256"]].to_dict("records")
            for start in range(0, len(rows), self.clips_per_item):
                group = rows[start : start + self.clips_per_item]
                key = content_hash(self.kind, *(row["video_id"] for row in group))
                contents = [str(row[name]) for row in group for name in ("video_id", "sha256", "prompt")]
                groups[key] = [{str(name): value for name, value in row.items()} for row in group]
                identity = content_hash(self.kind, *measured_by, *contents)
                items.append(WorkItem(key, identity, {**recorded, "clips": len(group)}))
        first: list[pd.DataFrame] = []

        def make_batch(loaded: Any, batch: Sequence[WorkItem]) -> list[pd.DataFrame | ItemFailure]:
            made = [self.measure_group(loaded, videos, groups[item.key]) for item in batch]
            if sum(map(len, first)) < ROWS_BEFORE_A_CHECK:
                first.extend(table for table in made if isinstance(table, pd.DataFrame))
                if sum(map(len, first)) >= ROWS_BEFORE_A_CHECK:
                    self.check(pd.concat(first))
            return made

        return WorkPlan(items, make_batch, batch_size=1, description=f"groups of {self.kind}", setup=self.loaded)

    def measure_group(self, loaded: Any, videos: Any, clips: Sequence[Mapping[str, Any]]) -> pd.DataFrame | ItemFailure:
        """Read clips and measure them.

        A clip that does not decode or that the model cannot take has one row with the reason; the others are measured.
        Where clips decode but none can be measured, the reason need not lie with the clips (the machine, a scorer):
        that is a failure, which the next run tries again.
        """
        sampling = self.sampling(loaded)

        def read(clip: Mapping[str, Any]) -> SampledClip | VideoReadError:
            try:
                path = clip["path"] if sampling is None else clip_path(videos, clip["video_id"], clip["path"])
                own = not isinstance(videos, Mapping)
                video_id, prompt = str(clip["video_id"]), str(clip["prompt"])
                return sample_clip(path, prompt, sampling, video_id=video_id, own=own)
            except VideoReadError as error:
                return error

        with ThreadPoolExecutor(self.reader_threads) as pool:
            sampled = list(pool.map(read, clips))
        shown = [clip for clip in sampled if isinstance(clip, SampledClip)]
        seen = self.look(loaded, shown) if shown else []
        if shown and all(isinstance(one, Exception) and not getattr(one, "of_clip", False) for one in seen):
            return ItemFailure(str(seen[0]))
        outcomes = iter(seen)
        results = [next(outcomes) if isinstance(clip, SampledClip) else clip for clip in sampled]
        names = [str(clip["video_id"]) for clip in clips]
        tables = [_rows(name, one) for name, one in zip(names, results, strict=True) if isinstance(one, pd.DataFrame)]
        blank = self.unmeasured(loaded)
        failed = [
            {"video_id": name, **blank, "error": str(one)}
            for name, one in zip(names, results, strict=True)
            if isinstance(one, Exception)
        ]
        if failed:
            tables.append(pd.DataFrame(failed))
        table = pd.concat(tables, ignore_index=True)
        return table.astype({name: type(value) for name, value in blank.items() if isinstance(value, int)})

    def collect(self, stored: Any, index: pd.DataFrame) -> pd.DataFrame:
        """Bring all stored measurements into one table; clips that could not be measured are left out and counted.

        Args:
            stored: the folder of what :meth:`measure` made.
            index: the clips.

        Raises:
            InputError: no clip could be measured, or the measurements mean nothing.
        """
        parts = [stored.load(key) for key in stored.keys]
        return self._collected(pd.concat(parts, ignore_index=True), index) if parts else pd.DataFrame()

    def measured(self, videos: Any, index: pd.DataFrame) -> pd.DataFrame:
        """Measure clips in this process and store nothing: for a model that costs little."""
        plan = self.measure(videos, index)
        parts = [content for _, contents in run_in_process(plan, plan.batches()) for content in contents]
        for part in parts:
            if isinstance(part, ItemFailure):
                raise InputError(part.reason, remedy="Correct what it names, then run again")
        return self._collected(pd.concat(parts, ignore_index=True), index)

    def _collected(self, table: pd.DataFrame, index: pd.DataFrame) -> pd.DataFrame:
        table = self.valid(table)
        failed = table[table["error"] != ""]
        for video_id, error in failed[["video_id", "error"]].head(5).itertuples(index=False):
            logger.warning("Clip %s was left out: %s", video_id, error)
        if len(failed):
            logger.warning("%d of %d clips could not be judged and were left out.", len(failed), len(index))
        if len(failed) and len(failed) == len(table):
            raise InputError(
                f"no clip could be judged; the first reason: {failed['error'].iloc[0]}",
                remedy="Correct what it names, then run again",
            )
        measured = self.arrange(table[table["error"] == ""].drop(columns="error"), index)
        self.check(measured)
        return measured

    def valid(self, table: pd.DataFrame) -> pd.DataFrame:
        """Give stored rows that cannot be used the reason in ``error``; by default all can be."""
        return table

    def measure_clip(self, clip: SampledClip) -> pd.DataFrame:
        """Measure one clip, as :meth:`collect` returns it.

        Raises:
            InputError: the model cannot take the clip; the error names its file.
        """
        (seen,) = self.look(self.loaded(), [clip])
        if isinstance(seen, Exception):
            raise about_file(seen, clip.path)
        return self.arrange(_rows(clip.video_id, seen).drop(columns="error"), index_of([clip]))

    def score(
        self, clips: Sequence[str | Path | Frames], prompts: Sequence[str], fps: float | None = None
    ) -> pd.DataFrame:
        """Score clips: files, or frames in memory.

        Args:
            clips: paths of videos or pictures, or uint8 arrays [frames, height, width, 3].
            prompts: the text of each clip.
            fps: frames a second of clips in memory; files state their own.

        Returns:
            ``total`` and ``dim_<name>``, a row a clip.

        Raises:
            InputError: a clip cannot be read or measured; the error names it.
        """
        columns = ["total", *(f"dim_{name}" for name in self.dimensions)]
        rows = [self.score_clip(clip, prompt, fps=fps)[columns] for clip, prompt in zip(clips, prompts, strict=True)]
        return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=columns, dtype=float)

    def score_clip(
        self, clip: str | Path | Frames, prompt: str, *, video_id: str | None = None, fps: float | None = None
    ) -> pd.DataFrame:
        """Score one clip; ``video_id`` is its name in tables. Returns its row of schema ``Rewards``."""
        shown = sample_clip(clip, prompt, self.sampling(self.loaded()), video_id=video_id, fps=fps)
        return self.rewards(self.measure_clip(shown), index_of([shown]))


class Ranker(Protocol):
    """Says which of two clips of a prompt is better."""

    @property
    def identity(self) -> str:
        """Hash of all that its comparisons depend on."""
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
            p_a, p_b and p_tie, which add up to 1, and position_bias: how much p_a depends on which clip comes first.
        """
        ...


def index_of(clips: Sequence[SampledClip]) -> pd.DataFrame:
    """Return an index of clips that belong to no table: each has a prompt of its own."""
    return pd.DataFrame(
        {"video_id": [clip.video_id for clip in clips], "prompt_id": "", "sample_index": range(len(clips))}
    )


def measured_clips(index: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """Return identifiers of the clips that were measured, sorted by policy (where there is one), prompt and sample.

    Args:
        index: the clips; those of status 'failed' are left out.
        measured: table with video_id.

    Raises:
        InputError: none was measured.
    """
    usable = index[index["status"] == "ok"] if "status" in index.columns else index
    there = usable[usable["video_id"].isin(set(measured["video_id"]))]
    if len(usable) and there.empty:
        raise InputError(
            f"no clip of these {len(usable)} was measured, for example not '{usable['video_id'].iloc[0]}'",
            remedy="Measure the clips of this index first",
            field="video_id",
        )
    columns = [name for name in ("video_id", "prompt_id", "sample_index", "policy") if name in there.columns]
    order = [name for name in ("policy", "prompt_id", "sample_index", "video_id") if name in columns]
    return there[columns].sort_values(order, ignore_index=True, kind="stable")


def about_file(error: Exception, path: Path | None) -> InputError:
    """Turn why a model cannot measure a clip into an error that names its file."""
    if isinstance(error, InputError):
        return InputError(error.problem, remedy=error.remedy, file=error.file or path, field=error.field)
    return InputError(str(error), remedy="Give a file of another size", file=path)


def _rows(video_id: str, seen: pd.DataFrame) -> pd.DataFrame:
    table = seen.assign(error="")
    table.insert(0, "video_id", video_id)
    return table
