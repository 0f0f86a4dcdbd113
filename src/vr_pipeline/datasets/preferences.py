"""Catalog datasets of human preferences in their formats, and of given clips."""

from pathlib import Path
from typing import Any

import pandas as pd
from kedro.io import DatasetError

from vr_pipeline.datasets.clips import ClipFolderDataset
from vr_pipeline.datasets.places import FileDataset
from vr_pipeline.datasets.previews import TablePreview, table_preview
from vr_pipeline.preferences.clip_names import ClipNames, with_found_clips
from vr_pipeline.preferences.criteria import is_criterion_column
from vr_pipeline.preferences.formats import FILE_COLUMNS, PREFERENCE_COLUMNS, read_preferences
from vr_pipeline.preferences.labels import clips_to_judge
from vr_pipeline.preferences.segments import COLUMN as SEGMENTS
from vr_pipeline.storage.csv_cells import write_csv


class PreferenceDataset(FileDataset[pd.DataFrame, pd.DataFrame]):
    """Human preferences from a file in one of the formats of :func:`read_preferences`; saved as plain CSV.

    Example::

        human_preferences:
          type: vr_pipeline.datasets.preferences.PreferenceDataset
          filepath: data/01_raw/regression.json
          format: visionreward
          labels: {"1": a, "2": b, "0": tie}
          validator: vr_pipeline.schemas.HumanPreferences

    With ``videos: {path: FOLDER}`` clips may be named by path, file name or identifier; see
    :class:`vr_pipeline.preferences.clip_names.ClipNames`. Texts that a spreadsheet would run are escaped when they
    are saved (:mod:`vr_pipeline.storage.csv_cells`), unless ``raw_cells`` is true.

    Arguments are the keys of a catalog entry.
    """

    def __init__(
        self,
        *,
        filepath: str,
        format: str = "plain",  # the word of the catalog entry
        labels: dict[str, str] | None = None,
        columns: dict[str, str] | None = None,
        criterion: str = "Overall",
        source: str | None = None,
        videos: dict[str, str] | None = None,
        encoding: str = "utf-8",
        raw_cells: bool = False,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(filepath=filepath, metadata=metadata)
        self._format, self._raw_cells = format, raw_cells
        self._options: dict[str, Any] = {
            "labels": None if labels is None else {str(label): meaning for label, meaning in labels.items()},
            "columns": columns,
            "criterion": criterion,
            "source": source,
            "encoding": encoding,
        }
        # A mapping and not a text: Kedro makes values under 'path' relative to the project.
        self._videos = Path(videos["path"]) if videos is not None else None

    def load(self) -> pd.DataFrame:
        table = read_preferences(self._path, self._format, **self._options)
        if self._videos is None:
            return table
        near = self._path if self._path.is_dir() else self._path.parent
        names = ClipNames(self._videos, ClipFolderDataset(path=str(self._videos)).load(), near)
        return with_found_clips(table, names)

    def preview(self) -> TablePreview:
        """Return the first comparisons, for Kedro-Viz."""
        return table_preview(self.load())

    def save(self, data: pd.DataFrame) -> None:
        if self._format != "plain" or self._path.suffix != ".csv":
            raise DatasetError("preferences are written as plain CSV only")
        columns = [name for name in (*PREFERENCE_COLUMNS, *FILE_COLUMNS) if name in data.columns]
        columns += [name for name in data.columns if is_criterion_column(name) or name == SEGMENTS]
        write_csv(data[columns], self._path, raw=self._raw_cells)

    def _describe(self) -> dict[str, Any]:
        return {**super()._describe(), "format": self._format}


class PreferenceClipsDataset(PreferenceDataset):
    """The clips that a file of preferences names, one row each; read only.

    Takes the options of :class:`PreferenceDataset`. Thus a benchmark of one file of preferences and one folder of clips
    needs no table of clips.

    Example::

        preference_clips:
          type: vr_pipeline.datasets.preferences.PreferenceClipsDataset
          filepath: data/01_raw/genai_bench.json
          format: genai_bench
    """

    def load(self) -> pd.DataFrame:
        return clips_to_judge(super().load())

    def save(self, data: pd.DataFrame) -> None:
        raise DatasetError("the clips follow from the file of preferences")


class GivenClipsDataset(FileDataset[None, pd.DataFrame]):
    """Clips that are not compared yet, with their prompts; read only.

    ``kedro annotate --source clips`` makes pairs of them.

    Example::

        preference_clips:
          type: vr_pipeline.datasets.preferences.GivenClipsDataset
          filepath: data/01_raw/prompts.csv    # prompt, video_path; or clips named after their prompts
          videos: {path: data/01_raw/clips}

    Args:
        filepath: the table of prompts; see :func:`vr_pipeline.preferences.given_clips.examine_given_clips`.
        videos: the folder of clips, under ``path``.
        prompt_column: the column with the prompts; None finds it by its name.
    """

    def __init__(
        self,
        *,
        filepath: str,
        videos: dict[str, str],
        prompt_column: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(filepath=filepath, metadata=metadata)
        self._videos, self._prompt_column = Path(videos["path"]), prompt_column

    def load(self) -> pd.DataFrame:
        from vr_pipeline.preferences.given_clips import read_given_clips

        files = list(ClipFolderDataset(path=str(self._videos)).load())
        names = ClipNames(self._videos, files, self._path.parent)
        return read_given_clips(self._path, names, files, prompt_column=self._prompt_column)

    def preview(self) -> TablePreview:
        """Return the first clips, for Kedro-Viz."""
        return table_preview(self.load())
