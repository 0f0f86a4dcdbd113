"""Likelihood of answers as the plain class of transformers gives it: one forward over the whole text for each."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from tiny_judges import QUESTIONS
from vr_pipeline.vlm.families.base import Family, PreparedClip
from vr_pipeline.vlm.media import Request, Visual

SPELLINGS = ("yes", "Yes"), ("no", "No")
"""Of yes and no in the tiny tokenizer."""

Block = tuple[tuple[int, int, int], float]
"""Visual tokens in a row: times, rows and columns, and the step of time."""


def plain_log_likelihoods(
    family: Family, visuals: Mapping[str, Visual], request: Request, rates: Mapping[str, float] | None = None
) -> list[torch.Tensor]:
    """Log-probability of each token of each answer, one forward of the model's class an answer; differentiable."""
    found = []
    for answer in request.answers:
        inputs = plain_inputs(family, visuals, request, answer, rates or {})
        logits = family.model(**inputs).logits[0].float()
        behind = logits[-len(answer) - 1 : -1].log_softmax(dim=-1)
        found.append(behind[torch.arange(len(answer)), torch.tensor(answer)])
    return found


def plain_inputs(
    family: Family,
    visuals: Mapping[str, Visual],
    request: Request,
    answer: tuple[int, ...],
    rates: Mapping[str, float],
) -> dict[str, Any]:
    """What the model's own forward takes of a request and an answer."""
    shown = [(visuals[piece], rates.get(piece)) for piece in request.pieces if isinstance(piece, str)]
    pieces = (visuals[piece].token_ids if isinstance(piece, str) else piece for piece in request.pieces)
    return plain_call(family, itertools.chain(*pieces, answer), shown)


def clip_inputs(family: Family, clip: PreparedClip, text_ids: Sequence[int], rate: float | None) -> dict[str, Any]:
    """What the model's own forward takes of a clip and the text behind it."""
    return plain_call(family, itertools.chain(clip.token_ids, text_ids), [(clip, rate)])


def full_forward(family: Family, clip: PreparedClip, question_ids: Sequence[int], rate: float | None) -> torch.Tensor:
    """Last logits of the model's own forward on clip and one question, with its own mask."""
    with torch.no_grad():
        logits: torch.Tensor = family.model(**clip_inputs(family, clip, question_ids, rate)).logits[0, -1].float()
    return logits


def plain_call(
    family: Family, token_ids: Iterable[int], shown: Sequence[tuple[Visual | PreparedClip, float | None]]
) -> dict[str, Any]:
    """What the model's own forward takes: ids, pixels of all that is shown, and positions where they have three axes.

    Positions are computed here by the papers' rules, because transformers 5.23 places text behind a long clip of
    Qwen2-VL inside it.
    """
    ids = torch.tensor([[int(number) for number in token_ids]])
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
    inputs |= pixel_inputs(family, [one for one, _ in shown])
    if family.position_axes == 3:
        blocks = [block for one, rate in shown for block in blocks_of(family, one, rate)]
        inputs["position_ids"] = positions_of(family.placeholder_ids, ids[0].tolist(), blocks)[:, None]
    return inputs


def positions_of(placeholders: Sequence[int], ids: Sequence[int], blocks: Sequence[Block]) -> torch.Tensor:
    """Positions (time, row, column) of a text with clips, token by token as the paper of Qwen2-VL says.

    Text, and every block of visual tokens, counts on from one above the highest number so far on any axis.
    """
    waiting = iter(blocks)
    inside: list[tuple[int, int, int]] = []
    found: list[tuple[int, int, int]] = []
    start = 0
    for number in ids:
        above = max((max(one) for one in found), default=-1) + 1
        if number not in placeholders:
            assert not inside
            found.append((above, above, above))
            continue
        if not inside:
            sizes, step = next(waiting)
            inside = [(int(at * step), row, column) for at, row, column in itertools.product(*map(range, sizes))]
            start = above
        at, row, column = inside.pop(0)
        found.append((start + at, start + row, start + column))
    assert not inside
    assert next(waiting, None) is None
    return torch.tensor(found).T


def blocks_of(family: Family, shown: Visual | PreparedClip, rate: float | None) -> list[Block]:
    """Visual tokens of one clip or image: one block, or one a time where its own text stands between them."""
    config = family.model.config
    merge = config.vision_config.spatial_merge_size
    times, rows, columns = (int(number) for number in shown.vision["grid"][0])
    rows, columns = rows // merge, columns // merge
    kind = type(family).__name__
    if kind == "Qwen2VL" or (kind == "Qwen25VL" and config.image_token_id in shown.token_ids):
        return [((times, rows, columns), 1.0)]
    if kind == "Qwen25VL":
        step = config.vision_config.temporal_patch_size / (rate or 2.0) * config.vision_config.tokens_per_second
        return [((times, rows, columns), float(step))]
    return [((1, rows, columns), 1.0)] * times


def pixel_inputs(family: Family, shown: Sequence[Visual | PreparedClip]) -> dict[str, Any]:
    """What is shown, under the names of the model's own forward."""
    return _PIXELS[type(family).__name__](family, shown) if shown else {}


def _patches(family: Family, shown: Sequence[Visual | PreparedClip]) -> dict[str, Any]:
    inputs: dict[str, Any] = {}
    for pixels, grid, placeholder in (
        ("pixel_values", "image_grid_thw", family.model.config.image_token_id),
        ("pixel_values_videos", "video_grid_thw", family.model.config.video_token_id),
    ):
        some = [one for one in shown if placeholder in one.token_ids]
        if some:
            inputs[pixels] = torch.from_numpy(np.concatenate([one.vision["patches"] for one in some]))
            inputs[grid] = torch.from_numpy(np.concatenate([one.vision["grid"] for one in some]))
    return inputs


def _llava_pixels(family: Family, shown: Sequence[Visual | PreparedClip]) -> dict[str, Any]:
    inputs: dict[str, Any] = {}
    for name in sorted({name for one in shown for name in one.vision}):
        arrays = [one.vision[name] for one in shown if name in one.vision]
        most = max(array.shape[1] for array in arrays)
        # Images of fewer tiles are filled up, as the published processor does.
        padded = [np.pad(array, [(0, 0), (0, most - array.shape[1])] + [(0, 0)] * (array.ndim - 2)) for array in arrays]
        inputs[name] = torch.from_numpy(np.concatenate(padded))
    return inputs


def _tile_pixels(axis: int) -> Any:
    def pixels(family: Family, shown: Sequence[Visual | PreparedClip]) -> dict[str, Any]:
        return {"pixel_values": torch.from_numpy(np.concatenate([one.vision["pixel_values"] for one in shown], axis))}

    return pixels


def _glm_pixels(family: Family, shown: Sequence[Visual | PreparedClip]) -> dict[str, Any]:
    patches = torch.from_numpy(np.concatenate([one.vision["patches"] for one in shown]))
    grids = torch.from_numpy(np.concatenate([one.vision["grid"] for one in shown]))
    if (grids[:, 0] > 1).all():
        return {"pixel_values_videos": patches, "video_grid_thw": grids}
    # The plain class takes clips and images of one request only as images, one a time.
    grids = grids.repeat_interleave(grids[:, 0], dim=0)
    grids[:, 0] = 1
    return {"pixel_values": patches, "image_grid_thw": grids}


_PIXELS = {
    "Qwen3VL": _patches,
    "Qwen35": _patches,
    "Glm46V": _glm_pixels,
    "Qwen2VL": _patches,
    "Qwen25VL": _patches,
    "LlavaOnevision": _llava_pixels,
    "InternVL": _tile_pixels(0),
    "SmolVLM": _tile_pixels(1),
}


def plain_answers(
    judge: Any, clips: Sequence[np.ndarray], prompts: Sequence[str], rates: Sequence[float]
) -> np.ndarray:
    """P(yes) and the mass outside yes and no, one full forward pass a clip and question: [2, clips, questions]."""
    found = np.empty((2, len(clips), len(QUESTIONS)))
    ids = [judge.family.tokenizer.convert_tokens_to_ids(list(words)) for words in SPELLINGS]
    for row, clip in enumerate(clips):
        prepared = judge.prepare(clip, rates[row], prompts[row])
        for column, question in enumerate(QUESTIONS):
            asked = question.replace("[[prompt]]", prompts[row]) + judge.family.settings.after_question
            text = judge.family.text_ids(judge.family.settings.before_question + asked)
            logits = full_forward(judge.family, prepared, text, rates[row])
            yes, no = (float(logits.double().softmax(-1)[spellings].sum()) for spellings in ids)
            found[:, row, column] = yes / (yes + no), 1 - yes - no
    return found
