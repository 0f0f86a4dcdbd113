"""Errors as users read them."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kedro.io import DatasetError
from pydantic import BaseModel, ValidationError

from vr_pipeline.cli import resume_command
from vr_pipeline.errors import InputError
from vr_pipeline.explain import explain


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


def test_errors_of_the_program_are_not_dressed_up():
    assert explain(raised(ZeroDivisionError("x"))) is None
    assert explain(raised(ValueError("x"))) is None
    assert explain(raised(KeyError("x"))) is None


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


def test_a_run_that_had_not_begun_is_started_as_it_was():
    assert resume_command(["/x/kedro", "run", "--from-nodes", "b"], []) == "/x/kedro run --from-nodes b"
