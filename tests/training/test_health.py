"""The alarms of preference training."""

from __future__ import annotations

import pytest

from toy_training import Toy
from vr_pipeline.errors import PipelineError
from vr_pipeline.training.health import check_collapse, warn_of_both_errors


@pytest.mark.parametrize(("winners", "losers", "warned"), [(0.1, 0.2, True), (-0.1, 0.2, False), (0.1, -0.2, False)])
def test_both_errors_rising_is_said_once_at_the_end(
    winners: float, losers: float, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    fine = {"winner_change": -1.0, "loser_change": 1.0}
    rows = [fine] * 9 + [{"winner_change": winners, "loser_change": losers}]
    warn_of_both_errors(rows, "toy")
    assert ("both errors have risen" in caplog.text) is warned
    caplog.clear()
    warn_of_both_errors([fine, *rows[9:], *[fine] * 10], "toy")
    warn_of_both_errors([{"loss": 1.0}], "toy")
    warn_of_both_errors([], "toy")
    assert not caplog.text


def test_collapse_stops_and_can_be_ignored() -> None:
    rows = [{"step": float(step), "loss": 1e-4, "winner_change": 0.2} for step in range(1, 26)]
    parameters = Toy.parameters()
    with pytest.raises(PipelineError, match=r"collapsed at step 25 of toy: the loss is 0\.0001 .*\(by 0\.2\)"):
        check_collapse(rows, parameters, "toy")
    check_collapse(rows[:-1], parameters, "toy")
    check_collapse(rows, Toy.parameters(collapse_loss=0), "toy")
    healthy = [row | {"winner_change": -0.2} for row in rows]
    check_collapse(healthy, parameters, "toy")
    early = [row | {"loss": 0.5} for row in rows]
    check_collapse(early, parameters, "toy")
    # Only the last steps count.
    with pytest.raises(PipelineError, match="collapsed"):
        check_collapse(early + rows, parameters, "toy")
    check_collapse(rows + early, parameters, "toy")


def test_losses_without_a_reference_cannot_collapse_this_way() -> None:
    check_collapse([{"step": float(step), "loss": 1e-4} for step in range(1, 40)], Toy.parameters(loss="mapo"), "toy")
