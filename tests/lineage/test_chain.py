"""Chains of executions over several runs: tree, page and comparison."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from vr_pipeline.lineage.chain import executions, trace, tree_lines
from vr_pipeline.lineage.compare import Account, Change, by_weight, differences, lines
from vr_pipeline.lineage.page import render_page
from vr_pipeline.lineage.runs import Run


def entry(path: str, md5: str) -> dict[str, Any]:
    return {"path": path, "hash": "md5", "md5": md5, "size": 1}


def stage(reads: dict[str, str], writes: dict[str, str], code: str = "c0") -> dict[str, Any]:
    """A recorded stage; datasets lie at data/<name>."""
    return {
        "cmd": "kedro run",
        "complete": True,
        "deps": [entry(f"data/{name}", md5) for name, md5 in reads.items()] + [entry("src/code.py", code)],
        "params": {},
        "outs": [entry(f"data/{name}", md5) for name, md5 in writes.items()],
        "datasets": {f"data/{name}": name for name in (*reads, *writes)},
        "sources": ["src/code.py"],
    }


def recorded(name: str, hour: int, stages: dict[str, Any], dirty: bool = False, **record: Any) -> Run:
    outs = {f"output.{e['datasets'][o['path']]}": o["md5"] for e in stages.values() for o in e["outs"]}
    return Run(
        id=name * 8,
        name=f"<{name}>",
        status="FINISHED",
        started=datetime(2026, 1, 1, hour, tzinfo=UTC),
        tags={"git.commit": "abcdef0123", "git.dirty": str(dirty).lower(), **outs},
        record={"stages": stages, **record},
    )


class Store:
    """Finds the newest earlier run that wrote a content, as the real one does."""

    def __init__(self, *runs: Run) -> None:
        self.runs = runs

    def maker(self, dataset: str, md5: str, reader: Run) -> Run | None:
        found = [run for run in self.runs if run.tags.get(f"output.{dataset}") == md5 and run.started <= reader.started]
        return max(found, key=lambda run: run.started, default=None)


WHOLE = recorded(
    "a", 1, {"draw": stage({"raw": "r1"}, {"items": "i1"}), "fit": stage({"items": "i1"}, {"model": "m1"})}
)
FIT_AGAIN = recorded("b", 2, {"fit": stage({"items": "i1"}, {"model": "m2"}, code="c1")}, dirty=True)
JUDGE = recorded("c", 3, {"judge": stage({"model": "m2", "items": "i1"}, {"score": "s2"})})


def test_the_chain_goes_over_runs_to_supplied_data():
    [end] = trace(Store(WHOLE, FIT_AGAIN, JUDGE), JUDGE)
    assert [(one.run.id[0], one.stage) for one in executions([end])] == [("a", "draw"), ("b", "fit"), ("c", "judge")]
    assert tree_lines([end]) == [
        "judge  run cccccccc  2026-01-01 03:00  commit abcdef01",
        "├─ model m2 <- fit  run bbbbbbbb  2026-01-01 02:00  commit abcdef01*",
        "│  └─ items i1 <- draw  run aaaaaaaa  2026-01-01 01:00  commit abcdef01",
        "│     └─ raw  data/raw  r1",
        "└─ items i1 <- draw  run aaaaaaaa  (as above)",
    ]


def test_a_stage_of_the_same_run_does_not_repeat_it():
    assert tree_lines(trace(Store(WHOLE), WHOLE)) == [
        "fit  run aaaaaaaa  2026-01-01 01:00  commit abcdef01",
        "└─ items i1 <- draw",
        "   └─ raw  data/raw  r1",
    ]


def test_a_chain_can_begin_at_one_dataset_of_a_run():
    [end] = trace(Store(WHOLE), WHOLE, "items")
    assert end.stage == "draw"
    [end] = trace(Store(WHOLE), WHOLE)
    assert end.stage == "fit"


def test_source_files_are_no_data_and_runs_without_a_record_have_no_chain():
    [end] = trace(Store(WHOLE), WHOLE, "items")
    assert [content.path for content in end.raw] == ["data/raw"]
    assert trace(Store(), Run("x", "x", "FINISHED", datetime(2026, 1, 1, tzinfo=UTC))) == []


def test_the_page_needs_nothing_else_and_shows_every_execution():
    page = render_page("Where <model> comes from", trace(Store(WHOLE, FIT_AGAIN, JUDGE), JUDGE))
    assert "&lt;model&gt;" in page
    assert "<model>" not in page
    assert page.count("<rect") == 3
    assert page.count("<path") == 3
    assert page.count('class="changed"') == 1
    # On narrow screens tables scroll for themselves.
    assert page.count('<div class="listing"') == page.count("<table>") == 3
    for forbidden in ("http://", "https://", "<script", "<link", "@import"):
        assert forbidden not in page.replace('xmlns="http://www.w3.org/2000/svg"', "")
    for hash_ in ("r1", "i1", "m2", "s2"):
        assert f"<code>{hash_}</code>" in page


def test_differences_of_two_runs():
    first = recorded(
        "d",
        1,
        {"fit": stage({"items": "i1"}, {"model": "m1"})},
        parameters={"fit": {"rate": 0.5, "same": 1}},
        metrics={"score": {"score.mean": 1.0, "score.old": 2.0}},
        machine={"cpu": "one"},
        packages={"torch": "1", "numpy": "2"},
        code={"changed": []},
    )
    second = recorded(
        "e",
        2,
        {"fit": stage({"items": "i2"}, {"model": "m2", "log": "l"}, code="c1")},
        parameters={"fit": {"rate": 0.7, "same": 1}},
        metrics={"score": {"score.mean": 1.5}},
        machine={"cpu": "two"},
        packages={"torch": "2", "numpy": "2"},
        code={"changed": ["src/code.py"]},
    )
    assert lines(differences(Account(first), Account(second)), 8) == [
        "Code: 2 differ",
        "  changed files:  -> src/code.py",
        "  src/code.py: c0 -> c1",
        "Parameters: 1 differ",
        "  fit.rate: 0.5 -> 0.7  (+0.2)",
        "Data supplied: 1 differ",
        "  items: i1 -> i2",
        "Data made: 1 differ",
        "  model: m1 -> m2",
        "Results: 2 differ",
        "  score.old: 2 -> none",
        "  score.mean: 1 -> 1.5  (+0.5)",
        "Environment: 2 differ",
        "  cpu: one -> two",
        "  package torch: 1 -> 2",
    ]
    assert lines(differences(Account(first), Account(first)), 8) == [
        f"{subject}: the same"
        for subject in ("Code", "Parameters", "Data supplied", "Data made", "Results", "Environment")
    ]
    assert "  and 1 more" in lines(differences(Account(first), Account(second)), 1)


def test_results_of_single_stages_differ_by_what_is_behind_them():
    """Two scores, each by a run of its last stage alone: what was changed lies two runs before, and comes first."""

    def made_by(rate: float, version: str, hour: int, machine: str) -> list[Run]:
        fit = stage({"items": "i1"}, {"weights": f"m{version}"}, code=f"c{version}")
        fit["params"] = {"conf/fit.yml": {"fit": {"rate": rate}}, "conf/catalog.yml": {"weights.format": "json"}}
        judge = stage({"weights": f"m{version}"}, {"score": f"s{version}"}, code="c0")
        return [
            recorded(
                f"f{version}", hour, {"fit": fit}, machine={"cpu": machine}, metrics={"weights": {"weights.loss": rate}}
            ),
            recorded(
                f"j{version}",
                hour + 1,
                {"judge": judge},
                machine={"cpu": "one"},
                metrics={"score": {"score": rate * 2}},
            ),
        ]

    draw = recorded("draw", 1, {"draw": stage({"raw": "r1"}, {"items": "i1"})}, machine={"cpu": "one"})
    runs = [draw, *made_by(0.5, "1", 2, "one"), *made_by(0.7, "2", 4, "two")]
    first, second = (Account(run, executions(trace(Store(*runs), run))) for run in (runs[2], runs[4]))
    assert lines(differences(first, second), 8) == [
        "Code: 1 differ",
        "  src/code.py: c0 and c1 -> c0 and c2",
        "Parameters: 1 differ",
        "  fit.rate: 0.5 -> 0.7  (+0.2)",
        "Data supplied: the same",
        "Data made: 2 differ",
        "  weights: m1 -> m2",
        "  score: s1 -> s2",
        "Results: 2 differ",
        "  score: 1 -> 1.4  (+0.4)",
        "  weights.loss: 0.5 -> 0.7  (+0.2)",
        "Environment: 1 differ",
        "  cpu: one -> one and two",
    ]


def test_figures_that_moved_furthest_come_first_and_their_uncertainty_last():
    moved = [
        Change("gain.ci_low", 1.0, 9.0),
        Change("gain.mean", 1.0, 1.1),
        Change("reward.se", 1.0, 9.0),
        Change("gone", 1.0, None),
        Change("reward", 1.0, 2.0),
    ]
    assert [change.name for change in by_weight(moved)] == ["gone", "reward", "gain.mean", "gain.ci_low", "reward.se"]
