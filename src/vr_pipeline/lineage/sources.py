"""Find the source files that a part of the project runs, from imports in their text, without importing anything.

Imports within functions count, imports for type checkers do not. Text constants show two further dependencies: modules
named ``'package.module'`` or ``'package.module:Class'``, as in tables of families, and files beside the module, such as
templates. A table ``{name: 'package.module:Class'}`` is followed only at the names in use.
"""

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from vr_pipeline.errors import InputError

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+(:[A-Za-z_]\w*)?")
_FILE_NAME = re.compile(r"\w[\w.-]*")


class Reference(NamedTuple):
    """A module that a source file may run: dotted name of a module or its member, and its key in a table."""

    name: str
    key: str | None = None


class _Reader:
    """Collects the references of a module's text: modules of any project, and names of files beside it."""

    def __init__(self, package: str) -> None:
        self.package = package
        self.references: list[Reference] = []
        self.beside: list[str] = []

    def read(self, module: ast.Module) -> None:
        """Collect from a whole module; a loop, because :class:`ast.NodeVisitor` takes a third of a run's start."""
        waiting: list[Any] = [module]
        while waiting:
            node = waiting.pop()
            if (special := self._SPECIAL.get(node.__class__)) is not None:
                waiting += special(self, node)
            else:
                for name in getattr(node, "_fields", ()):
                    value = getattr(node, name, None)
                    if isinstance(value, list):
                        waiting += value
                    elif isinstance(value, ast.AST) and value._fields:
                        waiting.append(value)

    def _if(self, node: ast.If) -> list[Any]:
        if getattr(node.test, "id", getattr(node.test, "attr", "")) == "TYPE_CHECKING":
            return list(node.orelse)
        return [node.test, *node.body, *node.orelse]

    def _import(self, node: ast.Import) -> list[Any]:
        self.references.extend(Reference(alias.name) for alias in node.names)
        return []

    def _import_from(self, node: ast.ImportFrom) -> list[Any]:
        origin = node.module or ""
        if node.level:
            parents = self.package.split(".")
            origin = ".".join([*parents[: len(parents) - node.level + 1], *([origin] if origin else [])])
        self.references.extend(Reference(f"{origin}.{alias.name}") for alias in node.names)
        return []

    def _dict(self, node: ast.Dict) -> list[Any]:
        others = []
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and isinstance(key.value, str) and (name := _module_text(value)):
                self.references.append(Reference(name, key.value))
            else:
                others.append(value)
        return others

    def _constant(self, node: ast.Constant) -> list[Any]:
        if isinstance(node.value, str):
            if name := _module_text(node):
                self.references.append(Reference(name))
            if _FILE_NAME.fullmatch(node.value):
                self.beside.append(node.value)
        return []

    _SPECIAL: ClassVar[dict[type, Callable[[Any, Any], list[Any]]]] = {
        **{ast.If: _if, ast.Import: _import, ast.ImportFrom: _import_from, ast.Dict: _dict, ast.Constant: _constant},
        ast.Name: lambda *_: [],
    }


def _module_text(node: ast.expr) -> str:
    """Return the dotted name in a text constant; empty for other expressions."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and _DOTTED.fullmatch(node.value):
        return node.value.partition(":")[0]
    return ""


@lru_cache(maxsize=4096)
def _read(text: str, package: str) -> _Reader:
    reader = _Reader(package)
    reader.read(ast.parse(text))
    return reader


class _Module(NamedTuple):
    """A module's files, itself and those beside it that it names, and what it may run."""

    files: frozenset[Path]
    references: list[Reference]


class SourceTree:
    """The modules below a folder, each read once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._modules: dict[str, _Module | None] = {}

    def file(self, module: str) -> Path | None:
        """Return the file of a module, ``__init__.py`` for packages; None for modules elsewhere."""
        place = self.root.joinpath(*module.split("."))
        for candidate in (place.with_suffix(".py"), place / "__init__.py"):
            if candidate.is_file():
                return candidate
        return None

    def package_modules(self, package: str) -> list[str]:
        """Return the names of all modules of a package and its sub-packages, itself first; empty without one."""
        folder = self.root.joinpath(*package.split("."))
        files = sorted(folder.rglob("*.py")) if (folder / "__init__.py").is_file() else []
        return [".".join(path.relative_to(self.root).with_suffix("").parts).removesuffix(".__init__") for path in files]

    def used(self, modules: Iterable[str], names: Iterable[str] = ()) -> list[Path]:
        """Return the files that run when ``modules`` are imported and everything in them is called.

        Args:
            names: keys at which tables of modules are followed.

        Returns:
            sorted paths of modules, and of the files and folders beside them that they name.

        Raises:
            InputError: a file cannot be parsed.
        """
        wanted, found, seen = set(names), set[Path](), set[str]()
        waiting = list(modules)
        while waiting:
            # A package's __init__.py runs before its modules.
            for module in accumulate(waiting.pop().split("."), "{}.{}".format):
                if module in seen:
                    continue
                seen.add(module)
                if module not in self._modules:
                    self._modules[module] = self._module(module)
                if (one := self._modules[module]) is not None:
                    found |= one.files
                    waiting += [used.name for used in one.references if used.key is None or used.key in wanted]
        return sorted(found)

    def _module(self, module: str) -> _Module | None:
        if (file := self.file(module)) is None:
            return None
        source = self._source(file, module)
        return _Module(frozenset({file, *self._beside(file, source.beside)}), source.references)

    def _source(self, file: Path, module: str) -> _Reader:
        package = module if file.name == "__init__.py" else module.rpartition(".")[0]
        try:
            return _read(file.read_text(encoding="utf-8"), package)
        except SyntaxError as error:
            raise InputError(
                f"the file is not valid Python ({error.msg})", remedy="correct it", file=file, row=error.lineno
            ) from error

    @staticmethod
    def _beside(file: Path, names: Iterable[str]) -> Iterator[Path]:
        for name in names:
            path = file.parent / name
            is_data_folder = path.is_dir() and name != "__pycache__" and not (path / "__init__.py").is_file()
            if is_data_folder or path.is_file():
                yield path
