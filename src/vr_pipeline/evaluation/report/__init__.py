"""The report page: one self-contained HTML file."""

from vr_pipeline.evaluation.report.page import join_sections, section_html
from vr_pipeline.evaluation.report.sections import PROVENANCE, SECTIONS, Section

__all__ = ["PROVENANCE", "SECTIONS", "Section", "join_sections", "section_html"]
