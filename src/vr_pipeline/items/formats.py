"""Storage of one item of a folder. Every format stores the same bytes for the same content.

A catalog entry chooses a format by ``format: {type: ..., <options>}``; the options are the fields of the classes here.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from vr_pipeline.video.read import read_frames
from vr_pipeline.video.write import write_video
from vr_pipeline.work import Scalar, WorkItem

if TYPE_CHECKING:
    import pandas as pd


class ItemFormat(BaseModel, ABC):
    """A format for items. Its settings are part of an item's identity: with other settings, items are made again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    extension: ClassVar[str]
    """File name extension with its dot."""


class FileFormat(ItemFormat):
    """A format that stores every item in a separate file."""

    @abstractmethod
    def write(self, path: Path, content: Any, item: WorkItem) -> dict[str, Scalar]:
        """Write ``content`` to ``path``, and return metadata about it."""

    @abstractmethod
    def read(self, path: Path) -> Any:
        """Return the content that :meth:`write` was given."""


class PackedFormat(ItemFormat):
    """A format for small items, many of which share a file; see :mod:`vr_pipeline.items.packs`."""

    @abstractmethod
    def encode(self, content: Any) -> bytes:
        """Return the bytes that stand for ``content`` in a pack; equal content gives equal bytes."""

    @abstractmethod
    def decode(self, items: Sequence[bytes]) -> Any:
        """Return the content of one item, or of several joined into one."""


class VideoFormat(FileFormat):
    """Clips as video files, lossless unless configured otherwise: uint8 arrays [frames, height, width, 3].

    The frame rate of a clip is its item's metadata ``fps`` where given, the option otherwise. Records get the columns
    num_frames, fps, height and width, of the stored file (so after enlargement).
    """

    type: Literal["video"] = "video"
    fps: float = Field(default=8.0, gt=0, description="frames per second of clips whose item has no rate")
    codec: Literal["libx264rgb", "libx264"] = Field(
        default="libx264rgb", description="libx264rgb keeps all colours, every browser plays libx264"
    )
    crf: int | None = Field(
        default=None, ge=0, le=51, description="constant rate factor; null: 0 (lossless) for libx264rgb, 18 for libx264"
    )
    preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"] = (
        Field(default="medium", description="the encoder's choice between speed and size")
    )
    enlarge: int = Field(default=1, ge=1, description="edge of the square that each pixel becomes, in pixels")

    extension: ClassVar[str] = ".mp4"

    def write(self, path: Path, content: np.ndarray, item: WorkItem) -> dict[str, Scalar]:
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
        return read_frames(path, own=True)[:, :: self.enlarge, :: self.enlarge]


class SafetensorsFormat(FileFormat):
    """Dictionaries of arrays or tensors; nothing in the file can execute code."""

    type: Literal["safetensors"] = "safetensors"
    framework: Literal["numpy", "torch"] = Field(default="numpy", description="library of the arrays that are read")

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


class TableFormat(PackedFormat):
    """Tables without their index. An item is an Arrow stream in a Zstandard frame; a pack is a sequence of them."""

    type: Literal["table"] = "table"

    extension: ClassVar[str] = ".arrows.zst"

    def encode(self, content: pd.DataFrame) -> bytes:
        import pyarrow as pa

        # Table.from_pandas takes three times as long, for metadata that nothing needs.
        table = pa.table({str(name): pa.array(column, from_pandas=True) for name, column in content.items()})
        # The chunks of a table must not affect its bytes.
        table = table.combine_chunks()
        stream = pa.BufferOutputStream()
        with pa.ipc.new_stream(stream, table.schema) as writer:
            writer.write_table(table)
        return bytes(_codec().compress(stream.getvalue(), asbytes=True))

    def decode(self, items: Sequence[bytes]) -> pd.DataFrame:
        """Return the rows of all items; a column that some items lack is empty in their rows."""
        import pyarrow as pa

        tables = []
        for item in items:
            with (
                pa.input_stream(pa.py_buffer(item), compression="zstd") as stream,
                pa.ipc.open_stream(stream) as reader,
            ):
                tables.append(reader.read_all())
        return pa.concat_tables(tables, promote_options="permissive").to_pandas(use_threads=False)


@cache
def _codec() -> Any:
    import pyarrow as pa

    return pa.Codec("zstd", 1)


class JsonFormat(FileFormat):
    """Plain JSON values; keys are sorted, so equal content gives equal bytes."""

    type: Literal["json"] = "json"

    extension: ClassVar[str] = ".json"

    def write(self, path: Path, content: Any, item: WorkItem) -> dict[str, Scalar]:
        text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        path.write_text(text + "\n", encoding="utf-8", newline="\n")
        return {}

    def read(self, path: Path) -> Any:
        return json.loads(path.read_text(encoding="utf-8"))


AnyFormat = Annotated[VideoFormat | SafetensorsFormat | TableFormat | JsonFormat, Field(discriminator="type")]
_formats: TypeAdapter[ItemFormat] = TypeAdapter(AnyFormat)


def item_format(options: dict[str, Any]) -> ItemFormat:
    """Return the format that ``options`` describe, for instance ``{"type": "video", "fps": 8}``.

    Raises:
        pydantic.ValidationError: the type is unknown, or an option is.
    """
    return _formats.validate_python(options)
