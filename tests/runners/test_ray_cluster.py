"""The Ray of a run: its token is private, it is its own, and an address that nobody answers at fails at once."""

from __future__ import annotations

import os
import socket
import stat
import time
from pathlib import Path

import pytest

from vr_pipeline.errors import InputError
from vr_pipeline.runners.config import RayCluster
from vr_pipeline.runners.ray_token import keep_token_private


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_new_token_is_for_its_owner_alone(home: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        keep_token_private()
    finally:
        os.umask(before)
    token = home / ".ray" / "auth_token"
    assert (mode(token), mode(token.parent)) == (0o600, 0o700)
    assert len(token.read_text()) == 64
    kept = token.read_text()
    keep_token_private()
    assert token.read_text() == kept


def test_an_open_token_is_closed_and_kept(home: Path) -> None:
    token = home / ".ray" / "auth_token"
    token.parent.mkdir()
    token.parent.chmod(0o755)
    token.write_text("abc")
    token.chmod(0o644)
    keep_token_private()
    assert (mode(token), mode(token.parent), token.read_text()) == (0o600, 0o700, "abc")


def test_a_token_of_the_users_own(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = home / "tokens" / "mine"
    own.parent.mkdir()
    own.parent.chmod(0o755)
    own.write_text("abc")
    own.chmod(0o640)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(own))
    keep_token_private()
    assert (mode(own), mode(own.parent)) == (0o600, 0o755)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "abc")
    keep_token_private()
    assert not (home / ".ray").exists()


def test_a_token_that_cannot_be_made_is_told(home: Path) -> None:
    (home / ".ray").write_text("no folder")
    with pytest.raises(InputError, match="token cannot be protected"):
        keep_token_private()


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "nonsense", "ray://127.0.0.1"])
def test_an_address_without_a_cluster_fails_at_once(address: str) -> None:
    pytest.importorskip("ray")
    from vr_pipeline.runners.ray_backend import connected

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    began = time.monotonic()
    with (
        pytest.raises(InputError, match="cannot be reached") as caught,
        connected(RayCluster(address=address.format(port))),
    ):
        pass
    assert caught.value.field == "ray.address"
    assert time.monotonic() - began < 20


def test_a_ray_of_its_own_whatever_runs_elsewhere(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray is instructed to start a cluster; RAY_ADDRESS and clusters that others started are ignored."""
    ray = pytest.importorskip("ray")
    from vr_pipeline.runners.ray_backend import connected

    given = {}
    monkeypatch.setattr(ray, "init", lambda **options: given.update(options, seen=dict(os.environ)))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    for name, value in {"RAY_ADDRESS": "127.0.0.1:1", "RAY_AUTH_MODE": "disabled"}.items():
        monkeypatch.setenv(name, value)
    with connected(RayCluster(num_cpus=1)):
        pass
    assert given["address"] == "local"
    assert not {"RAY_ADDRESS", "RAY_AUTH_MODE"} & set(given["seen"])
