"""Page of imported suite scores, as in the evaluation's report."""

from __future__ import annotations

import pandas as pd
from markupsafe import Markup

from vr_pipeline.evaluation.report.page import Part, page_html
from vr_pipeline.evaluation.report.sections import suites


def suite_page(scores: pd.DataFrame, baseline: str) -> str:
    """Return the page of all suites, with gains over the policy ``baseline``."""
    made = suites.tables(scores, {baseline: baseline.capitalize()}, baseline)
    return page_html("Scores of public suites", "", [(Part("suites", "Suites", "Suites"), made)], Markup())
