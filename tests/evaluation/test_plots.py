"""Plots of the evaluation."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex

from report_inputs import TITLES, report_inputs, training_log
from vr_pipeline.evaluation.plots import (
    colours,
    deviations_of_policies,
    rewards_by_dimension,
    running_mean,
    training_curves,
)


@pytest.fixture(scope="module")
def metrics():
    return report_inputs(prompts=6, samples=2)["evaluation_metrics"]


def test_bars_have_the_heights_and_whiskers_of_the_metrics(metrics):
    figure = rewards_by_dimension(metrics, TITLES)
    assert [axes.get_title() for axes in figure.axes] == ["Judge: reward by dimension", "Oracle: reward by dimension"]
    for axes, source in zip(figure.axes, ("judge", "oracle"), strict=True):
        bars = axes.containers[1::2]
        assert len(bars) == 3
        for container, whiskers, policy in zip(bars, axes.containers[::2], ("original", "dpo", "mpo"), strict=True):
            dimensions = metrics["policies"][policy][source]["dimensions"]
            assert [label.get_text() for label in axes.get_xticklabels()] == list(dimensions)
            means = [record["mean"] for record in dimensions.values()]
            assert [bar.get_height() for bar in container] == pytest.approx(means)
            ends = whiskers.lines[2][0].get_segments()
            lengths = [segment[1][1] - segment[0][1] for segment in ends]
            # 97.5 % quantile of Student's t with five degrees of freedom.
            assert lengths == pytest.approx([2 * 2.570581835636314 * record["se"] for record in dimensions.values()])
        assert f"{metrics['policies']['mpo'][source]['total']['mean']:.2f}" in axes.get_legend().texts[2].get_text()


def test_the_auditor_has_a_panel_after_those_of_judge_and_oracle(metrics):
    policies = {name: {"auditor": sources["oracle"], **sources} for name, sources in metrics["policies"].items()}
    figure = rewards_by_dimension(metrics | {"policies": policies}, TITLES)
    assert [axes.get_title().split(":")[0] for axes in figure.axes] == ["Judge", "Oracle", "Auditor"]


def test_one_panel_without_an_oracle_and_missing_errors_are_no_whiskers():
    metrics = report_inputs(prompts=1, oracle=False)["evaluation_metrics"]
    assert metrics["policies"]["mpo"]["judge"]["total"]["se"] is None
    figure = rewards_by_dimension(metrics, TITLES)
    assert len(figure.axes) == 1
    figure.canvas.draw()


def test_curves_hold_the_log_and_panels_follow_its_columns():
    logs = {"dpo": training_log(80, 2), "mpo": training_log(80, 1)}
    figure = training_curves(logs, TITLES)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles[:2] == ["loss", "implicit accuracy"]
    assert len(titles) == 8
    raw = figure.axes[0].lines[0]
    np.testing.assert_array_equal(raw.get_ydata(), logs["dpo"]["loss"])
    only = training_curves({"mpo": logs["mpo"][["step", "loss"]].assign(saturation=np.nan)}, TITLES)
    assert [axes.get_title() for axes in only.axes if axes.get_title()] == ["loss"]


def test_figures_are_the_same_twice(metrics, tmp_path):
    logs = {"mpo": training_log(40, 1)}
    for number, draw in enumerate(
        (lambda: rewards_by_dimension(metrics, TITLES), lambda: training_curves(logs, TITLES))
    ):
        files = [tmp_path / f"{number}_{turn}.png" for turn in range(2)]
        for file in files:
            draw().savefig(file, metadata={"Software": None})
        assert files[0].read_bytes() == files[1].read_bytes()


@given(st.lists(st.floats(-100, 100) | st.just(math.nan), min_size=1, max_size=40), st.integers(1, 12))
def test_running_mean_as_computed_one_by_one(values, window):
    array = np.array(values)
    reach = window // 2
    for i, found in enumerate(running_mean(array, window)):
        part = array[max(0, i - reach) : i + reach + 1]
        part = part[np.isfinite(part)]
        if len(part):
            assert found == pytest.approx(part.mean(), abs=1e-6)
        else:
            assert math.isnan(found)


def test_policies_have_their_colours_and_names_by_sub_dimension_too():
    table = pd.DataFrame(
        {"dimension": ["d"], "sub_dimension": ["s"], "deviation": [0.1], "ci_low": [0.0], "ci_high": [0.2]}
    )
    bars = deviations_of_policies({"mpo": table, "dpo": table}, TITLES).axes[0].containers
    assert {one.get_label(): to_hex(one[0].get_facecolor()) for one in bars} == {
        "MPO": colours(TITLES)["mpo"].lower(),
        "DPO": colours(TITLES)["dpo"].lower(),
    }


def test_every_policy_has_its_own_colour():
    policies = ["original", "dpo", "mpo", "sift", "other"]
    assert len(set(colours(dict.fromkeys(policies, "")).values())) == len(policies)
