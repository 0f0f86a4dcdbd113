"""UnifiedReward as a reward: one score per dimension, the expectation over its scale."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.rewards.contract import Outcome, RewardModel, about_file
from vr_pipeline.rewards.unifiedreward.points import PointScore
from vr_pipeline.rewards.unifiedreward.reading import ClipReader, Point
from vr_pipeline.rewards.unifiedreward.settings import (
    ARTIFACT_FILE,
    MODEL_FOLDER,
    UnifiedArtifact,
    UnifiedRewardSettings,
    read_artifact,
)
from vr_pipeline.rewards.unifiedreward.template import Generation
from vr_pipeline.rewards.unifiedreward.template_files import load_template
from vr_pipeline.video.clip import Frames
from vr_pipeline.video.sampled import SampledClip, Sampling, sample_clip
from vr_pipeline.vlm.config import JudgeParameters
from vr_pipeline.vlm.families.base import Family
from vr_pipeline.vlm.loading import judge_identity, load_family

Clip = str | Path | Frames

EXTRA_COLUMNS = ("outside_mass", "model", "sampling")
"""Columns besides the scores: mass outside the scales, identity of the model, and sampling of frames."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """The model in memory."""

    family: Family


class UnifiedReward(RewardModel):
    """Rewards of a UnifiedReward: ``dim_<name>`` per line of its template, and the template's ``total``.

    Measurements also have ``outside_<name>`` per line, ``outside_mass`` (their mean), ``reasons`` if the model writes
    them, ``model`` (its identity), ``sampling`` and ``frames_judged``.

    Args:
        model_folder: the vision-language model in the layout of transformers; with a revision, its name on the hub.
        artifact: its family, template and task.
        settings: how it is loaded.
    """

    Settings = UnifiedRewardSettings
    kind = "points"
    ranks_by = "vr_pipeline.rewards.unifiedreward.ranker:UnifiedRanker"
    extra_columns = EXTRA_COLUMNS

    def __init__(self, model_folder: str, artifact: UnifiedArtifact, settings: UnifiedRewardSettings) -> None:
        self.model_folder, self.artifact, self.settings = model_folder, artifact, settings
        self.template = artifact.template
        self.task: Generation = settings.task or artifact.task
        # A checkpoint without scores is a ranker only.
        scores = self.template.has(self.task, "point")
        self.dimensions = self.template.point(self.task).dimensions if scores else ()
        self.clips_per_item, self.reader_threads = settings.clips_per_item, settings.reader_threads

    @classmethod
    def from_settings(cls, settings: UnifiedRewardSettings, folder: Path) -> UnifiedReward:
        if settings.path is None:
            return cls(str(folder / MODEL_FOLDER), _artifact(settings, folder), settings)
        place = folder / Path(settings.path).expanduser()
        if (place / ARTIFACT_FILE).is_file():
            if settings.template is not None:
                raise InputError(
                    "this folder already defines family and template of its model",
                    remedy="Remove 'family' and 'template' from the configuration",
                    file=place,
                    field="template",
                )
            return cls(str(place / MODEL_FOLDER), read_artifact(place), settings)
        if settings.template is None:
            raise InputError(
                "this folder has no UnifiedReward",
                remedy=f"Give a folder with {ARTIFACT_FILE} and {MODEL_FOLDER}/, as written by training; or the folder "
                "of a published checkpoint with 'family' and 'template'",
                file=place,
                field="path",
            )
        on_hub = settings.revision is not None and not place.exists()
        return cls(settings.path if on_hub else str(place), _artifact(settings, folder), settings)

    @property
    def judge(self) -> JudgeParameters:
        """Parameters to load the model. Raises :class:`InputError` if its folder is missing."""
        settings = self.settings
        if settings.revision is None and not Path(self.model_folder).is_dir():
            raise InputError(
                "the UnifiedReward has no vision-language model",
                remedy="Train or download the model's folder again",
                file=self.model_folder,
                field="path",
            )
        names = ("revision", "device", "dtype", "quantisation", "threads", "num_frames", "frames_per_second")
        given = {name: getattr(settings, name) for name in (*names, "min_pixels", "max_pixels")}
        return JudgeParameters(family=self.artifact.family, path=self.model_folder, **given)

    @property
    def measured_by(self) -> tuple[str, ...]:
        how = self.settings.model_dump(mode="json", include={"batch", "clip_batch"})
        identity = judge_identity(self.judge)
        return ("unifiedreward 1", identity, self.template.identity, self.task, json.dumps(how, sort_keys=True))

    @property
    def recorded(self) -> Mapping[str, str]:
        return {"model": self.identity}

    def load(self) -> Loaded:
        """Load the model.

        Raises:
            InputError: a file or weight is missing, unknown, damaged or has another shape.
        """
        return Loaded(load_family(self.judge))

    def sampling(self, loaded: Loaded) -> Sampling:
        """Return the sampling of the configuration, else of the template, else of the model's folder."""
        for source in (self.settings, self.template.frames, loaded.family.settings):
            if source.num_frames is not None or source.frames_per_second is not None:
                return Sampling(source.num_frames, source.frames_per_second)
        return Sampling()

    def reader(self, loaded: Loaded, clips: Mapping[str, SampledClip]) -> ClipReader:
        """Return a reader of clips. Raises as :class:`~.reading.ClipReader`."""
        return ClipReader(loaded.family, self.template, clips, batch=self.settings.batch)

    def look(self, loaded: Loaded, clips: Sequence[SampledClip]) -> list[Outcome]:
        """Score clips, ``clip_batch`` at a time."""
        provenance = {"model": self.identity, "sampling": str(self.sampling(loaded))}
        outcomes: list[Outcome] = []
        for start in range(0, len(clips), self.settings.clip_batch):
            some = clips[start : start + self.settings.clip_batch]
            for clip, score in zip(some, self._scores(loaded, some), strict=True):
                outcomes.append(
                    score
                    if isinstance(score, Exception)
                    else pd.DataFrame([self._row(score) | provenance | {"frames_judged": len(clip.frames)}])
                )
        return outcomes

    def _scores(self, loaded: Loaded, clips: Sequence[SampledClip]) -> list[PointScore | Exception]:
        points = [Point(str(at), clip.prompt) for at, clip in enumerate(clips)]
        try:
            reader = self.reader(loaded, {str(at): clip for at, clip in enumerate(clips)})
            return list(reader.points(self.task, points))
        except (ValueError, InputError) as error:
            if len(clips) == 1:
                return [error]
            # Score one by one, so that only the clip at fault fails.
            return [score for clip in clips for score in self._scores(loaded, [clip])]

    def _row(self, score: PointScore) -> dict[str, Any]:
        why = {"reasons": score.reasons} if self.template.point(self.task).reasons is not None else {}
        return {
            **{f"dim_{name}": score.lines[name].value for name in self.dimensions},
            **{f"outside_{name}": line.outside for name, line in score.lines.items()},
            "total": score.total,
            "outside_mass": score.outside,
            **why,
        }

    def unmeasured(self, loaded: Loaded) -> dict[str, Any]:
        """Return the row of a failed clip."""
        asked = self.template.point(self.task)
        names = [f"dim_{name}" for name in self.dimensions]
        names += [f"outside_{asked.lines[line].dimension}" for line in asked.read_lines]
        nothing: dict[str, Any] = dict.fromkeys([*names, "total", "outside_mass"], np.nan)
        why = {"reasons": ""} if asked.reasons is not None else {}
        return nothing | why | {"model": self.identity, "sampling": str(self.sampling(loaded)), "frames_judged": 0}

    def check(self, measured: pd.DataFrame) -> None:
        """Raise :class:`InputError` if the median mass outside the scales exceeds ``max_median_outside_mass``."""
        median = float(measured["outside_mass"].median()) if len(measured) else 0.0
        if median > self.settings.max_median_outside_mass:
            raise InputError(
                f"the model does not answer with numbers of the scale: the median probability of other answers is "
                f"{median:.3f}, above {self.settings.max_median_outside_mass}",
                remedy=f"Check that the template '{self.template.name}' and its chat format fit the checkpoint, or "
                "raise 'max_median_outside_mass'",
                field="reward_model.max_median_outside_mass",
            )

    def rewards(self, measured: pd.DataFrame, index: pd.DataFrame) -> pd.DataFrame:
        """Return total, dimensions and :attr:`extra_columns`."""
        table = super().rewards(measured, index)
        columns = [*EXTRA_COLUMNS, *(["reasons"] if "reasons" in measured else [])]
        of_clips = measured.set_index("video_id")[columns].loc[table["video_id"]].reset_index(drop=True)
        return pd.concat([table, of_clips], axis=1)

    def score_responses(
        self, clips: Sequence[Clip], prompts: Sequence[str], responses: Sequence[str], fps: float | None = None
    ) -> pd.DataFrame:
        """Score responses to questions about clips or images.

        Args:
            clips: the clip of each response; the same file or array is encoded once.
            prompts: the questions.
            responses: the responses.
            fps: frames per second of clips in memory.

        Returns:
            ``total``, ``dim_<name>``, ``outside_mass`` and ``reasons`` if the model writes them; one row per response.

        Raises:
            InputError: the template has no such score, or a row cannot be scored; names it.
        """
        task = understanding(self.task)
        asked = self.template.point(task)
        found: dict[int, PointScore] = {}
        for key, rows, shown in self.by_clip(clips, prompts, fps):
            reader = self.reader(self.loaded(), {key: shown})
            points = [Point(key, prompts[row], responses[row]) for row in rows]
            for row, score in zip(rows, reader.points(task, points), strict=True):
                found[row] = given(score, row, shown.path)
        table = [
            {
                "total": found[row].total,
                **{f"dim_{name}": found[row].lines[name].value for name in asked.dimensions},
                "outside_mass": found[row].outside,
                **({"reasons": found[row].reasons} if asked.reasons is not None else {}),
            }
            for row in range(len(found))
        ]
        columns = ["total", *(f"dim_{name}" for name in asked.dimensions), "outside_mass"]
        return pd.DataFrame(table) if table else pd.DataFrame(columns=columns, dtype=float)

    def by_clip(
        self, clips: Sequence[Clip], prompts: Sequence[str], fps: float | None
    ) -> Iterator[tuple[str, list[int], SampledClip]]:
        """Yield the rows of each clip: a key, the numbers of the rows, and the clip, read at that moment."""
        rows: dict[str, list[int]] = {}
        for row, (clip, _) in enumerate(zip(clips, prompts, strict=True)):
            rows.setdefault(str(clip) if isinstance(clip, str | Path) else f"array {id(clip)}", []).append(row)
        sampling = self.sampling(self.loaded())
        for key, own in rows.items():
            yield key, own, sample_clip(clips[own[0]], prompts[own[0]], sampling, fps=fps)


def understanding(task: Generation) -> Literal["image_understanding", "video_understanding"]:
    """Return the understanding task for the same kind of clip."""
    return "image_understanding" if task.startswith("image") else "video_understanding"


def given(score: Any, row: int, path: Path | None) -> Any:
    """Return a result, or raise its error with file and row."""
    if isinstance(score, InputError):
        raise InputError(score.problem, remedy=score.remedy, file=score.file or path, row=row + 1, field=score.field)
    if isinstance(score, Exception):
        raise about_file(score, path)
    return score


def _artifact(settings: UnifiedRewardSettings, folder: Path) -> UnifiedArtifact:
    assert settings.family is not None
    assert settings.template is not None
    return UnifiedArtifact(
        family=settings.family,
        template=load_template(settings.template, folder),
        task=settings.task or "video_generation",
        provenance=settings.provenance,
    )
