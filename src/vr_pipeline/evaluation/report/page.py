"""Puts the sections together to one self-contained HTML file under 10 MB; the same data give the same bytes."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from vr_pipeline.evaluation.report.elements import environment
from vr_pipeline.evaluation.report.run_lines import placeholder
from vr_pipeline.evaluation.report.sections import PROVENANCE, SECTIONS
from vr_pipeline.terminal import visible

if TYPE_CHECKING:
    from vr_pipeline.evaluation.config import ReportParameters


def section_html(elements: Sequence[Markup]) -> str:
    """Return the HTML of a section; empty without elements."""
    return _ascii("\n".join(elements))


def join_sections(parameters: ReportParameters, contents: Mapping[str, str]) -> str:
    """Return the page.

    Args:
        parameters: its title and its note.
        contents: HTML of sections by their names, empty for those to leave out, and of the provenance in the footer.
            Commit and run are no part of the page, see :mod:`vr_pipeline.evaluation.report.run_lines`.
    """
    parts = {name: Markup(html) for name, html in contents.items()}
    templates = environment()
    assert templates.loader is not None
    style, script = (templates.loader.get_source(templates, name)[0] for name in ("style.css", "script.js"))
    # The browser runs this script and no other, whatever stands in the data.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = templates.get_template("page.html.j2").render(
        title=parameters.title,
        note=parameters.note,
        sections=[(section, parts[section.name]) for section in SECTIONS if parts.get(section.name)],
        provenance=parts.get(PROVENANCE.name, Markup()),
        run=placeholder(),
        style=Markup(style),
        script=Markup(script),
        script_digest=Markup(digest),
    )
    return _ascii(page)


def _ascii(html: str) -> str:
    """Write character references for what is not ASCII: it reads the same whatever encoding a file is saved in."""
    return visible(html).encode("ascii", "xmlcharrefreplace").decode("ascii")
