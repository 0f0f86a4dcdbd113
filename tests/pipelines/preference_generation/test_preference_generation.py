"""Clips of two generators of different families and a given folder, compared by people, to win rates and weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from kedro.io import DataCatalog, DatasetError
from kedro.runner import SequentialRunner

import tiny_models
from vr_pipeline.annotation.agreement import report_lines, study_results
from vr_pipeline.annotation.choice import Selection
from vr_pipeline.annotation.offer import GENERATORS, make_offer, make_study
from vr_pipeline.annotation.store import Journal
from vr_pipeline.datasets.generator_clips import GeneratorClipsDataset, GeneratorVideosDataset
from vr_pipeline.errors import InputError
from vr_pipeline.generators import plans
from vr_pipeline.generators.config import GeneratorParameters, PreferenceGenerationParameters, VideoGenerationParameters
from vr_pipeline.identifiers import prompt_id, sample_seed
from vr_pipeline.items.filling import fill_folder
from vr_pipeline.pipelines.preference_generation.nodes import generate_preference_videos
from vr_pipeline.pipelines.preference_generation.pipeline import create_pipeline
from vr_pipeline.pipelines.video_generation.nodes import generate_videos, index_preference_videos
from vr_pipeline.pipelines.weight_regression.nodes import label_pairs
from vr_pipeline.preferences.formats import read_preferences
from vr_pipeline.preferences.journal import read_labels
from vr_pipeline.rewards.config import WeightRegressionParameters
from vr_pipeline.statistics.clustered import win_rate
from vr_pipeline.video.write import write_video

FORMAT = {"type": "video", "codec": "libx264rgb"}
COLOURS = ("red", "green", "blue", "white", "grey", "black", "pink")
TEXTS = [f"{colour} ball moves right" for colour in COLOURS]
OFFERED = Selection("random", 0, 100, 10)
ORDER = {"filmed": 0, "flow": 1, "diffusion": 2}
"""How well a person likes the generators."""


@pytest.fixture(scope="module")
def generators(tmp_path_factory: pytest.TempPathFactory) -> dict[str, GeneratorParameters]:
    folder = tmp_path_factory.mktemp("models")
    few = {"num_inference_steps": 2, "threads": 1}
    diffusion = tiny_models.micro_world_parameters(tiny_models.save_micro_world(folder / "micro"))
    flow = tiny_models.micro_wan_parameters(tiny_models.save_micro_wan(folder / "micro_wan"))
    return {
        "diffusion": diffusion.model_copy(update={**few, "batch_size": 4}),
        "flow": flow.model_copy(update={**few, "batch_size": 3}),
    }


@pytest.fixture(scope="module")
def prompts() -> pd.DataFrame:
    """The first prompt was written out by a language model, the last is for tests."""
    table = pd.DataFrame({"prompt_id": [prompt_id(text) for text in TEXTS], "prompt": TEXTS, "split": "train"})
    table.loc[0, "prompt"] = TEXTS[0] + ", in warm light"
    table.loc[len(TEXTS) - 1, "split"] = "test"
    return table


def parameters(generators: dict[str, Any], **changes: Any) -> PreferenceGenerationParameters:
    return PreferenceGenerationParameters(generators={**generators, "off": None}, **{"seed": 3, **changes})


@pytest.fixture(scope="module")
def catalog(
    tmp_path_factory: pytest.TempPathFactory, generators: dict[str, GeneratorParameters], prompts: pd.DataFrame
) -> DataCatalog:
    """What the pipeline has made, beside a folder of clips that nobody here made; one of them is damaged."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "filmed").mkdir()
    random = np.random.default_rng(0)
    rows = [{"text": text, "video_path": f"{number}.mp4"} for number, text in enumerate([*TEXTS[:-1], "a stranger"])]
    for row in rows:
        write_video(folder / "filmed" / row["video_path"], random.integers(0, 256, (8, 16, 16, 3), np.uint8), fps=8)
    broken = folder / "filmed" / "3.mp4"
    broken.write_bytes(broken.read_bytes()[:100])
    pd.DataFrame(rows).to_csv(folder / "filmed.csv", index=False)
    compared = {
        "path": str(folder / "generator_videos"),
        "given": {"filmed": {"filepath": str(folder / "filmed.csv"), "videos": {"path": str(folder / "filmed")}}},
    }
    kind = "vr_pipeline.datasets"
    catalog = DataCatalog.from_config(
        {
            "generator_videos": {
                "type": f"{kind}.manifest.ManifestFolderDataset",
                "path": str(folder / "generator_videos"),
                "format": FORMAT,
            },
            "preference_clips": {"type": f"{kind}.generator_clips.GeneratorClipsDataset", **compared}
            | {"validator": "vr_pipeline.schemas.PreferenceClips"},
            "preference_videos": {"type": f"{kind}.generator_clips.GeneratorVideosDataset", **compared},
        }
    )
    assert not catalog.exists("preference_clips")
    catalog["filtered_prompts"] = prompts
    catalog["params:preference_generators"] = parameters(generators)
    catalog["generator_video_index"] = pd.DataFrame()
    SequentialRunner().run(create_pipeline().to_outputs("generator_video_index"), catalog)
    assert catalog.exists("preference_clips")
    return catalog


@pytest.fixture(scope="module")
def index(catalog: DataCatalog) -> pd.DataFrame:
    return index_preference_videos(catalog.load("preference_clips"), catalog.load("preference_videos"))


def test_the_index_says_what_made_each_clip(catalog: DataCatalog, index: pd.DataFrame, prompts: pd.DataFrame) -> None:
    made = catalog.load("generator_video_index")
    trained = prompts[prompts["split"] == "train"]
    assert made.groupby("generator").size().to_dict() == {"diffusion": len(trained), "flow": len(trained)}
    for _, own in made.groupby("generator"):
        assert set(own["prompt"]) == set(trained["prompt"])
        assert own["producer"].nunique() == 1
    assert made["producer"].nunique() == 2
    assert list(made["seed"]) == [sample_seed(3, identifier, 0) for identifier in made["prompt_id"]]
    assert index.groupby("generator").size().to_dict() == {"diffusion": 6, "filmed": 7, "flow": 6}
    assert index.loc[index["status"] == "failed", ["generator", "path"]].to_numpy().tolist() == [
        ["filmed", "filmed/3.mp4"]
    ]
    # A given clip of the prompt as it was before it was written out stands beside those of the long one.
    long = index[index["prompt"] == trained["prompt"].iloc[0]]
    assert sorted(long["generator"]) == ["diffusion", "filmed", "flow"]
    assert long["prompt_id"].nunique() == 1


def test_clips_are_those_that_each_generator_makes_alone(
    catalog: DataCatalog, generators: dict[str, GeneratorParameters], prompts: pd.DataFrame, tmp_path: Path
) -> None:
    together = catalog.load("generator_videos")
    for name, one in generators.items():
        plan = generate_videos(prompts, one, VideoGenerationParameters(videos_per_prompt=1, seed=3))
        alone = fill_folder(tmp_path / name, FORMAT, plan)
        assert [f"{name}-{key}" for key in alone.keys] == [key for key in together.keys if key.startswith(name)]
        for key in alone.keys:
            assert together.path(f"{name}-{key}").read_bytes() == alone.path(key).read_bytes()


def test_a_killed_run_makes_what_is_missing(
    catalog: DataCatalog,
    generators: dict[str, GeneratorParameters],
    prompts: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded: list[str] = []
    load = plans.load_generator

    def killed(given: GeneratorParameters) -> Any:
        loaded.append(given.family)
        if len(loaded) == 2:
            raise KeyboardInterrupt
        return load(given)

    monkeypatch.setattr(plans, "load_generator", killed)
    plan = generate_preference_videos(prompts, parameters(generators))
    with pytest.raises(KeyboardInterrupt):
        fill_folder(tmp_path / "clips", FORMAT, plan)
    fill_folder(tmp_path / "clips", FORMAT, plan)
    assert loaded == ["micro_world", "micro_wan", "micro_wan"], "the first generator had made its clips"
    whole = catalog.load("generator_videos").folder
    assert {path.name: path.read_bytes() for path in (tmp_path / "clips").iterdir()} == {
        path.name: path.read_bytes() for path in whole.iterdir()
    }


def test_people_compare_two_generators_at_a_time(
    catalog: DataCatalog, index: pd.DataFrame, prompts: pd.DataFrame, tmp_path: Path
) -> None:
    study = make_study(None, GENERATORS, None)
    offer = make_offer(catalog, study, OFFERED)
    offered = [{pair.first.generator, pair.second.generator} for pair in offer.pairs]
    # Three generators of six prompts; the damaged clip is not looked into before a run.
    assert len(offered) == 18
    assert all(len(two) == 2 for two in offered)
    journal = Journal(tmp_path / "generators.jsonl", study)
    session = offer.session(study, journal, order="random", seed=0, annotator="Ada")

    def made_by(clip: dict[str, str]) -> str:
        path = session.clip_path(clip["token"])
        assert path is not None
        return "filmed" if path.parent.name == "filmed" else path.name.partition("-")[0]

    for number in range(len(offer.pairs)):
        task = session.next_for("Ada")["task"]
        left, right = ORDER[made_by(task["left"])], ORDER[made_by(task["right"])]
        # Once in a while this person does not see the difference.
        choice = "tie" if number % 7 == 0 else "left" if left > right else "right"
        session.answer(
            **{"label": f"answer-{number:04d}", "annotator": "Ada", "pair": task["pair"], "criterion": "overall"},
            **{"choice": choice, "left": task["left"]["token"], "seconds": 1.0},
        )
    journal.close()

    preferences = read_preferences(journal.path, "annotations")
    _, report, _ = label_pairs(preferences, index, prompts, WeightRegressionParameters(bootstrap_samples=0))
    found = {(row["generator"], row["against"]): row for row in report["generator_pairs"]}
    assert list(found) == [("diffusion", "filmed"), ("diffusion", "flow"), ("filmed", "flow")]
    readable = set(index.loc[index["status"] == "ok", "video_id"])
    for (one, other), row in found.items():
        own = preferences[[{one, other} == set(two) for two in _ends(preferences)]]
        own = own[own["video_id_a"].isin(readable) & own["video_id_b"].isin(readable)]
        sign = np.where(own["generator_a"] == one, 1.0, -1.0)
        votes = sign * own["preference"].map({"a": 1.0, "b": -1.0, "tie": 0.0}).to_numpy()
        expected = win_rate(votes, own["prompt"])
        assert (row["pairs"], row["rate"], row["ties"]) == (len(own), expected.rate, expected.ties)
        assert row["ci_low"] == pytest.approx(expected.ci_low)
    assert found["diffusion", "flow"]["wins"] > found["diffusion", "flow"]["losses"] == 0
    # The page of the study counts all answers, those about the damaged clip too.
    results = study_results(study, read_labels(journal.path), ["overall"])
    of_study = {(row["policy"], row["against"]): row for row in results["criteria"][0]["generator_pairs"]}
    assert of_study["diffusion", "flow"]["rate"] == found["diffusion", "flow"]["rate"]
    assert sum(row["pairs"] for row in of_study.values()) == len(offer.pairs)
    assert any("diffusion against flow: wins" in line for line in report_lines(results))


def _ends(preferences: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(preferences["generator_a"], preferences["generator_b"], strict=True))


def test_fewer_prompts_are_drawn_by_lot(generators: dict[str, GeneratorParameters], prompts: pd.DataFrame) -> None:
    def drawn(table: pd.DataFrame, **changes: Any) -> set[str]:
        plan = generate_preference_videos(table, parameters(generators, **changes))
        return {str(item.metadata["prompt_id"]) for item in plan.items}

    few = drawn(prompts, prompts=3)
    assert len(few) == 3
    assert drawn(prompts.iloc[::-1], prompts=3) == few
    assert few < drawn(prompts, prompts=4)
    assert len(drawn(prompts, prompts=50)) == 6
    assert drawn(prompts, splits=["test"]) == set(prompts.loc[prompts["split"] == "test", "prompt_id"])
    with pytest.raises(InputError, match="no generator is named"):
        generate_preference_videos(prompts, PreferenceGenerationParameters(generators={}))
    with pytest.raises(ValueError, match="names no generator"):
        parameters({"Two Words": None})


def test_what_is_wrong_with_a_given_folder_is_said(
    catalog: DataCatalog, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = str(catalog.load("generator_videos").folder)
    (tmp_path / "clips").mkdir()
    with pytest.raises(InputError, match="Field required"):
        GeneratorClipsDataset(path=made, given={"x": {"filepath": "a.csv"}})
    given = {"filepath": str(tmp_path / "clips.csv"), "videos": {"path": str(tmp_path / "clips")}}
    (tmp_path / "clips.csv").write_text("prompt,file\n")
    for kind in (GeneratorClipsDataset, GeneratorVideosDataset):
        with pytest.raises(DatasetError, match="'flow' is a generator of preference_generators and a given folder"):
            kind(path=made, given={"flow": given}).load()
        with pytest.raises(DatasetError, match="--pipeline=preference_generation"):
            kind(path=str(tmp_path / "none")).load()
    catalog.load("preference_clips")
    assert "1 of 7 clips of filmed have prompts without a generated clip" in caplog.text
    clips = catalog.load("preference_clips")
    of_one = DataCatalog()
    of_one["preference_clips"], of_one["preference_videos"] = clips[clips["generator"] == "flow"], {}
    study = make_study(None, GENERATORS, None)
    with pytest.raises(InputError, match="no prompt has clips of two generators"):
        make_offer(of_one, study, OFFERED)
