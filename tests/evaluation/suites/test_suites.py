"""Public suites: names of clips, exports that resume, the suites' results, and tables with what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from vr_pipeline.commands.suites import export_clips, import_scores
from vr_pipeline.datasets.tables import OptionalTableDataset
from vr_pipeline.errors import InputError
from vr_pipeline.evaluation.report.sections import suites as section
from vr_pipeline.evaluation.suites.export import MANIFEST, VIDEOS, write_export
from vr_pipeline.evaluation.suites.names import SUITES, read_suite_prompts
from vr_pipeline.evaluation.suites.results import merged, read_manifest_of, read_score_table, read_suite_results
from vr_pipeline.evaluation.suites.table import suite_table
from vr_pipeline.items.filling import fill_folder
from vr_pipeline.project.folder import project_context
from vr_pipeline.statistics.clustered import clustered_mean, paired_gain
from vr_pipeline.work import ItemFailure, WorkItem, WorkPlan

VBENCH, VBENCH2 = SUITES["vbench"], SUITES["vbench2"]


def written(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


# -- prompts and names ----------------------------------------------------------------------------------------------


def test_a_list_of_lines_gives_every_prompt_the_suites_number_of_clips(tmp_path: Path) -> None:
    prompts = read_suite_prompts(written(tmp_path / "all.txt", "a fox\na red fox\na fox\n"), VBENCH)
    assert [(one.prompt, one.clips, one.dimensions) for one in prompts] == [("a fox", 5, ()), ("a red fox", 5, ())]
    assert VBENCH.file_name("a fox", 4) == "a fox-4.mp4"


def test_dimensions_say_where_there_are_more_clips(tmp_path: Path) -> None:
    rows = [
        {"prompt_en": "a fox", "dimension": ["subject_consistency"]},
        {"prompt_en": "a still fox", "dimension": ["temporal_flickering"]},
        {"prompt_en": "a fox", "dimension": ["motion_smoothness"]},
    ]
    path = written(tmp_path / "info.json", rows)
    prompts = {one.prompt: one for one in read_suite_prompts(path, VBENCH)}
    assert {name: one.clips for name, one in prompts.items()} == {"a fox": 5, "a still fox": 25}
    assert prompts["a fox"].dimensions == ("subject_consistency", "motion_smoothness")
    (only,) = read_suite_prompts(path, VBENCH, dimensions=["temporal_flickering"])
    assert only.prompt == "a still fox"
    with pytest.raises(InputError, match="no prompt has these dimensions"):
        read_suite_prompts(path, VBENCH, dimensions=["colour"])


def test_clips_of_another_wording_keep_the_prompts_name(tmp_path: Path) -> None:
    table = written(tmp_path / "list.csv", "prompt,long\na fox,a red fox runs through snow\n")
    (one,) = read_suite_prompts(table, VBENCH2, variant="long")
    assert (one.prompt, one.text, one.clips) == ("a fox", "a red fox runs through snow", 3)
    lines = written(tmp_path / "all.txt", "a fox\na dog\n")
    texts = written(tmp_path / "long.txt", "a red fox runs\na dog sleeps\n")
    assert [one.text for one in read_suite_prompts(lines, VBENCH2, texts=texts)] == ["a red fox runs", "a dog sleeps"]
    with pytest.raises(InputError, match="1 wordings for 2 prompts"):
        read_suite_prompts(lines, VBENCH2, texts=written(tmp_path / "short.txt", "a\n"))
    with pytest.raises(InputError, match="no column 'other'"):
        read_suite_prompts(table, VBENCH2, variant="other")


@pytest.mark.parametrize(
    ("lines", "suite", "reason"),
    [
        ("a/b\n", VBENCH, "cannot be a file name"),
        ("x" * 300 + "\n", VBENCH, "cannot be a file name"),
        ("y" * 200 + "1\n" + "y" * 200 + "2\n", VBENCH2, "have the same file names"),
        ("A fox\na fox\n", VBENCH, "have the same file names"),
    ],
)
def test_prompts_that_cannot_name_their_clips_are_rejected(tmp_path: Path, lines: str, suite: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        read_suite_prompts(written(tmp_path / "all.txt", lines), suite)


def test_long_prompts_are_cut_in_names_of_the_second_suite(tmp_path: Path) -> None:
    (one,) = read_suite_prompts(written(tmp_path / "all.txt", "z" * 300 + "\n"), VBENCH2)
    assert VBENCH2.file_name(one.prompt, 2) == "z" * 180 + "-2.mp4"


# -- exports --------------------------------------------------------------------------------------------------------


def plan(names: list[str], failing: str = "") -> WorkPlan:
    def make(context: None, batch: Any) -> list[Any]:
        return [
            ItemFailure("no numbers") if item.key == failing else np.zeros((2, 16, 16, 3), np.uint8) for item in batch
        ]

    return WorkPlan(
        [
            WorkItem(
                f"k{place}",
                "1",
                {
                    **{"suite_prompt": name, "prompt": f"long {name}", "sample_index": 0, "seed": place, "fps": 8},
                    "dimensions": '["d"]',
                },
            )
            for place, name in enumerate(names)
        ],
        make,
    )


def test_an_export_has_the_suites_names_and_a_manifest(tmp_path: Path) -> None:
    made = fill_folder(tmp_path / "items", {"type": "video"}, plan(["a fox", "a dog", "a cat"], failing="k1"))
    clips = write_export(made, tmp_path, VBENCH, {"policy": "mpo"})
    assert sorted(path.name for path in (tmp_path / VIDEOS).iterdir()) == ["a cat-0.mp4", "a fox-0.mp4"]
    assert list(clips["status"]) == ["ok", "failed", "ok"]
    manifest = read_manifest_of(tmp_path)
    assert manifest["policy"] == "mpo"
    fox = next(clip for clip in manifest["clips"] if clip["prompt"] == "a fox")
    assert (fox["text"], fox["seed"], fox["fps"], fox["dimensions"]) == ("long a fox", 0, 8.0, ["d"])
    assert next(clip["error"] for clip in manifest["clips"] if clip["prompt"] == "a dog") == "no numbers"
    made = fill_folder(tmp_path / "items", {"type": "video"}, plan(["a fox"]))
    write_export(made, tmp_path, VBENCH, {})
    assert [path.name for path in (tmp_path / VIDEOS).iterdir()] == ["a fox-0.mp4"], "clips of before are gone"


# -- results --------------------------------------------------------------------------------------------------------


def results(**more: Any) -> dict[str, Any]:
    clips = [("a fox-0.mp4", 0.5), ("a fox-1.mp4", 0.7), ("dog-0.mp4", 0.9)]
    own = [{"video_path": f"some/where/{name}", "video_results": score} for name, score in clips]
    return {"subject_consistency": [0.7, own], **more}


def test_results_of_a_suite_are_read_by_clip(tmp_path: Path) -> None:
    percent = [{"video_path": "x/a fox-0.mp4", "video_results": 60.0}]
    truth = [{"video_path": "a fox-0.mp4", "video_results": True}, {"video_path": "dog-3.mp4", "video_results": False}]
    path = written(tmp_path / "r.json", results(imaging_quality=[0.6, percent], dynamic_degree=[0.5, truth]))
    table = read_suite_results(path, suite="vbench", policy="mpo")
    own = table[table["dimension"] == "subject_consistency"]
    read = set(own[["prompt", "sample_index", "score"]].itertuples(index=False, name=None))
    assert read == {("a fox", 0, 0.5), ("a fox", 1, 0.7), ("dog", 0, 0.9)}
    assert table.loc[table["dimension"] == "imaging_quality", "score"].tolist() == [0.6]
    assert sorted(table.loc[table["dimension"] == "dynamic_degree", "score"]) == [0.0, 1.0]


def test_a_manifest_gives_whole_prompts_and_rejects_strangers(tmp_path: Path) -> None:
    clips = [
        {"file": f"{name}-{n}.mp4", "prompt": f"{name} whole", "sample_index": n}
        for name in ("a fox", "dog")
        for n in (0, 1)
    ]
    manifest = {"policy": "dpo", "suite": "vbench2", "clips": clips}
    path = written(tmp_path / "r.json", results())
    assert set(read_suite_results(path, suite="s", policy="p", manifest=manifest)["prompt"]) == {
        "a fox whole",
        "dog whole",
    }
    manifest["clips"] = clips[:2]
    with pytest.raises(InputError, match="not in the manifest"):
        read_suite_results(path, suite="s", policy="p", manifest=manifest)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("no json", "cannot be read"),
        ({}, "no dimensions"),
        ({"d": 0.5}, "no list of clips"),
        ({"d": [0.5, [{"video_path": "a-0.mp4", "video_results": "x"}]]}, "clip 1 cannot be used"),
        ({"d": [0.5, [{"video_path": "a-0.mp4", "video_results": None}]]}, "is missing"),
        ({"d": [0.5, [{"video_path": "a.mp4", "video_results": 1}]]}, "not named"),
        ({"d": [0.5, [{"video_path": "a-0.mp4", "video_results": 1}] * 2]}, "two scores"),
    ],
)
def test_results_that_cannot_be_used_are_rejected(tmp_path: Path, content: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        read_suite_results(written(tmp_path / "r.json", content), suite="s", policy="p")


def test_any_table_of_scores_is_read_and_bad_rows_are_left_out(tmp_path: Path) -> None:
    rows = [f"mpo,prompt {n},motion,{n / 10}" for n in range(12)]
    path = written(tmp_path / "t.csv", "\n".join(["Policy,prompt,dimension,score", *rows, "mpo,x,motion,?"]))
    table = read_score_table(path, suite="mine")
    assert len(table) == 12
    assert set(table["sample_index"]) == {0}
    with pytest.raises(InputError, match="no column 'policy'"):
        read_score_table(written(tmp_path / "u.csv", "prompt,dimension,score\na,b,1\n"), suite="mine")


# -- tables ---------------------------------------------------------------------------------------------------------


def scores() -> pd.DataFrame:
    random = np.random.default_rng(0)
    rows = [
        {
            **{"suite": "s", "policy": policy, "prompt_id": f"p{prompt}", "prompt": f"p{prompt}"},
            **{"sample_index": sample, "dimension": dimension, "score": random.normal()},
        }
        for policy in ("original", "mpo")
        for dimension in ("motion", "text")
        for prompt in range(8)
        for sample in range(2)
        if not (policy == "mpo" and (dimension == "text" or prompt == 7))
    ]
    return pd.DataFrame(rows)


def test_means_and_gains_have_intervals_by_prompt_and_what_is_missing_is_null() -> None:
    table = suite_table(scores()).set_index(["dimension", "policy"])
    ours = scores().query("policy == 'mpo' and dimension == 'motion'")
    theirs = scores().query("policy == 'original' and dimension == 'motion' and prompt_id != 'p7'")
    mean = clustered_mean(ours["score"], ours["prompt_id"])
    gain = paired_gain(ours["score"], ours["prompt_id"], theirs["score"], theirs["prompt_id"])
    row = table.loc[("motion", "mpo")]
    assert (row["mean"], row["ci_low"]) == pytest.approx((mean.mean, mean.ci_low))
    assert (row["gain"], row["gain_low"], row["shared_prompts"]) == pytest.approx((gain.mean, gain.ci_low, 7))
    missing = table.loc[("text", "mpo")]
    assert missing["clips"] == 0
    assert missing[["mean", "ci_low", "gain"]].isna().all()
    assert not np.isnan(table["mean"].dropna().to_numpy(dtype=float)).any()


def test_what_is_read_again_replaces_what_was_there() -> None:
    first = scores()
    again = first.query("policy == 'mpo'").assign(score=1.0)
    both = merged(first, again)
    assert len(both) == len(first)
    assert set(both.query("policy == 'mpo'")["score"]) == {1.0}
    assert both.query("policy == 'original'")["score"].sum() == pytest.approx(
        first.query("policy == 'original'")["score"].sum()
    )


def test_the_section_shows_what_is_missing() -> None:
    html = "".join(section.make({"original": "Original", "mpo": "MPO"}, scores()))
    assert "missing" in html
    assert "MPO" in html
    assert section.make({}, None) == []


# -- commands -------------------------------------------------------------------------------------------------------


def test_scores_are_kept_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = {"globals": {"data": "data"}, "catalog": {"suite_scores": {"filepath": None}}}
    context = SimpleNamespace(project_path=tmp_path, config_loader=loader)
    monkeypatch.setattr("vr_pipeline.project.folder.project_context", lambda env: context)
    for policy, change in (("original", 0.0), ("mpo", 0.1)):
        content = results()
        for clip in content["subject_consistency"][1]:
            clip["video_results"] += change
        file = written(tmp_path / f"{policy}_eval_results.json", content)
        arguments = [str(file), "--suite", "vbench", "--policy", policy]
        result = CliRunner().invoke(import_scores, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "subject_consistency" in result.output
    assert "0.1000" in result.output
    kept = OptionalTableDataset(filepath=str(tmp_path / "data/07_model_output/suite_scores.parquet")).load()
    assert kept is not None
    assert set(kept["policy"]) == {"original", "mpo"}
    page = (tmp_path / "data/08_reporting/suite_scores.html").read_text(encoding="ascii")
    assert "subject_consistency" in page


def test_a_missing_table_is_none_or_an_error(tmp_path: Path) -> None:
    assert OptionalTableDataset(filepath=None).load() is None
    place = str(tmp_path / "none.parquet")
    assert OptionalTableDataset(filepath=place, missing_ok=True).load() is None
    with pytest.raises(Exception, match="the table is missing"):
        OptionalTableDataset(filepath=place).load()


def test_the_embedded_generator_makes_clips_of_a_suite_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[3])
    context = project_context("base")
    monkeypatch.setattr("vr_pipeline.project.folder.project_context", lambda env: context)
    prompts = written(tmp_path / "p.txt", "red ball moves right on black\n")
    arguments = ["--suite", "vbench2", "--prompts", str(prompts), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(export_clips, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    files = sorted((tmp_path / "out" / VIDEOS).iterdir())
    assert [file.name for file in files] == [f"red ball moves right on black-{n}.mp4" for n in range(3)]
    seeds = {clip["seed"] for clip in json.loads((tmp_path / "out" / MANIFEST).read_text())["clips"]}
    assert len(seeds) == 3
    before = [file.stat().st_mtime_ns for file in files]
    CliRunner().invoke(export_clips, arguments, catch_exceptions=False)
    assert [file.stat().st_mtime_ns for file in files] == before
    wrong = CliRunner().invoke(export_clips, [*arguments, "--policy", "nobody"])
    assert wrong.exit_code != 0
    assert "there is no policy 'nobody'" in wrong.output
