"""How well the reward agrees with held-out preferences of people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from vr_pipeline.evaluation.report import elements
from vr_pipeline.evaluation.report.elements import Table, share, share_interval
from vr_pipeline.evaluation.report.wording import plain


def make(titles: Mapping[str, str], measured: Mapping[str, Any]) -> list[Markup]:
    """Show the shares of pairs that the reward orders as people did, with intervals."""
    pairs, ties = int(measured["n"]), int(measured["n_ties"])
    names = {
        "diff": f"diff: right order, of the {pairs - ties:,} pairs without a human tie",
        "tau": f"tau: right order or rightly a tie, of all {pairs:,}; a tie is called where rewards differ by at most "
        f"{plain(measured['epsilon'], 4)}, chosen on these pairs",
        "tau_transferred": "tau with the threshold of the fitted pairs, "
        f"{plain(measured.get('epsilon_transferred'), 4)}",
    }
    intervals = measured.get("intervals") or {}
    table = Table(
        "Agreement of the reward with held-out preferences (intervals take prompts as the units drawn)",
        ["Measure", "Value", "95 % interval"],
        [
            [text, share(measured[name]), share_interval(*(intervals.get(name) or (None, None)))]
            for name, text in names.items()
            if name in measured
        ],
    )
    text = "Pairs of clips whose prompts took no part in the fit. One half is chance for diff."
    return [elements.paragraph(text), elements.table(table)]
