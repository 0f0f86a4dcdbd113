"""How a session reads conf/."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from kedro.config import OmegaConfigLoader


class SteadyConfigLoader(OmegaConfigLoader):
    """Kedro's loader, which reads the files of each kind of configuration once.

    Kedro's own reads and merges them at every look: the catalog takes half a second, several times a run, and a file
    edited meanwhile for the next run would count half in this one.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._read: dict[str, dict[str, Any]] = {}
        super().__init__(*arguments, **options)

    def __getitem__(self, key: str) -> dict[str, Any]:
        if key not in self._read:
            self._read[key] = super().__getitem__(key)
        return deepcopy(self._read[key])

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self._read.pop(key, None)
