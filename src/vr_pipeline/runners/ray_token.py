"""The token that keeps other users of a machine out of a Ray that is started on it.

Ray writes it readable for everybody where the user's umask allows that, and whoever has it can run code in the
cluster. So the file is made here first, for its owner alone, and one that is open to others is closed.
"""

from __future__ import annotations

import logging
import os
import secrets
import stat
from pathlib import Path

from vr_pipeline.errors import InputError

logger = logging.getLogger(__name__)

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def keep_token_private() -> None:
    """See that Ray's token file has mode 0600 in a folder of mode 0700; make both if they are not there.

    A token of the variables RAY_AUTH_TOKEN and RAY_AUTH_TOKEN_PATH is the user's own; the file of the latter is closed
    to others as well, its folder is not touched.

    Raises:
        InputError: the file cannot be made or closed.
    """
    if os.environ.get("RAY_AUTH_TOKEN"):
        return
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        if not named:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _close(path.parent)
        if not path.exists():
            # With its mode from the first moment.
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(32))
        elif _close(path):
            logger.warning("Ray's token %s was open to other users; now it is not. Delete it to get a new one.", path)
    except OSError as error:
        raise InputError(
            f"Ray's token cannot be kept from other users of this machine ({error.strerror})",
            remedy="make the file yours alone (mode 0600, its folder 0700), or name another one by RAY_AUTH_TOKEN_PATH",
            file=path,
        ) from error


def _close(path: Path) -> bool:
    """Take all rights of group and others away; whether there were any."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & _OTHERS:
        path.chmod(mode & ~_OTHERS)
    return bool(mode & _OTHERS)
