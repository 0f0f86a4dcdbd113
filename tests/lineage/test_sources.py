"""Source files found from imports, against what Python itself loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vr_pipeline.errors import InputError
from vr_pipeline.lineage.sources import SourceTree

ROOT = Path(__file__).resolve().parents[2]

FILES = {
    "app/__init__.py": "",
    "app/start.py": "from typing import TYPE_CHECKING\nimport json\nfrom app.shapes import circle\n"
    "if TYPE_CHECKING:\n    from app import never\nelse:\n    import app.otherwise\n"
    "def later():\n    from . import lazy\n    from .shapes.square import side as length\n",
    "app/never.py": "",
    "app/otherwise.py": "",
    "app/lazy.py": "FAMILIES = {'one': 'app.families.one:One', 'two': 'app.families.two:Two'}\n"
    "PLUGIN = 'app.plugin'\nTEXT = 'see app.never for more'\n",
    "app/plugin.py": "from pathlib import Path\nCODE = Path(__file__).with_name('code.txt')\nTEMPLATES = 'pages'\n",
    "app/code.txt": "",
    "app/pages/page.html": "",
    "app/families/__init__.py": "",
    "app/families/one.py": "",
    "app/families/two.py": "import app.never\n",
    "app/shapes/__init__.py": "from ..top import anything\n",
    "app/shapes/circle.py": "import app.start  # they import each other\n",
    "app/shapes/square.py": "side = 1\n",
    "app/top.py": "anything = 1\n",
    "app/unrelated.py": "",
}


@pytest.fixture
def tree(tmp_path: Path) -> SourceTree:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return SourceTree(tmp_path)


def used(tree: SourceTree, *modules: str, names: tuple[str, ...] = ()) -> set[str]:
    return {path.relative_to(tree.root).as_posix() for path in tree.used(modules, names)}


def test_imports_are_followed_everywhere_but_for_type_checkers(tree):
    found = used(tree, "app.start", names=("one",))
    assert found == set(FILES) - {"app/never.py", "app/families/two.py", "app/unrelated.py", "app/pages/page.html"} | {
        "app/pages"
    }


def test_tables_are_followed_at_the_names_in_use(tree):
    assert "app/families/one.py" not in used(tree, "app.start")
    assert {"app/families/two.py", "app/never.py"} <= used(tree, "app.start", names=("two",))


def test_modules_outside_the_tree_and_unknown_names_are_passed_over(tree):
    assert used(tree, "json", "app.nothing.at.all") == {"app/__init__.py"}


def test_all_modules_of_a_package(tree):
    assert tree.package_modules("app.shapes") == ["app.shapes", "app.shapes.circle", "app.shapes.square"]
    assert tree.package_modules("app.start") == []


def test_a_file_that_is_not_python_is_named(tree):
    (tree.root / "app" / "top.py").write_text("def (:\n")
    with pytest.raises(InputError, match=r"top\.py, row 1: .*not valid Python"):
        tree.used(["app.start"])


PIPELINES = ("prompt_filtering", "weight_regression", "dpo_training", "evaluation")


def test_everything_that_python_loads_is_found():
    """Importing a pipeline loads nothing of the project that the list lacks."""
    tree = SourceTree(ROOT / "src")
    for name in PIPELINES:
        package = f"vr_pipeline.pipelines.{name}"
        code = (
            f"import sys, {package}\n"
            "print('\\n'.join(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'vr_pipeline'))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
        loaded = {Path(line) for line in done.stdout.split()}
        assert loaded <= set(tree.used(tree.package_modules(package))), name


def test_sources_of_a_pipeline_are_not_those_of_all():
    tree = SourceTree(ROOT / "src")
    filtering = {path.name for path in tree.used(tree.package_modules("vr_pipeline.pipelines.prompt_filtering"))}
    assert "rouge.py" in filtering
    assert "losses.py" not in filtering
    assert "vlm.py" not in filtering
    training = {path.name for path in tree.used(tree.package_modules("vr_pipeline.pipelines.dpo_training"))}
    assert "losses.py" in training
    assert "rouge.py" not in training
