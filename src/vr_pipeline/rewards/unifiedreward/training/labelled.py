"""Items for training: with their line of the template, their right answer and their side of the split."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vr_pipeline.errors import InputError, about
from vr_pipeline.identifiers import content_hash, prompt_id
from vr_pipeline.rewards.training.held_out import SPLITS, kept_together, split_by_unit
from vr_pipeline.rewards.unifiedreward.template import TOTAL, PointTemplate, UnifiedTemplate
from vr_pipeline.rewards.unifiedreward.training.config import UnifiedRewardTrainingParameters
from vr_pipeline.rewards.unifiedreward.training.items import COLUMNS, PAIR_ANSWERS

logger = logging.getLogger(__name__)

_FILE = "unified_items"
_SAME_ANSWER = ["task", "video_id_a", "prompt", "response_a", "source"]
"""Columns that are equal for the points of one answer; the task is first."""


@dataclass(frozen=True, eq=False)
class LabelledItems:
    """Usable items.

    Attributes:
        table: one row per item, sorted by item_id: the columns of ``schemas.UnifiedItems``; ``line`` (index of its line
            in the template, -1 for a pair), ``right`` (index of the right answer), ``earlier`` (numbers of earlier
            lines of the same answer), ``unit`` (items that must not be split) and ``split``.
        left_out: item_id and reason of unusable items.
    """

    table: pd.DataFrame
    left_out: pd.DataFrame

    def rows(self, split: str, *, task: str | None = None, form: str | None = None) -> NDArray[np.int64]:
        """Return the rows of one side of the split, and perhaps of one task and form."""
        chosen = self.table["split"] == split
        for column, value in (("task", task), ("form", form)):
            if value is not None:
                chosen &= self.table[column] == value
        return np.flatnonzero(chosen)

    def kinds(self, split: str) -> list[tuple[str, str]]:
        """Return the tasks and forms of the items of a side, sorted."""
        part = self.table[self.table["split"] == split]
        return sorted(set(zip(part["task"], part["form"], strict=True)))

    def clips(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the clips of some items, sorted."""
        part = self.table.iloc[rows]
        return sorted({*part["video_id_a"], *part["video_id_b"]} - {""})

    def contents(self, rows: NDArray[np.int64]) -> list[str]:
        """Return hashes of everything in items that training uses."""
        part = self.table.iloc[rows]
        columns = [*COLUMNS, "line", "right", "earlier", "split"]
        return [content_hash(*map(repr, row)) for row in part[columns].itertuples(index=False, name=None)]

    def counts(self) -> dict[str, Any]:
        """Return numbers of items and answers of each side by task and form, and of clips that are also trained on."""
        found: dict[str, Any] = {}
        trained = set(self.clips(self.rows("train")))
        for split in SPLITS:
            rows, by_kind = self.rows(split), {}
            for task, form in self.kinds(split):
                part = self.table.iloc[self.rows(split, task=task, form=form)]
                own: dict[str, Any] = {"items": len(part), "sources": part["source"].value_counts().to_dict()}
                if form == "pair":
                    own["answers"] = {answer: int((part["answer"] == answer).sum()) for answer in PAIR_ANSWERS}
                by_kind[f"{task} {form}"] = own
            clips = self.clips(rows)
            shared = {} if split == "train" else {"clips_trained_on": len(trained & set(clips))}
            found[split] = {"items": len(rows), "clips": len(clips), **shared, "by_task": by_kind}
        return found


def label_items(
    items: pd.DataFrame,
    video_index: pd.DataFrame,
    template: UnifiedTemplate,
    parameters: UnifiedRewardTrainingParameters,
) -> LabelledItems:
    """Find the line and right answer of every item in the template, and split the items.

    Generation items with the same prompt or linked by shared clips are not split, unless clips link most prompts.
    Understanding items are not split by the prompt of their clip, or by clip if that prompt is the question.

    Args:
        items: table of :class:`vr_pipeline.schemas.UnifiedItems`.
        video_index: their clips, schema ``VideoIndex``.
        template: how the model is asked.
        parameters: names of lines, and the split.

    Raises:
        InputError: a clip is unknown or compared with itself, no item is usable, or there are too few prompts.
    """
    table = items[list(COLUMNS)].sort_values("item_id", ignore_index=True, kind="stable")
    _check(table, items, video_index)
    table["line"], table["right"], table["earlier"] = -1, -1, [()] * len(table)
    reasons = _unreadable(table, video_index)
    places: list[tuple[int, int]] = []
    for row in table.itertuples(index=False):
        try:
            places.append(_place(row, template, parameters.lines))
        except InputError as error:
            reasons.setdefault(str(row.item_id), error.problem)
            places.append((-1, -1))
    table["line"], table["right"] = zip(*places, strict=True)
    usable = ~table["item_id"].isin(list(reasons))
    earlier, missing = _earlier(table[usable], template)
    table["earlier"] = [earlier.get(item, ()) for item in table["item_id"]]
    reasons |= missing
    left_out = pd.DataFrame({"item_id": list(reasons), "reason": list(reasons.values())}, columns=["item_id", "reason"])
    table = table[~table["item_id"].isin(list(reasons))].reset_index(drop=True)
    if not len(table):
        raise InputError(
            f"none of the {len(items)} items is usable; the first reason: {left_out['reason'].iloc[0]}",
            remedy="Correct this, or choose a template for these items",
            file=_FILE,
        )
    if len(left_out):
        logger.warning(
            "%d of %d items are ignored; the first reason: %s", len(left_out), len(items), left_out["reason"].iloc[0]
        )
    table["unit"] = _units(table, video_index)
    table["split"] = split_by_unit(table["unit"], parameters.held_out, table=_FILE)
    return LabelledItems(table, left_out.sort_values("item_id", ignore_index=True, kind="stable"))


def _check(table: pd.DataFrame, given: pd.DataFrame, video_index: pd.DataFrame) -> None:
    if not len(table):
        raise InputError("there are no items", remedy="Give at least one", file=_FILE)
    known = {*video_index["video_id"].astype(str)}
    for column in ("video_id_a", "video_id_b"):
        wrong = (~given[column].isin(known) & (given[column] != "")).to_numpy()
        if wrong.any():
            row = int(wrong.argmax())
            raise InputError(
                f"clip '{given[column].iloc[row]}' is not in the index of {len(known)} clips",
                remedy="Add the clip, or remove the item",
                file=_FILE,
                row=row + 2,
                field=column,
            )
    twice = ((given["video_id_a"] == given["video_id_b"]) & (given["form"] == "pair")).to_numpy()
    if twice.any():
        row = int(twice.argmax())
        raise InputError(
            f"clip '{given['video_id_a'].iloc[row]}' is compared with itself",
            remedy="Correct the item or remove it",
            file=_FILE,
            row=row + 2,
            field="video_id_b",
        )


def _unreadable(table: pd.DataFrame, video_index: pd.DataFrame) -> dict[str, str]:
    """Return items with an unreadable clip, and the reason."""
    bad = video_index[video_index["status"] != "ok"]
    why = dict(zip(bad["video_id"].astype(str), bad["error"].replace("", "it cannot be read"), strict=True))
    found = {}
    for item, *clips in table[["item_id", "video_id_a", "video_id_b"]].itertuples(index=False, name=None):
        for clip in clips:
            if clip in why:
                found[item] = about(clip, why[clip])
                break
    return found


def _place(row: Any, template: UnifiedTemplate, lines: Mapping[str, str]) -> tuple[int, int]:
    """Return the line of an item (-1 for a pair) and the index of its right answer, or raise InputError."""
    if row.form == "pair":
        asked = template.pair(row.task)
        if row.answer == "tie" and asked.answers.tie is None:
            raise _no_place(f"the template '{template.name}' has no tie for {row.task}")
        return -1, PAIR_ANSWERS.index(row.answer)
    point = template.point(row.task)
    at = _line(point, row.dimension, lines)
    if at is None:
        names = ", ".join(line.dimension for line in point.lines)
        raise _no_place(f"the template '{template.name}' has no line for '{row.dimension}' ({row.task}: {names})")
    return at, point.lines[at].nearest(float(row.answer))


def _no_place(problem: str) -> InputError:
    return InputError(problem, remedy="Choose another template, or map dimensions with 'lines'")


def _line(point: PointTemplate, dimension: str, lines: Mapping[str, str]) -> int | None:
    """Return the index of a dimension's line; without a dimension, that of the line 'total', or the only one."""
    names = [line.dimension for line in point.lines]
    wanted = lines.get(dimension, dimension)
    if not wanted:
        if TOTAL in names:
            return names.index(TOTAL)
        return 0 if len(names) == 1 else None
    plain = [_plain(name) for name in names]
    return plain.index(_plain(wanted)) if _plain(wanted) in plain else None


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "_", name.strip().lower()).strip("_")


def _earlier(table: pd.DataFrame, template: UnifiedTemplate) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Return the numbers of earlier lines by item, and the items that lack them, with the reason."""
    points = table[(table["form"] == "point") & ~table["task"].map(lambda task: _separate(template, task))]
    known: dict[tuple[object, ...], dict[int, int]] = {}
    for _, line, right, *judged in points[["item_id", "line", "right", *_SAME_ANSWER]].itertuples(index=False):
        known.setdefault(tuple(judged), {})[line] = right
    found: dict[str, tuple[str, ...]] = {}
    missing: dict[str, str] = {}
    for item, line, _, *judged in points[["item_id", "line", "right", *_SAME_ANSWER]].itertuples(index=False):
        lines, of_answer = template.point(str(judged[0])).lines, known[tuple(judged)]
        absent = [lines[at].dimension for at in range(line) if at not in of_answer]
        if absent:
            missing[item] = f"the earlier line '{absent[0]}' of the same answer has no grade"
        else:
            found[item] = tuple(lines[at].texts[of_answer[at]] for at in range(line))
    return found, missing


def _separate(template: UnifiedTemplate, task: str) -> bool:
    return template.has(task, "point") and template.point(task).separate


def _units(table: pd.DataFrame, video_index: pd.DataFrame) -> list[str]:
    prompts = dict(zip(video_index["video_id"].astype(str), video_index["prompt"].astype(str), strict=True))
    units = np.empty(len(table), dtype=object)
    generation = table["task"].str.endswith("generation").to_numpy()
    ids = table["prompt"].map(prompt_id)
    own = table[generation]
    second = own["video_id_b"].where(own["video_id_b"] != "", own["video_id_a"])
    if len(own):
        units[generation] = kept_together(ids[generation], own["video_id_a"], second)
    clips, questions = table["video_id_a"].tolist(), table["prompt"].tolist()
    for at in np.flatnonzero(~generation):
        made_for = prompts[clips[at]]
        units[at] = prompt_id(made_for) if made_for and made_for != questions[at] else clips[at]
    return [str(unit) for unit in units]
