"""From folders of clips and tables of pairs to a policy, over real manifests."""

from __future__ import annotations

import gc
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from toy_training import Toy
from vr_pipeline.datasets.manifest import ManifestFolderDataset
from vr_pipeline.engine.state import keep_newest
from vr_pipeline.errors import InputError
from vr_pipeline.generators.contract import Generator
from vr_pipeline.generators.plans import plan_clips
from vr_pipeline.generators.policy import Adapter, Start
from vr_pipeline.identifiers import prompt_id
from vr_pipeline.items.folder import ItemFolder
from vr_pipeline.items.video_index import index_made_clips
from vr_pipeline.training import conditions as conditions_module
from vr_pipeline.training import latents as module
from vr_pipeline.training.conditions import ConditionShards, plan_conditions
from vr_pipeline.training.config import DpoTrainingParameters
from vr_pipeline.training.latents import plan_latents
from vr_pipeline.training.policies import pair_data, train_policy_on_pairs
from vr_pipeline.training.preference_trainer import Validation
from vr_pipeline.training.shards import MAPPED_SHARDS, TensorShards
from vr_pipeline.work import WorkItem, WorkPlan


@pytest.fixture(scope="module")
def made(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> tuple[ItemFolder, pd.DataFrame, pd.DataFrame]:
    """Clips of the tiny generator, their index, and the prompts."""
    prompts = pd.DataFrame({"prompt": sorted(toy.conditions)}).assign(
        prompt_id=lambda table: table["prompt"].map(prompt_id)
    )
    dataset = ManifestFolderDataset(
        path=str(tmp_path_factory.mktemp("clips") / "videos"), format={"type": "video", "enlarge": 4}
    )
    dataset.save(plan_clips(prompts, toy.settings, videos_per_prompt=2, seed=0))
    folder = dataset.load()
    return folder, index_made_clips(folder), prompts


def shards(folder: ItemFolder, index: pd.DataFrame, toy: Toy, path: Path, **options: object) -> ItemFolder:
    names = options.pop("names", index["video_id"].tolist())
    dataset = ManifestFolderDataset(path=str(path), format={"type": "safetensors"})
    dataset.save(plan_latents(folder, index, names, toy.settings, 5))  # type: ignore[arg-type]
    return dataset.load()


def encoded_prompts(prompts: pd.DataFrame, toy: Toy, path: Path, **changes: object) -> ItemFolder:
    dataset = ManifestFolderDataset(path=str(path), format={"type": "safetensors"})
    settings = toy.settings.model_copy(update=changes)
    dataset.save(plan_conditions(prompts, prompts["prompt_id"].tolist(), settings, 4))
    return dataset.load()


def pairs_of(index: pd.DataFrame) -> pd.DataFrame:
    wide = index.pivot(index="prompt_id", columns="sample_index", values="video_id").reset_index()
    return wide.rename(columns={0: "winner_video_id", 1: "loser_video_id"}).assign(winner_reward=0.0, loser_reward=0.0)


def test_latents_in_shards_are_those_of_the_clips_and_are_read_one_by_one(
    toy: Toy, made: tuple[ItemFolder, pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    folder, index, _ = made
    stored = TensorShards(shards(folder, index, toy, tmp_path / "latents"))
    assert len(stored) == 12
    assert set(stored) == set(index["video_id"])
    generator = toy.generator()
    for video_id in index["video_id"]:
        expected = generator.encode_frames(folder.load(video_id)[None])[0]
        torch.testing.assert_close(stored[video_id], expected, rtol=0, atol=1e-5)
    with pytest.raises(KeyError):
        stored["unknown"]
    assert "unknown" not in stored


def test_a_changed_clip_makes_its_shard_again_and_no_other(
    toy: Toy,
    made: tuple[ItemFolder, pd.DataFrame, pd.DataFrame],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, index, _ = made
    encoded: list[list[str]] = []
    encode = module._encode

    def spy(generator: object, clips: ItemFolder, video_ids: list[str]) -> object:
        encoded.append(list(video_ids))
        return encode(generator, clips, video_ids)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_encode", spy)
    shards(folder, index, toy, tmp_path / "latents")
    assert [len(members) for members in encoded] == [5, 5, 2]
    encoded.clear()
    # The order of the clips asked for, and asking twice for one, change nothing.
    shards(folder, index, toy, tmp_path / "latents", names=[*index["video_id"][::-1], index["video_id"][0]])
    assert encoded == []
    changed = index.copy()
    third = sorted(index["video_id"])[2]
    changed.loc[changed["video_id"] == third, "sha256"] = "another"
    shards(folder, changed, toy, tmp_path / "latents")
    assert len(encoded) == 1
    assert third in encoded[0]


CHANGES_LATENTS: list[dict[str, object]] = [
    {"dtype": "bfloat16"},
    {"batch_size": 3},
    {"vae_tiling": True},
    {"threads": 3},
    {"device": "cuda"},
    {"family": "cogvideox"},
]
CHANGES_CONDITIONS: list[dict[str, object]] = [
    {"dtype": "bfloat16"},
    {"height": 32},
    {"width": 32},
    {"threads": 3},
    {"device": "cuda"},
    {"family": "cogvideox"},
]


def test_whatever_changes_what_is_encoded_makes_every_shard_anew_and_nothing_else_does(
    toy: Toy, made: tuple[ItemFolder, pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    folder, index, prompts = made
    other_model = tmp_path / "model"
    shutil.copytree(toy.settings.path, other_model)

    def identities(kind: str, **changes: object) -> set[str]:
        settings = toy.settings.model_copy(update=changes)
        if kind == "latents":
            plan = plan_latents(folder, index, index["video_id"].tolist(), settings, 5)
        else:
            plan = plan_conditions(prompts, prompts["prompt_id"].tolist(), settings, 5)
        return {item.identity for item in plan.items}

    for kind, changes in (("latents", CHANGES_LATENTS), ("prompts", CHANGES_CONDITIONS)):
        before = identities(kind)
        for change in changes:
            assert not before & identities(kind, **change), (kind, change)
        # How clips are sampled has no part in what is encoded of them; nor has the place of the model.
        for change in (
            {"num_inference_steps": 9},
            {"guidance_scale": 4.0},
            {"offload": "model"},
            {"path": str(other_model)},
        ):
            assert identities(kind, **change) == before, (kind, change)
    weights = other_model / "transformer" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    for kind in ("latents", "prompts"):
        assert not identities(kind) & identities(kind, path=str(other_model))


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not list what is mapped")
def test_memory_does_not_grow_with_the_number_of_shards(tmp_path: Path) -> None:
    count = 3 * MAPPED_SHARDS

    def make(context: None, batch: list[WorkItem]) -> list[dict[str, torch.Tensor]]:
        number = int(batch[0].key)
        return [{f"{number}/a": torch.full((1000,), float(number)), f"{number}/b": torch.zeros(1000)}]

    dataset = ManifestFolderDataset(path=str(tmp_path / "many"), format={"type": "safetensors"})
    dataset.save(WorkPlan([WorkItem(f"{number:03d}", "1") for number in range(count)], make, description="shards"))
    stored, conditions = TensorShards(dataset.load()), ConditionShards(dataset.load())

    def mapped() -> int:
        maps = Path("/proc/self/maps").read_text().splitlines()
        return len({line.split()[-1] for line in maps if str(tmp_path / "many") in line})

    assert mapped() == 0
    kept = stored["0/a"]
    for number in range(count):
        assert stored[f"{number}/a"][0] == number
        assert conditions[str(number)]["a"][0] == number
    assert 0 < mapped() <= 2 * MAPPED_SHARDS
    # What is in use outlives its shard.
    assert kept.sum() == 0
    open_files = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.exists()]
    assert not [name for name in open_files if str(tmp_path / "many") in name]


def test_text_conditions_are_those_of_the_prompts_and_follow_text_size_and_model(
    toy: Toy,
    made: tuple[ItemFolder, pd.DataFrame, pd.DataFrame],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, _, prompts = made
    stored = ConditionShards(encoded_prompts(prompts, toy, tmp_path / "prompts"))
    assert set(stored) == set(prompts["prompt_id"])
    for name, text in zip(prompts["prompt_id"], prompts["prompt"], strict=True):
        expected = toy.conditions[text]
        assert stored[name].keys() == expected.keys()
        assert all(torch.equal(stored[name][part], expected[part]) for part in expected)

    encoded: list[str] = []
    encode = conditions_module._encode

    def spy(generator: object, texts: dict[str, str], images: object, names: list[str]) -> object:
        encoded.extend(names)
        assert generator.pipeline.vae is generator.pipeline.transformer is None  # type: ignore[attr-defined]
        return encode(generator, texts, images, names)  # type: ignore[arg-type]

    monkeypatch.setattr(conditions_module, "_encode", spy)
    encoded_prompts(prompts.iloc[::-1], toy, tmp_path / "prompts")
    assert encoded == []
    changed = prompts.copy()
    changed.loc[changed["prompt_id"] == max(changed["prompt_id"]), "prompt"] = "red ball rests on black"
    encoded_prompts(changed, toy, tmp_path / "prompts")
    assert sorted(encoded) == sorted(prompts["prompt_id"])[4:]
    for changes in ({"height": 32}, {"dtype": "bfloat16"}):
        encoded.clear()
        encoded_prompts(changed, toy, tmp_path / "prompts", **changes)
        assert sorted(encoded) == sorted(prompts["prompt_id"]), changes


def test_a_prompt_that_is_in_no_table_is_named(toy: Toy) -> None:
    table = pd.DataFrame({"prompt_id": ["a"], "prompt": ["red ball moves left on black"]})
    with pytest.raises(
        InputError, match="1 of 2 prompts of the pairs are not in the table of prompts, for instance 'b'"
    ):
        plan_conditions(table, ["a", "b", "b"], toy.settings, 4)


def test_clips_of_pairs_that_are_gone_are_named(toy: Toy, made: tuple[ItemFolder, pd.DataFrame, pd.DataFrame]) -> None:
    folder, index, _ = made
    one, *others = sorted(index["video_id"])
    with pytest.raises(InputError, match=r"1 of 2 clips of the pairs are not among .*, for instance 'of another run'"):
        plan_latents(folder, index, [one, "of another run"], toy.settings, 4)
    with pytest.raises(InputError, match=f"11 of 12 clips of the pairs .*, for instance '{others[0]}'"):
        plan_latents(folder, index[index["video_id"] == one], [one, *others], toy.settings, 4)


def encoders() -> set[int]:
    """Return the autoencoders and text encoders in memory, those of fixtures included."""
    gc.collect()
    return {id(thing) for thing in gc.get_objects() if type(thing).__name__ in ("PatchVAE", "T5EncoderModel")}


class OnlyTheDenoiserIsThere:
    """A validation that judges nothing, and looks whether autoencoder and text encoder are gone while training."""

    def __init__(self) -> None:
        self._before = encoders()

    def judging(self, generator: Generator) -> Validation:
        def look(step: int) -> None:
            assert generator.pipeline.vae is None  # type: ignore[attr-defined]
            assert generator.pipeline.text_encoder is None  # type: ignore[attr-defined]
            assert encoders() <= self._before

        look(0)
        with generator.encoders():
            assert generator.pipeline.text_encoder is not None  # type: ignore[attr-defined]
        return Validation(look)


def test_a_policy_is_trained_from_tables_and_the_same_every_time(
    toy: Toy, made: tuple[ItemFolder, pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    folder, index, prompts = made
    latents = shards(folder, index, toy, tmp_path / "latents")
    texts = encoded_prompts(prompts, toy, tmp_path / "prompts")
    pairs = pairs_of(index)
    parameters = DpoTrainingParameters(
        training=toy.parameters(checkpoint_every=4), checkpoint_folder=str(tmp_path / "checkpoints")
    )
    given = (toy.settings, parameters)
    adapter, log = train_policy_on_pairs(pair_data(pairs, latents, texts), *given, validation=OnlyTheDenoiserIsThere())
    keep_newest(tmp_path / "checkpoints", 0)
    again, _ = train_policy_on_pairs(pair_data(pairs.sample(frac=1, random_state=1), latents, texts), *given)
    assert again.identity == adapter.identity
    assert again.provenance == adapter.provenance
    assert log["loss"].iloc[0] == torch.tensor(2.0).log().item()
    assert "velocity space" in adapter.provenance["objective"]["error"]
    assert adapter.config["lora_alpha"] == 4.0
    # Winner and loser changed places: another policy.
    turned = pairs.rename(columns={"winner_video_id": "loser_video_id", "loser_video_id": "winner_video_id"})
    other, _ = train_policy_on_pairs(pair_data(turned, latents, texts), *given)
    assert other.identity != adapter.identity
    # What is missing is reported before anything is judged.
    for nothing, told in (({"pairs": pairs[:0]}, "no preference pairs"), ({"latents": texts}, "have no latents")):
        told_of = {"pairs": pairs, "latents": latents} | nothing
        with pytest.raises(InputError, match=told):
            pair_data(told_of["pairs"], told_of["latents"], texts)
    # It fits the generator it was trained on.
    generator = toy.generator()
    original = generator.sample(prompts["prompt"].tolist(), list(range(6)))
    generator.load_policy(adapter)
    assert not np.array_equal(generator.sample(prompts["prompt"].tolist(), list(range(6))), original)


def test_a_training_starts_with_a_policy_and_compares_with_it_or_with_the_original(
    toy: Toy, made: tuple[ItemFolder, pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    folder, index, prompts = made
    first, rest = index["video_id"].tolist()[:4], index["video_id"].tolist()[4:]
    # The clips of earlier rounds lie in other folders.
    latents = [
        shards(folder, index, toy, tmp_path / f"latents{number}", names=names)
        for number, names in enumerate((first, rest))
    ]
    data = pair_data(pairs_of(index), latents, encoded_prompts(prompts, toy, tmp_path / "prompts"))
    last, _ = train_policy_on_pairs(data, toy.settings, DpoTrainingParameters(training=toy.parameters()))
    assert isinstance(last, Adapter)
    # A step of almost no length leaves the policy where it started.
    still = DpoTrainingParameters(training=toy.parameters(steps=1, warmup_steps=0, learning_rate=1e-12))
    starts = {"renewed": Start(last, renewed=True), "kept": Start(last), "none": None}
    made_of = {name: train_policy_on_pairs(data, toy.settings, still, start=start) for name, start in starts.items()}
    losses = {name: log["loss"].iloc[0] for name, (_, log) in made_of.items()}
    assert losses["renewed"] == pytest.approx(math.log(2), abs=1e-6)
    assert abs(losses["kept"] - math.log(2)) > 1e-4
    for name in ("renewed", "kept"):
        policy = made_of[name][0]
        assert all(torch.allclose(policy.tensors[key], value, atol=1e-9) for key, value in last.tensors.items())
    identities = {policy.provenance["training"]["identity"] for policy, _ in made_of.values()}
    assert len(identities) == 3
    # The reference is frozen while the policy moves away from it.
    moved, log = train_policy_on_pairs(
        data, toy.settings, DpoTrainingParameters(training=toy.parameters()), start=starts["renewed"]
    )
    assert moved.identity != last.identity
    assert log["loss"].iloc[-1] != pytest.approx(math.log(2), abs=1e-4)
    other = DpoTrainingParameters(training=toy.parameters(lora={"rank": 3, "alpha": 4.0}))
    with pytest.raises(InputError, match="r differ from the settings"):
        train_policy_on_pairs(data, toy.settings, other, start=starts["kept"])


def test_clips_and_prompts_for_which_encoders_give_no_numbers_are_set_aside_with_their_pairs(
    toy: Toy,
    made: tuple[ItemFolder, pd.DataFrame, pd.DataFrame],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from vr_pipeline.training.pairs import TrainingPair, without

    folder, index, prompts = made
    lost = sorted(index["video_id"])[1]
    rows = {name: row for row, name in enumerate(sorted(index["video_id"]))}
    encode = type(toy.generator()).encode_frames
    seen = []

    def overflow(generator: object, clips: np.ndarray) -> torch.Tensor:
        latents = encode(generator, clips)  # type: ignore[arg-type]
        for row in range(len(latents)):
            if len(seen) == rows[lost]:
                latents[row, 0] = float("inf")
            seen.append(row)
        return latents

    monkeypatch.setattr(type(toy.generator()), "encode_frames", overflow)
    stored = TensorShards(shards(folder, index, toy, tmp_path / "latents"))
    assert stored.set_aside == {lost}
    assert set(stored) == set(index["video_id"]) - {lost}
    assert all(value.isfinite().all() for value in stored.values())
    assert f"for instance '{lost}'" in caplog.text

    first = str(prompts["prompt_id"].iloc[0])
    encode_prompts = type(toy.generator()).encode_prompts

    def no_numbers(generator: object, texts: list[str]) -> dict[str, torch.Tensor]:
        parts = encode_prompts(generator, texts)  # type: ignore[arg-type]
        row = texts.index(prompts["prompt"].iloc[0]) if prompts["prompt"].iloc[0] in texts else None
        if row is not None:
            parts["prompt_embeddings"][row] = float("nan")
        return parts

    monkeypatch.setattr(type(toy.generator()), "encode_prompts", no_numbers)
    texts = ConditionShards(encoded_prompts(prompts, toy, tmp_path / "prompts"))
    assert texts.set_aside == {first}
    assert first not in texts

    others = [name for name in stored if name != lost]
    second = str(prompts["prompt_id"].iloc[1])
    pairs = [
        TrainingPair("kept", second, others[0], others[1]),
        TrainingPair("clip", second, others[0], lost),
        TrainingPair("prompt", first, others[0], others[1]),
    ]
    assert [pair.pair_id for pair in without(pairs, stored.set_aside, texts.set_aside)] == ["kept"]
    assert "2 of 3 pairs are left out" in caplog.text
    with pytest.raises(InputError, match="all 2 pairs"):
        without(pairs[1:], stored.set_aside, texts.set_aside)
