"""Clips and simulated comparisons that a pairwise reward model is trained and tested on.

A pair has one prompt. The first clip was made for it, the second perhaps for a prompt that differs in one or two
attributes: among clips of one prompt the text says nothing, and a reward learns to ignore it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.generators.contract import Generator
from vr_pipeline.identifiers import content_hash, pair_id, prompt_id, sample_seed, video_id
from vr_pipeline.micro_world.config import ComparisonParameters, RewardPairParameters
from vr_pipeline.micro_world.oracle import answer_from
from vr_pipeline.micro_world.preferences import perceive, utilities, utilities_by_criterion
from vr_pipeline.micro_world.world import all_prompts, neighbouring_prompt


@dataclass(frozen=True)
class GeneratedClips:
    """Clips of the generator, as many of every prompt.

    Attributes:
        video_ids: their identifiers.
        prompts: what each was made for.
        seeds: of each.
        frames: uint8 [clips, frames, height, width, 3].
    """

    video_ids: list[str]
    prompts: list[str]
    seeds: list[int]
    frames: npt.NDArray[np.uint8]


def sample_clips(generator: Generator, clips_per_prompt: int, *, seed: int, purpose: str) -> GeneratedClips:
    """Sample clips of every prompt for one purpose; a clip depends on seed, purpose, prompt and number alone."""
    prompts, seeds, ids = [], [], []
    for prompt in all_prompts():
        identifier = prompt_id(prompt)
        for index in range(clips_per_prompt):
            prompts.append(prompt)
            seeds.append(sample_seed(seed, f"{purpose} {identifier}", index))
            ids.append(video_id(identifier, index, content_hash(f"micro-world {purpose}", seed, generator.identity)))
    return GeneratedClips(ids, prompts, seeds, generator.sample(prompts, seeds))


def draw_pairs(
    clips: Sequence[str], made_for: Sequence[str], parameters: RewardPairParameters, *, seed: int, purpose: str
) -> pd.DataFrame:
    """Draw pairs, the prompts in turn; no pair comes twice, and which clip is A says nothing.

    Args:
        clips: their identifiers.
        made_for: the prompt of each.

    Returns:
        pair_id, prompt, and the places of the two clips: a, b.
    """
    by_prompt: dict[str, list[int]] = {}
    for at, prompt in enumerate(made_for):
        by_prompt.setdefault(prompt, []).append(at)
    prompts = [prompt for prompt in all_prompts() if prompt in by_prompt]
    drawn: dict[str, tuple[str, int, int]] = {}
    attempt = 0
    while len(drawn) < parameters.num_pairs and attempt < 4 * parameters.num_pairs:
        prompt = prompts[attempt % len(prompts)]
        random = np.random.default_rng(sample_seed(seed, f"{purpose} pair", attempt))
        attempt += 1
        other = prompt
        if random.random() < parameters.cross_prompt_share:
            other = neighbouring_prompt(random, prompt, int(random.integers(1, 3)))
        first, second = int(random.choice(by_prompt[prompt])), int(random.choice(by_prompt.get(other, [-1])))
        if second in (-1, first):
            continue
        identifier = pair_id(prompt_id(prompt), clips[first], clips[second])
        ends = (first, second) if random.random() < 0.5 else (second, first)
        drawn.setdefault(identifier, (prompt, *ends))
    rows = [(identifier, *row) for identifier, row in drawn.items()]
    return pd.DataFrame(rows, columns=["pair_id", "prompt", "a", "b"])


def compare_pairs(
    pairs: pd.DataFrame,
    clips: GeneratedClips,
    recognised: Mapping[str, npt.NDArray[np.float64]],
    checklist: Checklist,
    parameters: ComparisonParameters,
    *,
    seed: int,
) -> pd.DataFrame:
    """Compare pairs as simulated people do, on the whole and in every criterion.

    Args:
        pairs: of :func:`draw_pairs`.
        recognised: of :meth:`~vr_pipeline.micro_world.oracle.Oracle.recognise`.

    Returns:
        table with the columns of ``schemas.HumanPreferences``, ``preference_<criterion>`` and, of the hidden utility
        of A minus that of B, ``utility`` and ``utility_<criterion>``.
    """
    prompts = pairs["prompt"].tolist()
    values = []
    for end in ("a", "b"):
        shown = {name: classes[pairs[end].to_numpy()] for name, classes in recognised.items()}
        said = answer_from(shown, prompts, checklist.question_ids)
        values.append({"": utilities(said, checklist.question_ids), **utilities_by_criterion(said, checklist)})
    table = pd.DataFrame(
        {
            "pair_id": pairs["pair_id"],
            "prompt": pairs["prompt"],
            "video_id_a": [clips.video_ids[at] for at in pairs["a"]],
            "video_id_b": [clips.video_ids[at] for at in pairs["b"]],
        }
    )
    for name in values[0]:
        difference, column = values[0][name] - values[1][name], f"_{name}" if name else ""
        annotator = parameters.criteria if name else parameters
        table[f"utility{column}"] = difference
        table[f"preference{column}"] = [
            perceive(of_pair, np.random.default_rng(sample_seed(seed, f"{pair} {name}".strip(), 0)), annotator)
            for pair, of_pair in zip(table["pair_id"], difference, strict=True)
        ]
    return table.assign(annotator="simulated", source="simulated from a hidden utility")
