"""How a session reads conf/."""

from __future__ import annotations

import glob
from copy import deepcopy
from pathlib import Path
from typing import Any

from kedro.config import OmegaConfigLoader


class _LiteralFolder:
    """A file system in which the name of one folder is no pattern, whatever ``[``, ``*`` and ``?`` it has.

    Kedro puts its patterns for files behind the configuration's folder and looks for the whole.
    """

    def __init__(self, files: Any, folder: str) -> None:
        self._files, self._folder = files, folder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)

    def glob(self, pattern: str) -> list[str]:
        within = pattern.removeprefix(self._folder).lstrip("/")
        # Of two stars at the end pathlib takes folders only.
        within = f"{within}/*" if within.endswith("**") else within
        return sorted(str(path) for path in Path(self._folder).glob(within))


class SteadyConfigLoader(OmegaConfigLoader):
    """Kedro's loader, which reads the files of each kind of configuration once.

    Kedro's own reads and merges them at every look: the catalog takes half a second, several times a run, and a file
    edited meanwhile for the next run would count half in this one.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._read: dict[str, dict[str, Any]] = {}
        super().__init__(*arguments, **options)
        if self._protocol == "file" and glob.has_magic(str(self.conf_source)):
            files: Any = self._fs  # type: ignore[has-type]
            self._fs = _LiteralFolder(files, str(self.conf_source))

    def __getitem__(self, key: str) -> dict[str, Any]:
        if key not in self._read:
            self._read[key] = super().__getitem__(key)
        return deepcopy(self._read[key])

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self._read.pop(key, None)
