"""Clips and images of questions: checked once, and read as models sample them."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash
from vr_pipeline.rewards.training.held_out import SplitParameters, split_by_unit
from vr_pipeline.runtime.progress import progress_bar
from vr_pipeline.storage.atomic import sha256_of
from vr_pipeline.video.clip import Frames, VideoReadError
from vr_pipeline.video.read import read_clip
from vr_pipeline.video.sampled import SampledClip, Sampling, sample_clip

logger = logging.getLogger(__name__)


def index_questions(questions: pd.DataFrame, media: Mapping[str, Path], split: SplitParameters) -> pd.DataFrame:
    """Check the files of every question, and split the questions.

    Args:
        questions: schema ``Questions``, or pairs of responses, which have the same columns.
        media: paths by file name.
        split: shares of the sides.

    Returns:
        the table with the columns sha256 (of all its files), status, error and split; a question with an unreadable
        file has status 'failed' and the reason.

    Raises:
        InputError: all questions fail, or there are too few groups for the sides.
    """
    found: dict[str, tuple[str, str]] = {}
    wanted = dict.fromkeys(questions["files"])
    for files in progress_bar(list(wanted), description="index questions", unit="clip"):
        found[files] = _examined(json.loads(files), media)
    hashes, errors = ([found[files][at] for files in questions["files"]] for at in (0, 1))
    index = questions.assign(sha256=hashes, error=errors)
    index["status"] = np.where(index["error"] == "", "ok", "failed")
    failed = index[index["status"] == "failed"]
    for row in failed.head(5).itertuples():
        logger.warning("Question %s is dropped: %s", row.question_id, row.error)
    if len(failed) == len(index):
        reason = failed["error"].iloc[0] if len(failed) else "there are no questions"
        raise InputError(f"no question is usable; the first reason: {reason}", remedy="Correct it", field="questions")
    return index.assign(split=split_by_unit(index["group"], split, table="questions"))


def _examined(files: list[str], media: Mapping[str, Path]) -> tuple[str, str]:
    """Return the hash of files, or else their problem."""
    hashes, sizes = [], set()
    for name in files:
        path = media.get(name)
        if path is None:
            return "", f"file '{name}' is not in the folder"
        try:
            # First and last frame, because truncation is visible at the end.
            _, _, known = read_clip(path, num_frames=2)
        except VideoReadError as error:
            return "", str(error)
        sizes.add((known.height, known.width))
        hashes.append(sha256_of(path))
    if len(sizes) > 1:
        return "", f"its frames have {len(sizes)} different sizes"
    return (hashes[0] if len(hashes) == 1 else content_hash("frames", *hashes, length=64)), ""


class QuestionMedia:
    """Clips and images of questions.

    Args:
        media: paths by file name.
        index: of :func:`index_questions`.
    """

    def __init__(self, media: Mapping[str, Path], index: pd.DataFrame) -> None:
        self.media = media
        self.files: dict[str, list[str]] = {
            str(name): json.loads(files) for name, files in index[["question_id", "files"]].itertuples(index=False)
        }

    def source(self, question_id: str) -> Path | Frames:
        """Return the file of a question, or the frames of its images, uint8 [frames, height, width, 3].

        Raises:
            VideoReadError: a file is missing or cannot be read.
        """
        paths = [self._path(name) for name in self.files[question_id]]
        if len(paths) == 1:
            return paths[0]
        return np.concatenate([read_clip(path, num_frames=1)[0] for path in paths])

    def read(self, question_id: str, sampling: Sampling) -> SampledClip:
        """Return the frames of a question for a model. Raises as :meth:`source`."""
        shown = self.source(question_id)
        if isinstance(shown, Path):
            return sample_clip(shown, "", sampling, video_id=question_id)
        # Given frames have no rate, only a number.
        return sample_clip(shown, "", Sampling(sampling.num_frames), video_id=question_id)

    def _path(self, name: str) -> Path:
        try:
            return Path(self.media[name])
        except KeyError:
            raise VideoReadError(
                "the file is not in the folder", remedy="Index the questions again", file=name
            ) from None


def questions_of(index: pd.DataFrame, *sides: str) -> list[dict[str, Any]]:
    """Return the usable questions of some sides, sorted by identifier."""
    usable = index[(index["status"] == "ok") & index["split"].isin(sides)]
    rows = usable.sort_values("question_id", kind="stable").to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]
