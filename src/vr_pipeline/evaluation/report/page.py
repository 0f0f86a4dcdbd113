"""Joins sections to one self-contained HTML file under 10 MB; the same data give the same bytes."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from markupsafe import Markup

from vr_pipeline.evaluation.report.elements import environment
from vr_pipeline.evaluation.report.run_lines import placeholder
from vr_pipeline.evaluation.report.sections import PROVENANCE, SECTIONS
from vr_pipeline.terminal import visible

if TYPE_CHECKING:
    from vr_pipeline.evaluation.config import ReportParameters


class Part(NamedTuple):
    """A section of a page: its address, its name in the navigation, and its heading."""

    name: str
    link: str
    title: str


class Headed(Protocol):
    """The same attributes of any section."""

    @property
    def name(self) -> str: ...

    @property
    def link(self) -> str: ...

    @property
    def title(self) -> str: ...


def section_html(elements: Sequence[Markup]) -> str:
    """Return the HTML of a section; empty without elements."""
    return _ascii("\n".join(elements))


def join_sections(parameters: ReportParameters, contents: Mapping[str, str]) -> str:
    """Return the page.

    Args:
        parameters: its title and note.
        contents: HTML of sections by name, empty for omitted ones, and of the provenance in the footer. Commit and run
            are separate, see :mod:`vr_pipeline.evaluation.report.run_lines`.
    """
    parts = {name: Markup(html) for name, html in contents.items()}
    sections = [(section, [parts[section.name]]) for section in SECTIONS if parts.get(section.name)]
    provenance = parts.get(PROVENANCE.name, Markup())
    return page_html(parameters.title, parameters.note, sections, provenance, run=placeholder())


def page_html(
    title: str,
    note: str,
    sections: Sequence[tuple[Headed, Sequence[Markup]]],
    provenance: Markup,
    *,
    run: Markup = Markup(),  # noqa: B008 - it cannot be changed
) -> str:
    """Return a page of sections.

    Args:
        title: its heading.
        note: a sentence under it; empty for none.
        sections: each with its elements.
        provenance: footer; empty for none.
        run: lines about the run in the footer.
    """
    templates = environment()
    assert templates.loader is not None
    style, script = (templates.loader.get_source(templates, name)[0] for name in ("style.css", "script.js"))
    # The browser runs only this script, whatever the data contain.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = templates.get_template("page.html.j2").render(
        title=title,
        note=note,
        sections=[(section, Markup("\n").join(elements)) for section, elements in sections],
        provenance=provenance,
        run=run,
        style=Markup(style),
        script=Markup(script),
        script_digest=Markup(digest),
    )
    return _ascii(page)


def _ascii(html: str) -> str:
    """Replace non-ASCII characters by references, independent of the file's encoding."""
    return visible(html).encode("ascii", "xmlcharrefreplace").decode("ascii")
