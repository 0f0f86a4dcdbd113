"""People's grades, as the journal of ``kedro annotate --checklist`` has them, become labels."""

import logging
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.errors import InputError
from vr_pipeline.preferences.journal import Grade, read_grades, read_study

logger = logging.getLogger(__name__)


def labels_of_journal(path: Path, checklist: Checklist, *, without: Collection[str] = ()) -> pd.DataFrame:
    """Return what most annotators of a clip answered to each question by their grades.

    A question to which as many answer yes as no has no label: two annotators one grade apart agree in all questions but
    one. With a third grade (adjudication) the majority is the median grade, since the questions are cumulative.
    Training and control items make no labels.

    Args:
        path: the journal; it may be in use by a server.
        without: annotators whose grades do not count.

    Returns:
        schema ``JudgeAnnotations`` with prompt, source and file, sorted by clip, questions in the checklist's order.

    Raises:
        InputError: the journal holds no grades, or one that the checklist lacks.
    """
    grades = [one for one in read_grades(path) if one.part == "clip" and one.grade and one.annotator not in without]
    if not grades:
        raise InputError("no clip has a grade yet", remedy="run kedro annotate --checklist first", file=path)
    study = read_study(path).study
    subs = {sub.name: sub for sub in checklist.graded}
    votes: dict[tuple[str, str], list[bool]] = defaultdict(list)
    clips: dict[str, Grade] = {}
    for one in grades:
        if one.criterion not in subs or one.grade not in subs[one.criterion].scale:
            raise InputError(
                f"checklist '{checklist.name}' has no grade '{one.grade}' of '{one.criterion}'",
                remedy="name the checklist that was graded",
                file=path,
                field=one.criterion,
            )
        clips.setdefault(one.video_id, one)
        for question, answer in zip(subs[one.criterion].questions, subs[one.criterion].scale[one.grade], strict=True):
            if answer is not None:
                votes[one.video_id, question.question_id].append(answer)
    rows, tied = [], 0
    for video in sorted(clips):
        for question_id in checklist.question_ids:
            given = votes.get((video, question_id), [])
            if 2 * sum(given) == len(given):
                tied += bool(given)
                continue
            label = 2 * sum(given) > len(given)
            rows.append((video, question_id, label, clips[video].prompt, f"annotations {study}", clips[video].file))
    if tied:
        logger.info("%d answers are left out: as many annotators say yes as no.", tied)
    return pd.DataFrame(rows, columns=["video_id", "question_id", "label", "prompt", "source", "file"])
