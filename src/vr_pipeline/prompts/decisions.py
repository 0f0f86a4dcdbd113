"""The ledger of filtering: tables of prompts on their way, and one row for each that was dropped."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from vr_pipeline.identifiers import prompt_id
from vr_pipeline.prompts.cleaning import Prompt, clean_prompts
from vr_pipeline.prompts.config import CleaningParameters
from vr_pipeline.prompts.rouge import GreedyScan

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

STEPS: Final = ("read", "clean", "rouge", "semantic", "language_model", "diversity", "split")
"""Steps in their order; ``step`` of a decision is one of them, or 'kept'."""

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


def decisions(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """A table of decisions with all columns and their types, also where it is empty."""
    import pandas as pd

    table = pd.DataFrame(list(rows), columns=list(DECISION_COLUMNS))
    kinds = {"kept": "bool", "similarity": "float64", "row": "int64"}
    return table.astype({name: kinds.get(name, "str") for name in DECISION_COLUMNS})


def clean_table(raw: pd.DataFrame, parameters: CleaningParameters) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Run the cleaning rules over a table of read prompts (:func:`vr_pipeline.prompts.read.read_prompts`).

    Returns:
        the clean prompts (prompt_id, prompt, original_prompt, source, source_id, row, changed_by), and the decisions
        on rows that could not be read or were dropped.
    """
    import pandas as pd

    good = raw[raw["problem"] == ""]
    unknown = int(good["unsafe_probability"].astype(float).isna().sum())
    if parameters.max_unsafe_probability < 1 and unknown:
        logger.warning(
            "%d of %d prompts come without a probability of unsafe content: max_unsafe_probability lets them pass.",
            unknown,
            len(good),
        )
    outcomes = clean_prompts(
        (
            Prompt(text, unsafe)
            for text, unsafe in zip(good["prompt"], good["unsafe_probability"].astype(float), strict=True)
        ),
        parameters,
    )
    identifiers = [prompt_id(outcome.text) for outcome in outcomes]
    kept: list[dict[str, Any]] = []
    dropped: list[dict[str, Any]] = [
        {
            "prompt_id": "",
            "step": "read",
            "rule": "unreadable_row",
            "kept": False,
            "reason": row["problem"],
            "nearest_prompt_id": None,
            "nearest_prompt": None,
            "similarity": np.nan,
            "row": row["row"],
            "source": row["source"],
            "prompt": "",
            "original_prompt": row["prompt"],
            "changed_by": "",
        }
        for row in raw[raw["problem"] != ""].to_dict("records")
    ]
    for identifier, row, outcome in zip(identifiers, good.to_dict("records"), outcomes, strict=True):
        common = {
            "prompt_id": identifier,
            "prompt": outcome.text,
            "original_prompt": row["prompt"],
            "source": row["source"],
            "row": row["row"],
            "changed_by": ", ".join(outcome.changed_by),
        }
        if outcome.kept:
            kept.append({**common, "source_id": row["source_id"]})
            continue
        nearest = outcome.nearest
        dropped.append(
            {
                **common,
                "step": "clean",
                "rule": outcome.rule,
                "kept": False,
                "reason": outcome.reason,
                "nearest_prompt_id": None if nearest is None else identifiers[nearest],
                "nearest_prompt": None if nearest is None else outcomes[nearest].text,
                "similarity": np.nan if nearest is None else 1.0,
            }
        )
    columns = ["prompt_id", "prompt", "original_prompt", "source", "source_id", "row", "changed_by"]
    table = pd.DataFrame(kept, columns=columns)
    return table.astype({name: "int64" if name == "row" else "str" for name in columns}), decisions(dropped)


def apply_scan(
    prompts: pd.DataFrame, scan: GreedyScan, *, step: str, rule: str, reason: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Divide a table by a greedy scan over its rows.

    Args:
        prompts: the scanned table.
        scan: its result.
        step: name of the step in the decisions.
        rule: name of the rule in the decisions.
        reason: clause with a place for the ``{similarity}``.
    """
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


class Dropped:
    """A row that goes: its position, why, and the row it resembles, if any."""

    __slots__ = ("index", "nearest", "reason", "similarity")

    def __init__(self, index: int, reason: str, nearest: int | None = None, similarity: float = float("nan")) -> None:
        self.index, self.reason, self.nearest, self.similarity = index, reason, nearest, similarity


def drop_rows(
    prompts: pd.DataFrame, dropped: Sequence[Dropped], *, step: str, rule: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Divide a table into the rows that stay and decisions on those that go."""
    stays = np.ones(len(prompts), dtype=bool)
    stays[[item.index for item in dropped]] = False
    columns = ("prompt_id", "prompt", "original_prompt", "source", "row", "changed_by")
    values = {name: prompts[name].tolist() for name in columns}
    rows = [
        {
            **{name: values[name][item.index] for name in columns},
            "step": step,
            "rule": rule,
            "kept": False,
            "reason": item.reason,
            "nearest_prompt_id": None if item.nearest is None else values["prompt_id"][item.nearest],
            "nearest_prompt": None if item.nearest is None else values["prompt"][item.nearest],
            "similarity": item.similarity,
        }
        for item in dropped
    ]
    return prompts[stays].reset_index(drop=True), decisions(rows)


def kept_decisions(prompts: pd.DataFrame) -> pd.DataFrame:
    """Decisions on the prompts that passed every step."""
    columns = ("prompt_id", "prompt", "original_prompt", "source", "row", "changed_by")
    return decisions(
        [
            {
                **{str(name): value for name, value in row.items()},
                "step": "kept",
                "rule": "",
                "kept": True,
                "reason": "",
                "nearest_prompt_id": None,
                "nearest_prompt": None,
                "similarity": np.nan,
            }
            for row in prompts[list(columns)].to_dict("records")
        ]
    )
