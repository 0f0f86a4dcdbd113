"""Several rewards as one: the weighted sum of their standardised totals.

A member's total is standardised by the mean and standard deviation of its totals over reference clips. Both are
settings and part of the identity, so that the reward of a clip does not depend on other clips. Each member is one
dimension, ``dim_<member>``: its weighted z-score. The dimensions add up to the total.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from vr_pipeline.config import Parameters
from vr_pipeline.errors import InputError
from vr_pipeline.rewards.contract import Outcome, RewardModel, Sampled
from vr_pipeline.rewards.registry import load_reward_model
from vr_pipeline.storage.scores import read_scores
from vr_pipeline.video.clip import Frames
from vr_pipeline.video.sampled import SampledClip
from vr_pipeline.work import ItemFailure


class MemberSettings(Parameters):
    """One reward of an ensemble."""

    name: str = Field(pattern=r"^\w+$", description="Name of its dimension.")
    reward: dict[str, Any] = Field(description="The reward: type and settings.")
    weight: float = Field(1.0, description="Weight of its z-score in the total.")
    reference: str | None = Field(
        None, description="Table of its rewards of reference clips (video_id, total), which gives mean and std."
    )
    mean: float | None = Field(None, description="Mean of its totals over reference clips.")
    std: float | None = Field(None, gt=0, description="Standard deviation of its totals over reference clips.")

    @model_validator(mode="after")
    def _one_scale(self) -> MemberSettings:
        numbers = self.mean is not None and self.std is not None
        if numbers == (self.reference is not None) or (self.mean is None) != (self.std is None):
            raise ValueError("give either 'mean' and 'std', or 'reference'")
        return self


class EnsembleSettings(Parameters):
    """Several rewards."""

    members: list[MemberSettings] = Field(min_length=1, description="The rewards.")


@dataclass(frozen=True, eq=False)
class Member:
    """A reward of an ensemble, with its weight and the scale of its totals."""

    name: str
    model: RewardModel
    weight: float
    mean: float
    std: float

    def standardised(self, totals: pd.Series) -> pd.Series:
        """Return weighted z-scores."""
        return self.weight * (totals - self.mean) / self.std


class EnsembleReward(RewardModel):
    """The weighted sum of standardised rewards. Raises :class:`InputError` if two have the same name."""

    Settings = EnsembleSettings
    kind = "ensemble"

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = tuple(members)
        self.dimensions = tuple(member.name for member in members)
        if len(set(self.dimensions)) < len(self.dimensions):
            raise InputError("two members have the same name", remedy="Rename one", field="members")

    @classmethod
    def from_settings(cls, settings: EnsembleSettings, folder: Path) -> EnsembleReward:
        members = []
        for one in settings.members:
            scale = (one.mean, one.std) if one.reference is None else reference_scale(folder / one.reference)
            model = load_reward_model(one.reward, folder=folder)
            members.append(Member(one.name, model, one.weight, *(float(number or 0.0) for number in scale)))
        return cls(members)

    @property
    def measured_by(self) -> tuple[str, ...]:
        return tuple(part for one in self.members for part in (one.name, *one.model.measured_by))

    @property
    def depends_on(self) -> tuple[str, ...]:
        return tuple(
            part
            for one in self.members
            for part in (one.name, one.model.identity, repr(one.weight), repr(one.mean), repr(one.std))
        )

    def load(self) -> list[Any]:
        """Load the models of all members."""
        return [member.model.loaded() for member in self.members]

    def close(self) -> None:
        """Free the models of all members."""
        super().close()
        for member in self.members:
            member.model.close()

    def look(self, loaded: list[Any], clips: Sequence[SampledClip]) -> list[Outcome]:
        """Not called: members sample frames themselves; see :meth:`measure_group` and :meth:`score_clip`."""
        raise NotImplementedError

    def read_group(self, loaded: list[Any], videos: Any, clips: Sequence[Mapping[str, Any]]) -> None:
        """Read nothing: members sample frames themselves."""
        return None

    def measure_group(
        self, loaded: list[Any], videos: Any, clips: Sequence[Mapping[str, Any]], sampled: Sampled | None = None
    ) -> pd.DataFrame | ItemFailure:
        """Measure clips by every member, named in the column ``member``."""
        tables = []
        for member, models in zip(self.members, loaded, strict=True):
            table = member.model.measure_group(models, videos, clips)
            if isinstance(table, ItemFailure):
                return ItemFailure(f"{member.name}: {table.reason}")
            tables.append(table.assign(member=member.name))
        return pd.concat(tables, ignore_index=True)

    def valid(self, table: pd.DataFrame) -> pd.DataFrame:
        """Apply every member's rule."""
        parts = [one.model.valid(_part(table, one)).assign(member=one.name) for one in self.members]
        return pd.concat(parts, ignore_index=True)

    def arrange(self, table: pd.DataFrame, index: pd.DataFrame) -> pd.DataFrame:
        """Arrange as every member does, and drop clips that one of them could not measure."""
        parts = [one.model.arrange(_part(table, one), index).assign(member=one.name) for one in self.members]
        by_all = set.intersection(*(set(part["video_id"]) for part in parts))
        return pd.concat([part[part["video_id"].isin(by_all)] for part in parts], ignore_index=True)

    def check(self, measured: pd.DataFrame) -> None:
        """Apply every member's check."""
        for one in self.members:
            one.model.check(_part(measured, one))

    def rewards(self, measured: pd.DataFrame, index: pd.DataFrame) -> pd.DataFrame:
        """Return the sum of the members' standardised totals."""
        return self.combined([one.model.rewards(_part(measured, one), index) for one in self.members])

    def score_sampled(self, clips: Sequence[SampledClip]) -> pd.DataFrame:
        """Score clips by every member, which samples frames itself."""
        rows = []
        for clip in clips:
            source, rate = (clip.path, None) if clip.path else (clip.frames, clip.frames_per_second)
            rows.append(self.score_clip(source, clip.prompt, video_id=clip.video_id, fps=rate))
        return pd.concat(rows, ignore_index=True)

    def score_clip(
        self, clip: str | Path | Frames, prompt: str, *, video_id: str | None = None, fps: float | None = None
    ) -> pd.DataFrame:
        """Score one clip by every member."""
        return self.combined([one.model.score_clip(clip, prompt, video_id=video_id, fps=fps) for one in self.members])

    def combined(self, tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
        """Combine tables of the members' rewards, which have the same clips."""
        keys = [name for name in tables[0] if name != "total" and not str(name).startswith("dim_")]
        names = tables[0]["video_id"]
        parts = {
            f"dim_{one.name}": one.standardised(table.set_index("video_id")["total"].loc[names]).to_numpy()
            for one, table in zip(self.members, tables, strict=True)
        }
        return tables[0][keys].assign(total=np.sum(list(parts.values()), axis=0), **parts)


def reference_scale(path: Path) -> tuple[float, float]:
    """Return mean and sample standard deviation of the column ``total`` of a table of rewards.

    Raises:
        InputError: the table cannot be read, or the totals do not differ.
    """
    totals = list(read_scores(path, value="total").values())
    std = float(np.std(totals, ddof=1)) if len(totals) > 1 else 0.0
    if std <= 0:
        raise InputError(
            f"the totals of all {len(totals)} clips are equal and give no scale",
            remedy="Give a table of more clips",
            file=path,
            field="total",
        )
    return float(np.mean(totals)), std


def _part(table: pd.DataFrame, member: Member) -> pd.DataFrame:
    """Return the rows of a member, without the columns of others."""
    part = table[table["member"] == member.name].drop(columns="member")
    return part.dropna(axis=1, how="all").reset_index(drop=True)
