"""The command around the server: what it rejects, reports and exports."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from click.testing import CliRunner, Result
from kedro.io import DataCatalog, MemoryDataset
from tests.annotation.conftest import make_index, make_label

from vr_pipeline.annotation.choice import Selection
from vr_pipeline.annotation.export import export_answers
from vr_pipeline.annotation.grading import GradingSession
from vr_pipeline.annotation.offer import make_offer, make_study
from vr_pipeline.annotation.store import Journal
from vr_pipeline.checklist import load_checklist
from vr_pipeline.cli import cli
from vr_pipeline.datasets.clips import ClipFolderDataset
from vr_pipeline.datasets.preferences import GivenClipsDataset, PreferenceDataset
from vr_pipeline.errors import InputError
from vr_pipeline.items.video_index import index_given_clips
from vr_pipeline.preferences.journal import Study
from vr_pipeline.preferences.labels import aggregate_annotators, check_preferences, usable_pairs

ROOT = Path(__file__).resolve().parents[2]
SELECTION = Selection("random", 0, 100, 10)


class NothingMade:
    """The catalog of a project in which nothing was run."""

    def exists(self, name: str) -> bool:
        return False

    def get(self, name: str) -> None:
        return None


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that passes for the project; Kedro itself is left out, which would set up logging for good."""
    monkeypatch.setattr("vr_pipeline.project.folder.project_folder", lambda: tmp_path)
    monkeypatch.setattr(
        "vr_pipeline.project.folder.project_context", lambda env: SimpleNamespace(catalog=NothingMade())
    )
    return tmp_path


@pytest.fixture
def catalog(clip_folder: Path) -> DataCatalog:
    files = {path.name: path for path in clip_folder.iterdir()}
    index = make_index(policies=("original", "mpo"))
    compared = pd.DataFrame({"video_id_a": ["original-1-0"], "video_id_b": ["mpo-1-0"]})
    rewards = index[["video_id", "prompt_id"]].assign(total=range(len(index)), dim_x=range(len(index)))
    contents = {
        "video_index": index,
        "videos": files,
        "preference_video_index": index,
        "preference_videos": files,
        "evaluation_video_index": index,
        "evaluation_videos": files,
        "evaluation_rewards": rewards,
        "human_preferences": compared,
        "checklist": load_checklist(ROOT / "conf" / "base" / "checklist.yml"),
    }
    return DataCatalog({name: MemoryDataset(content) for name, content in contents.items()})


def call(*arguments: str) -> Result:
    result = CliRunner().invoke(cli, ["annotate", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "kedro run --pipeline=video_generation"),
        (("--policies", "original,mpo"), "kedro run --pipeline=evaluation"),
        (("--source", "preferences"), "--to-outputs=preference_video_index"),
        (("--source", "clips"), "kedro init-data"),
        (("--policies", "mpo"), "--policies original,mpo"),
        (("--study", "../x"), "not a valid name of a study"),
        (("--host", "0.0.0.0"), "--allow-host"),
        (("--host", "192.168.1.5"), "--allow-host"),
        (("--report",), "Run kedro annotate first"),
        (("--export", "out"), "Run kedro annotate first"),
    ],
)
def test_what_cannot_be_served_is_said(project: Path, arguments: tuple[str, ...], expected: str) -> None:
    result = call(*arguments)
    assert result.exit_code != 0
    assert expected in " ".join(result.output.split())
    assert not list(project.rglob("*.jsonl"))


def test_offers_of_every_source(catalog: DataCatalog) -> None:
    generated = make_offer(catalog, make_study(None, "generated", None), SELECTION)
    assert (len(generated.pairs), generated.criteria) == (30, ["overall"])
    assert {pair.prompt_id for pair in generated.pairs} == set(make_index()["prompt_id"])
    compared = make_offer(catalog, make_study(None, "preferences", None), SELECTION)
    assert [{pair.first.video_id, pair.second.video_id} for pair in compared.pairs] == [{"original-1-0", "mpo-1-0"}]
    study = make_study(None, "generated", "original, mpo")
    assert (study.study, study.policies) == ("original_vs_mpo", ("original", "mpo"))
    blind = make_offer(catalog, study, Selection("informative", 0, 4, 10), dimensions="all")
    assert len(blind.pairs) == 4
    assert blind.criteria == ["alignment", "quality", "dynamics", "preservation", "stability", "overall"]
    assert blind.hints["dynamics"] == ["is the motion fast ?", "is the motion clear ?"]
    named = make_offer(catalog, study, SELECTION, dimensions="quality", criteria="motion, text,overall,quality,motion")
    assert named.criteria == ["quality", "motion", "text", "overall"]
    for study, changes, message in (
        (make_study(None, "generated", None), {"criteria": "motion,"}, "'' is not a valid name of a criterion"),
        (make_study(None, "generated", None), {"criteria": "a b"}, "letters, digits"),
        (make_study(None, "generated", None), {"selection": Selection("informative")}, "no predicted rewards yet"),
        (
            make_study(None, "preferences", None),
            {"selection": Selection("informative")},
            "preference_answers is missing",
        ),
        (make_study(None, "generated", None), {"dimensions": "beauty"}, "no dimension 'beauty'"),
        (make_study(None, "generated", "mpo,sft"), {}, "policy 'sft'"),
    ):
        with pytest.raises(InputError, match=message):
            make_offer(catalog, study, **({"selection": SELECTION} | changes))


def test_given_clips_are_compared_and_the_answers_are_their_preferences(
    project: Path, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = sorted(path.name for path in clip_folder.iterdir() if path.name.startswith("clip-"))
    table = pd.DataFrame({"prompt": [f"prompt {name.split('-')[1]}" for name in names], "file": names})
    table.to_csv(project / "clips.csv", index=False)
    videos = {"path": str(clip_folder)}
    waiting = project / "data" / "01_raw" / "annotations" / "mine" / "clips.jsonl"
    catalog = DataCatalog(
        {
            "preference_clips": GivenClipsDataset(filepath=str(project / "clips.csv"), videos=videos),
            "preference_videos": ClipFolderDataset(path=str(clip_folder)),
            "human_preferences": PreferenceDataset(filepath=str(waiting), format="annotations", videos=videos),
        }
    )
    monkeypatch.setattr("vr_pipeline.project.folder.project_context", lambda env: SimpleNamespace(catalog=catalog))
    served = []
    monkeypatch.setattr("vr_pipeline.commands.annotate._serve", lambda session, **_: served.append(session))
    assert call("--env", "mine", "--pairs-per-prompt", "2").exit_code == 0
    [session] = served
    assert (session.study.study, session.journal.path, len(session.pairs)) == ("clips", waiting, 6)

    journal = Journal(waiting, session.study)
    session = make_offer(catalog, session.study, SELECTION).session(
        session.study, journal, order="random", seed=0, annotator=None
    )
    for number in range(4):
        task = session.next_for("Ada")["task"]
        session.answer(
            **{"label": f"answer-{number:04d}", "annotator": "Ada", "pair": task["pair"], "criterion": "overall"},
            **{"choice": "left", "left": task["left"]["token"], "seconds": 1.0},
        )
    journal.close()
    preferences = catalog.load("human_preferences")
    index = index_given_clips(catalog.load("preference_clips"), catalog.load("preference_videos"), source="clips.csv")
    check_preferences(preferences, index)  # rejects clips that the index does not have
    assert len(preferences) == 4
    assert set(preferences["preference"]) == {"a"}
    pairs, unusable = usable_pairs(aggregate_annotators(preferences), index)
    assert (len(pairs), len(unusable)) == (4, 0)


def test_clips_are_graded_by_the_checklist_of_the_environment(
    project: Path, catalog: DataCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    guides = project / "conf" / "checklists" / "guides"
    shutil.copytree(ROOT / "conf" / "checklists" / "guides", guides)
    monkeypatch.setattr("vr_pipeline.project.folder.project_context", lambda env: SimpleNamespace(catalog=catalog))
    served = []

    def serve(session: GradingSession, **options: object) -> None:
        served.append(session)
        for number in range(2):
            task = session.next_for("Ada")["task"]
            assert task["options"][0]["example"]
            session.answer(
                **{"label": f"answer-{number:04d}", "annotator": "Ada", "item": task["item"], "reason": ""},
                **{"criterion": task["criterion"], "grade": task["options"][-1]["grade"], "seconds": 1.0},
            )

    monkeypatch.setattr("vr_pipeline.commands.annotate._serve", serve)
    result = call("--checklist", "--clips", "5")
    assert result.exit_code == 0, result.output
    [session] = served
    assert (len(session.clips), len(session.criteria), session.guide.annotators_per_clip) == (5, 11, 2)
    assert session.journal.path.name == "generated_grades.jsonl"
    assert "2 answers about 1 clips" in call("--checklist", "--report").output
    report = json.loads(call("--checklist", "--report", "--json").output)
    assert [one["answers"] for one in report["criteria"]][:3] == [1, 1, 0]
    own = project / "guide.yml"
    own.write_text("annotators_per_clip: 3", encoding="utf-8")
    monkeypatch.setattr("vr_pipeline.commands.annotate._serve", lambda session, **_: served.append(session))
    assert call("--checklist", "--guide", str(own), "--source", "preferences").exit_code == 0
    assert served[-1].guide.annotators_per_clip == 3
    for arguments, message in (
        (("--policies", "original,mpo"), "policies cannot be graded"),
        (("--study", "generated_grades", "--source", "preferences"), "the journal is about grades of 'generated'"),
        (("--guide", str(project / "none.yml")), "the guide cannot be read"),
    ):
        output = " ".join(call("--checklist", *arguments).output.split())
        assert message in output, output
    other = load_checklist(ROOT / "conf" / "checklists" / "video.yml")
    catalog.save("checklist", other)
    assert "the environment's checklist is video" in " ".join(call("--checklist", "--report").output.split())


def test_figures_are_printed(project: Path) -> None:
    folder = project / "data" / "01_raw" / "annotations" / "base"
    journal = Journal(folder / "mine.jsonl", Study(study="mine", source="generated"))
    journal.add(make_label(0))
    journal.close()
    assert "Ada: 1 pairs, 1 answers" in call("--study", "mine", "--report").output
    assert json.loads(call("--study", "mine", "--report", "--json").output)["answers"] == 1


def test_exported_answers_are_preferences_about_clips_that_stay(tmp_path: Path, clip_folder: Path) -> None:
    journal = Journal(tmp_path / "mine.jsonl", Study(study="mine", source="generated"))
    files = {path.name: path for path in clip_folder.iterdir()}
    for number, (left, right) in enumerate((("clip-0-0", "clip-0-1"), ("clip-1-0", "gone"))):
        journal.add(make_label(number, left=left, right=right, left_file=f"{left}.mp4", right_file=f"{right}.mp4"))
    journal.close()
    target = tmp_path / "out"
    count = export_answers(journal.path, files, target)
    assert (count["answers"], count["clips"], len(count["missing"])) == (1, 2, 1)
    loaded = PreferenceDataset(filepath=str(target / "preferences.csv"), videos={"path": str(target / "clips")}).load()
    assert loaded.loc[0, ["video_id_a", "video_id_b", "preference", "annotator"]].tolist() == [
        "clip-0-0",
        "clip-0-1",
        "a",
        "Ada",
    ]
    assert (target / "clips" / loaded.loc[0, "video_path_a"]).read_bytes() == files["clip-0-0.mp4"].read_bytes()
    with pytest.raises(InputError, match="not empty"):
        export_answers(journal.path, files, target)
    with pytest.raises(InputError, match="are missing"):
        export_answers(journal.path, {}, tmp_path / "other")


@pytest.mark.parametrize("raw", [False, True])
def test_an_export_begins_no_formula(tmp_path: Path, clip_folder: Path, raw: bool) -> None:
    journal = Journal(tmp_path / "mine.jsonl", Study(study="mine", source="generated"))
    files = {path.name: path for path in clip_folder.iterdir()}
    names = {"left": "clip-0-0", "right": "clip-0-1", "left_file": "clip-0-0.mp4", "right_file": "clip-0-1.mp4"}
    journal.add(make_label(0, prompt="=HYPERLINK(1)", annotator="@Ada", **names))
    journal.close()
    export_answers(journal.path, files, tmp_path / "out", raw=raw)
    text = (tmp_path / "out" / "preferences.csv").read_text(encoding="utf-8")
    assert (",=HYPERLINK" in text, ",@Ada" in text) == (raw, raw)
    loaded = PreferenceDataset(filepath=str(tmp_path / "out" / "preferences.csv")).load()
    assert loaded.loc[0, ["prompt", "annotator"]].tolist() == ["=HYPERLINK(1)", "@Ada"]
