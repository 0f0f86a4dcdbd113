"""Catalog datasets of clips of several generators: those that preference_generation made, and folders of others."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field, ValidationError

from vr_pipeline.config import Parameters
from vr_pipeline.datasets.clips import ClipFolderDataset
from vr_pipeline.datasets.places import FolderDataset
from vr_pipeline.datasets.preferences import GivenClipsDataset
from vr_pipeline.datasets.previews import TablePreview, table_preview
from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import prompt_id
from vr_pipeline.items.folder import ItemFolder, is_complete, open_folder
from vr_pipeline.items.formats import item_format
from vr_pipeline.items.manifest import MANIFEST, read_manifest
from vr_pipeline.preferences.rows import file_identifier
from vr_pipeline.preferences.sources import Folder

logger = logging.getLogger(__name__)

_COLUMNS = ["video_id", "prompt", "file", "sample_index", "seed", "generator"]


class GivenGenerator(Parameters):
    """Clips that a generator outside of this project made, or that were filmed."""

    filepath: str = Field(description="Table of prompts, with a column video_path or clips named after their prompts.")
    videos: Folder = Field(description="The folder of its clips.")
    prompt_column: str | None = Field(None, description="Column with the prompts; null finds it by its name.")

    def clips(self, name: str) -> pd.DataFrame:
        """Return its clips, whose generator has this name; files begin with it."""
        videos = {"path": self.videos.path}
        table = GivenClipsDataset(filepath=self.filepath, videos=videos, prompt_column=self.prompt_column).load()
        return table.assign(generator=name, file=name + "/" + table["file"].astype(str))


class GeneratorClipsDataset(FolderDataset[None, pd.DataFrame]):
    """Clips of several generators as ``preference_clips``; read only.

    Example::

        preference_clips:
          type: vr_pipeline.datasets.generator_clips.GeneratorClipsDataset
          path: data/03_primary/generator_videos
          given:
            opensora: {filepath: data/01_raw/opensora.csv, videos: {path: data/01_raw/opensora}}

    A given clip belongs to a prompt by its text, or by that which the prompt had before a language model wrote it out.

    Args:
        path: the folder that preference_generation made.
        given: further folders by the name of their generator; see :class:`GivenGenerator`.
    """

    def __init__(
        self, *, path: str, given: Mapping[str, Any] | None = None, metadata: dict[str, Any] | None = None
    ) -> None:
        super().__init__(path=path, metadata=metadata)
        self._given: dict[str, GivenGenerator] = {}
        for name, one in (given or {}).items():
            try:
                self._given[str(name)] = GivenGenerator.model_validate(one)
            except ValidationError as error:
                first = error.errors()[0]
                field = ".".join(["given", str(name), *map(str, first["loc"])])
                raise InputError(f"a folder is wrong: {first['msg']}", remedy="correct it", field=field) from error

    def load(self) -> pd.DataFrame:
        records = self._records(self._made())
        texts = dict(zip(records["prompt_id"], records["prompt"], strict=True))
        made = records.rename(columns={"key": "video_id"}).assign(
            file=records["generator"] + "/" + records["filename"],
        )
        parts = [made[_COLUMNS]]
        for name, one in self._given.items():
            clips = one.clips(name)
            known = clips["prompt"].map(prompt_id).map(texts)
            clips["prompt"] = known.fillna(clips["prompt"])
            clips["video_id"] = list(map(file_identifier, clips["prompt"], clips["file"]))
            unknown = ~clips["prompt"].isin(texts.values())
            if unknown.any():
                logger.warning(
                    "%d of %d clips of %s are of prompts for which no generator here made a clip.",
                    unknown.sum(),
                    len(clips),
                    name,
                )
            parts.append(clips[_COLUMNS])
        return pd.concat(parts, ignore_index=True)

    def preview(self) -> TablePreview:
        """Return the first clips, for Kedro-Viz."""
        return table_preview(self.load())

    def _exists(self) -> bool:
        return is_complete(self._path) and all(
            Path(place).exists() for one in self._given.values() for place in (one.filepath, one.videos.path)
        )

    def _describe(self) -> dict[str, Any]:
        return {**super()._describe(), "given": {name: one.model_dump() for name, one in self._given.items()}}

    def _made(self) -> ItemFolder:
        """Return the folder of made clips, in whichever format they were stored."""
        if not is_complete(self._path):
            raise InputError(
                "the clips of the generators are not there yet",
                remedy="run kedro run --pipeline=preference_generation in this environment",
                file=self._path,
            )
        return open_folder(self._path, item_format(read_manifest(self._path / MANIFEST).format))

    def _records(self, made: ItemFolder) -> pd.DataFrame:
        """Return what is known of the clips that were made; those that failed are left out."""
        records = made.records
        both = sorted(self._given.keys() & set(records["generator"]))
        if both:
            raise InputError(
                f"'{both[0]}' is a generator of preference_generators and a given folder",
                remedy="give one of them another name",
                field=f"given.{both[0]}",
            )
        return records[records["status"] == "ok"].reset_index(drop=True)


class GeneratorVideosDataset(GeneratorClipsDataset):
    """The files of these clips by their names in the table: the generator's name and the file's."""

    def load(self) -> dict[str, Path]:  # type: ignore[override]
        made = self._made()
        records = self._records(made)
        names = zip(records["generator"], records["filename"], strict=True)
        files = {f"{generator}/{name}": made.folder / name for generator, name in names}
        for generator, one in self._given.items():
            given = ClipFolderDataset(path=one.videos.path).load()
            files |= {f"{generator}/{name}": place for name, place in given.items()}
        return files

    def preview(self) -> TablePreview:
        """Return the first clips, for Kedro-Viz."""
        return table_preview(GeneratorClipsDataset.load(self))
