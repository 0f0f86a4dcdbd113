"""A project folder from an installed package: configuration, embedded demo and notebooks, ready to run and to edit."""

import shutil
from pathlib import Path
from typing import Final

from vr_pipeline.errors import InputError
from vr_pipeline.storage.atomic import write_text

SHIPPED: Final = (
    "conf",
    "data/01_raw",
    "data/06_models/micro_world",
    "notebooks",
    ".telemetry",
    ".gitignore",
    ".dvcignore",
)

_PYPROJECT = """\
# A project of vr_pipeline: the code is the installed package, configuration and data are here.
[tool.kedro]
package_name = "vr_pipeline"
project_name = "vr_pipeline"
kedro_init_version = "1.7.0"
source_dir = "."
"""

_IGNORED = ("local", "mydata", "*.lock", ".*.lock", ".ipynb_checkpoints")


def shipped_files() -> Path:
    """Return the folder with the project's files: in the installed package, or the repository of an editable one.

    Raises:
        InputError: the package was installed without them.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_project", package.parents[1]):
        if (folder / "conf" / "base").is_dir():
            return folder
    raise InputError(
        "this installation has no configuration and no demo data",
        remedy="install the wheel, or clone the repository",
        file=package,
    )


def model_folder(name: str | Path) -> Path:
    """Return the folder of a shipped model for ``micro_world/<name>``; other paths unchanged.

    Raises:
        InputError: the package was installed without its models.
    """
    path = Path(name).expanduser()
    shipped = path.parts[:1] == ("micro_world",) and not path.exists()
    return shipped_files() / "data" / "06_models" / path if shipped else path


def init_project(folder: Path) -> list[str]:
    """Create a project folder.

    Args:
        folder: new or empty; a repository without files is.

    Returns:
        what was put there, relative to it.

    Raises:
        InputError: the folder has files in it already.
    """
    if folder.exists() and (not folder.is_dir() or {path.name for path in folder.iterdir()} - {".git"}):
        raise InputError("it already contains files", remedy="name a new or an empty folder", file=folder)
    source = shipped_files()
    for name in SHIPPED:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (source / name).is_dir():
            shutil.copytree(source / name, target, ignore=shutil.ignore_patterns(*_IGNORED))
        else:
            shutil.copy(source / name, target)
    (folder / "conf" / "local").mkdir(exist_ok=True)
    (folder / "conf" / "local" / ".gitkeep").touch()
    write_text(folder / "pyproject.toml", _PYPROJECT)
    return [*SHIPPED, "pyproject.toml"]
