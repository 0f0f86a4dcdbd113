"""Catalog datasets of several files of preferences, with their clips."""

from pathlib import Path
from typing import Any

import pandas as pd
from kedro.io import AbstractDataset, DatasetError

from vr_pipeline.datasets.clips import ClipFolder, ClipFolderDataset
from vr_pipeline.preferences.labels import clips_to_judge
from vr_pipeline.preferences.sources import check_sources, owners, read_sources


class PreferenceSourcesDataset(AbstractDataset["pd.DataFrame", "pd.DataFrame"]):
    """Preferences of several files in one table; read only.

    Example::

        benchmark_preferences:
          type: vr_pipeline.datasets.preference_sources.PreferenceSourcesDataset
          sources:
            genai:
              filepath: data/01_raw/genai_bench.json
              format: genai_bench
              videos: {path: data/01_raw/genai_videos}
            ours:
              filepath: data/01_raw/ours.csv
              videos: {path: data/01_raw/our_videos}
              weight: 2.0

    Args:
        sources: by name; see :class:`vr_pipeline.preferences.sources.Source`.
    """

    def __init__(self, *, sources: dict[str, Any], metadata: dict[str, Any] | None = None) -> None:
        self._sources, self.metadata = check_sources(sources), metadata

    def load(self) -> pd.DataFrame:
        files = {name: list(self._folder(one.videos.path)) for name, one in self._sources.items()}
        return read_sources(self._sources, files)

    def save(self, data: pd.DataFrame) -> None:
        raise DatasetError("the files of preferences are only read")

    @staticmethod
    def _folder(path: str) -> ClipFolder:
        return ClipFolderDataset(path=path).load()

    def _exists(self) -> bool:
        return all(Path(one.filepath).exists() for one in self._sources.values())

    def _describe(self) -> dict[str, Any]:
        return {"sources": {name: one.filepath for name, one in self._sources.items()}}


class SourceClipsDataset(PreferenceSourcesDataset):
    """The clips that several files of preferences name, one row each, as ``preference_clips``."""

    def load(self) -> pd.DataFrame:
        return clips_to_judge(super().load())


class SourceVideosDataset(PreferenceSourcesDataset):
    """The files of these clips by their names in the table: the source's name and the path in its folder."""

    def load(self) -> dict[str, Path]:  # type: ignore[override]
        return {
            f"{name}/{file}": place
            for name in dict.fromkeys(owners(self._sources).values())
            for file, place in self._folder(self._sources[name].videos.path).items()
        }
