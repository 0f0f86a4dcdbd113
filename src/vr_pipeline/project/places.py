"""Storage locations and how they are displayed."""

from pathlib import Path
from typing import Any

from kedro.io import CatalogProtocol


def stored_at(catalog: CatalogProtocol, name: str) -> Path | None:
    """Return the file or folder of a dataset of the catalog; None for datasets in memory."""
    dataset: Any = catalog.get(name)
    for attribute in ("_filepath", "_path"):
        if (place := getattr(dataset, attribute, None)) is not None:
            return Path(str(place))
    return None


def shown(path: Path, project: Path) -> str:
    """Return a path relative to the project folder."""
    return str(path.relative_to(project)) if path.is_relative_to(project) else str(path)
