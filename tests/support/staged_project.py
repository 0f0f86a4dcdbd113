"""A small project of three pipelines in git and DVC: draw -> fit -> judge, with this project's hooks and commands.

``fit`` looks at the environment variable ``PLANTED``, which nothing records: with it, a repetition differs there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

from git_commands import commit, git

ROOT = Path(__file__).resolve().parents[2]

_FILES = {
    "pyproject.toml": """
        [tool.kedro]
        package_name = "staged"
        project_name = "staged"
        kedro_init_version = "1.7.0"
        source_dir = "src"
    """,
    ".gitignore": """
        logs/
        mlflow*
        mlartifacts/
        __pycache__/
        .run.lock
        .telemetry
        .viz/
        data/**
        !data/raw/
        !data/raw/**
    """,
    ".dvcignore": "__pycache__\n",
    "conf/local/.gitkeep": "",
    "conf/base/catalog.yml": """
        raw: {type: text.TextDataset, filepath: data/raw/words.txt}
        drawn: {type: json.JSONDataset, filepath: data/drawn.json}
        model:
          type: json.JSONDataset
          filepath: data/model.json
          metadata: {mlflow: {model: staged_model, score: 'metrics:score', comparable: [raw]}}
        metrics: {type: json.JSONDataset, filepath: data/metrics.json, metadata: {mlflow: {metrics: true}}}
    """,
    "conf/base/parameters.yml": "# Settings\ndraw: {seed: 1, count: 5}\nfit: {rate: 0.5}\n",
    "data/raw/words.txt": "one two three\n",
    "src/staged/__init__.py": "",
    "src/staged/settings.py": "from vr_pipeline.settings import *\n",
    "src/staged/cli.py": "from vr_pipeline.cli import cli\n",
    "src/staged/shared.py": "def total(numbers):\n    return sum(numbers)\n",
    "src/staged/pipelines/__init__.py": "",
    "src/staged/pipelines/draw/__init__.py": """
        import random
        from kedro.pipeline import Node, Pipeline


        def draw(raw: str, parameters: dict) -> dict:
            generator = random.Random(parameters["seed"])
            return {"numbers": [len(raw) * generator.random() for _ in range(parameters["count"])]}


        def create_pipeline():
            return Pipeline([Node(draw, ["raw", "params:draw"], "drawn", name="draw")])
    """,
    "src/staged/pipelines/fit/__init__.py": """
        import os
        from kedro.pipeline import Node, Pipeline


        def fit(drawn: dict, parameters: dict) -> dict:
            from staged.shared import total

            return {"weight": total(drawn["numbers"]) * parameters["rate"] + float(os.environ.get("PLANTED", 0))}


        def create_pipeline():
            return Pipeline([Node(fit, ["drawn", "params:fit"], "model", name="fit")])
    """,
    "src/staged/pipelines/judge/__init__.py": """
        from kedro.pipeline import Node, Pipeline


        def judge(model: dict) -> dict:
            return {"score": model["weight"] / 10}


        def create_pipeline():
            return Pipeline([Node(judge, "model", "metrics", name="judge")])
    """,
    "src/staged/pipeline_registry.py": """
        from kedro.pipeline import Pipeline
        from staged.pipelines import draw, fit, judge


        def register_pipelines():
            parts = {"draw": draw.create_pipeline(), "fit": fit.create_pipeline(), "judge": judge.create_pipeline()}
            return {**parts, "__default__": sum(parts.values(), Pipeline([]))}
    """,
}


def make_staged_project(folder: Path) -> Path:
    """Write the project into ``folder``, of a repository or none, derive its stages and commit everything."""
    for name, text in _FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")
    for name in ("mlflow.yml", "logging.yml", "runner.yml"):
        (folder / "conf" / "base" / name).write_text((ROOT / "conf" / "base" / name).read_text())
    (folder / "conf" / "logging.yml").write_text((ROOT / "conf" / "logging.yml").read_text())
    below = subprocess.run(["git", "rev-parse"], cwd=folder, capture_output=True).returncode == 0
    if not below:
        git(folder, "init", "-q")
    git(folder, "config", "user.name", "Test")
    git(folder, "config", "user.email", "test@example.org")
    done = run(folder, "-m", "dvc", "init", "-q", *(["--subdir"] if below else []))
    assert done.returncode == 0, done.stderr
    done = kedro(folder, "lineage", "sync")
    assert done.returncode == 0, done.stderr
    commit(folder, "first")
    return folder


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the project."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    own = {
        "PYTHONPATH": f"{folder / 'src'}{os.pathsep}{ROOT / 'src'}",
        "COLUMNS": "200",
        "NO_COLOR": "1",
        "PATH": path,
        **environment,
    }
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env={**os.environ, **own}, capture_output=True, text=True, timeout=300
    )


def kedro(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in the project."""
    return run(folder, "-m", "kedro", *arguments, **environment)


_STEPS = """
import json, os, sys
from pathlib import Path
from click.testing import CliRunner
from kedro.framework.startup import bootstrap_project

bootstrap_project(Path.cwd())
from vr_pipeline.cli import cli

answers = []
for arguments in json.loads(sys.argv[1]):
    if isinstance(arguments, dict):
        for name, text in arguments.items():
            if name.startswith("$"):
                os.environ[name[1:]] = text
            else:
                Path(name).write_text(text)
        continue
    sys.argv = ["kedro", *arguments]
    result = CliRunner().invoke(cli, arguments)
    answers.append([result.exit_code, result.stdout, result.stderr])
Path("mlflow-answers.json").write_text(json.dumps(answers))
"""


def steps(folder: Path, *todo: list[str] | dict[str, str], **environment: str) -> list[tuple[int, str, str]]:
    """Commands of the project in one process, since starting Kedro takes longer than these runs.

    Args:
        folder: the project.
        todo: arguments of ``kedro``, or files to write (name to text) before the next, or environment variables to set
            (names begin with a dollar).

    Returns:
        exit code, standard output and standard error of each command.
    """
    done = run(folder, "-c", _STEPS, json.dumps(todo), **environment)
    assert done.returncode == 0, done.stderr
    return [tuple(answer) for answer in json.loads((folder / "mlflow-answers.json").read_text())]
