"""Embedding models of prompts.

The default, WordLlama (average of trained token vectors, 256 axes), has its weights in its package and needs no network
or torch. The configuration can select any sentence-transformers model.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash
from vr_pipeline.prompts.config import EmbedderParameters
from vr_pipeline.prompts.segments import is_covered
from vr_pipeline.storage.models import check_loading, check_model_files

PACKAGE_PREFIX: Final = "package:"


class Embedder(Protocol):
    """A loaded model."""

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return unit vectors [texts, axes]; a row of zeros for a text without a vector."""
        ...


def embedder_identity(parameters: EmbedderParameters) -> str:
    """Return the hash of the model and the settings that change its vectors, without loading the model."""
    return content_hash(_model_identity(parameters), "covers", *parameters.scripts)


def _model_identity(parameters: EmbedderParameters) -> str:
    if parameters.kind == "wordllama":
        folder = _package_folder("wordllama", "wordllama is a base dependency; install the project again")
        weights = sorted((folder / "weights").glob("*.safetensors"))
        return content_hash(
            "wordllama", importlib.metadata.version("wordllama"), *(part for path in weights for part in _file(path))
        )
    location = _model_location(parameters.model)
    parts: list[str | bytes] = [parameters.model]
    if Path(location).is_dir():
        # The content of a folder can change.
        parts = [part for path in sorted(Path(location).rglob("*")) if _is_model_file(path) for part in _file(path)]
    return content_hash("sentence_transformers", *parts)


def load_embedder(parameters: EmbedderParameters) -> Embedder:
    """Load the configured model.

    Raises:
        InputError: a package or the model is missing.
    """
    model = _LOADERS[parameters.kind](parameters)
    return CoveredEmbedder(model, parameters.scripts) if parameters.scripts else model


class CoveredEmbedder:
    """A model for texts in scripts that it covers; others are rows of zeros.

    WordLlama reads letters beyond Latin as bytes or single characters: the mean cosine of unrelated prompts in Arabic,
    Greek, Hindi or Thai is 0.8 and more.
    """

    def __init__(self, model: Embedder, scripts: Sequence[str]) -> None:
        self._model, self._scripts = model, scripts

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        covered = [index for index, text in enumerate(texts) if is_covered(text, self._scripts)]
        if len(covered) == len(texts):
            return self._model.embed(texts)
        vectors = self._model.embed([texts[index] for index in covered] or ["a"])
        result = np.zeros((len(texts), vectors.shape[1]), dtype=np.float32)
        if covered:
            result[covered] = vectors
        return result


class WordLlamaEmbedder:
    """WordLlama's model in its package (l2_supercat, 256 axes)."""

    def __init__(self, batch_size: int) -> None:
        from wordllama import WordLlama

        folder = _package_folder("wordllama", "install the project again")
        # The package's folder has the layout of its download cache.
        self._model = WordLlama.load(cache_dir=folder, disable_download=True)
        self._batch_size = batch_size

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        vectors = self._model.embed(list(texts), norm=False, batch_size=self._batch_size)
        return unit_rows(np.asarray(vectors, dtype=np.float32))


class SentenceTransformerEmbedder:
    """A sentence-transformers model."""

    def __init__(self, model: str, device: str, batch_size: int) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise InputError(
                "this embedder needs the package sentence-transformers",
                remedy="install the extra 'embedders', or use the kind wordllama",
                field="semantic.embedder.kind",
            ) from error
        place = _model_location(model)
        if Path(place).is_dir():
            check_model_files(Path(place), field="semantic.embedder.model")
        try:
            self._model = SentenceTransformer(
                place, device=device, trust_remote_code=False, model_kwargs={"use_safetensors": True}
            )
        except (OSError, ValueError) as error:
            raise InputError(
                f"the embedding model '{model}' cannot be loaded: {error}",
                remedy="give a model of the hub, a folder with a model, or package:NAME",
                field="semantic.embedder.model",
            ) from error
        _check_weights(self._model[0], place)
        self._batch_size = batch_size

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        vectors = self._model.encode(
            list(texts), batch_size=self._batch_size, convert_to_numpy=True, show_progress_bar=False
        )
        return unit_rows(np.asarray(vectors, dtype=np.float32))


def _check_weights(first_module: Any, place: str) -> None:
    """Check that the encoder's weights are complete, because the library fills gaps with random numbers.

    The file can have weights of other heads, and the pooler is not used.

    Raises:
        InputError: weights are missing or have another shape.
    """
    encoder = getattr(first_module, "auto_model", None)
    if encoder is None:
        return
    modules = Path(place) / "modules.json"
    subfolder = json.loads(modules.read_text(encoding="utf-8"))[0]["path"] if modules.is_file() else ""
    # On "meta", only names and shapes are read.
    _, loading = type(encoder).from_pretrained(
        place,
        subfolder=subfolder,
        use_safetensors=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        device_map="meta",
    )
    check_loading(
        {name: loading[name] for name in ("missing_keys", "mismatched_keys")},
        place,
        field="semantic.embedder.model",
        unused=r"(^|\.)pooler\.",
    )


def unit_rows(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return rows scaled to length 1; rows of zeros or not finite numbers become zeros."""
    vectors = np.where(np.isfinite(vectors).all(axis=1, keepdims=True), vectors, np.float32(0))
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)


def _model_location(model: str) -> str:
    """Return a hub name or folder; for 'package:NAME' the folder of the model in that package."""
    if not model.startswith(PACKAGE_PREFIX):
        return model
    name = model.removeprefix(PACKAGE_PREFIX)
    folder = _package_folder(name, f"install the package that provides the module '{name}'")
    for marker in ("modules.json", "config.json"):
        found = sorted(folder.rglob(marker), key=lambda path: (len(path.parts), str(path)))
        if found:
            return str(found[0].parent)
    raise InputError(
        f"the package '{name}' has no model (a folder with modules.json or config.json)",
        remedy="give a package with a sentence-transformers model",
        field="semantic.embedder.model",
    )


def _package_folder(name: str, remedy: str) -> Path:
    specification = importlib.util.find_spec(name)
    if specification is None or not specification.submodule_search_locations:
        raise InputError(f"the package '{name}' is not installed", remedy=remedy, field="semantic.embedder")
    return Path(next(iter(specification.submodule_search_locations)))


def _is_model_file(path: Path) -> bool:
    return path.is_file() and path.suffix in {".json", ".txt", ".safetensors", ".bin", ".model"}


def _file(path: Path) -> tuple[str, bytes]:
    return path.name, path.read_bytes()


_LOADERS: Final[dict[str, Callable[[EmbedderParameters], Embedder]]] = {
    "wordllama": lambda parameters: WordLlamaEmbedder(parameters.batch_size),
    "sentence_transformers": lambda parameters: SentenceTransformerEmbedder(
        parameters.model, parameters.device, parameters.batch_size
    ),
}
