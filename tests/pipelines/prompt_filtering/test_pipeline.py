"""The pipeline as a whole, on files, with the catalog and the schemas of the project."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from kedro.io import DataCatalog, DatasetError
from kedro.runner import SequentialRunner

from vr_pipeline.errors import InputError
from vr_pipeline.micro_world.world import all_prompts
from vr_pipeline.pipelines.prompt_filtering import create_pipeline
from vr_pipeline.prompts import language_model
from vr_pipeline.prompts.config import PromptFilteringParameters, SplitParameters
from vr_pipeline.prompts.decisions import STEPS

CONFIGURATION = Path(__file__).parents[3] / "conf" / "base"

MIXED = [
    "a red fox runs through deep snow at dawn",
    "A red fox runs through deep snow at dawn -ar 16:9",
    "a red fox runs through the deep snow at dawn",
    "two astronauts play chess on the moon",
    "at dawn, a red fox is running through thick snow",
    "a video",
    "walk walk walk walk walk walk",
    "an old sailor repairs a wooden boat in the harbour",
    "neon rain over a crowded street in Tokyo, camera flies forward",
]


def default_parameters() -> PromptFilteringParameters:
    text = (CONFIGURATION / "parameters" / "prompt_filtering.yml").read_text(encoding="utf-8")
    return PromptFilteringParameters(**yaml.safe_load(text)["prompt_filtering"])


def run(folder: Path, source: Path, parameters: PromptFilteringParameters, *, plot: bool = False) -> DataCatalog:
    text = (CONFIGURATION / "catalog" / "prompt_filtering.yml").read_text(encoding="utf-8")
    configuration = yaml.safe_load(text.replace("${globals:data}", "data"))
    for entry in configuration.values():
        for key in entry.keys() & {"filepath", "path"}:
            entry[key] = str(folder / entry[key])
    configuration["raw_prompts"]["filepath"] = str(source)
    catalog = DataCatalog.from_config(configuration)
    catalog["params:prompt_filtering"] = parameters
    # The picture takes longer than all else on so few prompts.
    pipeline = create_pipeline() if plot else create_pipeline().to_outputs("filtered_prompts", "prompt_filter_report")
    SequentialRunner().run(pipeline, catalog)
    return catalog


def write_lines(folder: Path, prompts: Sequence[str]) -> Path:
    path = folder / "prompts.txt"
    path.write_text("\n".join(prompts) + "\n", encoding="utf-8")
    return path


def test_micro_world_keeps_every_prompt_and_has_all_splits(tmp_path: Path) -> None:
    source = tmp_path / "prompts.csv"
    pd.DataFrame({"prompt": all_prompts(), "source": "micro_world"}).to_csv(source, index=False)
    catalog = run(tmp_path, source, default_parameters())
    filtered = catalog.load("filtered_prompts")
    assert filtered["prompt"].tolist() == all_prompts()
    counts = Counter(filtered["split"])
    assert counts["train"] >= 28
    assert counts["test"] >= 12
    assert counts["validation"] >= 2
    for split in ("train", "test"):
        words = filtered.loc[filtered["split"] == split, "prompt"].str.split()
        assert [words.str[place].nunique() for place in (0, 1, 3, 5)] == [4, 3, 2, 2]


def test_every_prompt_is_accounted_for_and_every_drop_explained(tmp_path: Path) -> None:
    catalog = run(tmp_path, write_lines(tmp_path, MIXED), PromptFilteringParameters(), plot=True)
    decisions, filtered = catalog.load("prompt_filter_decisions"), catalog.load("filtered_prompts")
    assert decisions["row"].tolist() == list(range(1, len(MIXED) + 1))
    assert decisions["step"].tolist() == [
        "kept",
        "clean",
        "rouge",
        "kept",
        "semantic",
        "clean",
        "clean",
        "kept",
        "kept",
    ]
    assert set(filtered["prompt_id"]) == set(decisions.loc[decisions["kept"], "prompt_id"])
    dropped = decisions[~decisions["kept"]]
    assert (dropped["reason"].str.len() > 5).all()
    similar = decisions[decisions["step"].isin(["rouge", "semantic"])]
    assert (similar["nearest_prompt_id"] == filtered["prompt_id"].iloc[0]).all()
    assert (similar["similarity"] > 0.7).all()
    assert decisions.loc[1, "original_prompt"] == MIXED[1]
    assert decisions.loc[1, "changed_by"] == "remove_generator_flags, collapse_white_space"

    report = catalog.load("prompt_filter_report")
    assert report["read"] == len(MIXED)
    assert report["kept"] == len(filtered)
    assert [step["step"] for step in report["steps"]] == list(STEPS)
    for step, after in zip(report["steps"], report["steps"][1:], strict=False):
        assert step["in"] - step["dropped"] == step["out"] == after["in"]
    assert report["steps"][-1]["out"] == report["kept"]
    assert report["steps"][1]["rules"] == {
        "drop_exact_duplicates": 1,
        "drop_length": 1,
        "drop_repeated_words": 1,
    }
    assert {(example["step"], example["rule"]) for example in report["examples"]} == set(
        zip(dropped["step"], dropped["rule"], strict=True)
    )
    assert (tmp_path / "data/08_reporting/prompt_filter_plot.png").stat().st_size > 10_000


def test_two_runs_give_the_same_files(tmp_path: Path) -> None:
    def files(folder: Path) -> dict[str, bytes]:
        run(folder, write_lines(folder, MIXED), PromptFilteringParameters(), plot=True)
        return {
            str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
        }

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_a_second_run_embeds_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_lines(tmp_path, MIXED)
    run(tmp_path, source, PromptFilteringParameters())

    def forbidden(_: object) -> None:
        raise AssertionError("the model was loaded again")

    monkeypatch.setattr("vr_pipeline.prompts.embedders.load_embedder", forbidden)
    run(tmp_path, source, PromptFilteringParameters())
    with pytest.raises(DatasetError, match="loaded again"):
        run(tmp_path, write_lines(tmp_path, [*MIXED, "a whale sings beneath the ice"]), PromptFilteringParameters())


def test_bad_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    source = tmp_path / "prompts.csv"
    source.write_text("prompt,source\na red fox runs fast,web\nbroken\n", encoding="utf-8")
    catalog = run(tmp_path, source, PromptFilteringParameters())
    decisions = catalog.load("prompt_filter_decisions")
    assert decisions["step"].tolist() == ["kept", "read"]
    assert decisions["row"].tolist() == [2, 3]
    assert catalog.load("filtered_prompts")["source"].tolist() == ["web"]


def test_diverse_subset(tmp_path: Path) -> None:
    parameters = PromptFilteringParameters(diversity={"count": 2})
    catalog = run(tmp_path, write_lines(tmp_path, MIXED), parameters)
    assert len(catalog.load("filtered_prompts")) == 2
    decisions = catalog.load("prompt_filter_decisions")
    left_out = decisions[decisions["step"] == "diversity"]
    assert len(left_out) == 2
    assert set(left_out["nearest_prompt_id"]) <= set(catalog.load("filtered_prompts")["prompt_id"])


def test_semantic_step_can_be_off(tmp_path: Path) -> None:
    catalog = run(tmp_path, write_lines(tmp_path, MIXED), PromptFilteringParameters(semantic={"enabled": False}))
    assert len(catalog.load("filtered_prompts")) == 5
    assert catalog.load("prompt_filter_report")["nearest_similarity"]["cosine"] == {}
    with pytest.raises(InputError, match="needs embeddings"):
        run(
            tmp_path,
            write_lines(tmp_path, MIXED),
            PromptFilteringParameters(semantic={"enabled": False}, diversity={"count": 2}),
        )


def test_nothing_left_stops_with_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none of the 2 prompts.*drop_length \(2\)"):
        run(tmp_path, write_lines(tmp_path, ["a", "b c"]), PromptFilteringParameters())
    assert len(pd.read_parquet(tmp_path / "data/08_reporting/prompt_filter_decisions.parquet")) == 2


class Reviewer:
    """Mends one prompt, drops one, fails on one and keeps the rest; rewrites all but one."""

    def ask(self, instructions: str, texts: Sequence[str], parse: Callable[[int, str], Any]) -> list[Any]:
        results: list[Any] = []
        for index, text in enumerate(texts):
            prompt = json.loads(text)["prompt"]
            if "sailor" in prompt:
                results.append(language_model.Failure("busy"))
            elif "decision" not in instructions:
                results.append(parse(index, json.dumps({"prompt": f"{prompt}, seen from afar in warm light"})))
            elif "chess" in prompt:
                results.append(parse(index, '{"decision": "drop", "prompt": "", "reason": "no chess"}'))
            elif "neon" in prompt:
                results.append(parse(index, '{"decision": "mend", "prompt": "neon rain in Tokyo", "reason": "long"}'))
            else:
                results.append(parse(index, '{"decision": "keep", "prompt": "", "reason": "a scene"}'))
        return results

    def close(self) -> None:
        return None


def test_language_model_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_model, "load_text_model", lambda _: Reviewer())
    parameters = PromptFilteringParameters(
        language_model={"clean": True, "rewrite": True, "backend": "openai", "model": "m"}
    )
    plain = run(tmp_path, write_lines(tmp_path, MIXED), PromptFilteringParameters()).load("filtered_prompts")
    catalog = run(tmp_path, write_lines(tmp_path, MIXED), parameters)
    filtered = catalog.load("filtered_prompts").set_index("row")
    assert filtered["prompt"].to_dict() == {
        1: "a red fox runs through deep snow at dawn, seen from afar in warm light",
        8: MIXED[7],
        9: "neon rain in Tokyo, seen from afar in warm light",
    }
    assert filtered["language_model"].to_dict() == {
        1: "rewritten",
        8: "review failed, rewrite failed",
        9: "mended, rewritten",
    }
    assert filtered["cleaned_prompt"].to_dict() == {1: MIXED[0], 8: MIXED[7], 9: MIXED[8]}
    # The split belongs to the prompt as it was before any model touched it.
    before = plain.set_index("row")
    for column in ("prompt_id", "split"):
        assert filtered[column].to_dict() == before.loc[filtered.index, column].to_dict()
    decisions = catalog.load("prompt_filter_decisions").set_index("row")
    assert (decisions.loc[4, "step"], decisions.loc[4, "reason"]) == ("language_model", "no chess")
    counts = catalog.load("prompt_filter_report")["language_model"]
    assert counts == {"mended": 1, "rewritten": 2, "review failed": 1, "rewrite failed": 1}


def test_as_many_training_prompts_as_configured(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = write_lines(tmp_path, all_prompts())
    counts = {}
    for wanted in (100, 10):
        split = {**default_parameters().split.model_dump(), "train_prompts": wanted}
        parameters = default_parameters().model_copy(update={"split": SplitParameters(**split)})
        catalog = run(tmp_path, source, parameters)
        counts[wanted] = Counter(catalog.load("filtered_prompts")["split"])
    decisions = catalog.load("prompt_filter_decisions")
    assert len(decisions) == len(all_prompts()), "every prompt has its decision"
    gone = decisions[decisions["rule"] == "above_train_prompts"]
    assert len(gone) == counts[100]["train"] - 10
    assert set(gone["reason"]) == {"not among the 10 training prompts, at random"}
    assert counts[10] == {**counts[100], "train": 10}
    assert "29 training prompts are left, fewer than the 100" in caplog.text


@pytest.mark.real_data
def test_real_prompts(tmp_path: Path) -> None:
    import os

    root = os.environ.get("VR_REAL_DATA")
    if not root:
        pytest.skip("VR_REAL_DATA is not set")
    lines = (Path(root) / "data/prompts/vidprom_50k.txt").read_text(encoding="utf-8").splitlines()[:2000]
    catalog = run(tmp_path, write_lines(tmp_path, lines), PromptFilteringParameters())
    report = catalog.load("prompt_filter_report")
    assert report["read"] == 2000
    assert 1800 < report["kept"] < 2000
    assert report["nearest_similarity"]["rouge_l"]["after"]["p99"] <= 0.7
    assert report["nearest_similarity"]["cosine"]["after"]["p99"] <= 0.8
