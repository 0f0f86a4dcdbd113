"""The page "From Python" and the API reference: every example runs, and every public name has one."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

import vr_pipeline as vr
from vr_pipeline.errors import InputError
from vr_pipeline.project.template import model_folder

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "from_python.md"


def test_every_example_of_the_page_gives_what_it_says(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("tempfile.mkdtemp", lambda: str(tmp_path_factory.mktemp("page")))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    text = PAGE.read_text(encoding="utf-8")
    examples: list[doctest.Example] = []
    for block in re.finditer(r"^```pycon\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for example in doctest.DocTestParser().get_examples(block[1]):
            example.lineno += text[: block.start(1)].count("\n")
            examples.append(example)
    assert len(examples) > 50
    told: list[str] = []
    page = doctest.DocTest(examples, {}, PAGE.name, str(PAGE), 0, text)
    assert doctest.DocTestRunner().run(page, out=told.append).failed == 0, "".join(told)


def test_every_public_name_has_an_example() -> None:
    blocks = re.findall(r"^```pycon\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    used = set(re.findall(r"\bvr\.(\w+)|\"(\w+_loss)\"", "\n".join(blocks)))
    assert set(vr.__all__) - {name for pair in used for name in pair} == set()


def test_shipped_models_are_found_by_name_and_folders_that_are_none_are_named(tmp_path: Path) -> None:
    assert (model_folder("micro_world/judge") / "model.safetensors").is_file()
    assert model_folder(tmp_path / "model") == tmp_path / "model"
    with pytest.raises(InputError, match=r"there is no model here.*Give a model's folder"):
        vr.load_judge(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(InputError, match="a model of type 'bert' is no judge's"):
        vr.load_judge(tmp_path)
