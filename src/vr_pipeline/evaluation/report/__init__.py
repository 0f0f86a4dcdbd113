"""The report page of an evaluation: one self-contained HTML file."""

from vr_pipeline.evaluation.report.page import render_report

__all__ = ["render_report"]
