"""Results belong together if all that is behind them has one content and one value of each setting."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vr_pipeline.lineage.origins import Digests, Origin, Origins

SETTINGS = {"training.beta": 30}


class Workshop:
    """A chain of toy results: rewards -> pairs -> latents, policy -> clips -> report, as nodes would make them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.origins = Origins(folder / "logs" / "origins.json", folder)

    def write(self, name: str, content: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def make(self, name: str, *sources: str, settings: dict[str, object] | None = None, content: str = "") -> None:
        """Make a result whose content follows from its sources, and keep its origin."""
        text = content or f"{name}({','.join((self.folder / source).read_text() for source in sources)}){settings}"
        self.write(name, text)
        inputs = {source: str(self.origins.digest(source)) for source in sources}
        self.origins.add(name, Origin(name, f"make_{name}", inputs, settings or {}))

    def make_all(self) -> None:
        self.write("weights", "w1")
        self.make("rewards", "weights")
        self.make("pairs", "rewards")
        self.make("latents", "pairs")
        self.make("policy", "pairs", "latents", settings=SETTINGS)
        self.make("log", "pairs", settings=SETTINGS)
        self.make("clips", "policy")

    def troubles(
        self, *places: str, settings: dict[str, object] | None = None, remade: tuple[str, ...] = ()
    ) -> set[str]:
        again = Origins(self.origins.file, self.folder) if self.origins.file.exists() else self.origins
        return {mismatch.origin.dataset for mismatch in again.mismatches(places, settings or {}, remade)}


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    made = Workshop(tmp_path)
    made.make_all()
    return made


def test_what_one_run_made_belongs_together(workshop: Workshop) -> None:
    assert workshop.troubles("clips", "pairs", "weights", "log") == set()
    workshop.origins.save()
    assert workshop.troubles("clips", "pairs", "weights", "log", settings={"training.beta": 30, "other": 1}) == set()


def test_new_weights_make_all_that_follows_strange(workshop: Workshop) -> None:
    workshop.write("weights", "w2")
    assert workshop.troubles("clips") == {"rewards"}
    workshop.make("rewards", "weights")
    assert workshop.troubles("rewards") == set()
    assert workshop.troubles("pairs") == {"pairs"}
    workshop.make("pairs", "rewards")
    assert workshop.troubles("clips", "pairs") == {"policy", "latents"}
    assert workshop.troubles("policy", remade=("policy",)) == set()
    workshop.make("latents", "pairs")
    workshop.make("policy", "pairs", "latents", settings=SETTINGS)
    assert workshop.troubles("clips", "pairs") == {"clips"}
    assert workshop.troubles("log") == {"log"}


def test_a_step_that_gives_the_same_again_makes_nothing_strange(workshop: Workshop) -> None:
    before = (workshop.folder / "rewards").read_text()
    workshop.write("weights", "w2")
    workshop.make("rewards", "weights", content=before)
    assert workshop.troubles("clips", "pairs", "weights") == set()


def test_what_comes_back_finds_its_origin_again(workshop: Workshop) -> None:
    old = {name: (workshop.folder / name).read_text() for name in ("weights", "rewards", "pairs", "latents", "policy")}
    workshop.write("weights", "w2")
    for name, source in (("rewards", "weights"), ("pairs", "rewards"), ("latents", "pairs")):
        workshop.make(name, source)
    assert workshop.troubles("policy")
    for name, content in old.items():
        workshop.write(name, content)
    assert workshop.troubles("clips", "pairs", "weights") == set()


def test_settings_have_one_value(workshop: Workshop) -> None:
    assert workshop.troubles("policy", settings={"training.beta": 100}) == {"policy"}
    workshop.make("log", "pairs", settings={"training.beta": 100})
    [mismatch] = workshop.origins.mismatches(["policy", "log"], {})
    assert "training.beta = " in mismatch.reason


def test_results_whose_source_is_gone_are_held_against_each_other(workshop: Workshop) -> None:
    pairs = workshop.folder / "pairs"
    pairs.unlink()
    assert workshop.troubles("policy", "log") == set()
    workshop.write("pairs", "others")
    workshop.make("log", "pairs", settings=SETTINGS)
    pairs.unlink()
    assert len(workshop.troubles("policy", "log")) >= 1


def test_what_nobody_recorded_is_taken_as_it_is(workshop: Workshop) -> None:
    workshop.write("policy", "copied from elsewhere")
    assert workshop.troubles("policy", "pairs") == set()
    workshop.origins.save()
    workshop.origins.file.write_text("{damaged")
    assert workshop.troubles("clips") == set()


def test_hashes_follow_content_and_not_time(tmp_path: Path) -> None:
    digests = Digests()
    file = tmp_path / "a.parquet"
    file.write_text("one")
    first = digests.of(file)
    os.utime(file, ns=(1, 1))
    assert digests.of(file) == first
    file.write_text("two")
    assert digests.of(file) != first
    assert digests.of(tmp_path / "nothing") is None
    assert digests.of(tmp_path) is None
    assert Digests(digests.known).of(file) == digests.of(file)


def test_a_folder_of_items_is_known_by_its_manifest_and_a_model_by_its_files(tmp_path: Path) -> None:
    for name in ("items", "model"):
        (tmp_path / name).mkdir()
    (tmp_path / "items" / "manifest.json").write_text("[1]")
    (tmp_path / "model" / "config.json").write_text("{}")
    weights = tmp_path / "model" / "weights.safetensors"
    weights.write_bytes(b"abc")
    digests = Digests()
    items, model = digests.of(tmp_path / "items"), digests.of(tmp_path / "model")
    (tmp_path / "items" / "clip.mp4").write_bytes(b"x")
    weights.write_bytes(b"abd")
    assert digests.of(tmp_path / "items") == items
    assert digests.of(tmp_path / "model") != model


def test_comments_of_a_file_of_people_do_not_matter(tmp_path: Path) -> None:
    file = tmp_path / "checklist.yml"
    file.write_text("questions: [a, b]\n")
    before = Digests().of(file)
    file.write_text("# words\nquestions:\n- a\n- b\n")
    assert Digests().of(file) == before
    file.write_text("questions: [a, c]\n")
    assert Digests().of(file) != before
