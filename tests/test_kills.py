"""A kill at any operation on files leaves nothing stuck: the next run resumes and ends with the same bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.annotation.conftest import make_label

from kills import Exploration, explore, read_tree, shown, write_tree
from toy_training import Toy, make_toy
from vr_pipeline.annotation.store import Journal
from vr_pipeline.datasets.catalog import ReplacingCatalog
from vr_pipeline.datasets.manifest import ManifestFolderDataset
from vr_pipeline.lineage import tracking
from vr_pipeline.lineage.runs import RunStore
from vr_pipeline.preferences.journal import Study, read_labels
from vr_pipeline.prompts.answer_store import AnswerPlan, AnswerStore
from vr_pipeline.prompts.embedding_store import EmbeddingPlan, EmbeddingStore
from vr_pipeline.storage.atomic import replaced_folder, write_text
from vr_pipeline.training.preference_trainer import train_on_pairs
from vr_pipeline.work import WorkItem, WorkPlan


@pytest.fixture
def points(record_property: Any, capsys: pytest.CaptureFixture[str]) -> Iterator[list[Exploration]]:
    """Takes what was explored, and tells how much that was."""
    found: list[Exploration] = []
    yield found
    record_property("points", sum(one.points for one in found))
    with capsys.disabled():
        print(f" [{sum(one.points for one in found)} points, {sum(len(one.states) for one in found)} states]", end="")


STORED_AS = {"json": lambda content: content, "table": lambda content: pd.DataFrame([content])}


def items(
    folder: Path, stored_as: str, count: int = 3, identity: str = "v1", metadata: dict[str, Any] | None = None
) -> None:
    def make(_: object, batch: Sequence[WorkItem]) -> list[Any]:
        return [STORED_AS[stored_as]({"key": item.key, "identity": item.identity}) for item in batch]

    plan = WorkPlan([WorkItem(f"item{n}", f"{identity}-{n}", metadata or {}) for n in range(count)], make, batch_size=2)
    ManifestFolderDataset(path=str(folder / "things"), format={"type": stored_as}).save(plan)


@pytest.mark.parametrize("stored_as", STORED_AS)
def test_a_new_folder_of_items(stored_as: str, tmp_path: Path, points: list[Exploration]) -> None:
    points.append(explore(lambda: items(tmp_path / "data", stored_as), tmp_path / "data", kills=None))
    files = {name for name in points[0].final if name.startswith("things/item")}
    assert "things/manifest.json" in points[0].final
    assert files == {f"things/item{n}.json" for n in range(3)} if stored_as == "json" else len(files) == 1


@pytest.mark.parametrize("stored_as", STORED_AS)
@pytest.mark.parametrize(
    "before",
    [
        {"identity": "v0"},  # all items are stale
        {"count": 1},  # some are missing
        {"count": 5},  # some are too many
        {"metadata": {"old": 1}},  # only the manifest changes
    ],
)
def test_a_folder_of_items_that_is_made_anew(
    stored_as: str, before: dict[str, Any], tmp_path: Path, points: list[Exploration]
) -> None:
    items(tmp_path / "data", stored_as, **before)
    (tmp_path / "data" / "things" / "stranger").mkdir()
    (tmp_path / "data" / "things" / "stranger" / "file").write_text("x")
    start = read_tree(tmp_path / "data")
    points.append(explore(lambda: items(tmp_path / "data", stored_as), tmp_path / "data", start=start))


@pytest.mark.parametrize("stored_as", STORED_AS)
def test_a_folder_whose_items_get_other_places(
    stored_as: str, tmp_path: Path, points: list[Exploration], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vr_pipeline.items.filling.FILES_IN_A_FOLDER", 2)
    monkeypatch.setattr("vr_pipeline.items.packs.ITEMS_IN_A_PACK", 2)
    items(tmp_path / "data", stored_as, count=2)
    start = read_tree(tmp_path / "data")
    points.append(explore(lambda: items(tmp_path / "data", stored_as), tmp_path / "data", start=start))
    files = {name for name in points[0].final if name.count("item") == 1 and name.endswith(("json", "zst"))}
    assert all(name.count("/") == 2 for name in files) if stored_as == "json" else len(files) > 1


def test_files_and_folders_that_are_replaced(tmp_path: Path, points: list[Exploration]) -> None:
    def work() -> None:
        write_text(tmp_path / "data" / "file", "a text")
        with replaced_folder(tmp_path / "data" / "model") as folder:
            (folder / "weights").write_text("new")
            (folder / "part").mkdir()
            (folder / "part" / "weights").write_text("new too")

    points.append(explore(work, tmp_path / "data"))
    work()
    (tmp_path / "data" / "model" / "part" / "weights").write_text("old")
    before = read_tree(tmp_path / "data")
    points.append(explore(work, tmp_path / "data", start=before))
    for state in points[1].states:
        # At no moment is there neither the old folder nor the new one.
        places = [name for name in ("model", ".model.old") if f"{name}/part/weights" in state]
        assert any(state[f"{name}/part/weights"][1] in {b"old", b"new too"} for name in places)


def test_entries_of_the_catalog(tmp_path: Path, points: list[Exploration]) -> None:
    folder = tmp_path / "data"
    catalog = ReplacingCatalog.from_config(
        {
            "table": {"type": "pandas.ParquetDataset", "filepath": str(folder / "a.parquet")},
            "rows": {"type": "pandas.CSVDataset", "filepath": str(folder / "a.csv")},
            "numbers": {"type": "json.JSONDataset", "filepath": str(folder / "a.json")},
        }
    )

    def work(number: int = 2) -> None:
        catalog.save("table", pd.DataFrame({"a": [number]}))
        catalog.save("rows", pd.DataFrame({"a": [number]}))
        catalog.save("numbers", {"a": number})

    work(1)
    start = read_tree(folder)
    points.append(explore(work, folder, start=start))
    for name in ("a.parquet", "a.csv", "a.json"):
        whole = {start[name], points[0].final[name]}
        assert {state[name] for state in points[0].states} == whole, "a file is the old one or the new one"


class Embedder:
    def embed(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([[len(text), 1.0] for text in texts], dtype=np.float32)


def test_the_store_of_embeddings(tmp_path: Path, points: list[Exploration]) -> None:
    def complete(*texts: str, identity: str = "m") -> None:
        EmbeddingStore(tmp_path / "data" / "e").complete(EmbeddingPlan(texts, identity, Embedder, part_size=2))  # type: ignore[arg-type]

    points.append(explore(lambda: complete("a", "bb", "ccc"), tmp_path / "data"))
    for identity in ("m", "another model"):
        complete("ccc", "dddd", "a", identity=identity)
        start = read_tree(tmp_path / "data")
        points.append(explore(lambda: complete("a", "bb", "ccc"), tmp_path / "data", start=start))
        assert shown(points[-1].final) == shown(points[0].final)


class Model:
    def close(self) -> None:
        pass

    def ask(self, _: str, messages: Sequence[str], parse: Any) -> list[Any]:
        return [{"answer": message} for message in messages]


class Question:
    identity, name, instructions = "task", "ask about", "answer"


def test_the_store_of_answers(tmp_path: Path, points: list[Exploration]) -> None:
    def complete(*texts: str) -> None:
        plan = AnswerPlan(texts, Question(), Model, batch_size=2)  # type: ignore[arg-type]
        AnswerStore(tmp_path / "data" / "answers.jsonl").complete(plan)

    points.append(explore(lambda: complete("a", "bb", "ccc"), tmp_path / "data"))
    complete("ccc", "dddd", "a")
    start = read_tree(tmp_path / "data")
    points.append(explore(lambda: complete("a", "bb", "ccc"), tmp_path / "data", start=start))
    assert points[1].final == points[0].final


def test_the_journal_of_annotations_keeps_every_answer_that_was_confirmed(
    tmp_path: Path, points: list[Exploration]
) -> None:
    path = tmp_path / "data" / "journal.jsonl"
    confirmed: list[int] = []
    seen: dict[int, int] = {}

    def work() -> None:
        # The page asks again until an answer is confirmed.
        confirmed.clear()
        journal = Journal(path, Study(study="test", source="generated"))
        for number in range(3):
            journal.add(make_label(number))
            confirmed.append(number)
            seen.setdefault(path.stat().st_size, number + 1)
        journal.close()

    points.append(explore(work, tmp_path / "data"))
    assert read_labels(path) == [make_label(number) for number in range(3)]
    for state in points[0].states:
        if "journal.jsonl" not in state:
            continue
        content = state["journal.jsonl"][1]
        # What had been confirmed when the file was so long is in it.
        least = max((count for size, count in seen.items() if size <= len(content)), default=0)
        (tmp_path / "copy.jsonl").write_bytes(content)
        assert read_labels(tmp_path / "copy.jsonl")[:least] == [make_label(number) for number in range(least)]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return make_toy(tmp_path_factory.mktemp("model") / "micro")


def test_checkpoints_of_a_training(toy: Toy, tmp_path: Path, points: list[Exploration]) -> None:
    folder = tmp_path / "data"
    parameters = toy.parameters(steps=2, checkpoint_every=1, batch_size=2)
    generators = {}

    def work() -> None:
        generator = toy.generator()
        file = folder / "checkpoints" / "a.safetensors"
        log = train_on_pairs(generator, toy.data, parameters, checkpoint=file)
        generators[generator.policy().identity] = log.to_json()

    points.append(explore(work, folder))
    assert len(generators) == 1, "every training ended with the same weights"
    assert len(set(generators.values())) == 1


def test_the_first_database_of_mlflow(
    tmp_path: Path, points: list[Exploration], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.store.db import utils
    from sqlalchemy import text

    # MLflow's own tables take it seconds, by dozens of statements like these.
    def tables(engine: Any) -> None:
        for name in ("first", "second", "third"):
            with engine.begin() as connection:
                connection.execute(text(f"CREATE TABLE {name} (a INTEGER)"))
                connection.execute(text(f"INSERT INTO {name} VALUES (1)"))

    monkeypatch.setattr(utils, "_initialize_tables", tables)
    points.append(explore(lambda: tracking.make_database(f"sqlite:///{tmp_path}/data/mlflow.db"), tmp_path / "data"))
    whole = points[0].final["mlflow.db"]
    for state in points[0].states:
        assert state.get("mlflow.db", whole) == whole, "under its own name the database is complete"
    assert whole[0] & 0o777 == 0o640


def test_the_record_of_a_run(tmp_path: Path, points: list[Exploration]) -> None:
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    store, written = tmp_path / "data" / "artifacts", tmp_path / "record"
    repository = LocalArtifactRepository(store.as_uri())

    def work(number: int = 2) -> None:
        written.mkdir(exist_ok=True)
        (written / "record.json").write_text(f'{{"version": 1, "stages": {{"number": {number}}}}}')
        repository.log_artifacts(str(written), "lineage")

    class Client:
        """Of MLflow what a record is read by."""

        def get_run(self, _: str) -> Any:
            info = SimpleNamespace(run_id="r" * 32, run_name="a", status="KILLED", start_time=0, end_time=1)
            return SimpleNamespace(info=info, data=SimpleNamespace(tags={}, params={}, metrics={}))

        def list_artifacts(self, _: str, path: str) -> Any:
            return repository.list_artifacts(path)

        def download_artifacts(self, _: str, path: str, target: str) -> str:
            return str(repository.download_artifacts(path, target))

    work(1)
    start = read_tree(tmp_path / "data")
    points.append(explore(work, tmp_path / "data", start=start))
    read = set()
    for state in points[0].states:
        write_tree(state, tmp_path / "data")
        run = RunStore(Client(), "0", tmp_path).get("r" * 32)  # type: ignore[arg-type]
        read.add(run.stages().get("number"))
    assert read <= {None, 1, 2}
    assert 1 in read
