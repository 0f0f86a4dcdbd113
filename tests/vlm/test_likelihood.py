"""Likelihood of whole answers: the same as one plain forward an answer, whatever is shared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from plain_likelihood import plain_log_likelihoods
from tiny_judges import FAMILY_BUILDERS
from vr_pipeline.errors import InputError
from vr_pipeline.vlm import likelihood
from vr_pipeline.vlm.families.base import Family
from vr_pipeline.vlm.likelihood import SharedReader, log_likelihoods
from vr_pipeline.vlm.media import Request, Visual

RATES = {"a": 2.0, "b": 4.0, "c": 1.0}


@dataclass(frozen=True)
class Case:
    """A family with clips, images and requests, and the log-probabilities of the plain class."""

    family: Family
    visuals: dict[str, Visual]
    requests: list[Request]
    plain: list[list[torch.Tensor]]

    @property
    def sums(self) -> list[list[float]]:
        return [[float(answer.sum()) for answer in of_request] for of_request in self.plain]


def make_requests(family: Family) -> list[Request]:
    """Points, pairs in both orders, images, mixtures, text alone; answers that begin alike or within each other."""
    head, first, second, end = (
        tuple(family.text_ids(text)) for text in ("is it red ?", "the ball moves", "a blue ring", "sharp or not")
    )
    answers = tuple(
        tuple(family.text_ids(text))
        for text in ("yes", "no", "left on black", "left on", "left on a blue ring", "left on blue")
    )
    return [
        Request((head, "a", first, "b", end), answers[:3]),
        Request((head, "b", first, "a", end), answers[:3]),
        Request((head, "a", first, "c", end), answers[:3]),
        Request((head, "a", second), answers[2:]),
        Request((head, "a", second, end), answers[2:]),
        Request((head, "b", second), answers),
        Request(("c",), answers[:1]),
        Request((head, "i", first, "j", end), answers[:3]),
        Request((head, "i", "j", "a", end), answers[:1]),
        Request((end, head), answers),
    ]


@pytest.fixture(scope="module", params=FAMILY_BUILDERS)
def case(request: pytest.FixtureRequest, tokenizer: Any) -> Case:
    family = FAMILY_BUILDERS[request.param](tokenizer)
    # Differences are those of the method then, not of rounding.
    family.model.double()
    random = np.random.default_rng(0)
    # The plain class of LLaVA-OneVision takes clips of equal length only.
    frames = (3, 3, 3) if request.param == "llava_onevision" else (8, 3, 5)
    sizes = [(32, 48), (40, 40), (56, 30)]
    clips = [
        random.integers(0, 256, (count, *size, 3), dtype=np.uint8) for count, size in zip(frames, sizes, strict=True)
    ]
    visuals = {key: family.visual(clip, rate) for (key, rate), clip in zip(RATES.items(), clips, strict=True)} | {
        "i": family.visual(clips[0][:1], None),
        "j": family.visual(clips[2][:1], None),
    }
    requests = make_requests(family)
    with torch.no_grad():
        plain = [plain_log_likelihoods(family, visuals, one, RATES) for one in requests]
    return Case(family, visuals, requests, plain)


def test_one_pass_gives_what_one_forward_an_answer_gives(case: Case) -> None:
    with torch.no_grad():
        found = log_likelihoods(case.family, case.visuals, case.requests)
    for of_request, plain, request in zip(found, case.plain, case.requests, strict=True):
        assert of_request.dtype == torch.float32
        assert of_request.shape == (len(request.answers), max(map(len, request.answers)))
        for row, expected in zip(of_request, plain, strict=True):
            np.testing.assert_allclose(row[: len(expected)], expected, atol=1e-5)
            assert not row[len(expected) :].any()
    # One answer each, as in training, needs no mask, however different the lengths are.
    single = [Request(request.pieces, request.answers[-1:]) for request in case.requests]
    with torch.no_grad():
        for of_request, plain in zip(log_likelihoods(case.family, case.visuals, single), case.plain, strict=True):
            np.testing.assert_allclose(of_request[0], plain[-1], atol=1e-5)
    # Answers that hardly depend on the clips would make any mistake invisible.
    sums = np.array(case.sums[:3])
    assert (sums.std(axis=0) > 0.02).all()


@pytest.mark.parametrize("row_tokens", [1, 40, 512])
@pytest.mark.parametrize("batch", [1, 3, 16])
def test_sharing_batches_and_order_change_nothing(
    case: Case, row_tokens: int, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likelihood, "ROW_TOKENS", row_tokens)
    reader = SharedReader(case.family, case.visuals, batch=batch)
    order = np.random.default_rng(batch).permutation(len(case.requests))
    for numbers in (list(range(len(case.requests))), order.tolist(), [int(order[0])]):
        found = reader.read([case.requests[number] for number in numbers])
        for number, sums in zip(numbers, found, strict=True):
            assert sums.dtype == np.float64
            np.testing.assert_allclose(sums, case.sums[number], atol=1e-5)


def test_gradients_are_those_of_plain_forwards(case: Case) -> None:
    model, requests = case.family.model, [case.requests[0], case.requests[3], case.requests[5]]
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}

    def gradients(loss: torch.Tensor) -> dict[str, torch.Tensor]:
        found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        return {name: one for name, one in zip(weights, found, strict=True) if one is not None}

    ours = gradients(sum(one.sum() for one in log_likelihoods(case.family, case.visuals, requests)))
    plain = gradients(
        sum(
            one.sum()
            for request in requests
            for one in plain_log_likelihoods(case.family, case.visuals, request, RATES)
        )
    )
    assert ours.keys() == plain.keys()
    assert any("vis" in name for name in ours)
    for name, expected in plain.items():
        np.testing.assert_allclose(
            ours[name], expected, atol=1e-5 * max(1.0, float(expected.abs().max())), err_msg=name
        )


@pytest.fixture
def qwen(tokenizer: Any) -> tuple[Family, dict[str, Visual], list[Request]]:
    """Five clips of one prompt in float32: points in two lines, and all pairs in both orders."""
    family = FAMILY_BUILDERS["qwen2_vl"](tokenizer)
    random = np.random.default_rng(2)
    clips = random.integers(0, 256, (5, 4, 32, 32, 3), dtype=np.uint8)
    visuals = {str(at): family.visual(clip, 2.0) for at, clip in enumerate(clips)}
    head, between, end, red, sharp = (
        tuple(family.text_ids(text)) for text in ("is it", "and", "or not ?", "very red", "very sharp")
    )
    yes, no = (tuple(family.text_ids(text)) for text in ("yes", "no not"))
    pairs = [(a, b) for a in visuals for b in visuals if a != b]
    requests = [Request((head, a, between, b, end), (yes, no)) for a, b in pairs]
    requests += [Request((head, a, line), (yes, no)) for a in visuals for line in (red, sharp)]
    return family, visuals, requests


def test_in_single_precision_too(qwen: tuple[Family, dict[str, Visual], list[Request]]) -> None:
    family, visuals, requests = qwen
    with torch.no_grad():
        plain = [plain_log_likelihoods(family, visuals, request) for request in requests]
        one_pass = [one.sum(dim=1) for one in log_likelihoods(family, visuals, requests)]
    shared = SharedReader(family, visuals).read(requests)
    for expected, whole, sums in zip(plain, one_pass, shared, strict=True):
        np.testing.assert_allclose(whole, [one.sum() for one in expected], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(sums, whole, rtol=1e-5, atol=1e-5)


def test_a_clip_is_encoded_once_and_a_common_beginning_is_read_once(
    qwen: tuple[Family, dict[str, Visual], list[Request]], monkeypatch: pytest.MonkeyPatch
) -> None:
    family, visuals, requests = qwen
    encoded: list[int] = []
    tower, decode = family.vision_features, likelihood.decode
    read: list[int] = []

    def counted_tower(clips: Any) -> torch.Tensor:
        encoded.append(len(clips))
        return tower(clips)

    def counted_decode(family: Family, embeddings: torch.Tensor, *rest: Any) -> torch.Tensor:
        read.append(embeddings.shape[0] * embeddings.shape[1])
        return decode(family, embeddings, *rest)

    family.vision_features = counted_tower
    monkeypatch.setattr(likelihood, "decode", counted_decode)
    monkeypatch.setattr(likelihood, "ROW_TOKENS", 30)
    reader = SharedReader(family, visuals)
    reader.read(requests)
    assert sum(encoded) == len(visuals)
    tokens = len(visuals["0"].token_ids)
    # The first text once, every clip once behind it and once behind each other; then short texts and answers.
    assert tokens * 25 < sum(read) < tokens * 25 + 200
    alone = sum(2 * tokens if len(request.pieces) == 5 else tokens for request in requests)
    assert sum(read) < 0.6 * alone
    reader.read(requests[:4])
    assert sum(encoded) == len(visuals)


def scarce(limit: int, count: Callable[..., int], whole: Callable[..., Any], tried: list[int]) -> Callable[..., Any]:
    """A function that runs out of memory where it is given more than ``limit``."""

    def limited(*arguments: Any) -> Any:
        tried.append(count(*arguments))
        if tried[-1] > limit:
            raise torch.OutOfMemoryError("no memory")
        return whole(*arguments)

    return limited


def test_memory_that_runs_out_halves_what_is_read_at_a_time(
    qwen: tuple[Family, dict[str, Visual], list[Request]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    family, visuals, requests = qwen
    monkeypatch.setattr(likelihood, "ROW_TOKENS", 40)
    expected = SharedReader(family, visuals, batch=5).read(requests)
    rows: list[int] = []
    clips: list[int] = []
    monkeypatch.setattr(likelihood, "decode", scarce(2, lambda _, one, *__: len(one), likelihood.decode, rows))
    family.vision_features = scarce(1, len, family.vision_features, clips)
    reader = SharedReader(family, visuals, batch=5)
    found = reader.read(requests)
    np.testing.assert_allclose(np.concatenate(found), np.concatenate(expected), atol=1e-4)
    assert max(rows) == 5
    assert max(clips) == 5
    # What was learned is kept.
    rows.clear()
    reader.read(requests)
    assert max(rows) == 2
    assert caplog.text.count("rows at a time") == 1
    assert caplog.text.count("clips at a time") == 2


def test_what_does_not_fit_alone_is_named(
    qwen: tuple[Family, dict[str, Visual], list[Request]], monkeypatch: pytest.MonkeyPatch
) -> None:
    family, visuals, requests = qwen
    tokens = len(visuals["0"].token_ids)
    whole = likelihood.decode

    def behind_a_clip(_: Family, embeddings: torch.Tensor, *rest: Any) -> int:
        return embeddings.shape[1] if embeddings.shape[1] < tokens else 0

    def width(_: Family, embeddings: torch.Tensor, *rest: Any) -> int:
        return embeddings.shape[0] * embeddings.shape[1]

    tried: list[int] = []
    points = requests[-10:]
    expected = SharedReader(family, visuals).read(points)
    monkeypatch.setattr(likelihood, "ROW_TOKENS", 30)
    # Both lines of a clip, each with what is read of its answers, are too much in one row.
    monkeypatch.setattr(likelihood, "decode", scarce(2, behind_a_clip, whole, tried))
    found = SharedReader(family, visuals).read(points)
    np.testing.assert_allclose(np.concatenate(found), np.concatenate(expected), atol=1e-4)
    assert {2, 4} < set(tried)
    monkeypatch.setattr(likelihood, "decode", scarce(tokens - 1, width, whole, tried))
    with pytest.raises(InputError, match=rf"memory runs out on a request and its answers, {tokens + 3} tokens"):
        SharedReader(family, visuals).read(points)
    family.vision_features = scarce(0, len, family.vision_features, tried)
    with pytest.raises(InputError, match=rf"memory runs out on one clip or image of {tokens} tokens"):
        SharedReader(family, visuals).read(points)

    def broken(*_: Any) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(family, "vision_features", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        SharedReader(family, visuals).read(points)
    monkeypatch.undo()
    family.vision_features = type(family).vision_features.__get__(family)
    monkeypatch.setattr(likelihood, "decode", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        SharedReader(family, visuals).read(points)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_clip_that_overflows_has_no_answer_and_leaves_the_others_theirs(
    qwen: tuple[Family, dict[str, Visual], list[Request]], value: float
) -> None:
    family, visuals, requests = qwen
    expected = SharedReader(family, visuals).read(requests)
    features, pixels = family.vision_features, visuals["3"].vision["patches"]

    def overflow(clips: Any) -> torch.Tensor:
        return torch.cat([features([one]) * (value if one.vision["patches"] is pixels else 1) for one in clips])

    family.vision_features = overflow
    for request, sums, before in zip(requests, SharedReader(family, visuals).read(requests), expected, strict=True):
        if "3" in request.pieces:
            assert np.isnan(sums).all()
        else:
            np.testing.assert_allclose(sums, before, atol=1e-4)


def test_nothing_to_read_and_requests_that_cannot_be_read(
    qwen: tuple[Family, dict[str, Visual], list[Request]],
) -> None:
    family, visuals, _ = qwen
    reader = SharedReader(family, visuals)
    assert log_likelihoods(family, visuals, []) == reader.read([]) == []
    without = Request(("1",), ())
    assert log_likelihoods(family, visuals, [without])[0].shape == (0, 0)
    assert reader.read([without])[0].shape == (0,)
    for read in (lambda one: log_likelihoods(family, visuals, [one]), lambda one: reader.read([one])):
        with pytest.raises(ValueError, match="no visual 'x'"):
            read(Request(("x",), ((1,),)))
        with pytest.raises(InputError, match="in whose place"):
            read(Request((family.placeholder_ids[:1], "1"), ((1,),)))
