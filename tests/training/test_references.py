"""Kept errors of the original: the same numbers, computed once, for other recipes too, and found again after a kill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from toy_training import Toy, largest_difference, train
from vr_pipeline.errors import InputError
from vr_pipeline.training import references as module
from vr_pipeline.training.preference_trainer import train_on_pairs
from vr_pipeline.training.references import ReferenceErrors
from vr_pipeline.training.step import collate


def count_computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note which pairs the original is asked about."""
    asked: list[str] = []
    computed = ReferenceErrors._computed

    def noted(self: ReferenceErrors, pair: object, epoch: int) -> torch.Tensor:
        asked.append(f"{pair.pair_id} {epoch}")  # type: ignore[attr-defined]
        return computed(self, pair, epoch)  # type: ignore[arg-type]

    monkeypatch.setattr(ReferenceErrors, "_computed", noted)
    return asked


def test_kept_errors_are_the_originals_in_the_order_of_a_batch(toy: Toy) -> None:
    generator = toy.generator()
    for value in generator.add_adapter(rank=2, alpha=4.0, targets=None, seed=0):
        value.data += 0.1
    parameters = toy.parameters(reference_draws=2)
    kept = ReferenceErrors(generator, toy.data, parameters, None)
    chosen = [(toy.pairs[4], 0), (toy.pairs[1], 3)]
    batch = collate(generator, chosen, toy.data, parameters)
    with torch.no_grad(), generator.reference():
        expected = generator.residuals(batch.latents, batch.noise, batch.timesteps, batch.condition)
    torch.testing.assert_close(kept.of(chosen), torch.stack([expected.error(), expected.norm()]))
    assert torch.equal(kept.of(chosen[::-1]).view(2, 2, 2).flip(2).flatten(1), kept.of(chosen))
    assert len(kept) == 2
    kept.of([(toy.pairs[1], 1), (toy.pairs[1], 5)])
    assert len(kept) == 2, "epochs 1, 3 and 5 have the same draw of two"
    kept.of([(toy.pairs[1], 2)])
    assert len(kept) == 3


def test_the_original_is_asked_once_for_every_pair_and_draw(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = count_computed(monkeypatch)
    first = toy.generator()
    parameters = toy.parameters(reference_draws=1)
    log = train_on_pairs(first, toy.data, parameters, checkpoint=tmp_path / "a.safetensors")
    assert len(asked) == len(toy.pairs), "four epochs"
    assert log["loss"].iloc[0] == pytest.approx(np.log(2), rel=1e-5)
    # Another objective on other pairs of the same clips computes nothing again, and gets what it would alone.
    asked.clear()
    other = replace(toy.data, pairs=toy.pairs[:4])
    again = toy.generator()
    changed = toy.parameters(reference_draws=1, loss="ipo")
    kept = train_on_pairs(again, other, changed, checkpoint=tmp_path / "b.safetensors")
    assert not asked
    alone = toy.generator()
    assert train_on_pairs(alone, other, changed).equals(kept)
    assert alone.policy().identity == again.policy().identity
    [file] = (tmp_path / "reference_errors").iterdir()
    file.write_bytes(b"damaged")
    with pytest.raises(InputError, match="stored errors of the original are damaged"):
        train_on_pairs(toy.generator(), other, changed, retrain=True, checkpoint=tmp_path / "b.safetensors")


def test_a_changed_clip_prompt_or_seed_finds_nothing(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = count_computed(monkeypatch)
    monkeypatch.setattr(module, "_UNSAVED", 1)
    parameters = toy.parameters(reference_draws=1)
    chosen = [(pair, 0) for pair in toy.pairs[:2]]
    generator = toy.generator()
    generator.add_adapter(rank=2, alpha=4.0, targets=None, seed=0)
    ReferenceErrors(generator, toy.data, parameters, tmp_path).of(chosen)
    assert len(asked) == 2
    ReferenceErrors(generator, toy.data, parameters, tmp_path).of(chosen)
    assert len(asked) == 2
    clip = replace(toy.data, latents=dict(toy.latents) | {"w0": toy.latents["w0"] + 1})
    ReferenceErrors(generator, clip, parameters, tmp_path).of(chosen)
    assert asked[2:] == ["pair 0 0"]
    ReferenceErrors(generator, toy.data, toy.parameters(reference_draws=1, seed=1), tmp_path).of(chosen)
    assert len(asked) == 5


def test_draws_that_are_used_in_turn_train_almost_like_fresh_ones(toy: Toy) -> None:
    fresh, log = train(toy, steps=3, batch_size=2)
    kept, other = train(toy, steps=3, batch_size=2, reference_draws=4)
    assert largest_difference(fresh, kept) < 1e-4, "within the first epoch the draws are the same"
    np.testing.assert_allclose(log["loss"], other["loss"], rtol=1e-4)
    with pytest.raises(ValidationError, match="needs full predictions"):
        toy.parameters(loss="nft", reference_draws=1)
