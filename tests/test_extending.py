"""Every "To add ..." of docs/extending.md is a diff; each is applied to a copy of the sources and used."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from documented_change import ROOT, apply_documented, run_python


def test_every_section_with_a_diff_has_its_test() -> None:
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## (To add [^\n]*)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    tests = Path(__file__).read_text(encoding="utf-8")
    for heading, body in sections:
        assert "```diff" in body, heading
        assert f'apply_documented("{heading}"' in tests, heading


_JUDGE = """
import numpy as np
from vr_pipeline.judges import load_judge

judge = load_judge({{"family": "my_judge", "path": {path!r}, "device": "cpu"}})
assert judge.family.settings.after_question == " Yes or no?"
p_yes, outside = judge.answer([np.zeros((8, 16, 16, 3), np.uint8)], ["is the picture sharp ?"])
assert p_yes.shape == outside.shape == (1, 1)
print(p_yes[0, 0])
"""


def test_a_judge_family_is_added_as_the_page_says(tmp_path: Path) -> None:
    folder = apply_documented("To add a judge family", tmp_path / "project")
    judge = tmp_path / "judge"
    shutil.copytree(ROOT / "data" / "06_models" / "micro_world" / "judge", judge)
    settings = json.loads((judge / "judge.json").read_text(encoding="utf-8"))
    (judge / "judge.json").write_text(json.dumps({k: v for k, v in settings.items() if k != "after_question"}))
    (judge / "checksums.sha256").unlink(missing_ok=True)
    assert 0 <= float(run_python(folder, _JUDGE.format(path=str(judge)))) <= 1


_SUITE = """
import sys, pytest

sys.exit(pytest.main(["-vv", "-p", "no:cacheprovider", "tests/generators/test_conformance.py", "-k", "my_generator"]))
"""


def test_a_generator_is_added_as_the_page_says_and_keeps_what_every_family_keeps(tmp_path: Path) -> None:
    for part in ("tests/support", "tests/generators"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("tests/conftest.py", "docs/security.md"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        shutil.copy2(ROOT / file, tmp_path / file)
    folder = apply_documented("To add a generator", tmp_path)
    assert len(re.findall(r"my_generator.*PASSED", run_python(folder, _SUITE))) >= 15


_FORMAT = """
import vr_pipeline as vr

table = vr.read_preferences({path!r}, "my_arena")
print(",".join(table["preference"]), table["video_path_b"][1])
"""


def test_a_preference_format_is_added_as_the_page_says(tmp_path: Path) -> None:
    folder = apply_documented("To add a preference format", tmp_path / "project")
    path = tmp_path / "arena.csv"
    path.write_text("prompt,first_clip,second_clip,winner\na cat,1.mp4,2.mp4,2\na dog,3.mp4,4.mp4,draw\n")
    assert run_python(folder, _FORMAT.format(path=str(path))).split() == ["b,tie", "4.mp4"]


_RULE = """
import pandas as pd, vr_pipeline as vr
from vr_pipeline.pairs.config import PairRecipeParameters

rewards = pd.DataFrame(
    {"video_id": ["a", "b", "c"], "prompt_id": "p", "total": [3.0, 2.0, 1.0], "dim_x": [2, 1, 0], "dim_y": [1, 1, 0]}
)
assert PairRecipeParameters(rule="every_dimension").rule == "every_dimension"
for rule in ("mpo", "every_dimension"):
    print(len(vr.select_pairs(rewards, rule, max_pairs_per_prompt=None)))
"""


_KEDRO = "import runpy, sys; sys.argv[1:] = {arguments}; runpy.run_module('kedro', run_name='__main__')"


@pytest.mark.slow
def test_a_recipe_is_added_as_the_page_says_and_runs_to_the_report(tmp_path: Path) -> None:
    from tests.end_to_end.conftest import SMALL

    folder = apply_documented("To add a recipe", tmp_path)
    for part in ("data/01_raw", "data/06_models/micro_world"):
        shutil.copytree(ROOT / part, folder / part)
    settings = f"{SMALL},pair_selection.match_numbers=true"
    run_python(folder, _KEDRO.format(arguments=["run", "--env=base", "--pipelines=mpo_dpo", f"--params={settings}"]))
    data = folder / "data"
    metrics = json.loads((data / "08_reporting" / "evaluation_metrics.json").read_text())
    assert list(metrics["policies"]) == ["dpo", "mapo_mpo", "mpo", "original"]
    assert {pairs["n"] for pairs in metrics["pairs"].values()} == {metrics["pairs"]["mpo"]["n"]}
    logs = {name: pd.read_parquet(data / "06_models" / f"training_log_{name}.parquet") for name in ("mpo", "mapo_mpo")}
    assert len(logs["mapo_mpo"]) == len(logs["mpo"]) == 6
    assert list(logs["mapo_mpo"]["loss"]) != list(logs["mpo"]["loss"])
    card = (data / "06_models" / "policy_mapo_mpo" / "README.md").read_text()
    assert "| loss | mapo |" in card
    assert len(pd.read_csv(data / "08_reporting" / "training_curves_mapo_mpo.csv")) == 6
    assert "MaPO on MPO&#39;s pairs" in (data / "08_reporting" / "evaluation_report.html").read_text()
    run_python(folder, _KEDRO.format(arguments=["lineage", "sync"]))
    assert "data/06_models/policy_mapo_mpo" in (folder / "dvc.yaml").read_text()


def test_a_pair_rule_is_added_as_the_page_says(tmp_path: Path) -> None:
    folder = apply_documented("To add a pair rule", tmp_path)
    assert run_python(folder, _RULE).split() == ["3", "2"]


_REWARD = """
import numpy as np, vr_pipeline as vr

model = vr.load_reward_model({"type": "sharpness"})
stripes = np.zeros((9, 16, 16, 3), np.uint8)
stripes[:, :, ::2] = 255
print(*model.score([stripes, stripes * 0], ["", ""])["total"], *model.dimensions)
"""


def test_a_reward_model_is_added_as_the_page_says(tmp_path: Path) -> None:
    folder = apply_documented("To add a reward model", tmp_path)
    assert run_python(folder, _REWARD).split() == ["1.0", "0.0", "sharpness"]


_OBJECTIVE = """
import sys
from pathlib import Path

sys.path.insert(0, {support!r})
import torch
from pydantic import ValidationError
from toy_training import make_toy
from vr_pipeline.training.objectives import OBJECTIVES
from vr_pipeline.training.preference_trainer import train_on_pairs

random = torch.Generator().manual_seed(0)
winner, loser, winner_reference, loser_reference = torch.rand(4, 5, generator=random, dtype=torch.float64)
winner.requires_grad_()
loss, statistics = OBJECTIVES["hinge"].loss(winner, loser, winner_reference, loser_reference, 40.0)
loss.backward()
margin = -((winner.detach() - winner_reference) - (loser - loser_reference))
assert 0 < int((margin < 0.025).sum()) < 5
assert torch.allclose(winner.grad, torch.where(margin < 0.025, 8.0, 0.0).double())
assert torch.allclose(statistics["logit"], margin)

toy = make_toy(Path("model"))
settings = toy.parameters(steps=2, loss="hinge", beta=4.0, safeguard={{"sdpo_mu": 0.6}})
log = train_on_pairs(toy.generator(), toy.data, settings)
assert log["loss"][0] == 1  # the policy begins as the original, where the margin is 0
assert "sdpo_scale" in log
assert log["loss"][1] != log["loss"][0]
try:
    toy.parameters(loss="hinge", label_smoothing=0.1)
except ValidationError as error:
    print(error)
"""


def test_an_objective_is_added_as_the_page_says(tmp_path: Path) -> None:
    folder = apply_documented("To add an objective", tmp_path)
    told = run_python(folder, _OBJECTIVE.format(support=str(ROOT / "tests" / "support")))
    assert "label_smoothing has no effect with loss hinge" in told


_SECTION = """
import pandas as pd
from vr_pipeline.pipeline_registry import register_pipelines

[node] = [node for node in register_pipelines()["evaluation"].nodes if node.short_name == "report_failures"]
assert (node.inputs, node.outputs) == (["evaluation_video_index"], ["report_section_failures"])
index = pd.DataFrame({"policy": "dpo", "prompt": ["a <cat>", "a dog"], "status": ["failed", "ok"], "error": "full"})
print(node.run({"evaluation_video_index": index})["report_section_failures"])
assert node.run({"evaluation_video_index": index.tail(1)}) == {"report_section_failures": ""}
"""


def test_a_report_section_is_added_as_the_page_says(tmp_path: Path) -> None:
    page = run_python(apply_documented("To add a report section", tmp_path), _SECTION)
    assert "a &lt;cat&gt;" in page
    assert "a dog" not in page
