"""The summary at the end of a run."""

from __future__ import annotations

import pytest

from vr_pipeline.hooks.records import NodeRecord
from vr_pipeline.hooks.summary import figure_lines, node_lines, weight_lines

RECORDS = [
    NodeRecord("filter.a", 0.0, seconds=1.25, sizes={"kept": "48 rows", "dropped": "2 rows"}),
    NodeRecord("training.with_a_long_name", 0.0, seconds=100.0),
]


def test_what_was_written_stands_beside_its_node_where_there_is_room():
    assert node_lines(RECORDS) == [
        "  node                       seconds  wrote",
        "  filter.a                       1.2  kept: 48 rows; dropped: 2 rows",
        "  training.with_a_long_name    100.0",
    ]
    assert node_lines([]) == []


@pytest.mark.parametrize("width", [30, 44, 60, 200])
def test_no_line_is_longer_than_the_terminal(width):
    lines = node_lines(RECORDS, width=width)
    assert all(len(line) <= max(width, 38) for line in lines)  # a name is not cut
    assert sum("48 rows" in line for line in lines) == 1


def test_what_does_not_fit_stands_below_its_node():
    assert node_lines(RECORDS, width=44)[2:4] == ["      kept: 48 rows", "      dropped: 2 rows"]


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_figures_that_few_preferences_do_not_give_are_dashes(nothing):
    lines = figure_lines(
        {
            "gain": {"mpo": {"judge": {"mean": 1.0, "ci_low": nothing, "ci_high": nothing}}},
            "agreement": {"tau": 0.5, "diff": nothing, "n": 4, "n_ties": 4},
        }
    )
    assert lines[1:] == [
        "  mpo against original, judge reward: +1.000  [-, -]",
        "  preference accuracy: tau 0.500, diff - (4 pairs, 4 ties)",
    ]


def test_the_judge_comes_first_as_in_the_report():
    gain = {"mean": 1.0, "ci_low": 0.5, "ci_high": 1.5}
    lines = figure_lines({"gain": {"mpo": dict.fromkeys(("auditor", "judge", "oracle"), gain)}})[1:]
    assert [line.split()[3] for line in lines] == ["judge", "oracle", "auditor"]


def test_missing_intervals_and_remarks_on_weights_are_said():
    gain = {"mean": 1.0, "ci_low": None, "ci_high": None, "no_interval": "2 prompts; an interval needs 5"}
    assert figure_lines({"gain": {"mpo": {"judge": gain}}})[1:] == [
        "  mpo against original, judge reward: +1.000  (no interval: 2 prompts; an interval needs 5)"
    ]
    assert weight_lines({"statistics": {"warnings": ["the penalty is at the edge"]}})[1:] == [
        "Weights:",
        "  the penalty is at the edge",
    ]
    assert weight_lines({"statistics": {"warnings": []}}) == weight_lines({}) == []
