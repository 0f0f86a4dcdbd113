"""The report page in a real browser: no errors, no network, clips that play, tables that sort."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from browser_waits import wait_until
from report_inputs import HOSTILE_PROMPT, render_report, report_inputs, shown
from vr_pipeline.evaluation.report.run_lines import RUN_FILE, run_document

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    inputs = report_inputs(prompts=6, samples=2, steps=60)
    inputs["params:evaluation"] = shown(title="A <small> test", num_prompts=6)
    path = tmp_path_factory.mktemp("report") / "report.html"
    # As a file saved on a system whose encoding is not UTF-8.
    path.write_text(render_report(inputs), encoding="latin-1")
    return path


@pytest.fixture
def open_page(browser, report):
    """Opens the page; at the end nothing may have been reported to the console nor asked of the network."""
    troubles: list[str] = []
    opened = []

    def open_with(**options):
        page = browser.new_page(**{"viewport": {"width": 1280, "height": 900}, **options})
        opened.append(page)
        page.on("console", lambda message: troubles.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on(
            "request", lambda request: troubles.append(request.url) if request.url.startswith(("http", "ws")) else None
        )
        page.goto(report.as_uri())
        return page

    yield open_with
    for page in opened:
        page.close()
    assert troubles == []


def test_clips_load_and_play_when_they_come_into_view(open_page):
    page = open_page()
    videos = page.locator("video")
    assert videos.count() >= 6 * 3
    wait_until(page, "[...document.querySelectorAll('video')].every(v => v.readyState >= 3 && !v.error)")
    last = page.locator("#clips .clip-set").last.locator("video")
    assert last.first.evaluate("v => v.paused")
    last.first.scroll_into_view_if_needed()
    wait_until(
        page,
        "[...document.querySelectorAll('#clips .clip-set:last-of-type video')]"
        ".every(v => !v.paused && v.played.length && v.played.end(v.played.length - 1) > 0.2)",
    )
    sizes = page.evaluate("[...document.querySelectorAll('#clips video')].map(v => [v.videoWidth, v.videoHeight])")
    assert {tuple(size) for size in sizes} == {(192, 192)}


def test_colours_on_the_screen_are_those_of_the_clip(open_page):
    page = open_page(reduced_motion="reduce")
    wait_until(page, "[...document.querySelectorAll('video')].every(v => v.readyState >= 3)")
    corner, middle = page.evaluate(
        """() => {
            const video = document.querySelector('#clips video[aria-label^="MPO"]');
            const canvas = document.createElement('canvas');
            canvas.width = video.videoWidth; canvas.height = video.videoHeight;
            const context = canvas.getContext('2d', {willReadFrequently: true});
            context.drawImage(video, 0, 0);
            return [[100, 20], [12, 96]].map(([x, y]) => [...context.getImageData(x, y, 1, 1).data].slice(0, 3));
        }"""
    )
    assert corner == pytest.approx([245, 245, 245], abs=6)
    assert middle == pytest.approx([20, 90, 220], abs=14)


def test_buttons_play_and_pause(open_page):
    page = open_page(reduced_motion="reduce")
    wait_until(page, "[...document.querySelectorAll('video')].every(v => v.readyState >= 3)")
    playing = "[...document.querySelectorAll('video')].filter(v => !v.paused).length"
    page.wait_for_timeout(300)
    assert page.evaluate(playing) == 0  # the reader asked for less motion
    first = page.locator("#clips .clip-set").first
    first.locator(".toggle").focus()
    page.keyboard.press("Enter")
    wait_until(page, playing + " === 3")
    assert first.locator(".toggle").inner_text() == "Pause"
    wait_until(page, "document.querySelector('#clips video').currentTime > 0.1")
    first.locator("video").first.click()
    wait_until(page, playing + " === 0")
    page.click("#play-all")
    wait_until(page, "[...document.querySelectorAll('video')].every(v => !v.paused)")
    page.click("#slow")
    assert page.locator("#slow").get_attribute("aria-pressed") == "true"
    assert page.evaluate("[...document.querySelectorAll('video')].every(v => v.playbackRate === 0.25)")
    page.click("#pause-all")
    wait_until(page, playing + " === 0")


def test_tables_sort_by_value_with_the_keyboard(open_page):
    page = open_page()
    table = page.locator("#disagreement table")
    column = "t => [...t.tBodies[0].rows].map(r => Number(r.cells[3].dataset.sort))"
    rising = table.evaluate(column)
    assert rising == sorted(rising)
    assert len(set(rising)) > 1
    heading = table.locator("thead th").nth(3)
    heading.locator("button").focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    assert table.evaluate(column) == sorted(rising, reverse=True)
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert table.evaluate(column) == rising
    names = "t => [...t.tBodies[0].rows].map(r => r.cells[0].textContent)"
    table.locator("thead th").first.locator("button").click()
    assert heading.get_attribute("aria-sort") is None
    assert table.evaluate(names) == sorted(table.evaluate(names))


def test_rows_without_a_value_stay_last(open_page):
    page = open_page()
    table = page.locator("#pairs table", has_text="Dimensions in which the winner")
    button = table.locator("thead th").nth(3).locator("button")
    for _ in range(2):
        button.click()
        assert table.locator("tbody tr").last.locator("td").nth(2).inner_text() == "–"


def test_html_in_a_prompt_is_text(open_page):
    page = open_page()
    assert page.evaluate("window.hacked") is None
    headings = page.locator("#clips h3").all_inner_texts()
    assert HOSTILE_PROMPT in headings
    assert page.locator("#clips img").count() == 0
    assert page.title() == "A <small> test"


@pytest.mark.parametrize("width", [320, 375, 768, 1440])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_fits_the_width_and_is_legible_in_light_and_dark(open_page, width, colours):
    page = open_page(viewport={"width": width, "height": 800}, color_scheme=colours)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # Contrast of every text element against the background behind it, as WCAG 2 defines it.
    worst = page.evaluate(
        """() => {
            const parse = c => c.match(/[\\d.]+/g).map(Number);
            const light = c => c.slice(0, 3).map(v => v / 255)
                .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
                .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
            const behind = e => {
                for (; e; e = e.parentElement) {
                    const c = parse(getComputedStyle(e).backgroundColor);
                    if (c.length < 4 || c[3] > 0.5) { return c; }
                }
                return [255, 255, 255];
            };
            let worst = [99, ''];
            for (const e of document.querySelectorAll(
                'h1,h2,h3,p,li,td,th,dt,dd,summary,caption,a,span,svg text,button')) {
                if (!e.textContent.trim() || !e.getClientRects().length || e.closest('.skip')) { continue; }
                const style = getComputedStyle(e);
                const text = light(parse(e.tagName === 'text' ? style.fill : style.color));
                const back = light(behind(e));
                const ratio = (Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05);
                if (ratio < worst[0]) { worst = [ratio, e.outerHTML.slice(0, 80)]; }
            }
            return worst;
        }"""
    )
    assert worst[0] >= 4.5, worst


def test_commit_and_run_are_shown_where_they_lie_beside_the_page(open_page, report):
    page = open_page()
    assert "in the folder where this page was written" in page.locator("footer").inner_text()
    beside = report.parent / RUN_FILE
    beside.write_text(run_document({"Commit": "0123abc", "MLflow run": "<b>77</b>"}), encoding="utf-8")
    try:
        page = open_page()
        while not (frames := [frame for frame in page.frames if frame.url.endswith(RUN_FILE)]):
            page.wait_for_timeout(30)
        [frame] = frames
        assert "0123abc" in frame.inner_text("dl")
        assert "<b>77</b>" in frame.inner_text("dl")
        assert "in the folder where this page was written" not in page.locator("footer").inner_text()
    finally:
        beside.unlink()


def test_structure_for_screen_readers(open_page):
    page = open_page()
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    unnamed = page.evaluate(
        "[...document.querySelectorAll('video, svg[role=img], [role=region], [role=group], button')]"
        ".filter(e => !(e.getAttribute('aria-label') || e.textContent).trim()).length"
    )
    assert unnamed == 0
