"""Install the locked packages and the project into the environment of this interpreter: with uv, else with pip.

uv unpacks packages several times faster than pip but does not read pip's configuration, so its settings of indexes,
local wheels and certificates are passed on. If uv is not available or fails, pip installs everything itself.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
PIP = (sys.executable, "-m", "pip")
LOCKED = ("-c", str(PROJECT / "constraints.txt"))
NAMES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "cert": "SSL_CERT_FILE",
    "trusted-host": "UV_INSECURE_HOST",
}
"""Option of pip -> environment variable of uv."""


def uv_environment(pip_config: str) -> dict[str, str]:
    """Return uv's environment variables for pip's configuration.

    Args:
        pip_config: output of ``pip config list``, such as ``global.index-url='https://...'``, one option per line.
            Later lines win; pip prints the environment before the files, but the environment wins there.
    """
    found: dict[str, str] = {}
    from_environment: dict[str, str] = {}
    for line in pip_config.splitlines():
        key, separator, value = line.partition("=")
        section, _, option = key.rpartition(".")
        if separator and option in NAMES:
            target = from_environment if section == ":env:" else found
            target[NAMES[option]] = " ".join(ast.literal_eval(value).split())
    found |= from_environment
    if "UV_FIND_LINKS" in found:
        found["UV_FIND_LINKS"] = found["UV_FIND_LINKS"].replace(" ", ",")
    if "UV_INDEX" in found:
        # pip takes the best version of all indexes; without this uv takes the first index that has the package.
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return found


def main() -> int:
    """Install, and return the exit status."""
    requirement = ["-e", f"{PROJECT}[dev]"]
    config = subprocess.run([*PIP, "config", "list"], capture_output=True, text=True, check=False)
    environment = {**uv_environment(config.stdout), **os.environ}
    try:
        subprocess.run([*PIP, "install", "-qq", "--disable-pip-version-check", *LOCKED, "uv"], check=True)
        uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", sys.executable]
        subprocess.run([*uv, *LOCKED, *requirement], env=environment, check=True)
    except subprocess.CalledProcessError:
        print("uv could not install the packages; pip installs them instead, which takes longer.", file=sys.stderr)
        command = [*PIP, "install", "-qq", "--disable-pip-version-check", *LOCKED, *requirement]
        return subprocess.run(command, check=False).returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
