"""The record of a run says what the run saw."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from vr_pipeline.lineage.record import RunRecorder
from vr_pipeline.project.configuration import SteadyConfigLoader


def fit(words: str, rate: float) -> dict:
    return {"weight": len(words) * rate}


def test_settings_edited_while_a_run_goes_on_are_not_those_of_the_run(tmp_path, monkeypatch):
    base = tmp_path / "conf" / "base"
    base.mkdir(parents=True)
    (tmp_path / "src" / "tiny").mkdir(parents=True)
    (tmp_path / "src" / "tiny" / "__init__.py").write_text("")
    (tmp_path / "words.txt").write_text("one")
    (base / "catalog.yml").write_text(
        "words: {type: text.TextDataset, filepath: words.txt}\nmodel: {type: json.JSONDataset, filepath: model.json}\n"
    )
    (base / "parameters.yml").write_text("rate: 0.5\n")
    pipeline = Pipeline([Node(fit, ["words", "params:rate"], "model", name="fit")])
    loader = SteadyConfigLoader(str(tmp_path / "conf"), base_env="base", default_run_env="base")
    monkeypatch.syspath_prepend(tmp_path / "src")
    recorder = RunRecorder(tmp_path, loader, ["fit"], pipeline, None, {"fit": pipeline}, "tiny")
    begun = recorder.start({"rate": 0.5})
    assert begun["stages"]["fit"]["params"] == {"conf/base/parameters.yml": {"rate": 0.5}}

    (base / "parameters.yml").write_text("rate: 9.0\n")  # for the next run
    (tmp_path / "model.json").write_text("{}")
    record = recorder.finish(["model"], {})
    assert record["stages"]["fit"]["complete"]
    assert record["stages"]["fit"]["params"] == {"conf/base/parameters.yml": {"rate": 0.5}}
    assert record["parameters"] == {"rate": 0.5}
