"""Plots that the pipelines made, as they lie in data/08_reporting."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

PICTURES = {
    "preference_calibration_plot": "Calibration: predicted probability of preference, against how often people agreed",
    "accuracy_curve_plot": "Agreement with people against the number of questions kept (band: 95 % interval). A pair "
    "with equal rewards counts as wrong, which is frequent where few questions are answered yes or no",
    "question_correlation_plot": "Correlation of the answers to the questions",
    "preference_deviations_plot": "Share of yes by sub-dimension: clips that people preferred, against the others",
    "policy_deviations_plot": "Share of yes by sub-dimension: each policy against the original",
    "dimension_gaps_plot": "Gap by dimension: pairs that dominance keeps and rejects",
    "pair_fates_plot": "Fate of all candidate pairs",
}
"""What each plot shows; the text is also its alternative for screen readers."""


def make(titles: Mapping[str, str], *plots: str | None) -> list[Markup]:
    """Show every plot that there is, with its text.

    Args:
        titles: of the policies.
        plots: PNG files as base64, in the order of :data:`PICTURES`; None for those that the run does not make.
    """
    figure = (
        '<figure class="picture">\n<img src="data:image/png;base64,{}" alt="{}">\n<figcaption>{}</figcaption>\n'
        "</figure>"
    )
    shown = [(text, plot) for text, plot in zip(PICTURES.values(), plots, strict=True) if plot is not None]
    return [Markup(figure).format(plot, text, text) for text, plot in shown]
