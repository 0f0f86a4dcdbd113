"""The installer passes pip's configuration on to uv."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("installer", ROOT / ".ci" / "install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_uv_uses_what_pip_is_configured_with(installer, tmp_path):
    """The text is what the installed pip prints, so that a change of its form is noticed."""
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = https://packages.example/simple\nextra-index-url =\n  https://a.example\n  https://b.example\n"
        "find-links = /not/this\ntimeout = 9\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    environment |= {"PIP_CONFIG_FILE": str(config), "PIP_FIND_LINKS": "/wheels /more"}
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], env=environment, capture_output=True, text=True, check=True
    )
    found = installer.uv_environment(done.stdout)
    assert found["UV_DEFAULT_INDEX"] == "https://packages.example/simple"
    assert found["UV_INDEX"] == "https://a.example https://b.example"
    assert found["UV_INDEX_STRATEGY"] == "unsafe-best-match"
    assert found["UV_FIND_LINKS"] == "/wheels,/more"
    assert not any("timeout" in name.lower() for name in found)


def test_nothing_is_changed_without_a_configuration(installer):
    assert installer.uv_environment("") == {}


def test_pip_installs_what_uv_could_not(installer, monkeypatch, capsys):
    commands: list[list[str]] = []

    def run(command, **options):
        commands.append(command)
        if "uv" in command[2:3]:
            raise subprocess.CalledProcessError(2, command)
        return subprocess.CompletedProcess(command, 0, stdout="")

    monkeypatch.setattr(installer.subprocess, "run", run)
    assert installer.main() == 0
    assert commands[-1][1:4] == ["-m", "pip", "install"]
    assert commands[-1][-1].endswith("[dev]")
    assert "pip installs them instead" in capsys.readouterr().err
