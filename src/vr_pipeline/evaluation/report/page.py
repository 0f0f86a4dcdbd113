"""Puts the sections together to one self-contained HTML file under 10 MB; the same data give the same bytes."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from vr_pipeline.evaluation.report.elements import environment
from vr_pipeline.evaluation.report.run_lines import placeholder
from vr_pipeline.evaluation.report.sections import SECTIONS
from vr_pipeline.terminal import visible

if TYPE_CHECKING:
    from vr_pipeline.evaluation.config import ReportParameters


def section_html(elements: Sequence[Markup]) -> str:
    """Return the HTML of a section; empty without elements."""
    return _ascii("\n".join(elements))


def join_sections(parameters: ReportParameters, contents: Sequence[str]) -> str:
    """Return the page.

    Args:
        parameters: its title and its note.
        contents: HTML of each of :data:`SECTIONS`, empty for those to leave out, and of the provenance in the footer.
            Commit and run are no part of the page, see :mod:`vr_pipeline.evaluation.report.run_lines`.
    """
    *parts, provenance = map(Markup, contents)
    templates = environment()
    assert templates.loader is not None
    style, script = (templates.loader.get_source(templates, name)[0] for name in ("style.css", "script.js"))
    # The browser runs this script and no other, whatever stands in the data.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = templates.get_template("page.html.j2").render(
        title=parameters.title,
        note=parameters.note,
        sections=[(section, part) for section, part in zip(SECTIONS, parts, strict=True) if part],
        provenance=provenance,
        run=placeholder(),
        style=Markup(style),
        script=Markup(script),
        script_digest=Markup(digest),
    )
    return _ascii(page)


def _ascii(html: str) -> str:
    """Write character references for what is not ASCII: it reads the same whatever encoding a file is saved in."""
    return visible(html).encode("ascii", "xmlcharrefreplace").decode("ascii")
