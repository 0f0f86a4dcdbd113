"""The state of data, packages and machine."""

from __future__ import annotations

import hashlib

from vr_pipeline.lineage.provenance import all_packages, dvc_state, machine, package_versions, seeds


def test_dvc_state_is_the_hash_of_the_lock(tmp_path):
    assert dvc_state(tmp_path) == {}
    (tmp_path / "dvc.lock").write_text("stages: {}\n")
    assert dvc_state(tmp_path) == {"dvc.lock.sha256": hashlib.sha256(b"stages: {}\n").hexdigest()}


def test_versions_and_machine_are_strings():
    assert package_versions()["version.torch"].startswith("2.")
    assert all_packages()["kedro"] == package_versions()["version.kedro"]
    assert {"cpu", "cpu.cores", "memory.gib", "gpu", "python"} <= set(machine())
    assert all(isinstance(value, str) and value for value in {**package_versions(), **machine()}.values())


def test_seeds_are_found_by_name():
    found = seeds({"a.seed": 1, "a.split.salt": "x", "a.noise_seed": 2, "a.seeds_total": 3, "a.steps": 4})
    assert found == {"a.seed": "1", "a.split.salt": "x", "a.noise_seed": "2"}
