"""Every environment can be planned, on every machine, without a model and without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from vr_pipeline.commands.plan import plan as command
from vr_pipeline.errors import InputError
from vr_pipeline.generators.config import GeneratorParameters, VideoGenerationParameters
from vr_pipeline.items.filling import fill
from vr_pipeline.items.formats import item_format
from vr_pipeline.pipelines.video_generation.nodes import generate_videos
from vr_pipeline.planning.document import plan_document, plan_lines
from vr_pipeline.planning.opening import Opened, open_project
from vr_pipeline.project.machines import VARIABLE, Gpu
from vr_pipeline.runners.config import RunnerConfiguration

ROOT = Path(__file__).resolve().parents[2]
MADE_FIRST = "trade_offs"
"""Environment whose models and data its own pipeline makes before anything is known of them."""
ENVIRONMENTS = sorted({file.parent.name for file in ROOT.glob("conf/*/globals.yml")} - {"real_models", MADE_FIRST})
PAGE = (ROOT / "docs" / "gpu_and_clusters.md").read_text(encoding="utf-8")
TORCHRUN = {"execution": {"workers": 8}, "routes": {"train": {"backend": "torchrun", "processes": 8}}}


@pytest.fixture(scope="module", params=ENVIRONMENTS)
def opened(request: pytest.FixtureRequest) -> Opened:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.delenv(VARIABLE, raising=False)
        return open_project(ROOT, request.param, None, numbers={"prompts": 22_000})


def on(opened: Opened, **changes: Any) -> dict[str, Any]:
    return plan_document(replace(opened, settings=replace(opened.settings, **changes)), ROOT)


def hours(plan: dict[str, Any], name: str = "gpu_hours") -> float:
    return sum(work[name] for work in plan["work"])


def test_every_environment_is_planned(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    plan = plan_document(opened, ROOT)
    assert json.loads(json.dumps(plan, allow_nan=False)) == plan
    lines = plan_lines(plan)
    assert max(map(len, lines)) <= 100
    assert {work["stage"] for work in plan["work"]} >= {"video_generation", "dpo_training", "evaluation"}
    assert all(work["source"] != "unknown" for work in plan["work"])
    assert all(model["bytes"] > 0 for model in plan["models"] if model["access"] != "your folder")
    assert hours(plan) > 0
    assert all(one["gib"] > 0 for one in plan["disk"])
    assert plan["numbers"]["splits"]["train"] == round(0.93 * 22_000) or opened.environment in ("base", "flow")
    if opened.environment not in ("base", "flow"):
        assert "raw_prompts" in plan["missing_inputs"]
        assert all(model["licence"] != "as you got it" for model in plan["models"] if model["access"] == "free")
        assert any(model["where"] == "to be fetched" for model in plan["models"]) or plan["models"]


def test_an_environment_whose_models_are_made_first_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A folder without models: the checkout may have made them.
    (tmp_path / "data").mkdir()
    for name in ("conf", "pyproject.toml", "src"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    plan = plan_document(open_project(tmp_path, MADE_FIRST, None, numbers={"prompts": 22_000}), tmp_path)
    assert {"raw_prompts", "human_preferences", "auditor", "oracle"} <= set(plan["missing_inputs"])
    assert {work["source"] for work in plan["work"] if work["stage"] == "video_generation"} == {"unknown"}
    assert any("nothing is known of a model" in line for line in plan_lines(plan))


def test_machines_change_the_clock_and_not_the_work(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    one, eight = on(opened), on(opened, runner=RunnerConfiguration.model_validate(TORCHRUN))
    assert eight["gpus"] == {"items": 8, "training": 8, "held": 8}
    assert hours(eight) == pytest.approx(hours(one))
    assert hours(eight, "hours") == pytest.approx(hours(one, "hours") / 8, rel=0.05)
    fast = on(opened, gpu=Gpu(name="other", memory_gib=80, tflops=600))
    assert hours(fast) == pytest.approx(hours(one) / 2)
    assert fast["disk_gib"] == one["disk_gib"]


def test_work_grows_with_the_prompts_and_training_stays(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    small = on(opened)
    large = on(opened, counts=replace(opened.settings.counts, prompts=220_000))
    pairs = [
        (one, other)
        for one, other in zip(small["work"], large["work"], strict=True)
        if one["stage"] in ("video_generation", "dpo_training")
    ]
    for one, other in pairs:
        steps = " steps" in one["what"]
        fixed = steps or (("checkpoint" in one["what"] or one["what"] == "the same judged") and not_all(opened))
        if one["stage"] == "video_generation" or fixed:
            assert other["gpu_hours"] == pytest.approx((1 if fixed else 10) * one["gpu_hours"], rel=1e-3)


def not_all(opened: Opened) -> bool:
    """Whether checkpoints are judged on so many prompts, whatever there are."""
    validation = opened.settings.training.validation
    return validation is not None and validation.num_prompts is not None


def test_more_gpus_than_a_batch_has_pairs_are_said_to_be_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv(VARIABLE, "256gpu_ray")
    opened = open_project(ROOT, "cogvideox", None, numbers={"prompts": 1_000_000}, gpus=256)
    plan = plan_document(opened, ROOT)
    assert plan["gpus"] == {"items": 256, "training": 32, "held": 256}
    made = next(work for work in plan["work"] if work["stage"] == "video_generation")
    # 930,000 prompts of 4 clips of 45 s, as published, on 256 GPUs.
    assert (made["number"], made["source"]) == (3_720_000, "published")
    assert made["hours"] == pytest.approx(3_720_000 * 45 / 3600 / 256)
    said = " ".join(plan["bound"])
    assert "training uses 32 of 256 GPUs" in said
    assert "videos is 3,720,000 files in 256 folders" in said
    assert "recording them keeps the run's own process busy for 1.1% of that time" in said
    assert plan["machine"] == "256gpu_ray"
    # All GPUs are paid while some wait.
    price = opened.settings.gpu.price_per_hour
    assert price is not None
    assert all(work["cost"] == pytest.approx(256 * price * work["hours"]) for work in plan["work"])
    text = " ".join(" ".join(plan_lines(plan)).split())
    total = sum(work["cost"] for work in plan["work"])
    assert f"cost: {total:,.0f} USD for 256 GPUs at {price:g} per hour" in text
    assert text.index("video_generation 116,250") < text.index("evaluation 18,8") < text.index("dpo_training 1,4")
    assert max(map(len, plan_lines(plan))) <= 100
    waiting = [work for work in plan["work"] if work["gpus"] == 32]
    assert sum(work["hours"] for work in waiting) == pytest.approx(1.4, abs=0.05)
    assert sum(work["cost"] for work in waiting) / total == pytest.approx(0.007, abs=0.0005)
    # The table of the documentation.
    parts = {
        "3,720,000 clips made": [made],
        "the same judged": [work for work in plan["work"] if work["stage"] == "checklist_inference"],
        "training of two recipes, clips and prompts encoded": [
            work for work in plan["work"] if "encoded" in work["what"] or " steps" in work["what"]
        ],
        "27 checkpoints validated": [work for work in plan["work"] if "27 checkpoints" in work["what"]],
        "evaluation, 600,000 clips made and judged": [work for work in plan["work"] if work["stage"] == "evaluation"],
    }
    for name, works in parts.items():
        page = PAGE.split(f"| {name} | ")[1].split(" |")
        found = [sum(work[kind] for work in works) for kind in ("gpu_hours", "hours", "cost")]
        assert [float(cell.strip("| ").replace(",", "")) for cell in page[:3]] == pytest.approx(found, rel=0.03), name
        assert page[3].strip("| ") == works[0]["source"]


def test_rounds_are_planned_as_their_trainings_are_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv(VARIABLE, "8gpu")
    few = {"online_mpo": {"rounds": 2, "prompts_per_round": 100, "videos_per_prompt": 4, "replay": 0.5}}
    opened = open_project(ROOT, "cogvideox", "online_mpo", parameters=few, numbers={"prompts": 10_000})
    plan = plan_document(opened, ROOT)
    assert json.loads(json.dumps(plan, allow_nan=False)) == plan
    assert max(map(len, plan_lines(plan))) <= 100
    works = {(work["stage"], work["what"]): work for work in plan["work"]}
    assert [works[f"online_round_{number}", "clips made"]["number"] for number in (1, 2)] == [400, 400]
    assert works["online_round_1", "clips judged"]["number"] == 400
    assert works["online_start", "prompts encoded"]["number"] == 100
    assert plan["numbers"]["clips"] == 800
    encoded = [works[f"online_round_{number}", "clips encoded"]["number"] for number in (1, 2)]
    assert encoded == [2 * plan["numbers"]["pairs_of_a_recipe"], 3 * plan["numbers"]["pairs_of_a_recipe"]]
    # Steps of a round, not of dpo_training.
    steps = opened.settings.parameters["online_mpo"]["training"]["steps"]
    assert {name: one["steps"] for name, one in plan["numbers"]["recipes"].items()} == dict.fromkeys(
        ("round_1", "round_2"), steps
    )
    assert ("online_round_2", f"pairs in {steps} steps, round_2") in works
    policies = 1 + 2
    held_out = policies * plan["numbers"]["splits"]["test"] * opened.settings.evaluation.videos_per_prompt
    assert works["evaluation", "clips of all policies"]["number"] == held_out
    stored = {one["name"]: one for one in plan["disk"]}
    assert stored["videos_round_1"]["files"] == stored["videos_round_2"]["files"] == 400
    # Twice the rounds: twice the work, but for what is done once.
    more = open_project(
        *(ROOT, "cogvideox", "online_mpo"),
        parameters={"online_mpo": few["online_mpo"] | {"rounds": 4}},
        numbers={"prompts": 10_000},
    )
    again = plan_document(more, ROOT)
    made = [sum(w["gpu_hours"] for w in one["work"] if w["what"] == "clips made") for one in (plan, again)]
    assert made[1] == pytest.approx(2 * made[0])


def test_what_does_not_fit_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv(VARIABLE, "1gpu_24gb")
    changed = {"dpo_training": {"training": {"gradient_checkpointing": False}}}
    opened = open_project(ROOT, "cogvideox", None, parameters=changed)
    said = plan_document(opened, ROOT)["bound"]
    assert "dpo_training (pairs in 500 steps, mpo) needs 58 GiB of 24 on a GPU" in said
    with pytest.raises(InputError, match="cannot be planned"):
        open_project(ROOT, "wan", "reward_benchmark")
    with pytest.raises(InputError, match="Use one of base"):
        open_project(ROOT, "vvan", None)


def test_a_judge_that_is_still_to_be_trained_is_planned_as_what_it_starts_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv(VARIABLE, raising=False)
    opened = open_project(ROOT, "wan", "judge_mpo", parameters={"judge": {"from": "trained"}})
    plan = plan_document(opened, ROOT)
    training, judged = (
        next(work for work in plan["work"] if work["stage"] == stage)
        for stage in ("judge_training", "checklist_inference")
    )
    assert (training["number"], training["source"], judged["source"]) == (1500 * 16, "calculated", "calculated")
    # Forward, backward and recomputation of the clip and four questions, against one pass over the clip and all 64.
    each, asked = (work["gpu_hours"] / work["number"] for work in (training, judged))
    assert asked < each < 3 * asked
    assert "judge_annotations" in plan["missing_inputs"]
    assert [model["where"] for model in plan["models"] if model["field"] == "judge.path"] == ["not there"]


def served(
    name: str, /, server: dict[str, Any], path: str = "Qwen/Qwen3-VL-8B-Instruct", **judge: Any
) -> dict[str, Any]:
    block = {"family": "openai_compatible", "path": path, "revision": None, "server": server, **judge}
    return plan_document(open_project(ROOT, name, None, parameters={"judge": block}, numbers={"prompts": 1000}), ROOT)


def test_a_judge_behind_a_server_costs_requests_and_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv(VARIABLE, raising=False)
    here = plan_document(open_project(ROOT, "wan", None, numbers={"prompts": 1000}), ROOT)
    assert here["requests"] is None
    frames = {"num_frames": 8, "frames_per_second": None, "max_pixels": 100_000}
    prices = {"price_per_million_input_tokens": 0.5, "price_per_million_output_tokens": 2.0, "tokens_per_frame": 100.0}
    plan = served("wan", {**prices, "url": "https://example.org/v1"}, **frames)
    assert hours(plan) == pytest.approx(sum(work["gpu_hours"] for work in here["work"] if "judged" not in work["what"]))
    judged = [work for work in plan["work"] if "judged" in work["what"]]
    assert len(judged) == 3
    assert {(work["gpu_hours"], work["source"]) for work in judged} == {(0.0, "")}
    asked, total = plan["requests"]["stages"], plan["requests"]["total"]
    assert [(one["stage"], one["requests"]) for one in asked] == [
        (work["stage"], work["number"] * plan["numbers"]["questions"]) for work in judged
    ]
    for one in asked:
        assert one["images"] == 8 * one["requests"]
        # 100,000 pixels of 2 bytes, in base64.
        assert one["megabytes"] == pytest.approx(one["images"] * 0.2 * 4 / 3)
        assert 800 < one["tokens"] / one["requests"] < 900
        assert one["cost"] == pytest.approx((0.5 * one["tokens"] + 2.0 * one["requests"]) / 1e6)
    for name in ("requests", "images", "megabytes", "tokens", "cost"):
        assert total[name] == pytest.approx(sum(one[name] for one in asked))
    text = "\n".join(plan_lines(plan))
    assert max(map(len, plan_lines(plan))) <= 100
    assert f"{total['requests']:,}" in text
    assert "USD" in text
    assert [model["where"] for model in plan["models"] if model["field"] == "judge.path"] == ["https://example.org/v1"]


def test_tokens_of_an_unknown_model_have_no_price(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv(VARIABLE, raising=False)
    unknown = served("wan", {"price_per_million_input_tokens": 1.0}, path="some/model")
    assert (unknown["requests"]["total"]["tokens"], unknown["requests"]["total"]["cost"]) == (None, None)
    assert "nothing is known of a model" not in " ".join(unknown["bound"])
    known = served("wan", {"media": "video"}, path="Qwen/Qwen2.5-VL-7B-Instruct")
    assert known["requests"]["total"]["tokens"] > 0
    assert (known["requests"]["total"]["cost"], known["requests"]["total"]["images"]) == (None, 0)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opened:
    """A copy of the configuration, the shipped data, and ten finished clips of 29 prompts."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    for name in ("01_raw", "06_models"):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / name).symlink_to(ROOT / "data" / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    table = pd.DataFrame({"prompt": [f"a red ball {i}" for i in range(29)]})
    table["prompt_id"] = [f"p{i:02d}" for i in range(29)]
    table = table.assign(source="test", split=["train"] * 20 + ["validation"] * 3 + ["test"] * 6)
    (tmp_path / "data" / "03_primary").mkdir()
    table.to_parquet(tmp_path / "data" / "03_primary" / "filtered_prompts.parquet")
    opened = open_project(tmp_path, None, None)
    parameters = opened.settings.parameters
    generator = GeneratorParameters.model_validate(parameters["generator"])
    made = generate_videos(table, generator, VideoGenerationParameters.model_validate(parameters["video_generation"]))
    frames = np.zeros((8, 16, 16, 3), np.uint8)
    some = replace(made, items=made.items[:10], make_batch=lambda _, items: [frames] * len(items), setup=lambda: None)
    fill(tmp_path / "data" / "03_primary" / "videos", item_format({"type": "video", "fps": 8, "enlarge": 4}), some)
    return opened


def test_finished_items_are_counted_and_those_that_are_kept(project: Opened, tmp_path: Path) -> None:
    plan = plan_document(project, tmp_path)
    assert plan["numbers"]["prompts_source"] == "counted, filtered"
    assert plan["numbers"]["splits"] == {"train": 20, "validation": 3, "test": 6}
    videos = next(one for one in plan["disk"] if one["name"] == "videos")
    assert (videos["files"], videos["there"], videos["kept"], videos["source"]) == (640, 10, 10, "measured")
    folder = tmp_path / "data" / "03_primary" / "videos"
    size = sum(path.stat().st_size for path in folder.glob("*.mp4")) / 10
    assert videos["gib"] == pytest.approx(640 * size / 2**30)
    # Another sampler makes other clips: nothing is kept, and the plan changes no file.
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.iterdir())
    other = open_project(tmp_path, None, None, parameters={"generator": {"num_inference_steps": 5}})
    videos = next(one for one in plan_document(other, tmp_path)["disk"] if one["name"] == "videos")
    assert (videos["there"], videos["kept"]) == (10, 0)
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.iterdir()) == before


def test_the_command_prints_text_or_json_and_loads_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    code = (
        "import sys; from click.testing import CliRunner; from vr_pipeline.commands.plan import plan;"
        "done = CliRunner().invoke(plan, ['--env', 'wan', '--machine', '8gpu', '--json']);"
        "print(done.output); sys.exit(done.exit_code or 3 * ('torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    plan = json.loads(done.stdout)
    assert (plan["environment"], plan["machine"]) == ("wan", "8gpu")
    assert plan["models"][0]["licence"] == "Apache-2.0"
    wrong = CliRunner().invoke(command, ["--set", "clips=3"])
    assert wrong.exit_code == 2
    assert "prompts, pairs, preference_clips" in wrong.output
