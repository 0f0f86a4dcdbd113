"""Puts what the project needs beside its code into the wheel: configuration, shipped data and models, notebooks.

Everything else about the package is in pyproject.toml.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
SHIPPED = ("conf", "data/01_raw", "data/06_models/micro_world", "notebooks", ".telemetry", ".gitignore", ".dvcignore")
PERSONAL = shutil.ignore_patterns("local", "mydata", "*.lock", ".*.lock", "__pycache__", ".ipynb_checkpoints")


class BuildWithProject(build_py):
    """Copies the project's files to ``vr_pipeline/_project``; an editable installation finds them where they are."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "vr_pipeline" / "_project"
        shutil.rmtree(target, ignore_errors=True)
        for name in SHIPPED:
            source = ROOT / name
            place = target / name
            place.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, place, ignore=PERSONAL)
            else:
                shutil.copy(source, place)


setup(cmdclass={"build_py": BuildWithProject})
