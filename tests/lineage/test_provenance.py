"""The state of data, packages and machine."""

from __future__ import annotations

import hashlib

from vr_pipeline.lineage.provenance import all_packages, lock_hash, machine, package_versions, seeds


def test_a_lock_is_known_by_its_hash(tmp_path):
    lock = tmp_path / "dvc.lock"
    assert lock_hash(lock) == ""
    lock.write_text("stages: {}\n")
    assert lock_hash(lock) == hashlib.sha256(b"stages: {}\n").hexdigest()


def test_versions_and_machine_are_strings():
    assert package_versions(all_packages())["version.torch"].startswith("2.")
    assert all_packages()["kedro"] == package_versions(all_packages())["version.kedro"]
    assert {"cpu", "cpu.cores", "memory.gib", "gpu", "python"} <= set(machine())
    assert all(isinstance(value, str) and value for value in {**package_versions(all_packages()), **machine()}.values())


def test_seeds_are_found_by_name():
    found = seeds({"a.seed": 1, "a.split.salt": "x", "a.noise_seed": 2, "a.seeds_total": 3, "a.steps": 4})
    assert found == {"a.seed": "1", "a.split.salt": "x", "a.noise_seed": "2"}
