"""What mkdocs does beyond its plugins: pages written by the code, and equations as MathML, which needs no script."""

from __future__ import annotations

import html
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).resolve().parent))

import reference

_MATH = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.DOTALL)
TABLES = "<!-- tables -->"

NAVIGATION: list[tuple[str, list[tuple[str, str]]]] = [
    (
        "Start",
        [
            ("Why and what", "index.md"),
            ("Ten minutes with the demo", "tour.md"),
            ("Your own data", "your_own_data.md"),
            ("Comparing clips by eye", "annotation.md"),
        ],
    ),
    (
        "Methods",
        [
            ("Equations and our choices", "methods.md"),
            ("Prompt filtering", "prompt_filtering.md"),
            ("Judges", "judges.md"),
            ("Rewards and pairs", "rewards.md"),
            ("VideoReward", "videoreward.md"),
            ("Preference training", "training.md"),
            ("Training that does not break", "robustness.md"),
        ],
    ),
    (
        "Running it",
        [
            ("GPUs and clusters", "gpu_and_clusters.md"),
            ("Lineage", "lineage.md"),
            ("Troubleshooting", "troubleshooting.md"),
        ],
    ),
    ("Reference", [("Parameters", "parameters.md"), ("File formats", "file_formats.md")]),
    (
        "Developing",
        [("Architecture", "architecture.md"), ("Attacks and faults", "security.md"), ("Adding to it", "extending.md")],
    ),
]


def on_config(config: Any) -> Any:
    """The navigation, in the order of reading; a page that is not named here is reported by the strict build."""
    folder = Path(config.docs_dir)
    config.nav = [
        {heading: [{title: page} for title, page in pages if page == "parameters.md" or (folder / page).is_file()]}
        for heading, pages in NAVIGATION
    ]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the reference of parameters, and fill the tables into the page of file formats."""
    files.append(File.generated(config, "parameters.md", content=reference.parameters_page()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The tables of the catalog go where the page of file formats has its mark."""
    return markdown.replace(TABLES, reference.formats_page()) if TABLES in markdown else markdown


def on_page_content(content: str, **_: Any) -> str:
    """Equations become MathML, which browsers draw themselves."""
    return _MATH.sub(lambda match: mathml(match[2], display=match[1] == "div"), content)


def mathml(source: str, *, display: bool) -> str:
    """An equation as arithmatex leaves it (``\\(...\\)`` or ``\\[...\\]``) as MathML."""
    from latex2mathml.converter import convert

    latex = html.unescape(source).strip().removeprefix("\\(").removesuffix("\\)")
    latex = latex.removeprefix("\\[").removesuffix("\\]").strip()
    equation = convert(latex, display="block" if display else "inline")
    # Wide equations scroll within themselves on narrow screens.
    return f'<div class="equation">{equation}</div>' if display else equation


_SHIM = "https://unpkg.com/iframe-worker/shim"


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Search on pages opened from disk, with a script of our own instead of one from another host."""
    return output.replace(_SHIM, "../" * page.url.count("/") + "javascripts/frame_worker.js")


def on_post_template(output_content: str, **_: Any) -> str:
    """The same for the page that says that there is no such page."""
    return output_content.replace(_SHIM, "javascripts/frame_worker.js")
