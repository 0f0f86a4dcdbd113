"""Rules that the whole project keeps: names, start-up, configuration, catalog."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml

from git_commands import git

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "conf" / "base"

SINGLE = {
    "micro_world",
    "micro_videoreward",
    "micro_unifiedreward",
    "prompt_filtering",
    "video_generation",
    "checklist_inference",
    "weight_regression",
    "pair_selection",
    "dpo_training",
    "evaluation",
    "judge_training",
    "preference_reward_training",
    "vlm_dpo",
    "latent_reward_training",
    "preference_latent_reward_training",
    "unified_reward_training",
    "reward_benchmark",
    "guidance_report",
}
WHOLE = [
    "prompt_filtering",
    "video_generation",
    "checklist_inference",
    "weight_regression",
    "pair_selection",
    "dpo_training",
    "evaluation",
]
VIDEOREWARD = [
    "prompt_filtering",
    "videoreward_video_generation",
    "reward_scoring",
    "pair_selection",
    "videoreward_dpo_training",
    "videoreward_evaluation",
]
UNIFIED = [
    "prompt_filtering",
    "unified_video_generation",
    "pair_ranking",
    "unified_reward_scoring",
    "unified_pair_selection",
    "unified_dpo_training",
    "unified_evaluation",
]
GIVEN = ["given_pairs", "given_dpo_training", "given_evaluation"]
ABLATION = ["prompt_filtering", "video_generation", "checklist_inference", "weight_regression", "ablation_study"]
SYSTEMS = {"mpo_dpo": WHOLE, "videoreward_dpo": VIDEOREWARD, "unified_dpo": UNIFIED}
CHAIN = ["judge_training", *(f"judge_{stage}" if stage == "checklist_inference" else stage for stage in WHOLE)]
SINGLE |= {"preference_generation"}
ONLINE = ["prompt_filtering", "online_start", *(f"online_round_{n}" for n in (1, 2, 3)), "online_evaluation"]
SYSTEMS |= {"online_mpo": ONLINE, "given_dpo": GIVEN, "ablation": ABLATION, "judge_mpo": CHAIN}
SINGLE |= {stage for stages in SYSTEMS.values() for stage in stages}
LAYERS = {"raw", "intermediate", "primary", "feature", "model_input", "models", "model_output", "reporting"}


@pytest.fixture(scope="module")
def pipelines() -> dict[str, Any]:
    from vr_pipeline.pipeline_registry import register_pipelines

    return register_pipelines()


@pytest.fixture(scope="module")
def written() -> dict[str, dict[str, Any]]:
    """The catalog as Kedro reads it; a name that stands in two files is an error there."""
    from kedro.config import OmegaConfigLoader

    loader = OmegaConfigLoader(str(ROOT / "conf"), base_env="base", default_run_env="base")
    return dict(loader["catalog"])


@pytest.fixture(scope="module")
def catalog(pipelines, written) -> dict[str, dict[str, Any]]:
    """The entries that are written, and those that the patterns among them give to the datasets of the pipelines."""
    from kedro.io.catalog_config_resolver import CatalogConfigResolver

    resolver = CatalogConfigResolver(written, {}, {})
    named = {name for pipeline in pipelines.values() for name in pipeline.datasets()}
    entries = {name: resolver.resolve_pattern(name) for name in named if ":" not in name}
    plain = {name: entry for name, entry in written.items() if "{" not in name}
    return plain | {
        name: entry for name, entry in entries.items() if "MemoryDataset" not in entry.get("type", "Memory")
    }


HEAVY = {"torch", "transformers", "diffusers", "peft", "sklearn", "ray", "matplotlib"}


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_pipelines_have_their_names(pipelines):
    assert set(pipelines) == SINGLE | {*SYSTEMS, "__default__"}
    for whole, stages in {**SYSTEMS, "__default__": WHOLE}.items():
        nodes = set().union(*({node.name for node in pipelines[name].nodes} for name in stages))
        assert {node.name for node in pipelines[whole].nodes} == nodes
    for name in SINGLE:
        assert pipelines[name].nodes, name


def test_importing_loads_no_heavy_library():
    loaded = python(
        "import sys, vr_pipeline, vr_pipeline.settings, vr_pipeline.cli, vr_pipeline.work, vr_pipeline.schemas\n"
        "import vr_pipeline.runners, vr_pipeline.datasets.manifest\n"
        "from vr_pipeline.pipeline_registry import register_pipelines\n"
        "register_pipelines()\n"
        f"print(sorted({HEAVY | {'mlflow'}} & set(sys.modules)))"
    )
    assert loaded.splitlines()[-1] == "[]"


def test_a_run_loads_no_heavy_library_before_its_first_node():
    """All that a run makes before its first node: pipelines, checked parameters, the datasets of the catalog."""
    loaded = python(
        "import sys\n"
        "from pathlib import Path\n"
        "from kedro.framework.project import pipelines\n"
        "from kedro.framework.session import KedroSession\n"
        "from kedro.framework.startup import bootstrap_project\n"
        "bootstrap_project(Path.cwd())\n"
        "with KedroSession.create(Path.cwd(), env='base') as session:\n"
        "    catalog = session.load_context().catalog\n"
        "names = pipelines['mpo_dpo'].datasets()\n"
        "assert all(catalog.get(name) is not None for name in names if not name.startswith('params:'))\n"
        f"print(len(names) > 100, sorted({HEAVY} & set(sys.modules)))"
    )
    assert loaded.splitlines()[-1] == "True []"


def test_annotations_of_all_nodes_can_be_read(pipelines, caplog):
    """Kedro checks the type of a parameter only where it can read the annotations of the function."""
    from kedro.validation.type_extractor import TypeExtractor

    found = TypeExtractor(pipelines).extract_types_from_pipelines()
    assert "dpo_training" in found
    assert not [record.getMessage() for record in caplog.records if "type hints" in record.getMessage()]


def test_telemetry_is_off():
    assert yaml.safe_load((ROOT / ".telemetry").read_text()) == {"consent": False}
    names = "DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY", "RAY_USAGE_STATS_ENABLED", "HF_HUB_DISABLE_TELEMETRY"
    clean = {name: value for name, value in os.environ.items() if name not in names}
    code = f"import os, vr_pipeline.settings; print([os.environ[name] for name in {names}])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=clean, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['1', 'true', '0', '1']"
    dvc = (ROOT / ".dvc" / "config").read_text()
    assert "analytics = false" in dvc
    assert "check_update = false" in dvc


def test_what_crosses_pipelines_is_in_the_catalog(pipelines, catalog):
    """Only what stays within one pipeline may live in memory: pipelines are run, and repeated, one at a time."""
    users: dict[str, set[str]] = {}
    for name in SINGLE:
        for dataset in pipelines[name].datasets():
            users.setdefault(dataset, set()).add(name)
        users.update(
            {dataset: {"inputs", "outputs"} for dataset in pipelines[name].inputs() | pipelines[name].outputs()}
        )
    crossing = {dataset for dataset, names in users.items() if len(names) > 1 and not dataset.startswith("params:")}
    assert crossing <= set(catalog), sorted(crossing - set(catalog))


def test_kedro_can_read_the_types_of_nodes_with_parameters(pipelines):
    """A type that is imported for type checkers only makes Kedro skip the validation of the node's parameters."""
    for name in SINGLE:
        for node in pipelines[name].nodes:
            if any(dataset.startswith("params:") for dataset in node.inputs):
                get_type_hints(node.func)


def test_nothing_in_the_catalog_is_unused(pipelines, written):
    from kedro.io.catalog_config_resolver import CatalogConfigResolver

    resolver = CatalogConfigResolver(written, {}, {})
    named = {name for pipeline in pipelines.values() for name in pipeline.datasets()}
    used = named | {resolver.match_dataset_pattern(name) for name in named - set(written)}
    assert set(written) <= used, sorted(set(written) - used)


def test_tables_are_validated(catalog):
    import vr_pipeline.schemas

    for name, entry in catalog.items():
        if entry["type"].endswith(("ParquetDataset", "TablePartsDataset")):
            assert "validator" in entry, f"{name} has no schema"
        if "validator" in entry:
            module, _, model = entry["validator"].rpartition(".")
            assert module == "vr_pipeline.schemas", name
            assert hasattr(vr_pipeline.schemas, model), name


def test_catalog_entries_have_layers_and_stay_in_the_project(catalog):
    for name, entry in catalog.items():
        layer = entry.get("metadata", {}).get("kedro-viz", {}).get("layer")
        assert layer in LAYERS, f"{name} has the layer {layer}"
        assert "versioned" not in entry, f"{name}: a new file at every run changes every hash"
        sources = entry.get("sources", {"": entry}).values()
        places = [place for one in sources for place in (one.get("filepath", one.get("path")), one.get("clips"))]
        for place in filter(None, places):
            assert not Path(place).is_absolute(), name
            assert Path(place).parts[0] in {"data", "conf"}, name


def test_what_is_marked_for_mlflow_can_be_found(catalog):
    from kedro.io import DataCatalog

    from vr_pipeline.hooks.mlflow_tracking import mark_of
    from vr_pipeline.project.places import stored_at

    entries = DataCatalog.from_config(catalog)
    marked = [name for name in catalog if mark_of(entries, name) is not None]
    assert {"evaluation_metrics", "evaluation_report", "policy_mpo", "policy_dpo", "reward_weights"} <= set(marked)
    tables = {"checklist_answers", "preference_answers", "labelled_pairs", "pair_scores", "rewards", "filtered_prompts"}
    tables |= {
        f"evaluation_{name}" for name in ("answers", "rewards", "oracle_answers", "oracle_rewards", "auditor_rewards")
    }
    tables |= {f"{name}_{recipe}" for name in ("preference_pairs", "pair_counts") for recipe in ("mpo", "dpo")}
    assert tables <= set(marked)
    for name in marked:
        place = stored_at(entries, name)
        assert place is not None, name
        assert str(place).endswith(catalog[name].get("filepath", catalog[name].get("path"))), name
    metrics = catalog["evaluation_metrics"]["metadata"]["mlflow"]
    assert metrics == {"metrics": True}
    training = yaml.safe_load((BASE / "parameters" / "dpo_training.yml").read_text())["dpo_training"]
    folder = training["validation"]["folder"].replace("${globals:data}", "data")
    for recipe in ("mpo", "dpo"):
        weights = catalog[f"validation_log_{recipe}"]["metadata"]["mlflow"]["weights"]
        assert weights == f"{folder}/trainings"


def test_no_two_nodes_write_to_one_place(pipelines, catalog):
    made = {dataset for name in SINGLE for dataset in pipelines[name].all_outputs()} & set(catalog)
    places = [catalog[name].get("filepath", catalog[name].get("path")) for name in made]
    assert len(places) == len(set(places))


def test_parameters_are_one_block_a_file():
    for path in sorted((BASE / "parameters").glob("*.yml")):
        assert list(yaml.safe_load(path.read_text(encoding="utf-8"))) == [path.stem]


def test_parameters_of_all_pipelines_are_valid():
    printed = python(
        "from pathlib import Path\n"
        "from kedro.framework.session import KedroSession\n"
        "from kedro.framework.startup import bootstrap_project\n"
        "bootstrap_project(Path.cwd())\n"
        "with KedroSession.create() as session:\n"
        "    params = session.load_context().params\n"
        "print(sorted(name for name, block in params.items() if isinstance(block, dict)))\n"
    )
    # Every block is validated into its model; a plain dictionary means that no node takes it typed.
    assert printed.splitlines()[-1] == "[]"


def test_nodes_have_names_of_their_own_below_their_pipeline(pipelines):
    for pipeline in pipelines.values():
        short = [node.short_name for node in pipeline.nodes]
        assert len(short) == len(set(short))
    for name in SINGLE:
        for node in pipelines[name].nodes:
            assert node.name == f"{name}.{node.short_name}"
            assert node.short_name.isidentifier(), f"node {node.name} has no name of its own"


def test_a_new_project_keeps_runs_and_secrets_out_of_git(tmp_path):
    from vr_pipeline.project.template import init_project

    git(tmp_path, "init", "-q", ".")
    init_project(tmp_path)
    git(tmp_path, "add", "-A")
    tracked = set(git(tmp_path, "ls-files").splitlines())
    assert {"conf/base/catalog/prompt_filtering.yml", "data/01_raw/prompts.csv", ".gitignore"} <= tracked
    secret = ".env .env.local conf/base/credentials.yml conf/local/a.yml server.pem a.key id_rsa .ssh/config .aws/x"
    made = (
        "mlflow.db mlflow.db-wal mlflow-offline.db mlartifacts/1/x mlruns/0/x logs/a.log logs/tracking/x .run.lock "
        "data/03_primary/a.parquet data/08_reporting/a.html data/.a.lock dvc_plots/x.html sessions/a .viz/a"
    )
    for name in f"{secret} {made}".split():
        place = tmp_path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("x")
    assert git(tmp_path, "status", "--porcelain", "--untracked-files=all", "--ignored=no").count("??") == 0
    (tmp_path / "conf" / "base" / "own.yml").write_text("a: 1")
    assert "?? conf/base/own.yml" in git(tmp_path, "status", "--porcelain", "--untracked-files=all")
