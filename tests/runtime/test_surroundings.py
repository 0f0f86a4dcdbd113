"""Errors of the machine and the shell are one sentence with what to do."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from toy_project import kedro, make_project
from vr_pipeline.checklist import load_checklist
from vr_pipeline.project.explain import explain
from vr_pipeline.runtime.surroundings import surroundings_account

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        ImportError("lib.so: failed to map segment from shared object"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    ],
)
def test_too_little_memory(error: Exception) -> None:
    told = explain(error)
    assert told is not None
    assert told.startswith("There is not enough memory")
    assert "\n" not in told


def test_no_further_threads() -> None:
    told = explain(RuntimeError("can't start new thread"))
    assert told is not None
    assert "ulimit" in told


@pytest.mark.parametrize("error", [RuntimeError("a bug"), ImportError("No module named x"), OSError(errno.EIO, "bad")])
def test_other_errors_are_left_alone(error: Exception) -> None:
    assert surroundings_account(error) is None


def test_recursion_of_the_program_is_no_deep_file() -> None:
    def endless(number: int) -> int:
        return endless(number + 1)

    with pytest.raises(RecursionError) as caught:
        endless(0)
    assert surroundings_account(caught.value) is None


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_deep_files_are_named(tmp_path: Path, opening: str) -> None:
    path = tmp_path / "deep [1].yml"
    path.write_text("name: " + opening * 4000 if opening != "- " else opening * 4000 + "x")
    with pytest.raises((RecursionError, yaml.YAMLError, Exception)) as caught:
        load_checklist(path)
    told = explain(caught.value)
    assert told is not None
    assert "deep [1].yml" in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("toy: " + "[" * 3000 + "]" * 3000, "nested too deeply"),
        ("toy: {rows: [1\n", "Invalid YAML"),
        ("toy: ${nothing}\n", "Interpolation key 'nothing' not found (at toy)"),
    ],
)
def test_a_run_names_the_file_that_cannot_be_read(tmp_path: Path, text: str, told: str) -> None:
    folder = make_project(tmp_path)
    (folder / "conf" / "local" / "parameters.yml").write_text(text)
    run = kedro(folder, "run")
    assert run.returncode == 1
    assert told in run.stderr
    assert "Traceback" not in run.stderr
    assert "error of the program" not in run.stderr


def test_omegaconf_and_yaml_are_explained() -> None:
    with pytest.raises(Exception, match="not found") as caught:
        OmegaConf.to_container(OmegaConf.create({"a": "${b}"}), resolve=True)
    assert "cannot be resolved" in str(explain(caught.value))


@pytest.mark.parametrize("arguments", [("--help",), ("init", "x"), ("--pipeline=mpo_dpo",)])
def test_a_deleted_working_directory_is_one_sentence(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    gone = tmp_path / "gone"
    code = "import os, sys; os.rmdir(os.getcwd()); from vr_pipeline.__main__ import main; main()"
    gone.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=gone,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert (
        done.stderr.strip() == "The working directory no longer exists. Change to the project's folder and try again."
    )


_LIMITED = """
import resource
import numpy as np

with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
# Spare enough for the message: which allocation fails does not depend on the machine.
resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, resource.RLIM_INFINITY))
limit = resource.getrlimit(resource.RLIMIT_AS)[0] / 2**30
from vr_pipeline.project.explain import explain
try:
    np.empty(2**40, np.uint8)
except Exception as error:
    print(f"(ulimit -v allows {limit:.2f} GiB)" in explain(error), explain(error))
"""


def test_a_limited_address_space_is_one_sentence() -> None:
    pytest.importorskip("resource")
    if not Path("/proc/self/statm").is_file():
        pytest.skip("the size of the address space is read from /proc")
    done = subprocess.run([sys.executable, "-c", _LIMITED], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("True There is not enough memory (ulimit -v allows ")
    assert done.stdout.count("\n") == 1


def test_a_failed_allocation_of_an_exception_is_memory_under_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    for text in ("error return without exception set", "<built-in x> returned NULL without setting an exception"):
        monkeypatch.setattr(resource, "getrlimit", lambda _: (300 * 2**20, 300 * 2**20))
        assert "not enough memory (ulimit -v allows 0.29 GiB)" in str(explain(SystemError(text)))
        monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert explain(SystemError(text)) is None


@pytest.mark.parametrize("name", ["it's", 'a "b"', "a,b", "a)b", "a'\"b"])
def test_paths_in_messages_are_whole(tmp_path: Path, name: str) -> None:
    from kedro.io import DataCatalog, DatasetError

    folder = tmp_path / name
    folder.mkdir()
    (folder / "table.parquet").write_text("no table")
    entry = {"type": "pandas.ParquetDataset", "filepath": str(folder / "table.parquet")}
    with pytest.raises(DatasetError) as caught:
        DataCatalog.from_config({"table": entry}).load("table")
    assert f"file {folder / 'table.parquet'}: " in str(explain(caught.value))
