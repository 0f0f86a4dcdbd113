"""Read the public VisionReward question lists, with one question per line.

Layouts define sub-dimension, gates and weighted lines by line number. The first weight of images belongs to a
text-alignment score, which is not in the list; here it is an additional question whose probability counts (``feature:
probability``), so that by default the judge answers it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vr_pipeline.checklist.schema import Checklist, Question, SubDimension
from vr_pipeline.errors import InputError
from vr_pipeline.storage.json_rows import TEXT_COLUMN
from vr_pipeline.storage.tables import read_entries

ALIGNMENT_ID = "text_alignment"
ALIGNMENT_TEXT = 'Does the image show what the text "[[prompt]]" says?'

VIDEO_DIMENSIONS = {
    "alignment": "alignment",
    "composition": "composition",
    "focus": "stability",
    "camera_movement": "stability",
    "color": "quality",
    "lighting_accurate": "quality",
    "lighting_aes": "quality",
    "shape_at_beginning": "preservation",
    "shape_throughout": "preservation",
    "object_motion_dynamic": "dynamic",
    "camera_motion_dynamic": "dynamic",
    "movement_smoothness": "stability",
    "movement_reality": "fidelity",
    "clear": "quality",
    "image_quality_stability": "stability",
    "camera_stability": "stability",
    "detail_refinement": "fidelity",
    "letters": "fidelity",
    "physics_law": "physics",
    "safety": "safety",
}
"""Sub-dimensions of the public video list in file order, and their dimensions."""

_VIDEO_COUNTS = (4, 2, 2, 2, 4, 3, 3, 3, 4, 4, 4, 2, 2, 4, 4, 2, 4, 3, 4, 4)
_VIDEO_SELECTED_COUNTS = (3, 2, 0, 1, 1, 3, 3, 3, 2, 0, 2, 1, 1, 0, 1, 0, 3, 2, 1, 0)

IMAGE_DIMENSIONS = {
    "presence": "presence",
    "symmetry": "composition",
    "object_pairing": "composition",
    "main_object": "composition",
    "richness": "composition",
    "background": "composition",
    "clarity": "quality",
    "color_brightness": "quality",
    "color_aesthetic": "quality",
    "lighting_distinction": "quality",
    "lighting_aesthetic": "quality",
    "emotion": "emotion",
    "detail_refinement": "fidelity",
    "detail_realism": "fidelity",
    "body": "fidelity",
    "face": "fidelity",
    "hands": "fidelity",
    "safety": "safety",
}

_IMAGE_COUNTS = (3, 2, 2, 2, 4, 3, 4, 2, 2, 3, 2, 4, 6, 4, 4, 4, 4, 4)
_IMAGE_SELECTED_COUNTS = (3, 2, 0, 2, 4, 0, 4, 2, 1, 0, 0, 1, 3, 0, 3, 2, 1, 2)


@dataclass(frozen=True)
class _Layout:
    """Meaning of the lines of a public file."""

    modality: Literal["video", "image"]
    dimensions: Mapping[str, str]
    counts: Sequence[int]
    gates: Mapping[int, Sequence[int]] = field(default_factory=dict)
    """Gate line -> lines that it turns off."""
    presence: Sequence[int] = ()
    """Lines without a weight."""


_LAYOUTS = {
    64: _Layout("video", VIDEO_DIMENSIONS, _VIDEO_COUNTS),
    29: _Layout("video", VIDEO_DIMENSIONS, _VIDEO_SELECTED_COUNTS),
    59: _Layout(
        "image",
        IMAGE_DIMENSIONS,
        _IMAGE_COUNTS,
        gates={0: range(43, 47), 1: range(47, 51), 2: range(51, 55), 15: (13, 14), 26: (24, 25, 27, 28)},
        presence=(0, 1, 2, 15, 26),
    ),
    30: _Layout(
        "image",
        IMAGE_DIMENSIONS,
        _IMAGE_SELECTED_COUNTS,
        # In the public code the body gate also turns off the two safety lines (28, 29).
        gates={0: (22, 23, 24, 28, 29), 1: (25, 26), 2: (27,)},
        presence=(0, 1, 2),
    ),
}


def read_questions(path: str | Path) -> Checklist:
    """Read a public question list as a checklist.

    Args:
        path: one question per line: 64 or 29 lines (video), 59 or 30 (image).

    Raises:
        InputError: the file does not exist or has another number of lines.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("the question list does not exist", remedy="Give its path", file=path)
    lines = [str(entry.values.get(TEXT_COLUMN, "")).strip() for entry in read_entries(path, file_format="txt").rows]
    layout = _LAYOUTS.get(len(lines))
    if layout is None:
        raise InputError(
            f"the list has {len(lines)} questions, but public lists have {', '.join(map(str, sorted(_LAYOUTS)))}",
            remedy="Write the questions as a YAML checklist, see docs/judges.md",
            file=path,
        )
    return _checklist(path.stem, lines, layout)


def _checklist(name: str, lines: Sequence[str], layout: _Layout) -> Checklist:
    names: list[str] = []
    for sub, count in zip(layout.dimensions, layout.counts, strict=True):
        names += [f"{sub}_{number + 1}" for number in range(count)]
    gate_of = {line: names[gate] for gate, off in layout.gates.items() for line in off}
    subs: list[SubDimension] = []
    if layout.modality == "image":
        question = Question(
            question_id=ALIGNMENT_ID,
            text=ALIGNMENT_TEXT,
            dimension="alignment",
            sub_dimension=ALIGNMENT_ID,
            feature="probability",
        )
        subs.append(SubDimension(name=ALIGNMENT_ID, dimension="alignment", questions=(question,)))
    start = 0
    for (sub, dimension), count in zip(layout.dimensions.items(), layout.counts, strict=True):
        questions = tuple(
            Question(
                question_id=names[line],
                text=lines[line],
                dimension=dimension,
                sub_dimension=sub,
                gate=gate_of.get(line),
                weighted=line not in layout.presence,
            )
            for line in range(start, start + count)
        )
        start += count
        if questions:
            subs.append(SubDimension(name=sub, dimension=dimension, questions=questions))
    return Checklist(name=name, modality=layout.modality, sub_dimensions=tuple(subs))
