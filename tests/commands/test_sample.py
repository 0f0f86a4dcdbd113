"""kedro sample: clips of a prompt, steered or not, with their scores."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

import tiny_models
from vr_pipeline.commands import sample as command_line
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.config import GeneratorParameters, GuidanceReward
from vr_pipeline.generators.contract import weights_identity
from vr_pipeline.generators.latent_reward import LatentReward, LatentRewardSettings
from vr_pipeline.identifiers import prompt_id, sample_seed
from vr_pipeline.items.manifest import read_manifest
from vr_pipeline.video.read import read_frames

PROMPT = "red ball moves left on black"
CLIPS = {"type": "video", "fps": 8, "codec": "libx264rgb", "enlarge": 2}


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> GeneratorParameters:
    return tiny_models.micro_world_parameters(tiny_models.save_micro_world(tmp_path_factory.mktemp("model") / "micro"))


@pytest.fixture(scope="module")
def latent_reward(generator: GeneratorParameters, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reward")
    settings = {"dimensions": ("motion", "text"), "network": {"blocks": 1}, "base": weights_identity(generator)}
    LatentReward(load_generator(generator), LatentRewardSettings.model_validate(settings), seed=1).save(folder)
    return folder


@pytest.fixture
def run(generator: GeneratorParameters, latent_reward: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the command in an environment; keywords change what the environment says."""

    def command(*arguments: str, reward: Path | None = latent_reward, **changes: Any) -> Any:
        parameters = {"generator": generator.model_dump(by_alias=True) | changes}
        project = command_line._Project(parameters, {"data": "data", "clips": CLIPS}, tmp_path, reward)
        monkeypatch.setattr(command_line, "_open", lambda env: project)
        return CliRunner().invoke(command_line.sample, [PROMPT, *arguments])

    return command


def clips_of(result: Any) -> np.ndarray:
    document = json.loads(result.stdout)
    return np.stack([read_frames(Path(document["folder"]) / row["file"]) for row in document["clips"]])[:, :, ::2, ::2]


def test_clips_are_those_of_their_seeds_and_lie_with_a_manifest(run: Any, generator: GeneratorParameters) -> None:
    result = run("--count", "3", "--seed", "5", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert [row["file"] for row in document["clips"]] == ["01.mp4", "02.mp4", "03.mp4"]
    assert "reward_model" in document["notes"][0]
    records = read_manifest(Path(document["folder"]) / "manifest.json").items
    seeds = [sample_seed(5, prompt_id(PROMPT), number) for number in range(3)]
    assert [record.metadata["seed"] for record in records] == seeds
    expected = load_generator(generator).sample([PROMPT] * 3, seeds)
    assert np.array_equal(clips_of(result), expected)
    # Asked again, nothing is made again.
    times = {path: path.stat().st_mtime_ns for path in Path(document["folder"]).iterdir()}
    assert json.loads(run("--count", "3", "--seed", "5", "--json").stdout) == document
    assert {path: path.stat().st_mtime_ns for path in Path(document["folder"]).iterdir()} == times


def test_weights_steer_and_0_does_not(run: Any, generator: GeneratorParameters, latent_reward: Path) -> None:
    plain = run("--count", "2", "--json")
    off = run("--count", "2", "--json", "--reward-weights", "motion=1", "--scale", "0")
    steered = run("--count", "2", "--json", "--reward-weights", "motion=0.7, text=-0.3", "--scale", "30")
    assert np.array_equal(clips_of(plain), clips_of(off))
    settings = {"model": str(latent_reward), "weights": {"motion": 0.7, "text": -0.3}, "scale": 30.0}
    guided = generator.model_copy(update={"guidance_reward": GuidanceReward.model_validate(settings)})
    seeds = [sample_seed(0, prompt_id(PROMPT), number) for number in range(2)]
    expected = load_generator(guided).sample([PROMPT] * 2, seeds)
    assert np.array_equal(clips_of(steered), expected)
    assert not np.array_equal(clips_of(plain), expected)
    assert set(json.loads(steered.stdout)["clips"][0]) == {"file", "latent motion", "latent text"}
    assert json.loads(plain.stdout)["folder"] != json.loads(steered.stdout)["folder"]
    # The configured guidance, of which the command line changes the scale alone.
    again = run("--count", "2", "--json", "--scale", "30", guidance_reward=settings | {"scale": 1.0})
    assert np.array_equal(clips_of(again), expected)


def test_the_table_has_latent_scores_and_rewards(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rewards = pd.DataFrame({"total": [1.5, -2.5], "dim_text": [0.25, 0.75]})
    monkeypatch.setattr(command_line, "_rewards", lambda project, files, prompt: rewards)
    result = run("--count", "2")
    assert result.exit_code == 0, result.output
    head, first, second = result.stdout.splitlines()[:3]
    assert head.split() == ["file", "latent", "motion", "latent", "text", "text", "total"]
    assert first.split()[0] == "01.mp4"
    assert second.split()[-2:] == ["+0.750", "-2.500"]


def test_scores_are_those_of_the_latent_reward_near_the_clip(
    run: Any, generator: GeneratorParameters, latent_reward: Path
) -> None:
    import torch

    result = run("--count", "2", "--json")
    rows = json.loads(result.stdout)["clips"]
    loaded = load_generator(generator)
    reward = LatentReward.load(latent_reward, loaded)
    latents = loaded.encode_frames(clips_of(result))
    condition = {name: value.expand(2, -1, -1) for name, value in loaded.encode_prompts([PROMPT]).items()}
    with torch.no_grad():
        clean = reward.scores(latents, torch.tensor([0, 0]), condition).numpy()
    shown = np.array([[row["latent motion"], row["latent text"]] for row in rows])
    assert abs(shown - clean).max() < 0.5 * abs(clean[0] - clean[1]).max() + 0.05


def test_a_policy_is_loaded(run: Any, generator: GeneratorParameters, tmp_path: Path) -> None:
    from vr_pipeline.datasets.policy import PolicyDataset

    trained = load_generator(generator)
    for value in trained.add_adapter(rank=2, alpha=2.0, targets=None, seed=0):
        value.data = value.data + 0.3
    PolicyDataset(path=str(tmp_path / "policy")).save(trained.policy())
    result = run("--count", "2", "--json", "--policy", str(tmp_path / "policy"))
    seeds = [sample_seed(0, prompt_id(PROMPT), number) for number in range(2)]
    assert np.array_equal(clips_of(result), trained.sample([PROMPT] * 2, seeds))


def test_what_cannot_be_done_is_said(run: Any, tmp_path: Path) -> None:
    for arguments, said in (
        (["--reward-weights", "motion"], "is not DIMENSION=WEIGHT"),
        (["--reward-weights", "motion=much"], "is not DIMENSION=WEIGHT"),
        (["--scale", "2"], "--reward-weights"),
        (["--policy", str(tmp_path / "nowhere")], "does not exist"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2, result.output
        assert said in result.output
    missing = run("--reward-weights", "motion=1", reward=None)
    assert missing.exit_code == 1
    assert "latent_reward_training" in missing.output
    unknown = run("--reward-weights", "speed=1")
    assert unknown.exit_code == 1
    assert "motion, text" in unknown.output


def test_clips_of_another_command_are_not_removed(run: Any, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    assert run("--count", "2", "--out", str(out)).exit_code == 0
    kept = {path.name: path.read_bytes() for path in out.glob("*.mp4")}
    other = run("--count", "2", "--seed", "1", "--out", str(out))
    assert other.exit_code == 1
    assert "choose another folder" in other.output.lower()
    assert {path.name: path.read_bytes() for path in out.glob("*.mp4")} == kept
    # More of the same are made beside them.
    assert run("--count", "3", "--out", str(out)).exit_code == 0
    assert {name: (out / name).read_bytes() for name in kept} == kept


def test_a_clip_that_failed_is_named(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from vr_pipeline.generators.diffusers_pipeline import PipelineGenerator
    from vr_pipeline.work import ItemFailure

    sample_each = PipelineGenerator.sample_each

    def losing(self: Any, prompts: Any, seeds: Any) -> Any:
        return [ItemFailure("no numbers"), *sample_each(self, prompts, seeds)[1:]]

    monkeypatch.setattr(PipelineGenerator, "sample_each", losing)
    result = run("--count", "2")
    assert result.exit_code == 1
    assert "01" in result.stdout
    assert "not made: no numbers" in result.stdout


def test_an_environment_is_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from kedro.io import DataCatalog

    catalog = DataCatalog()
    context = SimpleNamespace(
        params={"generator": {}}, catalog=catalog, config_loader={"globals": {"data": "d"}}, project_path=str(tmp_path)
    )
    monkeypatch.setattr("vr_pipeline.project.folder.project_context", lambda env: context)
    opened = command_line._open("base")
    assert opened.latent_reward is None
    assert opened.folder == tmp_path


def test_clips_start_from_the_image_that_is_given(run: Any, tmp_path: Path) -> None:
    folder = tiny_models.save_cogvideox(tmp_path / "model", rotary=True, image=True)
    parameters = tiny_models.cogvideox_parameters(folder, family="cogvideox_i2v")
    frame = tiny_models.first_frames(1)[0]
    images = [tmp_path / name for name in ("one.png", "same.png", "other.png", "text.txt")]
    for path, pixels in zip(images, (frame, frame, 255 - frame), strict=False):
        Image.fromarray(pixels).save(path)
    images[3].write_text("no image")
    settings = {**parameters.model_dump(by_alias=True), "reward": None}
    made = [json.loads(run("--count", "1", "--json", "--image", str(path), **settings).stdout) for path in images[:3]]
    record = read_manifest(Path(made[0]["folder"]) / "manifest.json").items[0]
    clip = read_frames(Path(made[0]["folder"]) / made[0]["clips"][0]["file"])[:, ::2, ::2]
    assert np.array_equal(clip, load_generator(parameters).sample([PROMPT], [record.metadata["seed"]], [frame])[0])
    assert made[0]["folder"] == made[1]["folder"] != made[2]["folder"]
    for arguments, changes, reason in (
        ((), settings, "from a first frame"),
        (("--image", str(images[0])), {}, "from text alone"),
        (("--image", str(images[3])), settings, "cannot be used"),
    ):
        rejected = run(*arguments, **changes)
        assert rejected.exit_code != 0
        assert reason in " ".join(rejected.output.split())
