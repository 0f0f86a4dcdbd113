"""Catalog dataset of a plot."""

from __future__ import annotations

import base64
from typing import Any, Literal

from vr_pipeline.datasets.places import FileDataset
from vr_pipeline.datasets.previews import ImagePreview
from vr_pipeline.drawing import Figure
from vr_pipeline.storage.atomic import replaced


class PlotDataset(FileDataset["Figure", str]):
    """A figure, saved as a PNG and loaded in base64, as pages embed it; the same figure gives the same bytes.

    Example::

        "{name}_plot":
          type: vr_pipeline.datasets.pictures.PlotDataset
          filepath: data/08_reporting/{name}.png

    Args:
        filepath: of the picture.
        dpi: pixels per inch, or ``figure`` for those of the figure.
    """

    def __init__(
        self, *, filepath: str, dpi: float | Literal["figure"] = 110, metadata: dict[str, Any] | None = None
    ) -> None:
        super().__init__(filepath=filepath, metadata=metadata)
        self._dpi = dpi

    def save(self, data: Figure) -> None:
        with replaced(self._path) as temporary:
            data.savefig(temporary, format="png", dpi=self._dpi, metadata={"Software": None})

    def load(self) -> str:
        return base64.b64encode(self._path.read_bytes()).decode()

    def preview(self) -> ImagePreview:
        """Return the picture, for Kedro-Viz."""
        return ImagePreview(self.load())
