"""The page from a bare GPU machine to the first clip: what it names is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

from vr_pipeline.planning.models import known_models
from vr_pipeline.project.machines import VARIABLE, machine_names

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "first_clip.md").read_text(encoding="utf-8")
COMMANDS = "\n".join(re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))


def test_profiles_and_environments_that_the_page_names_exist() -> None:
    machines = {*re.findall(r"--machine=(\S+?)`?(?=\s)", COMMANDS), *re.findall(rf"{VARIABLE}=(\S+)", COMMANDS)}
    assert machines == {"8gpu"}
    listed = PAGE.split("a profile of `conf/machines`: ")[1].split(", or")[0]
    assert sorted(re.findall(r"`(\w+)`", listed)) == machine_names(ROOT / "conf")
    bases = set(re.findall(r"--base-env (\w+)", COMMANDS))
    assert bases
    assert all(
        (ROOT / "conf" / name / "globals.yml").is_file() for name in (*bases, "cogvideox", "cogvideox_5b", "image")
    )
    # What `init-data --env NAME` writes is what later commands name.
    written = set(re.findall(r"--env (\w+)", COMMANDS))
    assert set(re.findall(r"--env=(\w+)", COMMANDS)) == written == {"mine", "smoke"}


def test_extras_and_lock_that_the_page_names_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for named in re.findall(r"-e \"\.\[([\w,]+)\]\"", COMMANDS):
        assert set(named.split(",")) <= set(extras)
    assert (ROOT / "constraints.txt").is_file()


def test_what_the_page_says_of_access_is_what_the_table_says() -> None:
    known = known_models(ROOT / "conf")
    assert [name for name, facts in known.items() if facts["gated"]] == ["stabilityai/stable-diffusion-3.5-medium"]
    assert "Of the generators and judges of the\nenvironments only Stable Diffusion 3.5 is gated" in PAGE
    assert known["zai-org/CogVideoX-5b"]["licence"] != known["zai-org/CogVideoX-2b"]["licence"]
    # Every model on the hub that an environment names is in the table.
    named = set()
    for file in (ROOT / "conf").glob("*/parameters.yml"):
        named |= set(paths(yaml.safe_load(file.read_text(encoding="utf-8"))))
    assert len(named) > 4
    assert named <= set(known)


def paths(value: object) -> list[str]:
    """Names on the hub under a key ``path`` that has a revision beside it."""
    if not isinstance(value, dict):
        return []
    own = [str(value["path"])] if "path" in value and "revision" in value else []
    return own + [path for entry in value.values() for path in paths(entry)]
