"""What ``import vr_pipeline as vr`` gives, and that it gives it lazily."""

from __future__ import annotations

import inspect
import re

import pytest

import vr_pipeline as vr
from fresh_process import imported_by


def test_importing_and_listing_load_no_library_of_models() -> None:
    code = "import vr_pipeline as vr; dir(vr); vr.rouge_l_f1('a b', 'a b'); vr.load_checklist; vr.select_pairs"
    assert imported_by(code, "torch", "transformers", "diffusers", "kedro", "mlflow") == []


@pytest.mark.parametrize("name", vr.__all__)
def test_every_public_name_is_documented_and_listed(name: str) -> None:
    found = getattr(vr, name)
    assert callable(found)
    assert inspect.getdoc(found)
    assert inspect.signature(found)
    assert name in dir(vr)
    assert name in vr.__doc__.replace(",", " ").split(), "the package's docstring lists its names in groups"
    assert found.__module__.startswith("vr_pipeline.")


def test_the_docstring_promises_nothing_else() -> None:
    listed = re.findall(r"^[A-Z][a-z]+ {2,}(.*(?:\n {5,}.*)*)", vr.__doc__, re.MULTILINE)
    assert sorted(name for group in listed for name in re.split(r"[,\s]+", group.strip())) == vr.__all__
    with pytest.raises(AttributeError, match="no attribute 'load_everything'"):
        vr.load_everything  # noqa: B018
