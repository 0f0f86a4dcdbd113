"""The alarms of preference training."""

from __future__ import annotations

import pytest

from toy_training import Toy
from vr_pipeline.training.health import diagnose, warn_of_both_errors


@pytest.mark.parametrize(("winners", "losers", "warned"), [(0.1, 0.2, True), (-0.1, 0.2, False), (0.1, -0.2, False)])
def test_both_errors_rising_is_said_once_at_the_end(
    winners: float, losers: float, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    fine = {"winner_change": -1.0, "loser_change": 1.0}
    rows = [fine] * 9 + [{"winner_change": winners, "loser_change": losers}]
    warn_of_both_errors(rows, "toy")
    assert ("both errors are above" in caplog.text) is warned
    caplog.clear()
    warn_of_both_errors([fine, *rows[9:], *[fine] * 10], "toy")
    warn_of_both_errors([{"loss": 1.0}], "toy")
    warn_of_both_errors([], "toy")
    assert not caplog.text


def test_collapse_is_trouble_and_can_be_ignored() -> None:
    rows = [{"step": float(step), "loss": 1e-4, "winner_change": 0.2} for step in range(1, 26)]
    parameters = Toy.parameters()
    found = diagnose(rows, parameters)
    assert found.trouble is not None
    assert "the loss is 0.0001" in found.trouble
    assert "(by 0.2)" in found.trouble
    assert "supervised_weight" in found.remedy
    early = [row | {"loss": 0.5} for row in rows]
    # Only the last steps count.
    assert diagnose(early + rows, parameters).trouble == found.trouble
    for fine in (
        rows[:-1],
        [row | {"winner_change": -0.2} for row in rows],
        early,
        rows + early,
        [{"step": float(step), "loss": 1e-4} for step in range(1, 40)],  # a loss that nothing is compared for
        [],
    ):
        assert diagnose(fine, parameters).trouble is None
    assert diagnose(rows, Toy.parameters(collapse_loss=0)).trouble is None


@pytest.mark.parametrize("name", ["winner_change_share", "change_share"])
def test_winners_modelled_much_worse_are_trouble_named_with_the_setting_to_change(name: str) -> None:
    def rows(*shares: float) -> list[dict[str, float]]:
        return [{"step": float(step), "loss": 0.5, name: share} for step, share in enumerate(shares, 1)]

    parameters = Toy.parameters(safeguard={"max_winner_change": 2.0, "window": 2})
    assert diagnose(rows(0.1, 0.9, 1.0), parameters) == (True, None, "")
    assert diagnose(rows(0.1, 0.9, 1.2), parameters) == (False, None, "")
    assert diagnose(rows(9.0, 0.9, 1.0), parameters).healthy, "steps before the window do not count"
    found = diagnose(rows(0.1, 1.0, 3.2), parameters)
    assert not found.healthy
    assert "by 2.1 times that error, more than safeguard.max_winner_change (2)" in str(found.trouble)
    assert found.remedy == "Lower the learning rate (0.01), or set safeguard.sdpo_mu to 0.6"
    guarded = Toy.parameters(safeguard={"max_winner_change": 2.0, "sdpo_mu": 0.6})
    assert diagnose(rows(*[3.0] * 5), guarded).remedy.endswith("or raise beta (10)")
    alone = Toy.parameters(safeguard={"max_winner_change": 2.0}, loss="supervised")
    assert diagnose(rows(*[3.0] * 5), alone).remedy == "Lower the learning rate (0.01)"
    off = Toy.parameters(safeguard={"max_winner_change": None})
    assert diagnose(rows(*[99.0] * 5), off) == (True, None, "")


@pytest.mark.parametrize(
    ("ratio", "healthy", "trouble"),
    [
        (1.4, True, False),
        (0.72, True, False),
        (1.7, False, False),
        (2.1, False, True),
        (0.45, False, True),
        (0.0, False, True),
    ],
)
def test_norms_far_from_the_originals_are_trouble_on_both_sides(ratio: float, healthy: bool, trouble: bool) -> None:
    rows = [{"step": 1.0, "loss": 0.5, "winner_norm_ratio": ratio}]
    found = diagnose(rows, Toy.parameters(safeguard={"max_norm_ratio": 2.0}))
    assert (found.healthy, found.trouble is not None) == (healthy, trouble)
    assert diagnose(rows, Toy.parameters(safeguard={"max_norm_ratio": None})).healthy
