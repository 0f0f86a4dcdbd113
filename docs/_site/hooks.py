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
_CELL = re.compile(r"<(t[dh])\b[^>]*>.*?</\1>", re.DOTALL)
_CODE = re.compile(r"(?<!<span></span>)(?<!<pre>)<code>([^<]*)</code>")
_LONG = 34
"""Letters of code in a sentence from which it may break on a phone as in a table."""
_OPTION = re.compile(r"(?<![^\s>])--?\w[\w-]*")
_INTERVAL = re.compile(r"\[[-+]?[.\d]+, [-+]?[.\d]+\]")
_WHOLE = r'<span class="whole">\g<0></span>'
_LIMITS = re.compile(r"<msub><mo>(min|max)</mo>(<mi>[^<]*</mi>|<mrow>.*?</mrow>)</msub>")
TABLES = "<!-- tables -->"
GENERATED = {"parameters.md": reference.parameters_page, "api.md": reference.api_page}
"""Pages that the code writes."""
_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):<code>~?\.*([^<]*)</code>")

NAVIGATION: list[tuple[str, list[tuple[str, str]]]] = [
    (
        "Start",
        [
            ("Why and what", "index.md"),
            ("Which system", "systems.md"),
            ("Ten minutes with the demo", "tour.md"),
            ("Your own data", "your_own_data.md"),
            ("Image to video", "image_to_video.md"),
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
            ("UnifiedReward", "unifiedreward.md"),
            ("Preference training", "training.md"),
            ("Rounds of training", "online.md"),
            ("Rectified flow in small", "flow.md"),
            ("Guidance by a reward", "guidance.md"),
            ("DPO of vision-language models", "vlm_dpo.md"),
            ("Training that does not break", "robustness.md"),
            ("Rewards against people", "reward_benchmark.md"),
            ("Public suites", "suites.md"),
        ],
    ),
    (
        "Running it",
        [
            ("A GPU's first clip", "first_clip.md"),
            ("GPUs and clusters", "gpu_and_clusters.md"),
            ("From Python", "from_python.md"),
            ("Serving a reward", "serving.md"),
            ("Lineage", "lineage.md"),
            ("Troubleshooting", "troubleshooting.md"),
        ],
    ),
    ("Reference", [("API", "api.md"), ("Parameters", "parameters.md"), ("File formats", "file_formats.md")]),
    (
        "Developing",
        [("Architecture", "architecture.md"), ("Attacks and faults", "security.md"), ("Adding to it", "extending.md")],
    ),
]


def on_config(config: Any) -> Any:
    """The navigation, in the order of reading; a page that is not named here is reported by the strict build."""
    folder = Path(config.docs_dir)
    config.nav = [
        {heading: [{title: page} for title, page in pages if page in GENERATED or (folder / page).is_file()]}
        for heading, pages in NAVIGATION
    ]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the references of parameters and of the package."""
    for page, content in GENERATED.items():
        files.append(File.generated(config, page, content=content()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The tables of the catalog go where the page of file formats has its mark."""
    return markdown.replace(TABLES, reference.formats_page()) if TABLES in markdown else markdown


def on_page_content(content: str, page: Any, **_: Any) -> str:
    """Equations become MathML, which browsers draw themselves; names in docstrings lose their marks for Sphinx."""
    content = content.replace("::</p>", ":</p>")
    content = _ROLE.sub(lambda match: f"<code>{match[1].rpartition('.')[2] or match[1]}</code>", content)
    content = _CELL.sub(lambda cell: _CODE.sub(_breakable, cell[0]), content)
    content = _CODE.sub(lambda code: _breakable(code, "phone") if len(code[1]) >= _LONG else code[0], content)
    # Browsers break lines behind the hyphens of options and within intervals.
    content = _CODE.sub(lambda code: _OPTION.sub(_WHOLE, code[0]), content)
    content = _CELL.sub(lambda cell: _INTERVAL.sub(_WHOLE, cell[0]), content)
    content = _MATH.sub(lambda match: mathml(match[2], display=match[1] == "div"), content)
    return f'<div class="parameters">{content}</div>' if page.file.src_uri == "parameters.md" else content


def _breakable(code: re.Match[str], where: str = "anywhere") -> str:
    """Code that breaks behind its punctuation, where it must, and not within its words."""
    text = re.sub(r"(?<=\w[./,:=])(?=[^\s./,:=])", f'<wbr class="{where}">', code[1])
    text = re.sub(r"(?<=_)(?=[^_<])", f'<wbr class="{where} word">', text)
    return f"<code>{text}</code>"


def mathml(source: str, *, display: bool) -> str:
    """An equation as arithmatex leaves it (``\\(...\\)`` or ``\\[...\\]``) as MathML."""
    from latex2mathml.converter import convert

    latex = html.unescape(source).strip().removeprefix("\\(").removesuffix("\\)")
    latex = latex.removeprefix("\\[").removesuffix("\\]").strip()
    if not display:
        return _set(convert(latex))
    # Equations side by side stand below each other on narrow screens; what is still too wide scrolls within itself.
    parts = [_set(convert(part.strip(), display="block")) for part in re.split(r"\\q?quad\b", latex)]
    return f'<div class="equation">{"".join(_LIMITS.sub(_under, part) for part in parts)}</div>'


def _set(equation: str) -> str:
    """Mend what the converter leaves out: space around a function's name, and bars that keep their size."""
    equation = re.sub(r"(?<=</mi>)(?=<mi>(?:log|ln|exp)</mi>)", '<mspace width="0.167em" />', equation)
    equation = re.sub(r"(<mi>(?:log|ln|exp)</mi>)(?=<m(?:i|n|sub)>)", r'\1<mspace width="0.167em" />', equation)
    return re.sub(
        r'<mo(?: stretchy="false")?>(&#x0(?:2016|007C);)</mo>',
        r'<mo stretchy="false" lspace="0" rspace="0">\1</mo>',
        equation,
    )


def _under(limits: re.Match[str]) -> str:
    return f"<munder><mo>{limits[1]}</mo>{limits[2]}</munder>"


_SHIM = "https://unpkg.com/iframe-worker/shim"


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Search on pages opened from disk, with a script of our own instead of one from another host."""
    return output.replace(_SHIM, "../" * page.url.count("/") + "javascripts/frame_worker.js")


def on_post_template(output_content: str, **_: Any) -> str:
    """The same for the page that says that there is no such page."""
    return output_content.replace(_SHIM, "javascripts/frame_worker.js")
