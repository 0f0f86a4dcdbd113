"""Generation against brute force over plain forwards, and sampling against the softmax."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

import tiny_judges
from plain_likelihood import plain_inputs
from vr_pipeline.understanding.generation import Generated, Sampled, generate
from vr_pipeline.vlm.families.base import Family, PreparedClip
from vr_pipeline.vlm.media import Request, Visual

NAMES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5", "glm_4_6v", "llava_onevision")
FAMILIES = {name: getattr(tiny_judges, name) for name in NAMES}
BEFORE, QUESTIONS = "<|im_start|> user", ("is it red ?", "moves ?", "is the picture of the ball very sharp ?")


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> Family:
    built = FAMILIES[request.param](tiny_judges.build_tokenizer())
    built.model.eval()
    return built


def asked(family: Family) -> list[tuple[Visual, Request, PreparedClip]]:
    """Requests of different lengths: a clip and a question each."""
    found = []
    for number, question in enumerate(QUESTIONS):
        size = (24, 24) if number != 1 else (24, 40)
        frames = np.random.default_rng(number).integers(0, 255, (2 + 2 * (number % 2), *size, 3), dtype=np.uint8)
        visual = family.visual(frames, 2.0)
        pieces = (tuple(family.text_ids(BEFORE)), "clip", tuple(family.text_ids(question)))
        joined = family.joined([pieces[0], visual, pieces[2]])
        found.append((visual, Request(pieces, ((0,),)), joined))
    return found


def likeliest(family: Family, visual: Visual, request: Request, stops: set[int], limit: int) -> Generated:
    """Token by token, a forward over the whole text each, without a cache."""
    said: tuple[int, ...] = ()
    while len(said) < limit:
        with torch.no_grad():
            inputs = plain_inputs(family, {"clip": visual}, request, (*said, 0), {})
            number = int(family.model(**inputs).logits[0, -2].argmax())
        if number in stops:
            return Generated(said, True)
        said = (*said, number)
    return Generated(said, False)


def test_it_is_the_likeliest_token_each_time_whatever_stands_beside(family: Family) -> None:
    every = asked(family)
    requests = [joined for _, _, joined in every]
    free = generate(family, requests, stops=[0], max_new_tokens=5)
    # A token that some of them say ends them.
    stop = Counter(number for one in free for number in one.token_ids[1:4]).most_common(1)[0][0]
    found = generate(family, requests, stops=[stop, 0], max_new_tokens=5)
    assert any(one.finished for one in found)
    for (visual, request, joined), one in zip(every, found, strict=True):
        assert one == likeliest(family, visual, request, {stop, 0}, 5)
        assert [one] == generate(family, [joined], stops=[stop, 0], max_new_tokens=5)


def test_draws_belong_to_their_seed_and_not_to_their_batch(family: Family) -> None:
    requests = [joined for _, _, joined in asked(family)]
    drawn = generate(family, requests, stops=[1], max_new_tokens=4, sampled=Sampled([5, 6, 7], 1.5))
    turned = generate(family, requests[::-1], stops=[1], max_new_tokens=4, sampled=Sampled([7, 6, 5], 1.5))
    assert drawn == turned[::-1]
    others = generate(family, requests, stops=[1], max_new_tokens=4, sampled=Sampled([8, 9, 10], 1.5))
    assert drawn != others
    with pytest.raises(ValueError, match="2 seeds for 3 responses"):
        generate(family, requests, stops=[1], max_new_tokens=4, sampled=Sampled([1, 2]))


def test_frequencies_are_those_of_the_softmax() -> None:
    built = FAMILIES["qwen2_vl"](tiny_judges.build_tokenizer())
    built.model.eval()
    visual, request, joined = asked(built)[0]
    with torch.no_grad():
        inputs = plain_inputs(built, {"clip": visual}, request, (0,), {})
        scores = built.model(**inputs).logits[0, -2]
    count, temperature = 2000, 2.0
    expected = torch.softmax(scores / temperature, dim=0).numpy().astype(float)
    found = generate(built, [joined] * count, stops=[1], max_new_tokens=1, sampled=Sampled(range(count), temperature))
    # A response that ends at once has no token.
    seen = Counter(one.token_ids[0] if one.token_ids else 1 for one in found)
    common = [number for number in range(len(expected)) if expected[number] * count >= 5]
    observed = np.array([seen[number] for number in common] + [count - sum(seen[number] for number in common)])
    wanted = np.array([expected[number] for number in common] + [1 - expected[common].sum()]) * count
    chi_square = float(((observed - wanted) ** 2 / np.maximum(wanted, 1e-9)).sum())
    # Its mean is the number of classes less one, its deviation the root of twice that.
    assert abs(chi_square - len(common)) < 4 * (2 * len(common)) ** 0.5

    # Only the likeliest tokens are drawn where top_p says so.
    narrow = generate(
        built, [joined] * 300, stops=[1], max_new_tokens=1, sampled=Sampled(range(300), temperature, top_p=0.5)
    )
    order = np.argsort(-expected)
    nucleus = set(order[: int(np.searchsorted(np.cumsum(expected[order]), 0.5)) + 1].tolist())
    assert {one.token_ids[0] if one.token_ids else 1 for one in narrow} <= nucleus


def test_settings_of_a_checkpoint_for_chats_have_no_part() -> None:
    built = FAMILIES["qwen2_vl"](tiny_judges.build_tokenizer())
    built.model.eval()
    requests = [joined for _, _, joined in asked(built)]
    plain = generate(built, requests, stops=[1], max_new_tokens=6)
    built.model.generation_config.repetition_penalty = 5.0
    built.model.generation_config.do_sample = True
    own = built.model.generation_config
    assert generate(built, requests, stops=[1], max_new_tokens=6) == plain
    assert built.model.generation_config is own
