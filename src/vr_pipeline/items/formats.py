"""How one item of a folder is written to a file and read back. Every format writes the same bytes for the same content.

A catalog entry chooses a format by ``format: {type: ..., <options>}``; the options are the fields of the classes here.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from vr_pipeline.work import Scalar, WorkItem

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


class ItemFormat(BaseModel, ABC):
    """A file format for items. Its settings are part of what a stored item is: other settings make it stale."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    extension: ClassVar[str]
    """File name extension with its dot."""

    @abstractmethod
    def write(self, path: Path, content: Any, item: WorkItem) -> dict[str, Scalar]:
        """Write ``content`` to ``path`` and return metadata that the format knows about it."""

    @abstractmethod
    def read(self, path: Path) -> Any:
        """Return what :meth:`write` was given."""


class VideoFormat(ItemFormat):
    """Clips as video files, lossless unless configured otherwise: uint8 arrays [frames, height, width, 3].

    The frame rate of a clip is its item's metadata ``fps`` where given, the option otherwise. Records get the columns
    num_frames, fps, height and width, of the stored file (so after enlargement).
    """

    type: Literal["video"] = "video"
    fps: float = Field(default=8.0, gt=0, description="frames a second of clips whose item does not say")
    codec: Literal["libx264rgb", "libx264"] = Field(
        default="libx264rgb", description="libx264rgb keeps colours as they are, libx264 is played by every browser"
    )
    crf: int | None = Field(
        default=None, ge=0, le=51, description="constant rate factor; null: 0 (lossless) for libx264rgb, 18 for libx264"
    )
    preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"] = (
        Field(default="medium", description="the encoder's choice between speed and size")
    )
    enlarge: int = Field(default=1, ge=1, description="each pixel becomes a square of this edge, in pixels")

    extension: ClassVar[str] = ".mp4"

    def write(self, path: Path, content: np.ndarray, item: WorkItem) -> dict[str, Scalar]:
        from vr_pipeline.video.write import write_video

        fps = item.metadata.get("fps", self.fps)
        if not isinstance(fps, int | float):
            raise TypeError(f"fps of item {item.key} must be a number, got {fps!r}")
        write_video(path, content, fps=fps, codec=self.codec, crf=self.crf, preset=self.preset, enlarge=self.enlarge)
        frames, height, width = content.shape[:3]
        return {
            "num_frames": int(frames),
            "fps": float(fps),
            "height": int(height) * self.enlarge,
            "width": int(width) * self.enlarge,
        }

    def read(self, path: Path) -> np.ndarray:
        from vr_pipeline.video.read import read_frames

        return read_frames(path, own=True)[:, :: self.enlarge, :: self.enlarge]


class SafetensorsFormat(ItemFormat):
    """Dictionaries of arrays or tensors; nothing in the file can execute code."""

    type: Literal["safetensors"] = "safetensors"
    framework: Literal["numpy", "torch"] = Field(default="numpy", description="what reading returns")

    extension: ClassVar[str] = ".safetensors"

    def write(self, path: Path, content: dict[str, Any], item: WorkItem) -> dict[str, Scalar]:
        if any(type(value).__module__.partition(".")[0] == "torch" for value in content.values()):
            import torch
            from safetensors.torch import save

            data = save(
                {
                    name: torch.as_tensor(value).detach().cpu().contiguous().clone()
                    for name, value in sorted(content.items())
                }
            )
        else:
            import numpy as np
            from safetensors.numpy import save

            data = save({name: np.array(value, order="C") for name, value in sorted(content.items())})
        path.write_bytes(data)
        return {}

    def read(self, path: Path) -> dict[str, Any]:
        if self.framework == "torch":
            from safetensors.torch import load_file
        else:
            from safetensors.numpy import load_file
        return load_file(path)


class ParquetFormat(ItemFormat):
    """Tables, without their index."""

    type: Literal["parquet"] = "parquet"

    extension: ClassVar[str] = ".parquet"

    def write(self, path: Path, content: pd.DataFrame, item: WorkItem) -> dict[str, Scalar]:
        content.to_parquet(path, index=False)
        return {}

    def read(self, path: Path) -> pd.DataFrame:
        import pandas as pd

        return pd.read_parquet(path)


class JsonFormat(ItemFormat):
    """Plain JSON values; keys are sorted, so equal content gives equal bytes."""

    type: Literal["json"] = "json"

    extension: ClassVar[str] = ".json"

    def write(self, path: Path, content: Any, item: WorkItem) -> dict[str, Scalar]:
        text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        path.write_text(text + "\n", encoding="utf-8", newline="\n")
        return {}

    def read(self, path: Path) -> Any:
        return json.loads(path.read_text(encoding="utf-8"))


AnyFormat = Annotated[VideoFormat | SafetensorsFormat | ParquetFormat | JsonFormat, Field(discriminator="type")]
_formats: TypeAdapter[ItemFormat] = TypeAdapter(AnyFormat)


def item_format(options: dict[str, Any]) -> ItemFormat:
    """Return the format that ``options`` describe, for instance ``{"type": "video", "fps": 8}``.

    Raises:
        pydantic.ValidationError: the type is unknown, or an option is.
    """
    return _formats.validate_python(options)
