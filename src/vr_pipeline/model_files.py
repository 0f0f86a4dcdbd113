"""Which files of a model may be read."""

from __future__ import annotations

from pathlib import Path

from vr_pipeline.errors import InputError

_PICKLED = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
_LENGTH_BYTES = 8
_LONGEST_HEADER = 100_000_000


def check_model_files(folder: Path, *, field: str) -> None:
    """Refuse weights that are not safetensors, whatever their names, before any library looks at them.

    Pickled weights can run code when they are read. A pickle that lies beside safetensors is never read and does no
    harm.

    Args:
        folder: a model's folder, with its parts in it or in folders of their own.
        field: parameter that names the folder, for the message.

    Raises:
        InputError: if a part has only pickled weights, or a file named safetensors is none.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    safe = [path for path in files if path.suffix == ".safetensors"]
    for path in safe:
        if not _is_safetensors(path):
            raise InputError(
                "this is no safetensors file, whatever its name says",
                file=path,
                field=field,
                remedy="fetch the model again; only safetensors are read, because pickled weights can run code",
            )
    with_safe_weights = {path.parent for path in safe}
    for path in files:
        if path.suffix in _PICKLED and path.parent not in with_safe_weights:
            raise InputError(
                "these weights are pickled, and reading them could run code; only safetensors are read",
                file=path,
                field=field,
                remedy="convert them on a machine where you trust them: load the model with its own library and save "
                "it again with save_pretrained",
            )


def _is_safetensors(path: Path) -> bool:
    """Whether a file begins as the format says: the header's length in 8 bytes, then a header in JSON that fits."""
    with path.open("rb") as stream:
        start = stream.read(_LENGTH_BYTES + 1)
    length = int.from_bytes(start[:_LENGTH_BYTES], "little")
    fits = length <= min(_LONGEST_HEADER, path.stat().st_size - _LENGTH_BYTES)
    return fits and start[_LENGTH_BYTES:] == b"{"
