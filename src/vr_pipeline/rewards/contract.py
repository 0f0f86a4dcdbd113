"""The contract of rewards: an expensive measurement of clips, then rewards computed from the measurements.

A reward is a subclass of :class:`RewardModel` and a line in :mod:`vr_pipeline.rewards.registry`. Pipelines store the
measurements of :meth:`RewardModel.measure`; commands, the served model and notebooks call :meth:`RewardModel.score`.
Both run the same code, so a clip always has the same reward.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from vr_pipeline.config import Parameters
from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash
from vr_pipeline.rewards.ranker import Ranker as Ranker
from vr_pipeline.runtime.ahead import ReadAhead
from vr_pipeline.runtime.memory import free_memory
from vr_pipeline.video.clip import Frames, VideoReadError
from vr_pipeline.video.sampled import SampledClip, Sampling, sample_clip, sample_clips
from vr_pipeline.work import ItemFailure, Scalar, WorkItem, WorkPlan, run_in_process

logger = logging.getLogger(__name__)

ROWS_BEFORE_A_CHECK = 2000
"""Rows after which measurements are checked, so that a useless model stops early."""

Sampled = list[SampledClip | VideoReadError]
"""Clips as a model sees them, or why one cannot be read."""

Outcome = pd.DataFrame | Exception
"""Measurement of a clip: rows of a table without video_id and error, or why there is none."""


class RewardModel(ABC):
    """Clips in, rewards out: ``total``, and ``dim_<name>`` for each dimension."""

    Settings: ClassVar[type[Parameters]] = Parameters
    """Its settings in a configuration, except ``type``; see :func:`~.registry.load_reward_model`."""

    kind: ClassVar[str] = "measurements"
    """Name of the measurements: part of the identity of items, and shown as progress."""

    ranks_by: ClassVar[str] = "vr_pipeline.rewards.ranking:RewardRanker"
    """``package.module:class`` of its :class:`Ranker`, which is called with the reward."""

    clips_per_item: int = 32
    """Clips measured and stored together."""

    reader_threads: int = 1
    """Threads that decode clips."""

    extra_columns: tuple[str, ...] = ()
    """Columns that :meth:`score` returns besides total and dimensions."""

    dimensions: tuple[str, ...]
    """Names of the dimensions."""

    # -- identity and settings --------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def measured_by(self) -> tuple[str, ...]:
        """Hashes and settings that determine measurements: models, sampling, questions, version of the code."""

    @property
    def depends_on(self) -> tuple[str, ...]:
        """All that determines rewards; by default what determines measurements."""
        return self.measured_by

    @property
    def identity(self) -> str:
        """Hash of everything that determines rewards."""
        return content_hash("reward", type(self).__name__, *self.depends_on)

    @property
    def recorded(self) -> Mapping[str, Scalar]:
        """Facts recorded with every stored item."""
        return {}

    @classmethod
    def from_settings(cls, settings: Any, folder: Path) -> RewardModel:
        """Make the reward; by default, settings are its arguments. Relative paths start from ``folder``."""
        return cls(**dict(settings))

    # -- what a subclass implements ---------------------------------------------------------------------------------

    def load(self) -> Any:
        """Load the models; called once, and only if a clip must be measured."""
        return None

    def sampling(self, loaded: Any) -> Sampling | None:
        """Return which frames of a clip it reads; all by default, None if it reads no clip."""
        return Sampling()

    @abstractmethod
    def look(self, loaded: Any, clips: Sequence[SampledClip]) -> list[Outcome]:
        """Measure clips with the models of :meth:`load`; return for each its rows, or the error."""

    def unmeasured(self, loaded: Any) -> Mapping[str, Any]:
        """Return the values in the columns of a clip that cannot be measured; empty by default."""
        return {}

    def arrange(self, table: pd.DataFrame, index: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of measured clips as the catalog stores them; unchanged by default."""
        return table

    def check(self, measured: pd.DataFrame) -> None:
        """Raise :class:`InputError` if the measurements are useless."""
        return None

    def rewards(self, measured: pd.DataFrame, index: pd.DataFrame) -> pd.DataFrame:
        """Compute rewards (schema ``Rewards``) from measurements; clips without a measurement are dropped.

        By default, a measurement is one row per clip with ``dim_<name>`` and perhaps ``total``, else their sum.
        """
        table = measured_clips(index, measured)
        names = [f"dim_{name}" for name in self.dimensions]
        rows = measured.set_index("video_id").loc[table["video_id"]].reset_index(drop=True)
        total = rows["total"] if "total" in rows else rows[names].sum(axis=1)
        return pd.concat([table.assign(total=total), rows[names]], axis=1)

    # -- common to all ----------------------------------------------------------------------------------------------

    _loaded: Any = None

    def loaded(self) -> Any:
        """Return the models, loaded once and kept until :meth:`close`."""
        if self._loaded is None:
            self._loaded = self.load()
        return self._loaded

    def close(self) -> None:
        """Free the models."""
        if self._loaded is not None:
            self._loaded = None
            free_memory()

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without loaded models: workers load them themselves."""
        return {name: value for name, value in self.__dict__.items() if name != "_loaded"}

    def measure(self, videos: Any, index: pd.DataFrame) -> WorkPlan:
        """Plan the measurement of clips, in groups with the same prompt.

        A resumed run measures the missing groups only. A group is measured again if the model, a setting, or the
        content or prompt of one of its clips changes.

        Args:
            videos: the folder of clips.
            index: schema ``VideoIndex``; clips of status 'failed' are skipped.

        Returns:
            a plan whose items are tables; a clip that cannot be measured has one row with the reason in ``error``.
        """
        measured_by, recorded = self.measured_by, self.recorded
        groups: dict[str, list[dict[str, Any]]] = {}
        items = []
        usable, starts = self.grouped(index)
        rows = usable[["video_id", "prompt", "path", "sha256"]].to_dict("records")
        for start, end in pairwise([*starts, len(rows)]):
            group = rows[start:end]
            key = self.key_of(row["video_id"] for row in group)
            contents = [str(row[name]) for row in group for name in ("video_id", "sha256", "prompt")]
            groups[key] = [{str(name): value for name, value in row.items()} for row in group]
            identity = content_hash(self.kind, *measured_by, *contents)
            items.append(WorkItem(key, identity, {**recorded, "clips": len(group)}))
        first: list[pd.DataFrame] = []
        # Batches are single groups: the clips of the next are decoded while the models look at those of this one.
        clips = ReadAhead[Sampled | None]()

        def ahead(loaded: Any, batch: Sequence[WorkItem]) -> None:
            key = batch[0].key
            clips.start(key, lambda: self.read_group(loaded, videos, groups[key]))

        def make_batch(loaded: Any, batch: Sequence[WorkItem]) -> list[pd.DataFrame | ItemFailure]:
            made = [self.measure_group(loaded, videos, groups[item.key], clips.take(item.key)) for item in batch]
            if sum(map(len, first)) < ROWS_BEFORE_A_CHECK:
                first.extend(table for table in made if isinstance(table, pd.DataFrame))
                if sum(map(len, first)) >= ROWS_BEFORE_A_CHECK:
                    self.check(pd.concat(first))
            return made

        description = f"groups of {self.kind}"
        return WorkPlan(items, make_batch, batch_size=1, description=description, setup=self.loaded, ahead=ahead)

    def grouped(self, index: pd.DataFrame) -> tuple[pd.DataFrame, list[int]]:
        """Return the clips that can be measured, by groups, and the row at which each group begins."""
        usable = index[index["status"] == "ok"].sort_values(["prompt_id", "sample_index", "video_id"], kind="stable")
        rank = usable.groupby("prompt_id", sort=False).cumcount().to_numpy()
        return usable, np.flatnonzero(rank % self.clips_per_item == 0).tolist()

    def key_of(self, video_ids: Iterable[str]) -> str:
        """Return the key of a group of clips."""
        return content_hash(self.kind, *video_ids)

    def read_group(self, loaded: Any, videos: Any, clips: Sequence[Mapping[str, Any]]) -> Sampled | None:
        """Decode the frames of clips that the models are to see; None if :meth:`measure_group` reads them itself.

        Called in a thread of its own for the group that comes next.
        """
        return sample_clips(videos, clips, self.sampling(loaded), self.reader_threads)

    def measure_group(
        self, loaded: Any, videos: Any, clips: Sequence[Mapping[str, Any]], sampled: Sampled | None = None
    ) -> pd.DataFrame | ItemFailure:
        """Read and measure clips; a clip that fails has one row with the reason.

        If clips decode but none can be measured, the clips may not be the cause: the group counts as failed, and the
        next run tries it again.

        Args:
            loaded: the models.
            videos: the folder of clips.
            clips: video_id, prompt, path and sha256 of each.
            sampled: what :meth:`read_group` returned; None to read now.
        """
        if sampled is None:
            sampled = RewardModel.read_group(self, loaded, videos, clips) or []
        shown = [clip for clip in sampled if isinstance(clip, SampledClip)]
        seen = self.look(loaded, shown) if shown else []
        if shown and all(isinstance(one, Exception) and not getattr(one, "of_clip", False) for one in seen):
            return ItemFailure(str(seen[0]))
        outcomes = iter(seen)
        results = [next(outcomes) if isinstance(clip, SampledClip) else clip for clip in sampled]
        names = [str(clip["video_id"]) for clip in clips]
        measured = [(name, one) for name, one in zip(names, results, strict=True) if isinstance(one, pd.DataFrame)]
        tables = [_rows(measured).assign(error="")] if measured else []
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
        """Return all stored measurements in one table, without failed clips, which are logged.

        Raises:
            InputError: all clips failed, or the measurements are useless.
        """
        keys = stored.keys
        return self._collected(stored.load_joined(keys), index) if keys else pd.DataFrame()

    def measured(self, videos: Any, index: pd.DataFrame) -> pd.DataFrame:
        """Measure clips in this process without storing; for cheap models."""
        plan = self.measure(videos, index)
        parts = [content for _, contents in run_in_process(plan, plan.batches()) for content in contents]
        for part in parts:
            if isinstance(part, ItemFailure):
                raise InputError(part.reason, remedy="Correct this, then run again")
        return self._collected(pd.concat(parts, ignore_index=True), index)

    def _collected(self, table: pd.DataFrame, index: pd.DataFrame) -> pd.DataFrame:
        table = self.valid(table)
        failed = table[table["error"] != ""]
        measured = table[table["error"] == ""].drop(columns="error")
        self.report_failed(failed, len(measured), len(index))
        measured = self.arrange(measured, index)
        self.check(measured)
        return measured

    def report_failed(self, failed: pd.DataFrame, measured: int, clips: int) -> None:
        """Warn of clips that could not be measured.

        Args:
            failed: their rows, with video_id and error.
            measured: how many rows were measured.
            clips: how many clips there are.

        Raises:
            InputError: none could be measured.
        """
        if failed.empty:
            return
        for video_id, error in failed[["video_id", "error"]].head(5).itertuples(index=False):
            logger.warning("Clip %s was dropped: %s", video_id, error)
        logger.warning("%d of %d clips could not be judged and were dropped.", len(failed), clips)
        if not measured:
            raise InputError(
                f"no clip could be judged; the first reason: {failed['error'].iloc[0]}",
                remedy="Correct this, then run again",
            )

    def valid(self, table: pd.DataFrame) -> pd.DataFrame:
        """Set ``error`` of stored rows that cannot be used; by default all can."""
        return table

    def measure_clip(self, clip: SampledClip) -> pd.DataFrame:
        """Return the measurement of one clip, in the form of :meth:`collect`.

        Raises:
            InputError: the clip cannot be measured; names its file.
        """
        (seen,) = self.look(self.loaded(), [clip])
        if isinstance(seen, Exception):
            raise about_file(seen, clip.path)
        return self.arrange(_rows([(clip.video_id, seen)]), index_of([clip]))

    def score_sampled(self, clips: Sequence[SampledClip]) -> pd.DataFrame:
        """Score sampled clips with different ``video_id``; return schema ``Rewards``, one row per clip in order.

        Raises:
            InputError: a clip cannot be measured; names its file.
        """
        measured = []
        for clip, seen in zip(clips, self.look(self.loaded(), clips), strict=True):
            if isinstance(seen, Exception):
                raise about_file(seen, clip.path)
            measured.append((clip.video_id, seen))
        index = index_of(clips)
        return self.rewards(self.arrange(_rows(measured), index), index)

    def score(
        self, clips: Sequence[str | Path | Frames], prompts: Sequence[str], fps: float | None = None
    ) -> pd.DataFrame:
        """Score clips: files, or frames in memory.

        Args:
            clips: paths of videos or pictures, or uint8 arrays [frames, height, width, 3].
            prompts: the text of each clip.
            fps: frames per second of clips in memory; files have their own.

        Returns:
            ``total``, ``dim_<name>`` and :attr:`extra_columns`, one row per clip.

        Raises:
            InputError: a clip cannot be read or measured; names it.
        """
        columns = ["total", *(f"dim_{name}" for name in self.dimensions), *self.extra_columns]
        rows = [self.score_clip(clip, prompt, fps=fps)[columns] for clip, prompt in zip(clips, prompts, strict=True)]
        return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=columns, dtype=float)

    def score_clip(
        self, clip: str | Path | Frames, prompt: str, *, video_id: str | None = None, fps: float | None = None
    ) -> pd.DataFrame:
        """Return the row of one clip, schema ``Rewards``; ``video_id`` is its name in tables."""
        shown = sample_clip(clip, prompt, self.sampling(self.loaded()), video_id=video_id, fps=fps)
        return self.rewards(self.measure_clip(shown), index_of([shown]))


def index_of(clips: Sequence[SampledClip]) -> pd.DataFrame:
    """Return a minimal index of clips that are in no table."""
    return pd.DataFrame(
        {"video_id": [clip.video_id for clip in clips], "prompt_id": "", "sample_index": range(len(clips))}
    )


def measured_clips(index: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """Return identifiers of usable clips with a measurement, sorted by policy (if present), prompt and sample.

    Raises:
        InputError: no clip was measured.
    """
    usable = index[index["status"] == "ok"] if "status" in index.columns else index
    there = usable[usable["video_id"].isin(set(measured["video_id"]))]
    if len(usable) and there.empty:
        raise InputError(
            f"none of the {len(usable)} clips was measured, such as '{usable['video_id'].iloc[0]}'",
            remedy="Measure the clips of this index first",
            field="video_id",
        )
    columns = [name for name in ("video_id", "prompt_id", "sample_index", "policy") if name in there.columns]
    order = [name for name in ("policy", "prompt_id", "sample_index", "video_id") if name in columns]
    return there[columns].sort_values(order, ignore_index=True, kind="stable")


def about_file(error: Exception, path: Path | None) -> InputError:
    """Return the error with the name of the clip's file."""
    if isinstance(error, InputError):
        return error.at(file=error.file or path)
    return InputError(str(error), remedy="Give a file of another size", file=path)


def _rows(measured: Sequence[tuple[str, pd.DataFrame]]) -> pd.DataFrame:
    """Join the measurements of clips, given with their names, into one table."""
    table = pd.concat([seen for _, seen in measured], ignore_index=True)
    table.insert(0, "video_id", [name for name, seen in measured for _ in range(len(seen))])
    return table
