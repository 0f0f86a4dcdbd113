"""The token that keeps other users of a machine out of a Ray started on it.

Ray may write it readable for everybody, depending on the user's umask, and anyone who has it can run code in the
cluster. Therefore the file is created here first, for its owner only, and the rights of others are removed.
"""

import logging
import os
import secrets
import stat
from pathlib import Path

from vr_pipeline.errors import InputError

logger = logging.getLogger(__name__)

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def keep_token_private() -> None:
    """Ensure that Ray's token file has mode 0600 in a folder with mode 0700; create both if necessary.

    A token in RAY_AUTH_TOKEN is the user's responsibility; for a file in RAY_AUTH_TOKEN_PATH the mode of the file is
    set, but not that of its folder.

    Raises:
        InputError: the file cannot be created, or its mode cannot be set.
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
            logger.warning(
                "Ray's token %s was readable by other users; this is fixed. Delete it to get a new one.", path
            )
    except OSError as error:
        raise InputError(
            f"Ray's token cannot be protected from other users of this machine ({error.strerror})",
            remedy="set mode 0600 for the file and 0700 for its folder, or name another file in RAY_AUTH_TOKEN_PATH",
            file=path,
        ) from error


def _close(path: Path) -> bool:
    """Remove all rights of group and others; return whether there were any."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & _OTHERS:
        path.chmod(mode & ~_OTHERS)
    return bool(mode & _OTHERS)
