"""The picture of a run holds what the report says."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vr_pipeline.prompts.config import PromptFilteringParameters
from vr_pipeline.prompts.decisions import STEPS
from vr_pipeline.prompts.plots import plot_report


def report(*, examples: int = 3, semantic: bool = True) -> dict[str, Any]:
    histogram = {"n": 4, "edges": [0.0, 0.5, 1.0], "counts": [1, 3]}
    return {
        "read": 100,
        "kept": 91,
        "steps": [
            {
                "step": step,
                "in": 100,
                "out": 91,
                "dropped": 9 if step == "clean" else 0,
                "rules": {"drop_length": 6, "drop_empty": 3} if step == "clean" else {},
            }
            for step in STEPS
        ],
        "nearest_similarity": {
            "rouge_l": {"before": histogram, "after": histogram},
            "cosine": {"before": histogram, "after": histogram} if semantic else {},
        },
        "examples": [
            {
                "step": "clean",
                "rule": f"rule_{number % 4}",
                "prompt": "costs $5 and $6 " + "word " * 60 + "\x07",
                "reason": "because",
                "nearest_prompt": None,
            }
            for number in range(examples)
        ],
        "parameters": PromptFilteringParameters().model_dump(mode="json"),
    }


def texts(figure: Figure) -> str:
    figure.savefig(io.BytesIO(), format="png")
    found = [figure.get_suptitle()]
    for axes in figure.axes:
        assert isinstance(axes, Axes)
        found += [text.get_text() for text in axes.texts]
        found += [cell.get_text().get_text() for table in axes.tables for cell in table.get_celld().values()]
    return "\n".join(found)


def test_counts_and_lengths() -> None:
    figure = plot_report(report())
    content = texts(figure)
    assert "91 of 100 prompts kept" in content
    assert "9 of 100" in content
    assert "drop_length" in content
    bars = [patch.get_width() for patch in figure.axes[0].patches]
    assert sorted(bars) == [3, 6]


def test_examples_are_spread_over_reasons_and_shortened() -> None:
    figure = plot_report(report(examples=40), examples=8)
    rows = {row for row, _ in figure.axes[-1].tables[0].get_celld()}
    assert len(rows) == 9
    content = texts(figure)
    assert all(content.count(f"rule_{number}") == 2 for number in range(4))
    assert r"\$5" in content
    assert "\x07" not in content


def test_steps_that_are_off_and_nothing_dropped() -> None:
    content = texts(plot_report(report(examples=0, semantic=False)))
    assert "step is off" in content
    assert "no prompt was dropped" in content
