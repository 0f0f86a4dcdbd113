"""Catalog dataset of a folder of given clips."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from vr_pipeline.datasets.places import FolderDataset
from vr_pipeline.datasets.previews import ImagePreview, contact_sheet, spread
from vr_pipeline.errors import InputError
from vr_pipeline.video.read import VideoReadError, read_frames

_NOT_CLIPS = {".json", ".csv", ".txt", ".md", ".parquet", ".jsonl"}


class ClipFolder(Mapping[str, Path]):
    """Files of a folder by their path relative to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = {
            path.relative_to(folder).as_posix(): path
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.suffix.lower() not in _NOT_CLIPS and not path.name.startswith(".")
        }

    def __getitem__(self, name: str) -> Path:
        return self._files[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


class ClipFolderDataset(FolderDataset[None, ClipFolder]):
    """The folder ``path`` of given clips; read only."""

    def load(self) -> ClipFolder:
        if not self._path.is_dir():
            raise InputError(
                "there is no such folder of clips",
                file=self._path,
                remedy="put the clips that people compared there, or set another path in the catalog",
            )
        return ClipFolder(self._path)

    def preview(self) -> ImagePreview:
        """Return a contact sheet for Kedro-Viz; clips that cannot be decoded are omitted."""
        folder, clips = self.load(), []
        for name in spread(list(folder)):
            with suppress(VideoReadError):
                clips.append(read_frames(folder[name]))
        return contact_sheet(clips)
