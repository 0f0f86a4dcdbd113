"""The section of the page on comparisons: its figures, its warnings, its examples, and where it is left out."""

from __future__ import annotations

import html
import re
from dataclasses import asdict
from typing import Any

import pandas as pd
import pytest

from report_inputs import HOSTILE_PROMPT, ClipsInMemory, moving_square, shown
from vr_pipeline.evaluation.report import SECTIONS, section_html
from vr_pipeline.evaluation.report.sections import comparisons as section
from vr_pipeline.pairs.candidates import Limits
from vr_pipeline.pairs.ranking_report import ranking_report
from vr_pipeline.pairs.sifting import sift_clips

TITLES = {"original": "Original", "dpo": "DPO", "mpo": "MPO", "sift": "Sifted"}


@pytest.fixture(scope="module")
def data() -> dict[str, Any]:
    """Two prompts of four clips; neighbours compared, one tie, one winner with fewer points."""
    names = [f"{prompt}{n}" for prompt in "pq" for n in range(4)]
    prompts = dict.fromkeys(names[:4], HOSTILE_PROMPT) | dict.fromkeys(names[4:], "a ball")
    comparisons = pd.DataFrame(
        {
            "prompt_id": ["p", "p", "q", "q"],
            "video_id_a": ["p0", "p2", "q0", "q2"],
            "video_id_b": ["p1", "p3", "q1", "q3"],
            "p_a": [0.7, 0.2, 0.3, 0.6],
            "p_b": [0.2, 0.7, 0.3, 0.3],
            "p_tie": [0.1, 0.1, 0.4, 0.1],
            "position_bias": [0.02, -0.25, 0.1, 0.0],
            "outside_mass": 0.03,
            "better": ["a", "b", "tie", "a"],
        }
    )
    for order, sign in (("first_order", 1), ("second_order", -1)):
        for answer in ("p_a", "p_b", "p_tie"):
            turned = sign * comparisons["position_bias"] * {"p_a": 1, "p_b": -1, "p_tie": 0}[answer]
            comparisons[f"{answer}_{order}"] = comparisons[answer] + turned
    rewards = pd.DataFrame(
        {"video_id": names, "prompt_id": list("ppppqqqq"), "total": [3.0, 1.0, 1.0, 2.0, 1.0, 1.0, 1.0, 2.0]}
    )
    records = pd.DataFrame({"key": ["p", "q"], "clips": [4, 4], "comparisons": [2, 3], "requests": [4, 6]})
    folder = ClipsInMemory({name: moving_square(4, 16, 16, (200, 40, 40), 4) for name in names if name != "q1"})
    _, counts = sift_clips(rewards, comparisons, Limits())
    return {
        "pair_comparisons": comparisons,
        "pair_ranking_report": ranking_report(comparisons, records),
        "pair_selection_report": {"strategies": {"dpo": {"fates": {"tied": 0}}, "sift": {"fates": asdict(counts)}}},
        "videos": folder,
        "video_index": pd.DataFrame({"video_id": names, "prompt": [prompts[name] for name in names], "fps": 8.0}),
        "params:evaluation": shown(num_rejected_pairs=3),
    }


def made(data: dict[str, Any]) -> str:
    return str(section_html(section.make(TITLES, *data.values())))


def test_cost_position_and_fates_are_said(data: dict[str, Any]) -> None:
    page = made(data)
    assert data["pair_ranking_report"]["order_flips"] == 0.5
    for words in (
        "50.0 % of the answers change when the order of the clips is swapped",
        "In 33.3 % of 3 decided comparisons the winner has fewer points",
        "Sifted: result for every group of candidates",
        "Points disagree",
    ):
        assert words in page
    rows = {cells[0]: cells[1] for cells in _rows(page) if len(cells) > 1}
    expected = {"Clips looked at": "8", "Comparisons planned": "5", "Comparisons that failed": "1"}
    expected |= {"Groups of candidates": "2", "Pairs taken": "1", "Ties": "25.0 %"}
    expected |= {"Points disagree: no winner has more points than a loser": "1", "Position bias, largest size": "0.250"}
    assert {name: rows[name] for name in expected} == expected


def test_examples_are_the_comparisons_of_largest_bias_and_their_text_is_escaped(data: dict[str, Any]) -> None:
    page = made(data)
    assert page.count("<article") == 3  # the fourth has no bias
    words = html.unescape(page)
    first, second, third = (words.index(f"Position bias {text}") for text in ("−0.250", "+0.100", "+0.020"))
    assert first < second < third
    assert "<script>window.hacked" not in page
    assert "&lt;script&gt;window.hacked" in page
    assert page.count("This clip is not in the folder of clips.") == 1
    assert made(data | {"pair_comparisons": data["pair_comparisons"].iloc[::-1]}) == page


def test_a_ranker_of_single_clips_has_neither_flips_nor_examples(data: dict[str, Any]) -> None:
    columns = [name for name in data["pair_comparisons"] if not str(name).endswith("_order")]
    comparisons = data["pair_comparisons"][columns].assign(position_bias=0.0)
    report = ranking_report(comparisons, pd.DataFrame({"clips": [8], "comparisons": [4], "requests": [8]}))
    page = made(data | {"pair_comparisons": comparisons, "pair_ranking_report": report})
    assert "its position in a pair has no influence" in page
    assert "Probabilities, both orders averaged" not in page


def test_only_a_run_that_ranked_pairs_has_the_section(data: dict[str, Any]) -> None:
    (entry,) = [one for one in SECTIONS if one.name == "comparisons"]
    assert entry.is_possible(["dpo", "sift"], set(data))
    assert entry.datasets(["dpo", "sift"]) == list(data)
    assert not entry.is_possible(["dpo"], set(data) - {"pair_comparisons"})


def _rows(page: str) -> list[list[str]]:
    rows = re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    return [[" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in row] for row in cells]
