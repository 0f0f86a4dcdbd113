"""Tables of prompts during filtering, and decisions on all of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from vr_pipeline.identifiers import IMAGE, image_content, prompt_id
from vr_pipeline.prompts.cleaning import clean_prompts
from vr_pipeline.prompts.config import CleaningParameters
from vr_pipeline.prompts.greedy_scan import GreedyScan
from vr_pipeline.prompts.rules import Prompt

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

STEPS: Final = ("read", "clean", "rouge", "semantic", "language_model", "diversity", "split")
"""Steps in order; ``step`` of a decision is one of them, or 'kept'."""

DECISION_COLUMNS: Final = (
    "prompt_id",
    "step",
    "rule",
    "kept",
    "reason",
    "nearest_prompt_id",
    "nearest_prompt",
    "similarity",
    "row",
    "source",
    "prompt",
    "original_prompt",
    "changed_by",
)


def decisions(
    prompts: pd.DataFrame, *, step: str, rule: str | list[str] = "", fates: Sequence[Fate] = ()
) -> pd.DataFrame:
    """Return a table of decisions on prompts, with all columns and types even if empty.

    Args:
        prompts: the prompts.
        step: one of :data:`STEPS`, or 'kept'.
        rule: the deciding rule, or one per row.
        fates: reasons of dropped rows; empty if all are kept.
    """
    import pandas as pd

    table = prompts.assign(step=step, rule=rule, kept=not fates)
    named = {"reason": "", "nearest_prompt_id": None, "nearest_prompt": None, "similarity": np.nan}
    because = pd.DataFrame(fates, columns=list(named), index=table.index) if fates else named
    table = table.assign(**because)
    kinds = {"kept": "bool", "similarity": "float64", "row": "int64"}
    table = table.reindex(columns=list(DECISION_COLUMNS)).reset_index(drop=True)
    return table.astype({name: kinds.get(name, "str") for name in DECISION_COLUMNS})


class Fate(NamedTuple):
    """Reason for dropping a prompt, and the similar kept prompt, if any."""

    reason: str
    nearest_prompt_id: str | None = None
    nearest_prompt: str | None = None
    similarity: float = np.nan


def no_decisions() -> pd.DataFrame:
    """Return the table of a step that is off."""
    import pandas as pd

    return decisions(pd.DataFrame(columns=list(DECISION_COLUMNS)), step="")


def clean_table(raw: pd.DataFrame, parameters: CleaningParameters) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Apply the cleaning rules to a table of :func:`vr_pipeline.prompts.read.read_prompts`.

    Returns:
        the clean prompts (prompt_id, prompt, original_prompt, source, source_id, row, changed_by, and image if the
        prompts have images), and the decisions on unreadable and dropped rows.
    """
    import pandas as pd

    good, bad = raw[raw["problem"] == ""], raw[raw["problem"] != ""]
    unsafe = good["unsafe_probability"].astype(float)
    if parameters.max_unsafe_probability < 1 and unsafe.isna().any():
        logger.warning(
            "%d of %d prompts have no probability of unsafe content: max_unsafe_probability does not apply to them.",
            unsafe.isna().sum(),
            len(good),
        )
    images = list(map(image_content, good[IMAGE])) if IMAGE in good else [""] * len(good)
    outcomes = clean_prompts(map(Prompt, good["prompt"], unsafe, images), parameters)
    texts = [outcome.text for outcome in outcomes]
    changed = [", ".join(outcome.changed_by) for outcome in outcomes]
    identifiers = [prompt_id(text, image) for text, image in zip(texts, images, strict=True)]
    table = good.assign(original_prompt=good["prompt"], prompt=texts, prompt_id=identifiers, changed_by=changed)
    gone = [outcome for outcome in outcomes if not outcome.kept]
    fates = [
        Fate(outcome.reason)
        if outcome.nearest is None
        else Fate(outcome.reason, identifiers[outcome.nearest], texts[outcome.nearest], 1.0)
        for outcome in gone
    ]
    kept = np.array([outcome.kept for outcome in outcomes], dtype=bool)
    unread = bad.assign(original_prompt=bad["prompt"], prompt="", prompt_id="", changed_by="")
    dropped = [
        decisions(unread, step="read", rule="unreadable_row", fates=[Fate(problem) for problem in bad["problem"]]),
        decisions(table[~kept], step="clean", rule=[outcome.rule for outcome in gone], fates=fates),
    ]
    columns = ["prompt_id", "prompt", "original_prompt", "source", "source_id", "row", "changed_by"]
    columns += [IMAGE] if IMAGE in good else []
    clean = table.loc[kept, columns].reset_index(drop=True)
    return clean.astype({name: "int64" if name == "row" else "str" for name in columns}), pd.concat(
        dropped, ignore_index=True
    )


def scan_per_image(prompts: pd.DataFrame, values: Any, scan: Callable[[Any], GreedyScan]) -> GreedyScan:
    """Scan the prompts of each first frame separately: the same words about another image are another prompt.

    Args:
        prompts: scanned together without a column of images.
        values: a list of texts or an array to compare, in the order of the prompts.
        scan: of some of the values.
    """
    if IMAGE not in prompts:
        return scan(values)
    similarity, nearest = np.full(len(prompts), np.nan), np.full(len(prompts), -1, dtype=np.int64)
    for positions in prompts.groupby(prompts[IMAGE].map(image_content)).indices.values():
        part = scan(values[positions] if isinstance(values, np.ndarray) else [values[row] for row in positions])
        similarity[positions] = part.similarity
        nearest[positions] = np.where(part.nearest >= 0, positions[part.nearest], -1)
    return GreedyScan(np.flatnonzero(nearest < 0), nearest, similarity)


def apply_scan(
    prompts: pd.DataFrame, scan: GreedyScan, *, step: str, rule: str, reason: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Divide a table by a greedy scan; ``reason`` is a clause with the placeholder ``{similarity}``."""
    return drop_rows(
        prompts,
        [
            Dropped(
                index, reason.format(similarity=scan.similarity[index]), int(scan.nearest[index]), float(similarity)
            )
            for index, similarity in enumerate(scan.similarity)
            if scan.nearest[index] >= 0
        ],
        step=step,
        rule=rule,
    )


@dataclass(frozen=True)
class Dropped:
    """A row to drop: position, reason, and position of the similar row, if any."""

    index: int
    reason: str
    nearest: int | None = None
    similarity: float = np.nan


def drop_rows(
    prompts: pd.DataFrame, dropped: Sequence[Dropped], *, step: str, rule: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Divide a table into kept rows and decisions on dropped rows."""
    stays = np.ones(len(prompts), dtype=bool)
    stays[[item.index for item in dropped]] = False
    identifiers, texts = prompts["prompt_id"].tolist(), prompts["prompt"].tolist()
    fates = [
        Fate(item.reason)
        if item.nearest is None
        else Fate(item.reason, identifiers[item.nearest], texts[item.nearest], item.similarity)
        for item in dropped
    ]
    gone = decisions(prompts.iloc[[item.index for item in dropped]], step=step, rule=rule, fates=fates)
    return prompts[stays].reset_index(drop=True), gone
