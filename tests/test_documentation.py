"""The documentation: it builds without a warning, needs no network, and says what the program does."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import types
from configparser import ConfigParser
from html.parser import HTMLParser
from pathlib import Path

import click
import pytest
from pydantic import BaseModel

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


class Addresses(HTMLParser):
    """What a page loads by itself, and what its text shows."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag in {"script", "img", "iframe", "source", "video"}:
            self.loaded.append(values.get("src", ""))
        if tag == "link" and values.get("rel") != "canonical":
            self.loaded.append(values.get("href", ""))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    # Links between pages, to headings and to pictures are checked by the strict build.
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def reference() -> types.ModuleType:
    specification = importlib.util.spec_from_file_location("reference", DOCS / "_site" / "reference.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["reference"] = module
    specification.loader.exec_module(module)
    return module


def pages(site: Path) -> dict[str, Addresses]:
    parsed = {}
    for path in site.rglob("*.html"):
        parsed[path.name] = Addresses()
        parsed[path.name].feed(path.read_text(encoding="utf-8"))
    return parsed


def test_the_picture_of_the_pipeline_is_that_of_the_pipelines():
    # Drawn again by: python docs/draw_pipeline.py
    specification = importlib.util.spec_from_file_location("draw_pipeline", DOCS / "draw_pipeline.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    assert module.TARGET.read_text(encoding="utf-8") == module.draw()
    names, _, supplied, handed_on = zip(*module.stages(), strict=True)
    assert names[0] == "prompt_filtering"
    assert names[-1] == "evaluation"
    assert supplied[0] == ["raw_prompts"]
    assert {"policy_dpo", "policy_mpo"} <= set(handed_on[names.index("dpo_training")])


def test_every_page_is_built_and_loads_nothing_from_elsewhere(site):
    parsed = pages(site)
    assert {f"{path.stem}.html" for path in DOCS.glob("*.md")} | {"parameters.html"} <= set(parsed)
    for name, page in parsed.items():
        foreign = [address for address in page.loaded if re.match(r"(https?:)?//", address)]
        assert foreign == [], name
    for path in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?https?:", path.read_text(encoding="utf-8")), path
    assert not list(site.rglob("*.py"))


def test_the_api_page_has_every_public_name_with_its_description(site):
    import vr_pipeline as vr

    source = (site / "api.html").read_text(encoding="utf-8")
    for name in vr.__all__:
        assert f'id="{getattr(vr, name).__module__}.{name}"' in source
    text = " ".join("".join(pages(site)["api.html"].text).split())
    for name in ("select_pairs", "load_reward_model", "Agreement"):
        assert getattr(vr, name).__doc__.split("\n")[0].replace("``", "") in text
    for mark in (":class:", ":func:", ":meth:", ":data:", ":::"):
        assert mark not in text


def test_equations_are_mathml(site):
    text = (site / "methods.html").read_text(encoding="utf-8")
    assert text.count("<math") > 20
    assert "arithmatex" not in text
    assert "\\frac" not in "".join(pages(site)["methods.html"].text)


@pytest.mark.browser
def test_search_works_from_disk_without_network(site):
    chromium = os.environ.get("VR_CHROMIUM") or next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if chromium is None:
        pytest.skip("no Chromium found (set VR_CHROMIUM to its path)")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    troubles: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: troubles.append(request.url) if request.url.startswith("http") else None)
        page.goto((site / "index.html").as_uri())
        page.click(".md-search__input")
        page.keyboard.type("outside_mass")
        page.wait_for_selector(".md-search-result__item", timeout=20_000)
        # Equations are drawn: their height is that of several lines, not of a line of text.
        page.goto((site / "methods.html").as_uri())
        heights = page.eval_on_selector_all(".equation", "all => all.map(e => e.clientHeight)")
        browser.close()
    assert troubles == []
    assert heights
    assert min(heights) > 30


def test_the_reference_has_every_parameter_with_range_default_and_meaning(reference, site):
    text = "".join(pages(site)["parameters.html"].text)
    models = reference.parameter_models()
    from vr_pipeline.pipeline_registry import register_pipelines

    blocks = {name for pipeline in register_pipelines().values() for name in pipeline.inputs() if ":" in name}
    assert {f"params:{name}" for name in models} == blocks
    for block, model in models.items():
        entries = list(reference.parameters_of(model))
        # As files of parameters write them.
        written = {field.alias or name for name, field in model.model_fields.items()}
        assert {entry.name.split(".")[0].split("[")[0] for entry in entries} == written
        for entry in entries:
            assert entry.name in text
            assert entry.default, f"{block}.{entry.name}"
            assert entry.description, f"{block}.{entry.name} has no description"
            if entry.number:
                assert entry.unit, f"{block}.{entry.name}"
                assert entry.range, f"{block}.{entry.name}"


def test_ranges_are_those_that_the_models_enforce(reference):
    from vr_pipeline.judges.training.config import JudgeTrainingParameters
    from vr_pipeline.training.config import PreferenceTrainingParameters
    from vr_pipeline.vlm.config import JudgeParameters

    training = {entry.name: entry for entry in reference.parameters_of(PreferenceTrainingParameters)}
    assert training["label_smoothing"].range == "≥ 0, < 0.5"
    assert training["beta"].default == "`500`"
    assert "`diffusion_dpo`" in training["loss"].range
    with pytest.raises(ValueError, match="label_smoothing"):
        PreferenceTrainingParameters(label_smoothing=0.5)
    judge = {entry.name: entry for entry in reference.parameters_of(JudgeTrainingParameters)}
    assert judge["tiny.height"].unit == "pixels"
    assert judge["ema_decay"].range == "> 0, < 1"
    asked = {entry.name: entry for entry in reference.parameters_of(JudgeParameters)}
    assert "`qwen2_vl`, " in asked["family"].range


def test_every_field_of_a_parameter_block_is_described():
    def check(model: type[BaseModel]) -> None:
        for name, field in model.model_fields.items():
            for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
                if isinstance(inner, type) and issubclass(inner, BaseModel):
                    check(inner)
            assert field.description, f"{model.__name__}.{name}"

    from vr_pipeline.evaluation.config import EvaluationParameters
    from vr_pipeline.generators.config import GeneratorParameters, VideoGenerationParameters
    from vr_pipeline.judges.config import ChecklistInferenceParameters
    from vr_pipeline.judges.training.config import JudgeTrainingParameters
    from vr_pipeline.prompts.config import PromptFilteringParameters
    from vr_pipeline.training.config import DpoTrainingParameters
    from vr_pipeline.vlm.config import JudgeParameters

    for model in (
        EvaluationParameters,
        GeneratorParameters,
        VideoGenerationParameters,
        JudgeParameters,
        ChecklistInferenceParameters,
        JudgeTrainingParameters,
        PromptFilteringParameters,
        DpoTrainingParameters,
    ):
        check(model)


def test_every_table_is_described(reference, site):
    text = "".join(pages(site)["file_formats.html"].text)
    for name, model in reference.table_models().items():
        assert name in text
        for column in model.to_schema().columns:
            if not column.startswith("^"):
                assert column in text
    for dataset in reference.catalog():
        assert dataset in text


def test_messages_of_the_troubleshooting_page_are_those_of_the_program():
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    joined = re.sub(r'"\s*\n\s*f?"', "", source)
    messages = re.findall(r"^### `(.*)`$", (DOCS / "troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(messages) > 15
    assert [message for message in messages if message not in joined] == []


def commands_in(text: str) -> list[list[str]]:
    """Commands of kedro in blocks of code and between backticks, as words; comments and what follows a pipe are cut."""
    blocks = re.findall(r"^```(?:sh|console|text)?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line for content in blocks for line in content.replace("\\\n", " ").splitlines()]
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    lines += re.findall(r"`((?:\.venv/bin/)?kedro [^`]+)`", outside)
    found = []
    for line in lines:
        command = re.match(r"\s*(?:\$ )?(?:\.venv/bin/)?kedro (\S.*)", line)
        if command is not None:
            found.append(re.split(r" (?:#|\||&&|>) ?| {3,}", command[1])[0].split())
    return found


def test_every_command_of_the_documentation_exists_with_its_options(reference):
    from vr_pipeline.cli import cli
    from vr_pipeline.pipeline_registry import register_pipelines

    pipelines, checked = set(register_pipelines()), 0
    settings = {
        f"{block}.{entry.name}"
        for block, model in reference.parameter_models().items()
        for entry in reference.parameters_of(model)
    }
    pages = [*DOCS.glob("*.md"), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))]
    for page in pages:
        for words in commands_in(page.read_text(encoding="utf-8")):
            command: click.Command = cli
            rest = list(words)
            while isinstance(command, click.Group) and rest and rest[0] in command.commands:
                command = command.commands[rest.pop(0)]
            if command is cli:  # of Kedro or one of its plugins
                assert words[0].rstrip(".,") in {"viz", "registry", "catalog", "jupyter", "--help"}, words
                continue
            known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
            for option in (word.partition("=")[0] for word in rest if word.startswith("-") and word != "-"):
                assert option in {*known, "--help"} or isinstance(command, click.Group), f"{page.name}: {words}"
            for option, _, value in (word.partition("=") for word in rest):
                if option == "--pipeline" and value.islower():
                    assert value in pipelines, f"{page.name}: {words}"
                if option == "--params" and "..." not in value:
                    names = {name.partition("=")[0] for name in re.split(r",(?=[a-z_]+\.)", value)}
                    # The page of the demo shows what a typo gives.
                    assert names <= settings | {"dpo_training.training.betta"}, f"{page.name}: {words}"
            checked += 1
    assert checked > 60, checked


def test_relative_links_of_files_outside_the_site_exist():
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / name).read_text(encoding="utf-8")):
            if "://" not in target:
                assert (ROOT / target).exists(), f"{name}: {target}"


@pytest.mark.parametrize("page", ["extending.md", "architecture.md"])
def test_files_that_a_page_names_exist(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:src/|tests/|conf/|docs/|[a-z_]+/)[a-z_0-9/]+\.(?:py|yml|md))`", text))
    assert len(named) > 3
    yours = {"src/vr_pipeline/vlm/families/my_judge.py", "src/vr_pipeline/generators/my_generator.py"}
    places = (ROOT, ROOT / "src" / "vr_pipeline")
    assert [name for name in named - yours if not any((place / name).is_file() for place in places)] == []


def test_the_map_lists_every_package_from_the_top_floor_down():
    rules = ConfigParser()
    rules.read(ROOT / ".importlinter", encoding="utf-8")
    floors = re.findall(r"\w+", rules["importlinter:contract:floors"]["layers"])
    table = (DOCS / "architecture.md").read_text(encoding="utf-8").partition("Top floor first")[2]
    assert re.findall(r"^\| `(\w+)` \| \S", table, re.MULTILINE)[: len(floors)] == floors
