"""Files of checkpoints: how many are kept, damage, a full disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError

from toy_training import Toy
from vr_pipeline.engine.state import TrainingState, keep_newest, load_checkpoint, save_checkpoint
from vr_pipeline.errors import InputError


def test_what_trainings_left_is_kept_by_its_last_use(toy: Toy, tmp_path: Path) -> None:
    weights = toy.generator().add_adapter(rank=2, alpha=4.0, targets=None, seed=0)
    for second, name in enumerate(("old", "used", "new")):
        state = TrainingState(weights, [torch.optim.AdamW(weights)], step=4, finished=True)
        save_checkpoint(tmp_path / f"{name}.safetensors", state, identity=name)
        os.utime(tmp_path / f"{name}.safetensors", (second, second))
        (tmp_path / f"{name}.weights" / "checkpoint").mkdir(parents=True)
        os.utime(tmp_path / f"{name}.weights", (second, second))
    (tmp_path / "notes.txt").write_text("mine")
    load_checkpoint(tmp_path / "used.safetensors", state, identity="used")
    keep_newest(tmp_path, 2)
    keep_newest(tmp_path / "not there", 2)
    left = {"notes.txt", *(f"{name}.{ending}" for name in ("new", "used") for ending in ("safetensors", "weights"))}
    assert {path.name for path in tmp_path.iterdir()} == left
    keep_newest(tmp_path, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_every_flipped_bit_of_a_checkpoint_is_noticed(toy: Toy, tmp_path: Path) -> None:
    weights = toy.generator().add_adapter(rank=2, alpha=4.0, targets=None, seed=0)
    state = TrainingState(weights, [torch.optim.AdamW(weights)], step=4)
    file = tmp_path / "a.safetensors"
    save_checkpoint(file, state, identity="x")
    whole = file.read_bytes()
    load_checkpoint(file, state, identity="x")
    places = [*range(0, 220), *range(220, len(whole), max(1, len(whole) // 200)), len(whole) - 1]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        file.write_bytes(damaged)
        with pytest.raises(InputError, match=r"a\.safetensors: the checkpoint of a training is damaged .* Delete it"):
            load_checkpoint(file, state, identity="x")


def test_a_disk_that_takes_no_checkpoint_is_told_and_the_one_before_is_kept(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = toy.generator().add_adapter(rank=2, alpha=4.0, targets=None, seed=0)
    state = TrainingState(weights, [torch.optim.AdamW(weights)], step=4)
    save_checkpoint(tmp_path / "a.safetensors", state, identity="x")
    before = (tmp_path / "a.safetensors").read_bytes()
    with pytest.raises(InputError, match=r"a\.safetensors: a file stands where a folder should be"):
        save_checkpoint(tmp_path / "a.safetensors" / "b.safetensors", state, identity="x")

    def full(*arguments: object, **options: object) -> None:
        # What the library said on a small file system of its own.
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(InputError, match=r"a\.safetensors: no space is left .* the previous checkpoint is kept"):
        save_checkpoint(tmp_path / "a.safetensors", state, identity="x")
    assert (tmp_path / "a.safetensors").read_bytes() == before
