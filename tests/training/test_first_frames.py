"""From a file of prompts and images to a policy: every step takes the image that belongs to the prompt."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import tiny_models
from vr_pipeline.datasets.manifest import ManifestFolderDataset
from vr_pipeline.datasets.prompts import PromptFileDataset
from vr_pipeline.errors import InputError
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.plans import plan_clips
from vr_pipeline.identifiers import image_content
from vr_pipeline.items.folder import ItemFolder
from vr_pipeline.items.video_index import index_made_clips
from vr_pipeline.pipelines.prompt_filtering.nodes import clean_prompts, drop_same_words, split_prompts
from vr_pipeline.prompts.config import PromptFilteringParameters
from vr_pipeline.schemas import FilteredPrompts, TrainingPairs
from vr_pipeline.training import step as step_module
from vr_pipeline.training.checkpoint_reward import CheckpointReward
from vr_pipeline.training.conditions import ConditionShards, plan_conditions
from vr_pipeline.training.config import DpoTrainingParameters
from vr_pipeline.training.latents import plan_latents
from vr_pipeline.training.pairs import TrainingPair
from vr_pipeline.training.policies import pair_data, train_policy_on_pairs
from vr_pipeline.training.table import join_pairs, prompts_of
from vr_pipeline.work import WorkPlan

TEXTS = ["a red ball rolls over wet grass", "a red ball rolls over wet grass", "a blue boat crosses the quiet harbour"]
FILTERING = PromptFilteringParameters.model_validate({"semantic": {"enabled": False}})


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """What prompt_filtering makes of three prompts, two of which have the same text and other images."""
    folder = tmp_path_factory.mktemp("raw")
    for number, frame in enumerate(tiny_models.first_frames()):
        Image.fromarray(frame).save(folder / f"{number}.png")
    table = pd.DataFrame({"prompt": TEXTS, "image": [f"{number}.png" for number in range(3)]})
    table.to_csv(folder / "prompts.csv", index=False)
    raw = PromptFileDataset(filepath=str(folder / "prompts.csv"), image_folder=str(folder), min_image_side=32).load()
    clean, _ = clean_prompts(raw, FILTERING)
    distinct, _ = drop_same_words(clean, FILTERING)
    divided, _ = split_prompts(distinct, None, FILTERING)  # type: ignore[arg-type]
    return FilteredPrompts.validate(divided)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> GeneratorParameters:
    folder = tiny_models.save_cogvideox(tmp_path_factory.mktemp("models") / "model", rotary=True, image=True)
    return tiny_models.cogvideox_parameters(folder, family="cogvideox_i2v")


def filled(path: Path, kind: str, plan: WorkPlan) -> ItemFolder:
    dataset = ManifestFolderDataset(path=str(path), format={"type": kind})
    dataset.save(plan)
    return dataset.load()


def test_prompts_keep_their_images_and_a_split_holds_all_prompts_of_an_image(prompts: pd.DataFrame) -> None:
    assert sorted(prompts["prompt"]) == sorted(TEXTS), "other images make other prompts of the same words"
    assert prompts["prompt_id"].is_unique
    twice = pd.concat([prompts, prompts.assign(prompt="another text of some words", prompt_id=prompts["image"])])
    many = pd.concat([twice.assign(image=f"{number}:x" + twice["image"]) for number in range(40)], ignore_index=True)
    many["image"] = many["image"].str.replace(r"^(\d+):x([0-9a-f]+)", r"\1\2", regex=True)
    divided, gone = split_prompts(many, None, FILTERING)  # type: ignore[arg-type]
    assert gone.empty
    assert divided.groupby(divided["image"].map(image_content))["split"].nunique().eq(1).all()
    assert divided["split"].nunique() > 1


def test_clips_conditions_and_pairs_are_of_the_images_and_a_policy_is_trained(
    prompts: pd.DataFrame, settings: GeneratorParameters, tmp_path: Path
) -> None:
    folder = filled(tmp_path / "videos", "video", plan_clips(prompts, settings, videos_per_prompt=2, seed=0))
    index = index_made_clips(folder)
    assert index.set_index("prompt_id")["image"].to_dict() == prompts.set_index("prompt_id")["image"].to_dict()
    wide = index.pivot(index="prompt_id", columns="sample_index", values="video_id").reset_index()
    pairs = wide.rename(columns={0: "winner_video_id", 1: "loser_video_id"})
    rewards = index[["video_id"]].assign(total=np.arange(6.0))
    joined = TrainingPairs.validate(join_pairs({"dpo": pairs}, {"dpo": rewards}, prompts, index))
    needed = prompts_of(joined)
    plan = plan_conditions(needed, joined["prompt_id"].tolist(), settings, 2)
    conditions = filled(tmp_path / "conditions", "safetensors", plan)
    generator, stored = load_generator(settings, ("text_encoder",)), ConditionShards(conditions)
    for row in needed.itertuples():
        frame = np.asarray(Image.open(row.image.partition(":")[2]))
        expected = generator.encode_prompts([row.prompt], [frame])
        for name, value in expected.items():
            np.testing.assert_allclose(stored[row.prompt_id][name], value, atol=1e-5)
    # A shard depends on the image's content and on what its condition is made with.
    other = needed.assign(image=needed["image"].str.replace("^.", "x", regex=True))
    noisy = settings.model_copy(update={"first_frame_noise": True})
    for table, changed in ((other, settings), (needed, noisy), (needed.drop(columns="image"), None)):
        if changed is None:
            with pytest.raises(InputError, match="from a first frame"):
                plan_conditions(table, joined["prompt_id"].tolist(), settings, 2)
            continue
        again = plan_conditions(table, joined["prompt_id"].tolist(), changed, 2)
        assert {item.identity for item in again.items}.isdisjoint(item.identity for item in plan.items)
    latents = filled(
        tmp_path / "latents", "safetensors", plan_latents(folder, index, index["video_id"].tolist(), settings, 4)
    )
    training = {"steps": 2, "batch_size": 2, "warmup_steps": 0, "learning_rate": 1e-2, "beta": 10.0, "threads": 1}
    parameters = DpoTrainingParameters.model_validate({"training": training, "validation": None})
    policy, log = train_policy_on_pairs(pair_data(joined, latents, conditions), settings, parameters)
    assert log["loss"].iloc[0] == pytest.approx(np.log(2.0))
    assert any(bool(value.abs().max() > 0) for name, value in policy.tensors.items() if "lora_B" in name)


def test_checkpoints_are_judged_on_clips_of_the_images(prompts: pd.DataFrame) -> None:
    rows = prompts[["prompt_id", "prompt", "split", "image"]]
    table = CheckpointReward(prompts=rows.to_dict("records")).prompt_table
    pd.testing.assert_frame_equal(table, rows.reset_index(drop=True), check_dtype=False)
    assert list(CheckpointReward(prompts=[]).prompt_table) == ["prompt_id", "prompt", "split"]


def test_segments_are_of_the_latent_frames_that_are_predicted() -> None:
    """As many as the error has frames: those after the given ones, in the same segments as without them."""
    shown = {"frame_axis": 2, "leading_copies": 0, "lone_frames": 1, "parameters": SimpleNamespace(num_frames=17)}
    latents = {"w": torch.zeros(4, 5, 2, 2)}
    pairs = [(TrainingPair("pair", "p", "w", "l", segments=text), 0) for text in ("a,b", "a:1,tie:2,b:1")]
    whole, rest = (
        step_module._segments(SimpleNamespace(**shown, given_frames=given), pairs, latents)  # type: ignore[arg-type]
        for given in (0, 1)
    )
    assert whole.shape == (2, 5)
    assert torch.equal(rest, whole[:, 1:])
