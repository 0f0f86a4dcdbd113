"""Checklists of yes/no questions: their schema, their file format, and the public VisionReward files."""

from vr_pipeline.checklist.load import checklist_from_mapping, load_checklist
from vr_pipeline.checklist.schema import PROMPT_PLACEHOLDER, Checklist, Question, SubDimension

__all__ = [
    "PROMPT_PLACEHOLDER",
    "Checklist",
    "Question",
    "SubDimension",
    "checklist_from_mapping",
    "load_checklist",
]
