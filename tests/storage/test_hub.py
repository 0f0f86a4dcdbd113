"""Models on the hub: the cache is looked at, and the hub is asked once, for seconds."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from vr_pipeline.storage.hub import is_cached, unavailable

NAME, COMMIT = "owner/model", "a" * 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub's client with one model, as the client lays it out."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    folder = tmp_path / "models--owner--model" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, **options: _snapshot(tmp_path, name, **options)
    )
    return folder


def _snapshot(cache: Path, name: str, **options: Any) -> str:
    from huggingface_hub import _snapshot_download

    return str(_snapshot_download.snapshot_download(name, cache_dir=cache, **options))


def answering(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[str]:
    """Let the hub give an answer, or raise it; the names that were asked for."""
    asked: list[str] = []

    def ask(self: Any, name: str, *, revision: str | None, timeout: float) -> Any:
        asked.append(name)
        assert timeout <= 10
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", ask)
    return asked


def test_a_model_in_the_cache_needs_no_hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, OSError("no network"))
    assert unavailable([(NAME, COMMIT)]) == {}
    assert asked == []


def test_a_cache_without_all_weights_is_none(cache: Path) -> None:
    assert is_cached(NAME, COMMIT)
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (cache / "model.safetensors.index.json").write_text(json.dumps(index))
    assert not is_cached(NAME, COMMIT)
    (cache / "model-2.safetensors").write_bytes(b"")
    assert is_cached(NAME, COMMIT)
    assert not is_cached(NAME, "b" * 40)
    assert not is_cached("owner/other", None)


def test_a_hub_that_does_not_answer_is_asked_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, ConnectionError("no route"))
    reasons = unavailable([("owner/one", None), ("owner/two", COMMIT), (NAME, COMMIT)])
    assert asked == ["owner/one"]
    assert set(reasons) == {("owner/one", None), ("owner/two", COMMIT)}
    assert all("not in the cache" in reason and "no answer (ConnectionError)" in reason for reason in reasons.values())


def test_offline_is_offline(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, SimpleNamespace(gated=False))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in unavailable([("owner/one", None)])["owner/one", None]
    assert asked == []


def test_what_the_hub_has_and_has_not(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, SimpleNamespace(gated=False))
    assert unavailable([("owner/one", None)]) == {}
    answering(monkeypatch, SimpleNamespace(gated="auto"))
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert "HF_TOKEN" in unavailable([("owner/one", None)])["owner/one", None]
