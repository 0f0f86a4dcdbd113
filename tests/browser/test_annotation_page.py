"""The annotation page in a real browser, in front of the real command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.end_to_end.conftest import ROOT, copy_project

from browser_waits import wait_until
from vr_pipeline.checklist import load_checklist
from vr_pipeline.datasets.clips import ClipFolder
from vr_pipeline.items.video_index import index_given_clips
from vr_pipeline.preferences.formats import read_preferences
from vr_pipeline.preferences.journal import read_grades, read_labels
from vr_pipeline.rewards.config import WeightRegressionParameters
from vr_pipeline.video.write import write_video

pytestmark = pytest.mark.browser

HOSTILE_PROMPT = "<img src=x onerror=\"document.title='broken'\"> & 'a' \"b\""
ENABLED = "[data-choice=left]:not([disabled])"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project whose shipped comparisons are listed, with policies' clips of two hostile prompts."""
    folder = copy_project(tmp_path_factory.mktemp("annotate"))
    raw = folder / "data" / "01_raw" / "micro_world"
    clips = pd.read_csv(raw / "preference_clips.csv", dtype={"video_id": str}).head(60)
    index = index_given_clips(clips, ClipFolder(raw / "preference_videos"), source="clips")
    (folder / "data" / "02_intermediate").mkdir()
    index.to_parquet(folder / "data" / "02_intermediate" / "preference_video_index.parquet")
    return folder


class Server:
    """The command in a process, started again at will."""

    def __init__(self, project: Path, *arguments: str) -> None:
        self.project, self.arguments = project, arguments
        self.process: subprocess.Popen[str] | None = None
        self.address = ""

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kedro", "annotate", "--port", self.port, *self.arguments],
            cwd=self.project,
            env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if line.startswith("Open "):
                self.address = line.split()[1]
                return
        raise AssertionError("".join(lines))

    @property
    def port(self) -> str:
        import socket

        if self.address:
            return self.address.rstrip("/").rpartition(":")[2]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return str(probe.getsockname()[1])

    def end(self, number: int = signal.SIGINT) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(timeout=30)
            self.process = None


@pytest.fixture(scope="module")
def server(project: Path) -> Iterator[Server]:
    served = Server(project, "--source", "preferences", "--seed", "3")
    served.start()
    yield served
    served.end()


@pytest.fixture
def open_page(browser) -> Iterator[Callable[..., Any]]:
    """Opens a page as a new visitor; at the end nothing may have been reported, or asked of another server."""
    troubles: list[str] = []
    contexts = []

    def open_with(address: str, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: troubles.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith((address, "blob:", "data:")) else troubles.append(request.url)
            ),
        )
        page.goto(address)
        return page

    yield open_with
    for context in contexts:
        context.close()
    refused = "Failed to load resource: net::ERR_CONNECTION_REFUSED"  # of a server that was killed
    assert [trouble for trouble in troubles if refused not in trouble] == []


def begin(page: Any, name: str) -> None:
    page.wait_for_selector("#name-form:not([hidden])")
    page.fill("#name", name)
    page.keyboard.press("Enter")
    page.wait_for_selector(ENABLED)


def press(page: Any, key: str) -> None:
    """Press a key and wait until the page is ready for the next."""
    before = page.locator("#status").text_content(), page.locator("#count").text_content()
    page.wait_for_selector(ENABLED)
    page.keyboard.press(key)
    end = time.monotonic() + 20
    while (page.locator("#status").text_content(), page.locator("#count").text_content()) == before:
        assert time.monotonic() < end, before
        page.wait_for_timeout(10)
    page.wait_for_selector(f"{ENABLED}, #done:not([hidden])")


def journal(project: Path, study: str = "preferences") -> Path:
    return project / "data" / "01_raw" / "annotations" / "base" / f"{study}.jsonl"


def test_ten_pairs_by_keys_reach_the_table_and_the_fit(open_page, server: Server, project: Path) -> None:
    page = open_page(server.address)
    begin(page, "Ada")
    keys = ["ArrowLeft", "ArrowRight", "1", "2", "ArrowDown", "t", "x", "ArrowLeft", "ArrowRight", "ArrowLeft"]
    meaning = {"ArrowLeft": "left", "1": "left", "ArrowRight": "right", "2": "right", "x": "both_bad"}
    shown = []
    for key in keys:
        shown.append(page.locator("#prompt").text_content())
        press(page, key)
    assert page.locator("#count").text_content().startswith("10 of ")

    labels = read_labels(journal(project))
    assert [label.choice for label in labels] == [meaning.get(key, "tie") for key in keys]
    assert [label.prompt for label in labels] == shown
    assert len({label.pair for label in labels}) == 10

    table = read_preferences(journal(project), "annotations")
    assert list(table["preference"]) == ["a", "b", "a", "b", "tie", "tie", "tie", "a", "b", "a"]
    assert list(table["both_bad"]) == [key == "x" for key in keys]
    assert set(table["annotator"]) == {"Ada"}

    # The judge's part is played by answers that follow the choices, so that the fit must find them again.
    from vr_pipeline.pipelines.weight_regression import nodes

    checklist = load_checklist(project / "conf" / "base" / "checklist.yml")
    index = pd.read_parquet(project / "data" / "02_intermediate" / "preference_video_index.parquet")
    parameters = WeightRegressionParameters(bootstrap_samples=0, penalty=0.01, answers="probability")
    prompts = pd.DataFrame({"prompt": ["another one"], "split": ["test"]})
    pairs, report, _ = nodes.label_pairs(table, index, prompts, parameters)
    assert report["preferences"]["tie"] == 3
    assert report["preferences"]["a"] + report["preferences"]["b"] == 7
    preferred = set(table.loc[table["preference"] == "a", "video_id_a"])
    preferred |= set(table.loc[table["preference"] == "b", "video_id_b"])
    answers = pd.DataFrame(
        [
            {
                "video_id": video,
                "question_id": question,
                "p_yes": float(question == "sharp" and video in preferred),
                "answer": question == "sharp" and video in preferred,
                "outside_mass": 0.0,
                "gated": False,
            }
            for video in index["video_id"]
            for question in checklist.question_ids
        ]
    )
    weights, _ = nodes.fit_reward_weights(pairs, answers, checklist, parameters)
    fitted = pairs[(pairs["split"] == "fit") & (pairs["preference"] != "tie")]
    assert weights["statistics"]["n_fitted"] == len(fitted) > 0
    assert weights["questions"]["sharp"]["weight"] > 0.5


def test_undo_reload_and_a_killed_server_lose_nothing(open_page, server: Server, project: Path) -> None:
    page = open_page(server.address)
    begin(page, "Bob")
    first = page.locator("#prompt").text_content()
    press(page, "ArrowLeft")
    press(page, "u")
    assert page.locator("#count").text_content().startswith("0 of ")
    assert page.locator("#prompt").text_content() == first
    assert page.locator("#undo").is_disabled()
    for key in ("ArrowRight", "x", "ArrowDown"):
        press(page, key)
    fourth = page.locator("#prompt").text_content()
    page.reload()
    page.wait_for_selector(ENABLED)
    assert page.locator("#who").text_content() == "Bob"
    assert page.locator("#count").text_content().startswith("3 of ")
    assert page.locator("#prompt").text_content() == fourth

    before = [label for label in read_labels(journal(project)) if label.annotator == "Bob"]
    assert [label.choice for label in before] == ["right", "both_bad", "tie"]
    server.end(signal.SIGKILL)
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("#problem:not([hidden])")
    assert "does not answer" in page.locator("#problem").text_content()
    assert [label for label in read_labels(journal(project)) if label.annotator == "Bob"] == before
    server.start()
    press(page, "ArrowLeft")  # the page that was open continues
    assert page.locator("#problem").is_hidden()
    after = [label for label in read_labels(journal(project)) if label.annotator == "Bob"]
    assert after[:3] == before
    assert [label.choice for label in after] == ["right", "both_bad", "tie", "left"]


def test_two_annotators_see_the_same_pairs_and_their_agreement(open_page, server: Server, project: Path) -> None:
    pages = {name: open_page(server.address) for name in ("Cleo", "Dan")}
    for name, page in pages.items():
        begin(page, name)
        for _ in range(3):
            press(page, "ArrowDown")
    labels = read_labels(journal(project))
    by_name = {name: [label.pair for label in labels if label.annotator == name] for name in pages}
    assert by_name["Cleo"] == by_name["Dan"]
    page = pages["Dan"]
    page.click("text=Results")
    page.wait_for_selector("table")
    text = page.locator("main").text_content()
    assert "Cleo" in text
    assert "Dan" in text
    done = subprocess.run(
        [sys.executable, "-m", "kedro", "annotate", "--source", "preferences", "--report", "--json"],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    report = json.loads(done.stdout)
    people = {person["annotator"]: person["answers"] for person in report["annotators"]}
    assert (people["Cleo"], people["Dan"]) == (3, 3)
    assert report["criteria"][0]["agreement"]["pairs_with_several"] >= 3


def test_a_name_is_taken_along_by_its_link_alone(open_page, server: Server, project: Path) -> None:
    page = open_page(server.address)
    begin(page, "Hal")
    press(page, "ArrowLeft")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("#link")
    wait_until(page, "document.getElementById('status').textContent.includes('Your link is copied')")
    link = page.evaluate("navigator.clipboard.readText()")
    assert link.startswith(server.address + "join?")
    elsewhere = open_page(server.address)
    elsewhere.goto(link)
    elsewhere.wait_for_selector(ENABLED)
    assert elsewhere.locator("#who").text_content() == "Hal"
    assert elsewhere.locator("#count").text_content().startswith("1 of ")


def test_clips_play_side_by_side_and_the_page_fits_screens(open_page, server: Server) -> None:
    for options in (
        {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
        {"viewport": {"width": 1280, "height": 720}, "color_scheme": "dark"},
    ):
        page = open_page(server.address, **options)
        begin(page, f"Eve {len(options)}")
        wait_until(page, "[...document.querySelectorAll('video')].every(v => !v.paused && v.currentTime > 0.1)")
        assert page.locator("video").count() == 2
        fits = page.evaluate(
            "[document.documentElement.scrollWidth <= innerWidth,"
            " document.getElementById('answers').getBoundingClientRect().bottom <= innerHeight]"
        )
        assert fits == [True, True]
        labels = page.locator("[data-choice]").all_text_contents()
        assert [" ".join(label.split()[:3]) for label in labels][:2] == ["A is better", "B is better"]
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(int(part) for part in dark[4:-1].split(",")) < 150) == ("color_scheme" in options)
    still = open_page(server.address, reduced_motion="reduce")
    begin(still, "Fay")
    still.wait_for_timeout(300)
    assert still.evaluate("[...document.querySelectorAll('video')].every(v => v.paused)")
    still.keyboard.press("Space")
    wait_until(still, "[...document.querySelectorAll('video')].every(v => !v.paused)")


def test_criteria_are_asked_before_the_whole_and_may_be_skipped(open_page, project: Path) -> None:
    served = Server(project, "--source", "preferences", "--study", "criteria", "--criteria", "visual,motion,text")
    served.start()
    try:
        narrow = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
        for number, options in enumerate((narrow, {"viewport": {"width": 1280, "height": 720}})):
            page = open_page(served.address, **options)
            begin(page, f"Ivy {number}")
            questions = []
            for key in ("ArrowLeft", "s", "ArrowDown", "s", "ArrowRight"):
                questions.append(page.locator("#question").text_content())
                fits = page.evaluate(
                    "[document.documentElement.scrollWidth <= innerWidth,"
                    " document.getElementById('answers').getBoundingClientRect().bottom <= innerHeight]"
                )
                assert fits == [True, True]
                can_skip = page.locator("[data-choice=skip]").is_visible()
                assert can_skip == (questions[-1] != "Which clip is better overall?")
                if key == "s" and not can_skip:
                    page.keyboard.press("s")  # says nothing
                else:
                    press(page, key)
            expected = ["visual", "motion", "text"]
            assert questions[:3] == [f"Which clip is better in {name}?" for name in expected]
            assert questions[3] == questions[4] == "Which clip is better overall?"
    finally:
        served.end()
    table = read_preferences(journal(project, "criteria"), "annotations")
    assert list(table["preference"]) == ["b", "b"]
    assert list(table["preference_visual"]) == ["a", "a"]
    assert table["preference_motion"].isna().all()
    assert list(table["preference_text"]) == ["tie", "tie"]


def test_a_blind_comparison_of_policies_with_hostile_prompts(open_page, tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    folder = project / "data" / "07_model_output"
    random = np.random.default_rng(0)
    rows = []
    for policy in ("original", "mpo"):
        for prompt in range(3):
            name = f"{policy}{prompt}.mp4"
            write_video(folder / "clips" / name, random.integers(0, 256, (8, 48, 72, 3), dtype=np.uint8), fps=8)
            rows.append({"video_id": f"{policy}{prompt}", "prompt": HOSTILE_PROMPT + str(prompt), "file": name})
    index = index_given_clips(pd.DataFrame(rows), ClipFolder(folder / "clips"), source="clips")
    index["policy"] = index["video_id"].str.rstrip("012")
    index.to_parquet(folder / "evaluation_video_index.parquet")
    catalog = "evaluation_videos:\n  type: vr_pipeline.datasets.clips.ClipFolderDataset\n"
    (project / "conf" / "local").mkdir(exist_ok=True)
    (project / "conf" / "blind").mkdir()
    (project / "conf" / "blind" / "catalog.yml").write_text(catalog + "  path: data/07_model_output/clips\n")
    served = Server(project, "--env", "blind", "--policies", "original,mpo", "--dimensions", "quality")
    served.start()
    try:
        page = open_page(served.address)
        begin(page, "Gus")
        content = page.content()
        assert page.locator("#results-link").is_hidden()
        assert "original" not in content
        assert "mpo0" not in content
        assert page.locator("#prompt").text_content().startswith(HOSTILE_PROMPT)
        assert page.locator("#prompt img").count() == 0
        assert page.title() != "broken"
        assert page.evaluate("document.body.classList.contains('wide')")
        names = []
        while page.locator("#done").is_hidden():
            names.append(page.locator("#question").text_content())
            press(page, "ArrowLeft")
        assert names == ["Which clip is better in quality?", "Which clip is better overall?"] * 3
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.click("#done a")
        assert "95 % interval" in page.locator("main").text_content()
    finally:
        served.end()
    path = project / "data" / "01_raw" / "annotations" / "blind" / "original_vs_mpo.jsonl"
    wins = sum(label.left_generator == "mpo" for label in read_labels(path) if label.criterion == "overall")
    from vr_pipeline.annotation.agreement import study_results
    from vr_pipeline.preferences.journal import read_study

    results = study_results(read_study(path), read_labels(path), ["quality", "overall"], 3)
    overall = next(one for one in results["criteria"] if one["criterion"] == "overall")
    assert [win["wins"] for win in overall["win_rates"] if win["policy"] == "mpo"] == [wins]


def test_clips_are_graded_by_keys_after_a_training(open_page, project: Path) -> None:
    guide = project / "graded"
    guide.mkdir()
    clips = pd.read_parquet(project / "data" / "02_intermediate" / "preference_video_index.parquet")
    (guide / "known.csv").write_text(f"file,sharpness,colour\n{clips['path'][0]},2,yes\n", encoding="utf-8")
    shipped = (ROOT / "conf" / "checklists" / "guides" / "micro_world.yml").read_text(encoding="utf-8")
    (guide / "guide.yml").write_text(f"{shipped}training: known.csv\npass_share: 1\n", encoding="utf-8")
    options = ("--checklist", "--source", "preferences", "--guide", str(guide / "guide.yml"), "--clips", "2")
    served = Server(project, *options)
    served.start()
    ready = ".option:not([disabled])"
    try:
        narrow = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
        for number, screen in enumerate(({"viewport": {"width": 1280, "height": 720}, "color_scheme": "dark"}, narrow)):
            page = open_page(served.address, **screen)
            page.fill("#name", f"Jo {number}")
            page.keyboard.press("Enter")
            for keys in (("1", "3"), ("2", "3")):  # colour is wrong in the first round
                for key in keys:
                    page.wait_for_selector(ready)
                    page.keyboard.press(key)
                    page.wait_for_selector("#feedback:not([hidden])")
                    right = page.locator("#verdict").text_content() == "Right."
                    assert right == (key != "1")
                    assert page.locator(".option.right").count() == 1
                    page.keyboard.press("Enter")
                    page.wait_for_selector("#feedback", state="hidden")
            page.wait_for_selector(ready)
            assert page.locator("#phase").is_hidden()
            assert "Training passed: 100 %" in page.locator("#status").text_content()
            wait_until(page, "[...document.querySelectorAll('video')].every(v => !v.paused && v.currentTime > 0.1)")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            page.keyboard.press("2")
            wait_until(page, "document.getElementById('count').textContent.endsWith('question 2 of 11')")
            page.wait_for_selector(ready)
            page.keyboard.press("s")
            page.keyboard.press("2")
            wait_until(page, "document.getElementById('count').textContent.endsWith('question 3 of 11')")
            page.wait_for_selector(ready)
            page.keyboard.press("u")
            wait_until(page, "document.getElementById('count').textContent.endsWith('question 2 of 11')")
            page.wait_for_selector(ready)
            page.keyboard.press("ArrowDown")
            page.keyboard.press("ArrowDown")
            page.keyboard.press("Enter")
            wait_until(page, "document.getElementById('count').textContent.endsWith('question 3 of 11')")
        page.goto(served.address + "results")
        assert "Jo 1" in page.locator("main").text_content()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    finally:
        served.end()
    grades = [one for one in read_grades(journal(project, "preferences_grades")) if one.part == "clip"]
    assert [(one.criterion, one.grade) for one in grades] == [("colour", "yes"), ("shape", "no")] * 2
