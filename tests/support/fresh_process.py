"""What a fresh process has imported after some code."""

import subprocess
import sys


def imported_by(code: str, *names: str) -> list[str]:
    """Run code, which prints nothing, in a process of its own; return those of the modules that it then has."""
    show = f"import sys; print(*(name for name in {names!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{show}"], capture_output=True, text=True, check=True)
    return done.stdout.split()
