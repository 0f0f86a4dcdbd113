"""How a session reads conf/."""

import glob
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from kedro.config import AbstractConfigLoader, MissingConfigException, OmegaConfigLoader

from vr_pipeline.errors import InputError
from vr_pipeline.project.machines import chosen_machine, laid_over, read_machine

BASE = "base"

LOADER_ARGUMENTS = {
    "base_env": BASE,
    "default_run_env": "local",
    "config_patterns": {
        "runner": ["runner*"],
        "mlflow": ["mlflow*"],
        "logging": ["logging*"],
        "reading": ["reading*"],
    },
    # An environment states only what it changes.
    "merge_strategy": {"parameters": "soft", "runner": "soft", "mlflow": "soft", "reading": "soft"},
}
"""Arguments of this project's loader, besides the folder and the environment."""


def layers(conf: Path, environment: str, base: str = BASE) -> list[str]:
    """Return the environments that an environment extends and itself, lowest first.

    ``extends: NAME`` in conf/<environment>/globals.yml puts conf/NAME between the base and the environment.

    Raises:
        InputError: an environment extends one that does not exist, or itself.
    """
    import yaml

    found = [environment]
    while found[0] != base:
        file = conf / found[0] / "globals.yml"
        content = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else None
        below = content.get("extends", base) if isinstance(content, Mapping) else base
        if not (conf / str(below)).is_dir() or below in found:
            raise InputError(
                f"conf/{found[0]} cannot extend '{below}', which "
                + ("extends it" if below in found else "does not exist"),
                remedy="name an environment below conf/, or remove the line",
                file=file,
                field="extends",
            )
        found.insert(0, str(below))
    return found


class _LiteralFolder:
    """A file system that takes ``[``, ``*`` and ``?`` in the name of one folder literally.

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
    """Kedro's loader, with environments that extend others and machine profiles; it reads each kind of file once.

    Kedro's own reads and merges them at every look: the catalog takes half a second, several times a run, and a file
    edited meanwhile for the next run would count half in this one.
    """

    env: str | None
    base_env: str

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._read: dict[str, dict[str, Any]] = {}
        self._machine = chosen_machine()
        super().__init__(*arguments, **options)
        if self._protocol == "file" and glob.has_magic(str(self.conf_source)):
            files: Any = self._fs  # type: ignore[has-type]
            self._fs = _LiteralFolder(files, str(self.conf_source))

    def __getitem__(self, key: str) -> dict[str, Any]:
        if key not in self._read:
            self._read[key] = self._on_machine(key, self._layered(key))
        return deepcopy(self._read[key])

    def _on_machine(self, key: str, content: dict[str, Any]) -> dict[str, Any]:
        """Override the environment by the machine's profile, and both by the command line."""
        if self._machine is None or key not in ("runner", "parameters"):
            return content
        profile = read_machine(Path(self.conf_source), self._machine)
        if key == "runner":
            return laid_over(content, profile.runner)
        return laid_over(laid_over(content, profile.parameters), self.runtime_params or {})

    def _layered(self, key: str) -> dict[str, Any]:
        """Merge the configuration of all layers, as Kedro merges an environment into the base."""
        # Kedro would resolve ${globals:...} by the loader that was made last.
        self._register_globals_resolver()
        names = layers(Path(self.conf_source), self.env or self.default_run_env, self.base_env)
        if len(names) <= 2 or key in self:
            return super().__getitem__(key)
        from omegaconf import OmegaConf

        base, env = self.base_env, self.env
        merged: dict[str, Any] = {}
        try:
            for name in names:
                self.base_env = self.env = name
                layer = super().__getitem__(key)
                if self.merge_strategy.get(key) == "soft":
                    merged = OmegaConf.to_container(OmegaConf.merge(merged, layer))  # type: ignore[assignment]
                else:
                    merged |= layer
        finally:
            self.base_env, self.env = base, env
        return merged or super().__getitem__(key)

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self._read.pop(key, None)


def section(loader: AbstractConfigLoader, kind: str, missing: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a kind of configuration, such as ``runner``; ``missing``, by default nothing, where there is no file."""
    try:
        return dict(loader[kind])
    except (MissingConfigException, KeyError):
        return dict(missing or {})
