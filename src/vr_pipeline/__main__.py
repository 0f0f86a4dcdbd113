"""``python -m vr_pipeline``: the run command of the packaged project."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from vr_pipeline.environment import prepare_environment

prepare_environment()

from kedro.framework.cli.utils import find_run_command  # noqa: E402
from kedro.framework.project import configure_project  # noqa: E402


def main(*arguments: Any, **options: Any) -> Any:
    """Configure the project and run a pipeline; arguments as for ``kedro run``."""
    package = Path(__file__).parent.name
    configure_project(package)
    options["standalone_mode"] = not hasattr(sys, "ps1")
    return find_run_command(package)(*arguments, **options)


if __name__ == "__main__":
    main()
