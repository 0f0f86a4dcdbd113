"""Reasons before the answer: written by the plain model, kept as text, the answer read behind them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from plain_likelihood import plain_inputs, plain_log_likelihoods
from tiny_judges import FAMILY_BUILDERS
from tiny_tokenizers import byte_tokenizer
from tiny_unifiedreward import END, toy_clips, toy_family, toy_template
from vr_pipeline.rewards.unifiedreward.forms import Reasons
from vr_pipeline.rewards.unifiedreward.points import NoAnswerError, PairScore, PointScore
from vr_pipeline.rewards.unifiedreward.reading import ClipReader, Pair, Point
from vr_pipeline.rewards.unifiedreward.reasons import ending_ids, up_to_answer, write_reasons
from vr_pipeline.vlm.families.base import Family
from vr_pipeline.vlm.media import Request

TASK = "video_generation"
LENGTH = 6


@pytest.fixture(scope="module", params=FAMILY_BUILDERS)
def family(request: pytest.FixtureRequest) -> Family:
    return toy_family(request.param)


def greedy(reader: ClipReader, question: Any, count: int) -> list[int]:
    """The most likely tokens one after the other, each by one plain forward over everything."""
    written: list[int] = []
    rates = {name: clip.frames_per_second for name, clip in toy_clips().items()}
    for _ in range(count):
        pieces = (*question, *((tuple(written),) if written else ()))
        inputs = plain_inputs(reader.family, reader.visuals, Request(pieces, ((0,),)), (), rates)
        with torch.no_grad():
            logits = reader.family.model(**inputs).logits[0, -1]
        logits[list(reader.family.placeholder_ids)] = -torch.inf
        written.append(int(logits.argmax()))
    return written


def first_new_word(family: Family, written: list[int]) -> tuple[int, str]:
    """The place of a token that occurs for the first time, as late as may be before the end, and its word."""
    ends = set(ending_ids(family, END))
    before = [at for at in range(len(written)) if ends.isdisjoint(written[: at + 1])]
    place = max(at for at in before if written[at] not in written[:at])
    return place, family.tokenizer.decode([written[place]])


def test_the_score_is_read_behind_the_reasons(family: Family) -> None:
    """A long clip and a question: the reasons are the plain model's, and the line is read behind them."""
    clips = toy_clips()
    plain = ClipReader(family, toy_template(), clips)
    question = plain.template.point_question(family, TASK, "a", "ball")
    written = greedy(plain, question, LENGTH)
    place, word = first_new_word(family, written)
    template = toy_template(video_generation__point__reasons={"until": word, "max_tokens": LENGTH})
    (score,) = ClipReader(family, template, clips).points(TASK, [Point("a", "ball")])
    assert isinstance(score, PointScore)
    assert score.reasons == family.tokenizer.decode(written[: place + 1])[: -len(word)]
    pieces = (*question, tuple(written[: place + 1]))
    answers = tuple(tuple(family.text_ids(f"look {n} and")) for n in range(1, 13))
    with torch.no_grad():
        read = plain_log_likelihoods(family, plain.visuals, Request(pieces, answers), {"a": 2.0})
    p = np.exp([float(one[1:].double().sum()) for one in read])
    assert score.lines["look"].value == pytest.approx(float(p / p.sum() @ np.arange(1, 13)), abs=1e-4)


def test_reasons_of_both_orders(family: Family) -> None:
    clips = toy_clips()
    plain = ClipReader(family, toy_template(), clips)
    words = []
    for pair in (Pair("a", "b", "ball"), Pair("b", "a", "ball")):
        request = plain.template.pair_request(family, TASK, pair.a, pair.b, pair.prompt)
        words.append({family.tokenizer.decode([number]) for number in greedy(plain, request.pieces, LENGTH)})
    for until in sorted(words[0] | words[1])[:2]:
        template = toy_template(video_generation__pair__reasons={"until": until, "max_tokens": LENGTH})
        found = ClipReader(family, template, clips).pairs(TASK, [Pair("a", "b", "ball"), Pair("b", "a", "ball")])
        for one, said in zip(found, words, strict=True):
            # Where the model comes to no answer there is none: nobody wins, and nothing is 0.
            assert isinstance(one, PairScore if until in said else NoAnswerError)


def test_a_model_that_comes_to_no_answer_fails() -> None:
    family = toy_family()
    template = toy_template(video_generation__point__reasons={"until": "never said", "max_tokens": 3})
    reader = ClipReader(family, template, toy_clips())
    (score,) = reader.points(TASK, [Point("a", "ball")])
    assert isinstance(score, NoAnswerError)
    assert "3 tokens" in str(score)
    assert score.of_clip


def test_writing_twice_gives_the_same_whatever_the_folder_says_of_generation() -> None:
    family = toy_family("qwen2_5_vl")
    reader = ClipReader(family, toy_template(), toy_clips())
    question = reader.template.point_question(family, TASK, "b", "ball")
    until = family.tokenizer.decode(greedy(reader, question, 2)[1:])
    asked = Reasons(until=until, max_tokens=9)
    first = write_reasons(family, reader.visuals, question, asked, END)
    kept = GenerationConfig(repetition_penalty=50.0, do_sample=True, top_k=1, no_repeat_ngram_size=1, min_new_tokens=5)
    family.model.generation_config = kept
    assert write_reasons(family, reader.visuals, question, asked, END) == first
    assert family.model.generation_config is kept


def test_a_token_that_reaches_beyond_the_place_is_written_anew() -> None:
    """The answer is read right behind the mark, whatever the model joined with it."""
    family = toy_family()
    family.tokenizer = byte_tokenizer()
    asked = Reasons(until="than")
    written = tuple(family.text_ids("a red ball is better thanks to it"))
    reasons, tokens = up_to_answer(family, written, asked, END)
    assert reasons == "a red ball is better "
    assert family.tokenizer.decode(list(tokens)) == "a red ball is better than"


def test_an_end_before_the_place_is_a_failure() -> None:
    family = toy_family()
    written = tuple(family.text_ids(f"it is red {END} look"))
    with pytest.raises(NoAnswerError, match="stopped after 4 tokens without 'look'"):
        up_to_answer(family, written, Reasons(until="look"), END)
