"""Templates: what is asked, in which tokens, and which files are rejected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tiny_judges import build_tokenizer, qwen2_vl
from tiny_tokenizers import byte_tokenizer
from vr_pipeline.errors import InputError
from vr_pipeline.rewards.unifiedreward.rendering import number_ids, parts_of, rendered, slots_of
from vr_pipeline.rewards.unifiedreward.scales import ScoreLine
from vr_pipeline.rewards.unifiedreward.template import FORMS, TASKS, UnifiedTemplate
from vr_pipeline.rewards.unifiedreward.template_files import load_template
from vr_pipeline.vlm.families.base import Family

SHIPPED = sorted(path.stem for path in (Path(__file__).parents[3] / "conf/templates").glob("*.yml"))
MARK = "<|im_end|>"
SMALL: dict[str, Any] = {
    "name": "small",
    "opening": "<|im_start|>user\n",
    "closing": "<|im_end|>\n<|im_start|>assistant\n",
    "end": "<|im_end|>",
    "video_generation": {
        "pair": {"text": "[[first]] [[second]]\nCaption: [[[prompt]]]", "answers": {"first": "A", "second": "B"}},
        "point": {
            "text": "[[clip]]\nCaption: [[[prompt]]]",
            "lines": [
                {"dimension": "look", "before": "look: ", "low": 1, "high": 10},
                {"dimension": "move", "low": 1, "high": 4},
            ],
        },
    },
    "video_understanding": {
        "pair": {
            "text": "[[clip]]\nQuestion: [[prompt]]\nOne: [[response_a]]\nTwo: [[response_b]]",
            "answers": {"first": "A", "second": "B", "tie": "C"},
        }
    },
}


@pytest.fixture(scope="module")
def family() -> Family:
    """A family over a tokenizer of bytes: every text can be written, and merges cross the template's borders."""
    made = qwen2_vl(build_tokenizer())
    made.tokenizer = byte_tokenizer()
    return made


def text_of(family: Family, pieces: Any) -> str:
    return "".join(f"{{{one}}}" if isinstance(one, str) else family.tokenizer.decode(list(one)) for one in pieces)


def without(place: str, **changes: Any) -> dict[str, Any]:
    content = yaml.safe_load(yaml.safe_dump(SMALL))
    entry = content
    *way, last = place.split(".")
    for step in way:
        entry = entry[step]
    entry[last] = changes["to"]
    return content


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_template_renders_all_it_has(family: Family, name: str) -> None:
    template = load_template(name)
    assert template.name == name
    asked = [(task, form) for task in TASKS for form in FORMS if template.has(task, form)]  # type: ignore[arg-type]
    assert asked
    for task, form in asked:
        understanding = task.endswith("understanding")
        if form == "pair":
            keys, responses = (("a", None), ("yes", "no")) if understanding else (("a", "b"), (None, None))
            request = template.pair_request(family, task, *keys, "a red ball", *responses)
            assert len(request.answers) == len(template.pair(task).answers.texts)
            assert [piece for piece in request.pieces if isinstance(piece, str)] == [key for key in keys if key]
        elif form == "shares":
            question = template.pair_question(family, task, "a", "b", "a red ball")
            for at, line in enumerate(template.shares(task).lines):
                request = template.share_request(family, task, question, line=at, earlier=["0.4"] * at)
                assert len(request.answers) == len(line.values) == len(set(request.answers))
            assert text_of(family, request.pieces).endswith(
                "1: 0.4\n Video 2: 0.6\n\nStyle Score:\n Video 1: ".replace(
                    "Video", task.partition("_")[0].capitalize()
                )
            )
        else:
            for at, line in enumerate(template.point(task).lines):
                earlier = () if template.point(task).separate else ("1",) * at
                response = "yes" if understanding else None
                request = template.point_request(
                    family, task, "a", "a red ball", line=at, earlier=earlier, response=response
                )
                assert len(request.answers) == len(line.values) == len(set(request.answers))
        assert "a red ball" in text_of(family, request.pieces)
        assert "[[" not in text_of(family, request.pieces).replace("[[[", "[")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_template_survives_its_json(name: str) -> None:
    template = load_template(name)
    again = UnifiedTemplate.model_validate_json(template.model_dump_json())
    assert again == template
    assert again.identity == template.identity


def test_public_answers_and_labels() -> None:
    """What the public checkpoints write, as their scripts look for it."""
    llava = load_template("llava_onevision")
    assert llava.pair("image_generation").answers.texts == (
        "Image 1 is better than Image 2.",
        "Image 2 is better than Image 1.",
        "Both images are equally good.",
    )
    lines = llava.point("video_generation").lines
    assert [line.before for line in lines][:2] == ["visual quality: ", "temporal consistency: "]
    assert [line.high for line in lines] == [4, 4, 4, 4, 4, 10]
    assert llava.point("video_generation").read_lines == (0, 1, 2, 3, 4)
    assert len(llava.point("image_understanding").lines[0].values) == 101
    assert llava.pair("video_understanding").answers.tie is None
    decimals = load_template("qwen3_vl").point("video_generation").lines[0]
    assert decimals.texts[:2] == ("1.0", "1.1")
    assert decimals.values[[0, 14, -1]].tolist() == pytest.approx([1.05, 2.45, 5.0])


def test_the_text_is_tokenised_in_one_piece(family: Family) -> None:
    """As the processor of a published model does: the bracket and the prompt's first letter are one token."""
    template = UnifiedTemplate.model_validate(SMALL)
    pieces = template.pair_question(family, "video_generation", "a", "b", "a red ball")
    assert [piece for piece in pieces if isinstance(piece, str)] == ["a", "b"]
    text = "\nCaption: [a red ball]<|im_end|>\n<|im_start|>assistant\n"
    assert pieces[-1] == tuple(family.text_ids(text))
    assert pieces[0] == tuple(family.text_ids("<|im_start|>user\n"))


CONTROLS = st.sampled_from(
    [MARK, "<|im_start|>", "<|video_pad|>", "<image>", "[[first]]", "[[prompt]]", " [", "\n", "a"]
)


@given(texts=st.lists(st.lists(CONTROLS, max_size=4).map("".join), min_size=3, max_size=3))
def test_users_texts_stay_texts(family: Family, texts: list[str]) -> None:
    """No control token, no placeholder: neither in the prompt nor in responses; and nothing of them is lost."""
    template = UnifiedTemplate.model_validate(SMALL)
    pieces = template.pair_question(family, "video_understanding", "a", None, *texts)
    assert [piece for piece in pieces if isinstance(piece, str)] == ["a"]
    (before, behind) = (piece for piece in pieces if not isinstance(piece, str))
    controls = [family.control_tokens[number] for number in (*before, *behind) if number in family.control_tokens]
    assert controls == ["<|im_start|>", "<|im_end|>", "<|im_start|>"]
    expected = "\nQuestion: {}\nOne: {}\nTwo: {}<|im_end|>\n<|im_start|>assistant\n".format(*texts)
    assert family.tokenizer.decode(list(behind)) == expected


def test_a_text_that_is_not_given_is_asked_for(family: Family) -> None:
    template = UnifiedTemplate.model_validate(SMALL)
    with pytest.raises(InputError, match="response_b"):
        template.pair_question(family, "video_understanding", "a", None, "what ?", "yes")
    with pytest.raises(InputError, match="no point of the task 'video_understanding'"):
        template.point_request(family, "video_understanding", "a", "what ?", response="yes")


def test_frames_as_images(family: Family) -> None:
    pieces = rendered(family, "x[[clip]]y", {"clip": ("a0", "a1", "a2")}, {}, between="\n")
    newline = tuple(family.text_ids("\n"))
    assert pieces == (tuple(family.text_ids("x")), "a0", newline, "a1", newline, "a2", tuple(family.text_ids("y")))


def test_lines_stand_behind_those_before_them(family: Family) -> None:
    template = UnifiedTemplate.model_validate(SMALL)
    request = template.point_request(family, "video_generation", "a", "ball", line=1, earlier=("10",))
    assert text_of(family, request.pieces).endswith("assistant\nlook: 10\n")
    assert [family.tokenizer.decode(list(ids)) for ids in request.answers] == [f"{n}<|im_end|>" for n in range(1, 5)]
    first = template.point_request(family, "video_generation", "a", "ball")
    assert text_of(family, first.pieces).endswith("assistant\nlook: ")
    # The terminator keeps 1 and 10 apart.
    assert [family.tokenizer.decode(list(ids)) for ids in first.answers] == [f"{n}\n" for n in range(1, 11)]
    with pytest.raises(ValueError, match="0 earlier numbers for line 1"):
        template.point_request(family, "video_generation", "a", "ball", line=1)


def test_a_label_and_a_number_are_tokenised_together(family: Family) -> None:
    """Whatever the tokenizer joins, label and answers together are the tokens of the whole line."""
    label, answers = number_ids(family, "Final Score: ", ("1", "10", "100"), "\n")
    for number, ids in zip(("1", "10", "100"), answers, strict=True):
        assert list(label + ids) == family.text_ids(f"Final Score: {number}\n")


def test_numbers_that_a_tokenizer_cannot_tell_apart_are_rejected() -> None:
    words = qwen2_vl(build_tokenizer())  # knows no digits
    with pytest.raises(InputError, match="have the same tokens"):
        number_ids(words, "score", ("1", "2"), "<|im_end|>")


@pytest.mark.parametrize(
    ("line", "texts"),
    [
        ({"low": 1, "high": 4}, ["1", "2", "3", "4"]),
        ({"low": 0, "high": 100, "step": 50}, ["0", "50", "100"]),
        ({"low": 1, "high": 1.3, "step": 0.1, "decimals": 1}, ["1.0", "1.1", "1.2", "1.3"]),
    ],
)
def test_scales(line: dict[str, Any], texts: list[str]) -> None:
    scale = ScoreLine(dimension="d", **line)
    assert list(scale.texts) == texts
    assert scale.values.tolist() == [float(text) for text in texts]
    assert [scale.nearest(float(text)) for text in texts] == list(range(len(texts)))
    with pytest.raises(InputError, match="outside the scale"):
        scale.nearest(float("nan"))


def test_a_number_between_two_values_is_written_as_the_nearer_or_as_it_begins() -> None:
    assert ScoreLine(dimension="d", low=1, high=5).nearest(2.6) == 2
    decimals = ScoreLine(dimension="d", low=1, high=5, step=0.1, decimals=1, open=True)
    assert decimals.texts[decimals.nearest(2.4936)] == "2.4"
    assert decimals.texts[decimals.nearest(2.3)] == "2.3"


LINE = "video_generation.point.lines"


@pytest.mark.parametrize(
    ("place", "to", "said"),
    [
        ("video_generation.pair.text", "[[first]] [[prompt]]", r"must contain \[\[first\]\], \[\[second\]\]"),
        ("video_generation.pair.text", "[[first]] [[second]] [[promt]]", "must contain"),
        ("video_generation.pair.text", "[[first]] [[second]] [[first]]", "once each"),
        ("video_generation.pair.answers", {"first": "A", "second": "A"}, "two answers are the same"),
        ("end", "", "at least 1 character"),
        ("tasks", {}, "there is no such setting"),
        (LINE, [{"dimension": "d", "low": 4, "high": 1}], "whole number of steps"),
        (LINE, [{"dimension": "d", "low": 1, "high": 2, "step": 0.5}], "the same text"),
        (LINE, [{"dimension": "d", "low": 0, "high": 5000}], "at most 1001 values"),
        (LINE, [{"dimension": "d", "low": 9, "high": 10, "open": True}], "the same number of digits"),
        (LINE, [{"dimension": "d", "low": 1, "high": 2}] * 2, "the same dimension"),
        (LINE, [{"dimension": "total", "low": 1, "high": 2}], "set 'total' to 'line'"),
        ("video_generation.point.total", "line", "must be named 'total'"),
        ("video_generation.point.reasons", {"until": "", "max_tokens": 3}, "at least 1 character"),
    ],
)
def test_mistakes_in_a_file(place: str, to: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yml"
    path.write_text(yaml.safe_dump(without(place, to=to)))
    with pytest.raises(InputError, match=said) as raised:
        load_template("mine.yml", tmp_path)
    assert raised.value.file == path


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="micro_world"):
        load_template("nowhere", tmp_path)
    (tmp_path / "torn.yml").write_text("name: [")
    with pytest.raises(InputError, match="cannot be read"):
        load_template(tmp_path / "torn.yml")


def test_a_placeholder_in_brackets() -> None:
    assert parts_of("Caption: [[[prompt]]]") == ("Caption: [", parts_of("[[prompt]]")[0], "]")
    assert slots_of("[[a]] [b] [[c d]] [[e]]") == ["a", "e"]
