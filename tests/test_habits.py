"""Files around the code that people and services read: citation, templates, hooks before commits, the changelog."""

from __future__ import annotations

import ast
import inspect
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


def test_the_citation_names_the_software_and_the_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    papers = {identifier["value"] for entry in citation["references"] for identifier in entry["identifiers"]}
    assert {"arXiv:2412.21059", "arXiv:2311.12908", "arXiv:2408.06072"} <= papers
    for entry in citation["references"]:
        assert {"type", "title", "authors", "year", "url"} <= set(entry)
        for author in entry["authors"]:
            assert set(author) in ({"family-names", "given-names"}, {"name"})


@pytest.mark.parametrize("name", ["problem", "method", "addition"])
def test_issue_templates_are_forms(name):
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= set(form)
    identifiers = [entry["id"] for entry in form["body"] if entry["type"] != "markdown"]
    assert len(identifiers) == len(set(identifiers))
    for entry in form["body"]:
        assert entry["type"] in {"markdown", "input", "textarea", "dropdown", "checkboxes"}
        assert entry["attributes"]


def test_the_changelog_has_a_place_for_the_next_version():
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ \(\d{4}-\d{2}-\d{2}\)", heading) for heading in headings[1:])


def test_hooks_before_commits_fetch_nothing():
    configuration = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repository["repo"] for repository in configuration["repos"]] == ["local"]
    hooks = {hook["id"] for repository in configuration["repos"] for hook in repository["hooks"]}
    assert {"ruff", "ruff-format", "mypy", "imports"} <= hooks


def test_hooks_before_commits_find_what_they_are_for(tmp_path):
    """In a repository of its own, since they look at what git tracks."""
    pytest.importorskip("pre_commit")
    (tmp_path / ".pre-commit-config.yaml").write_text((ROOT / ".pre-commit-config.yaml").read_text())
    (tmp_path / "good.py").write_text("x = 1\n")
    (tmp_path / "bad.py").write_text("x = 1 \n<<<<<<< ours\n")
    (tmp_path / "bad.ipynb").write_text('{"execution_count": 3}\n')
    (tmp_path / "large.bin").write_bytes(b"0" * 4_000_001)
    for command in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True, capture_output=True)
    environment_free = ("trailing-white-space", "merge-conflict", "notebook-results", "large-files")
    found = {}
    for hook in environment_free:
        done = subprocess.run(
            [sys.executable, "-m", "pre_commit", "run", hook, "--all-files"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 1, done.stdout + done.stderr
        found[hook] = done.stdout
    assert "bad.py:1" in found["trailing-white-space"]
    assert "bad.py:2" in found["merge-conflict"]
    assert "bad.ipynb:1" in found["notebook-results"]
    assert "large.bin" in found["large-files"]
    assert not any("good.py" in text for text in found.values())


def test_every_sort_is_stable():
    """By default numpy and pandas order equal keys by the processor's instruction set; a stable sort does not."""
    unstable = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if node.func.attr not in ("argsort", "sort_values"):
                continue
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if given.get("kind") not in ("'stable'", "'mergesort'") and given.get("stable") != "True":
                unstable.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not unstable, "add kind='stable' (stable=True for torch)"


def test_every_test_that_the_page_on_attacks_and_faults_names_exists():
    from tests.conftest import listed_tests

    names = set().union(*listed_tests().values())
    assert len(names) > 20
    for name in sorted(names):
        file, _, test = name.partition("::")
        path = ROOT / "tests" / file
        assert path.is_file(), name
        assert not test or f"def {test}(" in path.read_text(encoding="utf-8"), name


def test_the_lock_installs_on_the_oldest_python_that_is_promised():
    """A package may need a later patch of Python than the project says (3.11.5, say, where Debian has 3.11.2)."""
    promised = re.search(r'requires-python = ">=([\d.]+)', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    oldest = f"{promised[1]}.0"
    locked = {
        line.split("==")[0]
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    names = {canonicalize_name(name) for name in locked}
    found = [one for one in distributions() if canonicalize_name(one.metadata["Name"]) in names]
    assert len(found) > 100
    later = {
        one.metadata["Name"]: one.metadata.get("Requires-Python")
        for one in found
        if oldest not in SpecifierSet(one.metadata.get("Requires-Python") or "")
    }
    assert later == {}


def check_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder / "src")},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_imports_keep_to_the_rules():
    done = check_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "line", "rule"),
    [
        ("statistics/labels", "def f():\n    import vr_pipeline.rewards.config", "Imports go down"),
        ("storage/values", "from vr_pipeline.statistics import labels", "Imports go down"),
        ("rewards/contract", "import vr_pipeline.rewards.checklist.model", "No circles"),
        ("rewards/checklist/weights", "import vr_pipeline.rewards.checklist.linear", "No circles"),
        ("rewards/config", "def f():\n    import kedro.io", "The method knows nothing"),
        ("unplaced", "", "Imports go down"),
    ],
)
def test_an_import_against_the_rules_is_found(tmp_path, module, line, rule):
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(ROOT / ".importlinter", tmp_path)
    with (tmp_path / f"src/vr_pipeline/{module}.py").open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    done = check_imports(tmp_path)
    assert done.returncode == 1
    assert any(text.startswith(rule) and text.endswith("BROKEN") for text in done.stdout.splitlines()), done.stdout


_PUBLIC_ENTRIES = {
    "datasets/preferences.py:__init__",
    "datasets/prompts.py:__init__",
    "rewards/checklist/fit.py:fit_weights",
    "training/losses.py:diffusion_dpo_loss",
}
"""Called by people, who name what they give: an entry of the catalog, a function for notebooks."""


def test_files_and_functions_stay_small():
    package = ROOT / "src" / "vr_pipeline"
    large = []
    for path in sorted(package.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(package).as_posix()
        if text.count("\n") > 400:
            large.append(name)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                given = [item.arg for item in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                if len(set(given) - {"self", "cls"}) > 8:
                    large.append(f"{name}:{node.name}")
    assert set(large) == _PUBLIC_ENTRIES, "at most 400 lines a file and 8 parameters a function"


def test_functions_of_nodes_name_at_most_six_inputs():
    """What comes once for each recipe, section, plot or step is one more input, whatever their number."""
    from vr_pipeline.pipeline_registry import register_pipelines

    many = []
    for node in {node for pipeline in register_pipelines().values() for node in pipeline.nodes}:
        # Arguments that the graph fixes, such as a recipe, are no inputs.
        fixed = getattr(node.func, "keywords", {})
        takes = [one for one in inspect.signature(node.func).parameters.values() if one.name not in fixed]
        if len(takes) > 6 or (len(node.inputs) > 6 and takes[-1].kind is not inspect.Parameter.VAR_POSITIONAL):
            many.append(node.name)
    assert not many
