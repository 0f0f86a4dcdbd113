"""Errors as users read them."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kedro.config import MissingConfigException, OmegaConfigLoader
from kedro.framework.project import pipelines
from kedro.io import DatasetError
from kedro.pipeline import Node, Pipeline
from kedro.validation.exceptions import ParameterValidationError
from pydantic import BaseModel, ValidationError

from vr_pipeline.cli import resume_command
from vr_pipeline.errors import InputError
from vr_pipeline.project.explain import explain
from vr_pipeline.runtime.setting_names import setting_trouble


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except type(error) as caught:
        return caught


def test_the_reason_is_found_below_the_frameworks():
    inner = InputError("the file is empty", remedy="add a row", file="prompts.csv")
    outer = raised(DatasetError("Failed while saving"), raised(RuntimeError("task"), inner))
    assert explain(outer) == "file prompts.csv: the file is empty. Add a row."


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError) as caught, open("/nowhere/at/all"):
        pass
    assert "/nowhere/at/all" in explain(caught.value)


def test_a_model_lists_its_fields():
    class Settings(BaseModel):
        rate: float
        steps: int

    with pytest.raises(ValidationError) as caught:
        Settings(rate="fast")
    text = explain(caught.value)
    assert "rate: Input should be a valid number" in text
    assert "(got 'fast')" in text
    assert "steps: Field required" in text


def failure_of(action) -> str | None:
    with pytest.raises(DatasetError) as caught:
        action()
    return explain(caught.value)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_told_of_any_file(tmp_path):
    from kedro_datasets.json import JSONDataset

    (tmp_path / "pairs.json").symlink_to("/dev/full")
    text = failure_of(lambda: JSONDataset(filepath=str(tmp_path / "pairs.json")).save({"a": "b" * 100_000}))
    assert text == (
        f"file {tmp_path}/pairs.json: no space is left on the disk. Free some and run the same command again."
    )


def test_a_full_disk_is_told_of_files_that_safetensors_writes(tmp_path, monkeypatch):
    import safetensors.torch
    import torch
    from safetensors import SafetensorError

    from vr_pipeline.datasets.policy import PolicyDataset
    from vr_pipeline.generators.policy import Adapter

    def full(*arguments, **options):
        # What the library said on a small file system of its own.
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    policy = Adapter({"transformer.a": torch.zeros(2)}, {"r": 1, "lora_alpha": 1.0, "target_modules": ["a"]}, "base")
    text = failure_of(lambda: PolicyDataset(path=str(tmp_path / "policy")).save(policy))
    assert text == f"file {tmp_path}/policy: no space is left on the disk. Free some and run the same command again."


def test_a_file_that_was_cut_off_is_told(tmp_path):
    import pandas as pd
    from kedro_datasets.json import JSONDataset
    from kedro_datasets.pandas import ParquetDataset

    table, pairs = tmp_path / "table.parquet", tmp_path / "pairs.json"
    pd.DataFrame({"a": range(100)}).to_parquet(table)
    table.write_bytes(table.read_bytes()[:-20])
    pairs.write_text('{"a": [1, 2')
    for dataset in (ParquetDataset(filepath=str(table)), JSONDataset(filepath=str(pairs))):
        text = failure_of(dataset.load)
        assert text is not None
        assert f"file {dataset._filepath}: it is damaged or contradicts its catalog entry" in text
        assert "Run the pipeline that creates it." in text


def test_a_bug_while_saving_is_not_dressed_up(tmp_path):
    from kedro_datasets.json import JSONDataset

    assert failure_of(lambda: JSONDataset(filepath=str(tmp_path / "a.json")).save({"a": object()})) is None


def test_errors_of_the_program_are_not_dressed_up():
    assert explain(raised(ZeroDivisionError("x"))) is None
    assert explain(raised(ValueError("x"))) is None
    assert explain(raised(KeyError("x"))) is None


@pytest.fixture
def toy(monkeypatch):
    """A project with one pipeline."""

    def make(source: str, settings: Training) -> str:
        return source

    pipeline = Pipeline([Node(make, ["source", "params:toy"], "made", name="make", namespace="toy", tags="gpu")])
    monkeypatch.setattr(pipelines, "_content", {"toy": pipeline, "__default__": pipeline})
    monkeypatch.setattr(pipelines, "_is_data_loaded", True)


class Optimiser(BaseModel):
    learning_rate: float = 1.0


class Training(BaseModel):
    optimiser: Optimiser = Optimiser()


@pytest.mark.parametrize(
    ("message", "account"),
    [
        (
            "Failed to find the pipeline named 'toi'. It needs to be generated",
            "There is no pipeline 'toi' (perhaps 'toy' is meant). The pipelines are toy.",
        ),
        (
            "Pipeline does not contain nodes named ['make', 'x'].",
            "This pipeline has no node 'make' (perhaps 'toy.make' is meant); 'x'. "
            "'kedro registry describe NAME' lists them.",
        ),
        (
            "Pipeline does not contain datasets named ['maed']",
            "This pipeline has no dataset 'maed' (perhaps 'made' is meant). "
            "'kedro catalog describe-datasets' lists them.",
        ),
        (
            "Pipeline contains no nodes after applying all provided filters. Please ensure",
            "No node of the pipeline matches all of --tags, --nodes, --from-nodes, --to-outputs and similar options. "
            "Omit some of them; the tags are gpu.",
        ),
    ],
)
def test_a_wrong_name_is_told_with_the_right_ones(toy, message, account):
    assert explain(raised(ValueError(message))) == account


def test_an_unknown_setting_is_told_with_the_nearest_one(toy):
    class Strict(Training):
        model_config = {"extra": "forbid"}

    with pytest.raises(ValidationError) as caught:
        Strict(learning_rat=1)
    kedro = raised(ParameterValidationError(f"Parameter validation failed:\n- Parameter 'toy': {caught.value}"))
    assert "toy.learning_rat: there is no such setting (perhaps 'optimiser.learning_rate' is meant)" in explain(kedro)
    assert "learning_rat: there is no such setting" in explain(caught.value)
    with pytest.raises(ValidationError) as caught:
        Strict(toy={"seed": 1})
    kedro = raised(ParameterValidationError(f"Parameter validation failed:\n- Parameter 'toy': {caught.value}"))
    assert "toy.toy: there is no such setting: 'toy' is a block of its own" in explain(kedro)


def test_a_setting_of_another_place_is_told_with_its_place():
    from vr_pipeline.pairs.config import PairSelectionParameters

    def trouble(settings):
        with pytest.raises(ValidationError) as caught:
            PairSelectionParameters.model_validate({"recipes": {"dpo": {"rule": "dpo"}}} | settings)
        return setting_trouble(caught.value, PairSelectionParameters)

    def recipe(settings):
        return {"recipes": {"dpo": {"rule": "dpo", **settings}}}

    no_setting = "there is no such setting (perhaps"
    assert trouble({"min_margin": 1}) == ("min_margin", f"{no_setting} 'recipes.<name>.min_margin' is meant)")
    near = f"{no_setting} 'recipes.<name>.min_margin' is meant)"
    assert trouble(recipe({"min_margn": 1})) == ("recipes.dpo.min_margn", near)
    assert trouble(recipe({"groupsize": 1})) == ("recipes.dpo.groupsize", f"{no_setting} 'group_size' is meant)")
    assert trouble({"qqqq": 1}) == ("qqqq", "there is no such setting")


def test_an_unknown_environment_is_told_with_those_there_are(tmp_path):
    for name in ("base/catalog", "local", "other"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "other" / "catalog.yml").touch()
    loader = OmegaConfigLoader(str(tmp_path), env="nowhere", base_env="base", default_run_env="local")
    with pytest.raises(MissingConfigException) as caught:
        loader["catalog"]
    text = explain(caught.value)
    assert "There is no environment 'nowhere'" in text
    assert "Choose among base, other, or" in text
    with pytest.raises(MissingConfigException) as caught:
        OmegaConfigLoader(str(tmp_path), env="othe", base_env="base", default_run_env="local")["catalog"]
    assert "There is no environment 'othe' (perhaps 'other' is meant): " in explain(caught.value)


names = st.text(st.characters(codec="ascii", categories=["Ll", "Nd"], include_characters="_"), min_size=1)


@given(
    st.lists(st.sampled_from(["--pipeline=mpo_dpo", "--env", "base", "--params=a=b c"])),
    st.lists(st.sampled_from([["--from-nodes", "old"], ["--from-nodes=old"]]), max_size=2),
    st.lists(names, min_size=1),
)
def test_the_resume_command_keeps_everything_but_the_start(others, starts, nodes):
    typed = [*others, *(part for start in starts for part in start)]
    program, command, *arguments = shlex.split(resume_command(["/somewhere/kedro", "run", *typed], nodes))
    assert (program, command) == ("/somewhere/kedro", "run")
    assert arguments == [*others, f"--from-nodes={','.join(nodes)}"]


def test_a_program_in_a_folder_with_spaces_stays_one_word():
    command = resume_command(["/my programs/kedro", "run", "--params=a=b c"], ["judge"])
    assert shlex.split(command) == ["/my programs/kedro", "run", "--params=a=b c", "--from-nodes=judge"]


@pytest.mark.parametrize(
    ("on_path", "word"), [("{bin}/python", "python"), ("/usr/elsewhere/python", "{running}"), (None, "{running}")]
)
@pytest.mark.parametrize("program", ["/x/site-packages/kedro/__main__.py", "python -m kedro"])
def test_a_module_is_run_by_the_interpreter_that_ran_it(monkeypatch, on_path, word, program):
    names = {"bin": Path(sys.executable).parent, "running": sys.executable}
    monkeypatch.chdir("/")
    found = {"python": on_path.format(**names)} if on_path else {}
    monkeypatch.setattr(shutil, "which", found.get)
    command = resume_command([program, "run", "--pipeline=mpo_dpo"], ["judge"])
    running = Path(word.format(**names))
    expected = str(running.relative_to("/")) if running.is_absolute() else str(running)
    assert shlex.split(command) == [expected, "-m", "kedro", "run", "--pipeline=mpo_dpo", "--from-nodes=judge"]


def test_a_run_that_had_not_begun_is_started_as_it_was():
    assert resume_command(["/x/kedro", "run", "--from-nodes", "b"], []) == "/x/kedro run --from-nodes b"
