"""The report page: what it says, what it holds, and that it is the same every time."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from report_inputs import HOSTILE_PROMPT, TITLES, moving_square, render_report, report_inputs, shown, validation_log
from vr_pipeline.errors import InputError
from vr_pipeline.evaluation.report import SECTIONS, charts, elements, planes
from vr_pipeline.evaluation.report.clips import embed_clip
from vr_pipeline.evaluation.report.comparison import Comparison, Interval, compare, compare_all
from vr_pipeline.evaluation.report.sections import by_prompt
from vr_pipeline.evaluation.report.sections import clips as clips_section
from vr_pipeline.evaluation.report.sections import pairs as pairs_section
from vr_pipeline.evaluation.report.sections.by_prompt import gains_by_prompt
from vr_pipeline.evaluation.report.sections.disagreement import question_bias
from vr_pipeline.evaluation.report.sections.pairs import rejected_pairs
from vr_pipeline.evaluation.report.sections.summary import _losses_by_dimension, findings
from vr_pipeline.evaluation.report.sections.training import training_remarks, validation_charts, validation_remarks
from vr_pipeline.evaluation.report.wording import percent, plain, signed
from vr_pipeline.preferences.ratings import win_rates
from vr_pipeline.statistics.clustered import paired_gain
from vr_pipeline.video.resize import resize
from vr_pipeline.video.write import encode_clip


@pytest.fixture(scope="module")
def inputs():
    return report_inputs()


@pytest.fixture(scope="module")
def page(inputs):
    return render_report(inputs)


class _Page(HTMLParser):
    """Elements with their attributes, text by element, and whether tags are balanced."""

    VOID = frozenset({"meta", "link", "img", "br", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.stack: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        assert not self.stack

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack and self.stack[-1] not in ("script", "style"):
            self.text.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def test_page_is_self_contained_and_well_formed(page):
    document = _Page(page)
    assert page.isascii()
    assert len(page) < 10_000_000
    for tag, attributes in document.elements:
        for name in ("src", "href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, value)
    assert "http" not in re.sub(r'http-equiv="', "", page)
    assert [attributes["lang"] for attributes in document.of("html")] == ["en"]
    assert len(document.of("h1")) == 1
    identifiers = [attributes["id"] for _, attributes in document.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    for attributes in document.of("a"):
        assert attributes["href"].removeprefix("#") in identifiers
    for attributes in document.of("svg"):
        assert attributes.get("aria-hidden") == "true" or (attributes["role"] == "img" and attributes["aria-label"])
    assert len(document.of("table")) == len(document.of("caption"))
    for attributes in document.of("video"):
        assert attributes["aria-label"]
        assert "controls" in attributes


def test_same_inputs_same_bytes_whatever_the_row_order(inputs, page):
    shuffled = dict(inputs)
    for name in ("video_index", "rewards", "oracle_rewards", "answers", "oracle_answers"):
        name = f"evaluation_{name}"
        shuffled[name] = inputs[name].sample(frac=1, random_state=3).reset_index(drop=True)
    # A JSON file may come back with its keys in another order.
    shuffled["evaluation_metrics"] = json.loads(json.dumps(inputs["evaluation_metrics"], sort_keys=True))
    assert render_report(shuffled) == page


def test_all_text_from_data_is_escaped(inputs):
    everything = render_report({**inputs, "params:evaluation": shown(title="<i>T</i>", num_prompts=99)})
    document = _Page(everything)
    assert len(document.of("script")) == 1
    assert not document.of("i")
    assert not document.of("b") or all(not attributes for attributes in document.of("b"))
    assert all("onerror" not in attributes for _, attributes in document.elements)
    assert " ".join(HOSTILE_PROMPT.split()) in document.words
    assert "is sharp <b>true</b> ?" in document.words
    assert "small <checklist>" in document.words


def test_policy_of_contents_allows_the_page_script_only(page):
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)
    assert script
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert "default-src 'none'" in page


def test_clips_of_the_same_prompt_and_seed_stand_together_with_their_rewards(inputs):
    document = _Page(render_report({**inputs, "params:evaluation": shown(num_prompts=12, clips_per_prompt=2)}))
    labels = [attributes["aria-label"] for attributes in document.of("video")]
    for start in range(0, 12 * 2 * 3, 3):
        row = labels[start : start + 3]
        rest = {label.split(": ", 1)[1] for label in row}
        assert [label.split(":")[0] for label in row] == ["Original", "DPO", "MPO"]
        assert len(rest) == 1
    rewards = inputs["evaluation_rewards"].set_index("video_id")["total"]
    first = inputs["evaluation_video_index"].query(
        "policy == 'original' and prompt == 'square number 1 moves right' and sample_index == 0"
    )
    assert f"Judge {plain(rewards[first['video_id'].iloc[0]])}" in document.words


def test_failed_clips_are_named_and_do_not_stop_the_page(inputs):
    index = inputs["evaluation_video_index"].copy()
    broken = (index["policy"] == "mpo") & (index["sample_index"] == 0)
    index.loc[broken, ["status", "error"]] = ["failed", "out of <memory>"]
    metrics = inputs["evaluation_metrics"]
    metrics = {**metrics, "clips": {**metrics["clips"], "failed": int(broken.sum())}}
    document = _Page(render_report({**inputs, "evaluation_video_index": index, "evaluation_metrics": metrics}))
    assert "This clip failed: out of <memory>" in document.words
    assert f"{int(broken.sum())} clips could not be made or read" in document.words


def test_without_an_oracle_the_page_says_so_and_claims_nothing(inputs):
    document = _Page(render_report(report_inputs(oracle=False)))
    assert "No measure independent of the training can confirm a gain" in document.words
    assert "oracle" not in document.words.lower()
    assert "the judge alone cannot show whether the clips are better" in document.words
    assert "Where judge and oracle disagree" not in document.words
    assert "clips are better than" not in document.words


def test_every_section_has_its_place_in_the_navigation_and_those_without_elements_have_none(inputs):
    names = [section.name for section in SECTIONS if section.is_possible(["dpo", "mpo"], set(inputs))]
    every, few = (_Page(render_report(data)) for data in (inputs, report_inputs(oracle=False)))
    assert [link["href"] for link in every.of("a")][1:] == [f"#{name}" for name in names]
    assert [section["id"] for section in every.of("section")] == names
    assert [section["id"] for section in few.of("section")] == [name for name in names if name != "disagreement"]


def test_sections_read_the_datasets_of_every_recipe_and_of_the_baseline():
    inputs = {section.name: section.datasets(["a", "b"]) for section in SECTIONS}
    logs = ["training_log_a", "training_log_b", "validation_log_a", "validation_log_b"]
    assert inputs["training"] == logs
    assert "preference_pairs_a" in inputs["pairs"]
    assert "preference_pairs_b" not in inputs["pairs"]


def test_policies_are_compared_with_the_original_and_with_the_baseline(inputs):
    table = inputs["evaluation_rewards"]
    third = table[table["policy"] == "mpo"].assign(policy="third")
    names = ["original", "dpo", "mpo", "third"]
    against_original, between = compare_all({"judge": pd.concat([table, third])}, names)
    assert list(against_original) == ["dpo", "mpo", "third"]
    assert list(between) == ["mpo", "third"]
    assert between["third"]["judge"].total == between["mpo"]["judge"].total
    assert against_original["dpo"]["judge"].together == 3 * 3


def test_prompts_without_a_report_of_their_filter(inputs):
    assert (
        "There is no report of the prompt filter." in _Page(render_report(inputs | {"prompt_filter_report": {}})).words
    )


def test_one_prompt_gives_no_interval_and_no_claim():
    metrics_with_null = report_inputs(prompts=1)
    document = _Page(render_report(metrics_with_null))
    assert "An interval needs 5 prompts" in document.words
    assert "nan" not in document.words.lower().split()


def test_agreement_is_told_with_its_numbers_and_intervals(inputs):
    intervals = {"diff": [0.81, 0.92], "tau": [0.74, 0.88], "tau_transferred": [None, None]}
    measured = inputs["evaluation_metrics"]["agreement"] | {"intervals": intervals, "tau_transferred": 0.8}
    words = _Page(render_report(inputs | {"reward_agreement": measured | {"epsilon_transferred": 0.1}})).words
    assert "on 87.4 % (95 % interval 81.0 % to 92.0 %) of the 138 without a tie" in words
    assert "on 81.0 % (95 % interval 74.0 % to 88.0 %) of all 150" in words
    assert "tau with the threshold of the fitted pairs, 0.1 80.0 % –" in words
    plain_words = _Page(render_report(inputs)).words
    assert "on 87.4 % of the 138 without a tie" in plain_words
    assert "threshold of the fitted" not in plain_words
    ties = {"tau": 1.0, "diff": None, "epsilon": 0.0, "n": 5, "n_ties": 5}
    assert "All of 5 held-out preferences are ties" in _Page(render_report(inputs | {"reward_agreement": ties})).words


def test_people_are_said_to_prefer_one_generator_to_another(inputs):
    assert "Generators whose clips people compared" not in _Page(render_report(inputs)).words
    votes = {"first": ["x", "y", "x"], "second": ["y", "x", "z"], "preference": ["a", "a", "tie"]}
    pairs = win_rates(**votes, prompts=["1", "2", "2"])
    report = inputs["preference_report"] | {"generator_pairs": pairs}
    words = _Page(render_report(inputs | {"preference_report": report})).words
    assert "Won Tied Lost x y 50.0 % – 1 0 1 x z 50.0 % – 0 1 0" in words


def test_a_loss_in_a_dimension_is_told_with_its_interval(inputs):
    worse = report_inputs(judge_gain={"dpo": -0.1, "mpo": 0.2}, oracle=False)
    gain = compare(worse["evaluation_rewards"], "dpo", "original").dimensions["quality"]
    expected = f"quality: {signed(gain.mean)} (95 % interval {signed(gain.low)} to {signed(gain.high)})"
    assert expected in _Page(render_report(worse)).words


def test_win_rates_name_the_comparisons(inputs):
    words = _Page(render_report(inputs)).words
    rate = inputs["evaluation_metrics"]["win_rate"]["mpo"]["judge"]
    assert rate["wins"] + rate["ties"] + rate["losses"] == 36
    assert f"{percent(rate['ci_high'])} {rate['wins']} {rate['ties']} {rate['losses']}" in words


def test_results_that_do_not_belong_together_are_rejected(inputs):
    with pytest.raises(InputError, match="dimension 'quality'"):
        render_report({**inputs, "evaluation_rewards": inputs["evaluation_rewards"].drop(columns="dim_quality")})
    with pytest.raises(InputError, match="these are not reward weights"):
        render_report({**inputs, "reward_weights": {"weights": []}})
    with pytest.raises(InputError, match=r"prompt_filter_report\.steps\.out"):
        render_report({**inputs, "prompt_filter_report": {"steps": [{"step": "clean", "in": 3}]}})
    with pytest.raises(InputError, match="column 'dim_quality_gap'"):
        render_report(
            {**inputs, "preference_pairs_dpo": inputs["preference_pairs_dpo"].drop(columns="dim_quality_gap")}
        )


def test_page_keeps_to_its_size_whatever_the_clips_hold(monkeypatch):
    monkeypatch.setattr(clips_section, "CLIPS_BYTES", 300_000)
    monkeypatch.setattr(pairs_section, "CLIPS_BYTES", 100_000)
    inputs = report_inputs(prompts=6, samples=4, frames=3)
    noise = np.random.default_rng(0).integers(0, 256, (4, 192, 192, 3), dtype=np.uint8)
    videos = inputs["evaluation_videos"]
    videos.clips = {name: np.roll(noise, i, axis=2) for i, name in enumerate(videos.clips)}
    nothing = render_report({**inputs, "params:evaluation": shown(num_prompts=0, num_rejected_pairs=0)})
    page = render_report({**inputs, "params:evaluation": shown(num_prompts=6, clips_per_prompt=4)})
    assert len(_Page(nothing).of("video")) == 0
    videos = _Page(page).of("video")
    assert len(videos) > 9
    clips = sum(len(attributes["src"]) for attributes in videos)
    assert clips < 400_000 * 4 / 3
    assert len(videos) * len(embed_clip(noise, fps=8.0, max_bytes=10_000_000).url) > 2 * 400_000 * 4 / 3
    # The rest grows by the small tables under the clips only.
    assert len(page) - clips < len(nothing) + 8_000 * len(videos)


def test_the_limit_leaves_room_under_ten_megabytes():
    assert (clips_section.CLIPS_BYTES + pairs_section.CLIPS_BYTES) * 4 / 3 < 9_000_000


# --- what is said ---------------------------------------------------------------------------------------------------


def _interval(verdict: str) -> Interval:
    return {
        "above": Interval(0.5, 0.2, 0.8),
        "below": Interval(-0.5, -0.8, -0.2),
        "unclear": Interval(0.1, -0.2, 0.4),
        "unknown": Interval(0.1, math.nan, math.nan),
    }[verdict]


def _said(judge: str, oracle: str | None, between: tuple[str, str | None] = ("unclear", "unclear")) -> list:
    def record(verdict: str) -> dict[str, float | None]:
        interval = _interval(verdict)
        bounds = [None if math.isnan(value) else value for value in (interval.low, interval.high)]
        return {"mean": interval.mean, "ci_low": bounds[0], "ci_high": bounds[1]}

    def comparison(verdict: str) -> Comparison:
        return Comparison(_interval(verdict), {}, Interval(0.1, 0.0, 0.2))

    sources = {"judge": judge} | ({"oracle": oracle} if oracle else {})
    pair = {"judge": between[0]} | ({"oracle": between[1]} if between[1] else {})
    gains = {name: {source: record(verdict) for source, verdict in sources.items()} for name in ("dpo", "mpo")}
    metrics = {
        "policies": {name: {source: {} for source in sources} for name in ("original", "dpo", "mpo")},
        "gain": gains,
        "clips": {"prompts": 16, "per_policy": 384, "failed": 0},
    }
    between = {"mpo": {source: comparison(verdict) for source, verdict in pair.items()}}
    return findings(TITLES, metrics, {}, between, {"n": 0, "n_ties": 0})


VERDICTS = ["above", "below", "unclear", "unknown"]


@pytest.mark.parametrize("judge", VERDICTS)
@pytest.mark.parametrize("oracle", [*VERDICTS, None])
def test_a_policy_is_called_better_only_if_the_oracle_says_so(judge, oracle):
    gain = _said(judge, oracle)[2]
    called_better = "'s clips are better" in gain.text
    assert called_better == (oracle == "above" and judge != "unknown")
    assert (gain.tone == "good") == called_better
    hacking = "sign of reward hacking" in gain.text
    assert hacking == (judge == "above" and oracle in ("below", "unclear"))
    if hacking:
        assert gain.tone == "warning"


@pytest.mark.parametrize("judge", VERDICTS)
@pytest.mark.parametrize("oracle", [*VERDICTS, None])
def test_mpo_is_put_above_dpo_only_if_the_oracle_says_so(judge, oracle):
    found = _said("above", "above" if oracle else None, (judge, oracle))[3]
    assert found.text.startswith("MPO minus DPO")
    assert ("The oracle ranks MPO above DPO" in found.text or "Judge and oracle rank MPO above DPO" in found.text) == (
        oracle == "above"
    )
    if oracle == "unclear":
        assert "shown to be better" in found.text
        # The unclear interval lies about +0.1: with a judge that says above, the oracle leans the same way.
        assert ("reward hacking" in found.text) == (judge == "below")
    assert found.tone != "good"


def test_made_up_reward_hacking_is_named_on_the_page():
    document = _Page(
        render_report(report_inputs(judge_gain={"dpo": 0.2, "mpo": 0.3}, oracle_gain={"dpo": 0.2, "mpo": 0.0}))
    )
    text = document.words
    mpo = text[text.index("MPO against the original") :]
    assert "sign of reward hacking" in mpo[: mpo.index("MPO minus DPO")]
    dpo = text[text.index("DPO against the original") : text.index("MPO against the original")]
    assert "By judge and oracle, DPO's clips are better" in dpo
    assert "The oracle ranks DPO above MPO" in text


def test_comparison_agrees_with_paired_gain(inputs):
    table = inputs["evaluation_rewards"]
    found = compare(table, "mpo", "original")
    parts = {name: table[table["policy"] == name] for name in ("mpo", "original")}
    expected = paired_gain(
        parts["mpo"]["total"], parts["mpo"]["prompt_id"], parts["original"]["total"], parts["original"]["prompt_id"]
    )
    assert (found.total.mean, found.total.low, found.total.high) == pytest.approx(
        (expected.mean, expected.ci_low, expected.ci_high)
    )
    assert sum(part.mean for part in found.dimensions.values()) == pytest.approx(found.total.mean)
    assert (found.effect.mean, found.effect.low, found.effect.high) == pytest.approx(expected.effect())
    without = table[(table["policy"] != "mpo") | (table["prompt_id"] != table["prompt_id"].iloc[0])]
    with pytest.raises(InputError, match="was evaluated for only one policy"):
        compare(without, "mpo", "original")


def test_bias_by_question_and_policy():
    index = pd.DataFrame({"video_id": ["a", "b", "c", "d"], "policy": ["original", "original", "mpo", "mpo"]})
    judge = pd.DataFrame({"video_id": list("abcd"), "question_id": "q", "p_yes": [0.9, 0.1, 0.9, 0.9]})
    oracle = pd.DataFrame({"video_id": list("abcd"), "question_id": "q", "p_yes": [0.9, 0.2, 0.1, 0.9]})
    bias = question_bias(judge, oracle, index, ["original", "mpo"])
    assert bias.loc["q", "original"] == 0.0
    assert bias.loc["q", "mpo"] == 0.5
    assert question_bias(judge, oracle.head(0), index, ["original"]).empty


def test_training_remarks_name_what_went_wrong_and_only_that():
    steps = np.arange(1, 101)
    fine = pd.DataFrame(
        {"step": steps, "winner_change": -0.01, "loser_change": 0.02, "implicit_accuracy": 0.8, "saturation": 0.7}
    )
    assert training_remarks(TITLES, {"mpo": fine}, {}) == []
    bad = fine.assign(winner_change=0.01, implicit_accuracy=0.5, saturation=0.97)
    texts = " ".join(remark.text for remark in training_remarks(TITLES, {"dpo": bad}, {}))
    assert "winners worse than the reference" in texts
    assert "hardly more than chance" in texts
    assert "saturated" in texts
    earlier = training_remarks(TITLES, {"dpo": bad}, {"dpo": validation_log(100, 1.0)})
    assert sum("The policy is an earlier checkpoint, after step 75." in remark.text for remark in earlier) == 3
    assert not any(
        "earlier" in remark.text
        for remark in training_remarks(TITLES, {"dpo": bad[:75]}, {"dpo": validation_log(100, 1.0)})
    )
    assert training_remarks(TITLES, {"mpo": pd.DataFrame({"step": steps, "loss": 1.0})}, {}) == []


def test_rejected_pairs_name_the_dimension_that_fails():
    pairs = pd.DataFrame(
        {
            "winner_video_id": list("abcd"),
            "loser_video_id": list("efgh"),
            "margin": [3.0, 2.0, 1.0, 4.0],
            "dominates": [False, False, False, True],
            "dim_x_gap": [-0.5, -0.4, 2.0, 2.0],
            "dim_y_gap": [3.5, 2.4, -1.0, 2.0],
        }
    )
    table, failing = rejected_pairs(pairs, ["x", "y"], "DPO")
    counts = {row[0]: int(row[1].text) for row in table.rows}
    assert counts == {"x": 2, "y": 1}
    # The largest margin of each dimension first, then the rest.
    assert failing["winner_video_id"].tolist() == ["a", "c", "b"]
    assert failing["worst"].tolist() == ["x", "y", "x"]
    none, empty = rejected_pairs(pairs[pairs["dominates"]], ["x", "y"], "DPO")
    assert empty.empty
    assert [row[1].text for row in none.rows] == ["0", "0"]


# --- numbers, charts and clips --------------------------------------------------------------------------------------


def test_numbers_as_text():
    assert signed(0.123) == "+0.12"
    assert signed(-0.123) == "−0.12"
    assert signed(-0.001) == "0.00"
    assert signed(None) == signed(math.nan) == plain(math.inf) == percent(None) == "–"
    assert plain(-0.0001, 3) == "0.000"
    assert percent(0.5) == "50.0 %"
    assert elements.number(0.25, sign=True).sort == "0.25"
    assert elements.number(math.nan).sort == ""
    with pytest.raises(ValueError, match="2 cells for 1 columns"):
        elements.Table("t", ["a"], [["a", "b"]])


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.integers(2, 8))
def test_ticks_are_few_regular_and_cover_the_range(a, b, count):
    low, high = sorted((a, b))
    ticks = charts.nice_ticks(low, high, count)
    assert 2 <= len(ticks) <= 2 * count + 2
    assert np.all(np.diff(ticks) > 0)
    slack = 1e-6 * max(1.0, abs(low), abs(high))
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack
    labels = [charts.tick_label(tick, ticks) for tick in ticks]
    assert len(set(labels)) == len(labels)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0, 3)), min_size=1, max_size=6), st.booleans())
def test_marks_lie_within_the_chart(values, bars):
    rows = [charts.Row(f"<{i}>", [charts.Mark(0, v, v - w, v + w, "a & b")]) for i, (v, w) in enumerate(values)]
    svg = str(charts.intervals_chart("t", rows, axis="x", bars=bars).svg)
    width, height = (float(value) for value in re.search(r'viewBox="0 0 (\S+) (\S+)"', svg).groups())
    for name, limit in (("x", width), ("x1", width), ("x2", width), ("cx", width), ("y", height), ("cy", height)):
        for value in re.findall(rf' {name}="([^"]+)"', svg):
            assert -0.1 <= float(value) <= limit + 0.1
    assert "<0>" not in svg
    assert "&lt;0&gt;" in svg


def test_values_that_are_missing_are_drawn_as_such():
    svg = str(charts.intervals_chart("", [charts.Row("a", [charts.Mark(0, math.nan)])], axis="").svg)
    assert "no value" in svg
    assert "nan" not in svg
    line = planes.Line(0, np.arange(1, 6.0), np.array([math.nan, 1, 2, math.nan, 3]), "a")
    assert "nan" not in str(planes.lines_chart("t", [line], description="d", note="").svg)


def _decode(url: str) -> np.ndarray:
    import av

    content = base64.b64decode(url.split(",", 1)[1])
    with av.open(io.BytesIO(content)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_small_clips_are_enlarged_and_keep_their_colours_and_frames():
    frames = moving_square(8, 16, 16, (20, 90, 220), 6)
    clip = embed_clip(frames, fps=8.0, max_bytes=100_000)
    assert (clip.width, clip.height, clip.seconds) == (192, 192, 1.0)
    decoded = _decode(clip.url)
    assert decoded.shape == (8, 192, 192, 3)
    difference = np.abs(decoded[:, 6::12, 6::12].astype(int) - frames.astype(int))
    assert np.median(difference) <= 3
    assert difference.mean() < 6
    assert clip == embed_clip(frames.copy(), fps=8.0, max_bytes=100_000)


@pytest.mark.parametrize(("height", "width"), [(15, 17), (64, 64), (480, 720), (721, 333), (1, 1)])
def test_sizes_are_even_and_within_the_limit(height, width):
    frames = np.zeros((2, height, width, 3), np.uint8)
    resized = resize(frames, 320)
    assert resized.shape[1] % 2 == 0
    assert resized.shape[2] % 2 == 0
    assert max(resized.shape[1:3]) <= 320
    assert max(resized.shape[1:3]) >= 192
    assert resized.shape[1] / resized.shape[2] == pytest.approx(height / width, rel=0.06)
    assert encode_clip(resized, fps=8, crf=20)


def test_a_clip_is_made_to_fit_whatever_it_holds():
    noise = np.random.default_rng(0).integers(0, 256, (16, 120, 160, 3), dtype=np.uint8)
    clip = embed_clip(noise, fps=16.0, max_bytes=4_500)
    assert len(clip.url) < 4_500 * 4 / 3 + 100
    decoded = _decode(clip.url)
    assert 2 <= len(decoded) < 16
    assert clip.seconds == pytest.approx(1.0)


def test_a_clip_of_one_frame_becomes_an_image():
    frames = moving_square(1, 16, 16, (200, 0, 0), 6)
    clip = embed_clip(frames, fps=0.0, max_bytes=100_000)
    assert (clip.kind, clip.width) == ("image", 192)
    assert clip.url.startswith("data:image/png;base64,")
    noise = np.random.default_rng(0).integers(0, 256, (1, 512, 512, 3), dtype=np.uint8)
    assert embed_clip(noise, fps=0.0, max_bytes=30_000).url.startswith("data:image/jpeg;base64,")


def test_validation_says_which_checkpoint_is_the_policy_and_whether_it_helped() -> None:
    helped, not_helped = validation_remarks(TITLES, {"dpo": validation_log(200, 1.5), "mpo": validation_log(200, -0.5)})
    assert helped.text.startswith("DPO is the checkpoint after step 150 of 200")
    assert "3.50, the original 2.00" in helped.text
    assert "cannot be distinguished from that after step 100 (95 %" in helped.text
    assert helped.tone == "plain"
    assert not_helped.tone == "warning"
    assert "did not help" in not_helped.text
    assert validation_remarks(TITLES, {"mpo": validation_log(200, 1.0).iloc[:0]}) == []


def test_checkpoints_that_the_bound_rejected_are_listed_with_their_dimensions() -> None:
    table = validation_log(200, 1.5)
    steps = list(table["step"])
    below = ["motion, text" if step == 150 else "" for step in steps]
    chosen, rejected = validation_remarks(TITLES, {"dpo": table.assign(below=below, chosen=[s == 100 for s in steps])})
    assert "after step 100 of 200, with the highest validation reward that alarm and bound allow: " in chosen.text
    assert "(step 150: motion, text)" in rejected.text
    assert rejected.tone == "warning"
    original, _ = validation_remarks(TITLES, {"dpo": table.assign(below=below, chosen=[s == 0 for s in steps])})
    assert original.text == "DPO is the original: no checkpoint was chosen."
    assert len(validation_remarks(TITLES, {"dpo": table.assign(below="")})) == 1


def test_checkpoints_judged_on_one_prompt_have_no_band():
    logs = {"mpo": validation_log(60, 1.5), "dpo": validation_log(60, -0.5)}
    [with_band] = validation_charts(TITLES, logs)
    [without] = validation_charts(TITLES, {name: table.assign(se=math.nan) for name, table in logs.items()})
    assert with_band.title == without.title == "Validation reward"
    assert str(with_band.svg).count("<polygon") == 2 + str(without.svg).count("<polygon")
    assert str(without.svg).count("<polyline") == str(with_band.svg).count("<polyline") > 0


def test_what_weights_cannot_say_is_said(inputs):
    question = next(name for name, entry in inputs["reward_weights"]["questions"].items() if not entry["removed"])
    facts = {
        "warnings": ["the chosen penalty 0.1 is the strongest of its grid"],
        "no_interval": {question: "few prompts"},
    }
    weights = inputs["reward_weights"] | {"statistics": inputs["reward_weights"]["statistics"] | facts}
    words = _Page(render_report(inputs | {"reward_weights": weights})).words
    assert "The chosen penalty 0.1 is the strongest of its grid." in words
    assert "no interval: few prompts" in words
    assert "dimensions: jointly" in words


def test_dimensions_of_all_policies_are_read_together():
    rng = np.random.default_rng(0)
    rows = [(policy, f"p{i}") for policy in ("original", "mpo") for i in range(12)]
    table = pd.DataFrame(rows, columns=["policy", "prompt_id"]).assign(total=0.0)
    for name in ("dim_a", "dim_b", "dim_c"):
        table[name] = rng.normal(size=24) - 2.0 * ((table["policy"] == "mpo") & (name == "dim_a"))
    found = compare(table, "mpo", "original", policies=2)
    mpo, original = (table[table["policy"] == name]["dim_b"].to_numpy() for name in ("mpo", "original"))
    expected = stats.ttest_rel(mpo, original).confidence_interval(1 - 0.05 / 6)
    assert (found.dimensions["b"].low, found.dimensions["b"].high) == pytest.approx((expected.low, expected.high))
    assert found.together == 6
    assert found.total.verdict() == "unknown"  # no spread at all
    (loss,) = _losses_by_dimension("MPO", {"judge": found})
    assert "below the original in a:" in loss.text
    assert "are joint for all 6 comparisons" in loss.text


def test_a_training_that_went_wrong_is_remarked_with_what_was_kept():
    log = pd.DataFrame(
        {"step": [1, 2, 3], "loss": 0.5, "trouble_step": [None, None, 2.0], "kept_step": [None, None, 1.0]}
    )
    for kept, said in ((1.0, "those after step 1."), (0.0, "those of the original.")):
        [remark] = training_remarks({"dpo": "DPO"}, {"dpo": log.assign(kept_step=[None, None, kept])}, {})
        assert (
            remark.text
            == f"The training of DPO failed from step 2 on and was stopped after step 3. Its weights are {said}"
        )


def test_every_picture_is_drawn_in_its_section(page):
    """Nothing but clips is a file within the page: pictures are drawn by it and follow its colours."""
    assert "data:image/png" not in page
    for section, title in (
        ("weights", "Correlation of the answers to the questions"),
        ("weights", "Share of yes by sub-dimension: clips that people preferred"),
        ("people", "Calibration"),
        ("people", "Accuracy by number of questions, binary answers"),
        ("rewards", "Share of yes by sub-dimension, minus the original"),
        ("pairs", "Winner minus loser by dimension"),
        ("by_prompt", "Gain by prompt: judge against oracle"),
        ("spread", "Drift"),
    ):
        own = page.partition(f'<section id="{section}"')[2].partition("</section>")[0]
        assert re.search(rf"<figcaption>{re.escape(title)}", own), title


def test_hidden_weights_stand_beside_the_learned_ones_where_they_are_known(inputs, page):
    learned = [inputs["reward_weights"]["questions"][name]["weight"] for name in inputs["oracle"].weights]
    order = stats.spearmanr(learned, list(inputs["oracle"].weights.values())).statistic
    assert f"Rank correlation of learned and hidden weights: {plain(order)}." in _Page(page).words
    without = _Page(render_report({**inputs, "oracle": None})).words
    assert "hidden" not in without


def test_gains_by_prompt_average_to_the_gain(inputs):
    gains = gains_by_prompt(inputs["evaluation_rewards"], list(TITLES))
    assert list(gains.columns) == ["dpo", "mpo"]
    for policy in gains:
        assert gains[policy].mean() == pytest.approx(inputs["evaluation_metrics"]["gain"][policy]["judge"]["mean"])


def test_with_many_prompts_the_lowest_and_highest_gains_are_drawn(inputs):
    rows = [
        {"video_id": f"{n}{policy}", "prompt_id": f"p{n:03}", "policy": policy, "total": n * (policy == "mpo")}
        for n in range(100)
        for policy in ("original", "mpo")
    ]
    rewards = pd.DataFrame(rows)
    index = rewards[["prompt_id"]].assign(prompt=rewards["prompt_id"])
    drawn = str(by_prompt.make(TITLES, rewards, rewards.head(0), None, index)[0])
    shown = set(re.findall(r">(p\d{3})<", drawn))
    assert shown == {f"p{n:03}" for n in (*range(12), *range(88, 100))}


def test_a_point_outside_of_the_numbers_is_left_out():
    points = [planes.Point(0, math.nan, 1.0), planes.Point(1, 0.5, 0.5, "a <tip>")]
    chart = planes.points_chart("t", points, axes=("x", "y"), description="d")
    assert "nan" not in chart.svg
    assert chart.svg.count("<g ") == 1
    assert "a &lt;tip&gt;" in chart.svg


def test_cells_of_a_matrix_without_a_value_stay_empty():
    values = np.array([[1.0, -0.5, math.nan], [-0.5, 1.0, 0.25], [math.nan, 0.25, math.nan]])
    svg = str(planes.matrix_chart("t", values, ["a", "b", "<c>"], description="d").svg)
    assert svg.count("<rect") == 4
    assert "<title>b, a: -0.50</title>" in svg
    assert "<c>" not in svg


def test_hold_outs_are_drawn_beside_the_judge():
    log = validation_log(60, 1.0)
    held = log.assign(hold_out_oracle=[2.0, 2.2, 2.1, 1.8, 1.5], hold_out_oracle_se=0.1)
    drawn = validation_charts(TITLES, {"dpo": log, "mpo": held})
    assert [chart.title for chart in drawn] == ["Validation reward", "Validation reward by oracle"]
    assert drawn[0].svg.count("<polyline") == 2
    assert drawn[1].svg.count("<polyline") == 1
    assert "MPO: 2.00 after step 0" in drawn[1].svg
    assert [chart.title for chart in validation_charts(TITLES, {"dpo": log})] == ["Validation reward"]
