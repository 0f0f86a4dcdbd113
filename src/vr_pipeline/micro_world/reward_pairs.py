"""Clips and simulated comparisons for training and testing a pairwise reward model.

A pair has one prompt. The first clip was made for it, the second perhaps for a prompt that differs in one or two
attributes: with clips of one prompt only, the text carries no information, and a reward learns to ignore it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.generators.contract import Generator
from vr_pipeline.identifiers import content_hash, pair_id, prompt_id, sample_seed, video_id
from vr_pipeline.micro_world.config import ComparisonParameters
from vr_pipeline.micro_world.preferences import perceive, utilities, utilities_by_criterion
from vr_pipeline.micro_world.recogniser import answer_from
from vr_pipeline.micro_world.world import FRAMES_PER_SECOND, all_prompts, neighbouring_prompt


@dataclass(frozen=True)
class GeneratedClips:
    """Clips of the generator, equally many of every prompt.

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

    def metadata(self, generator: str) -> list[dict[str, Any]]:
        """Return the metadata of each clip for the index of clips."""
        numbers: dict[str, int] = {}
        rows = []
        for prompt, seed in zip(self.prompts, self.seeds, strict=True):
            number = numbers[prompt] = numbers.get(prompt, -1) + 1
            known = {"prompt_id": prompt_id(prompt), "prompt": prompt, "sample_index": number, "seed": seed}
            rows.append({**known, "generator": generator, "fps": FRAMES_PER_SECOND})
        return rows


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
    clips: GeneratedClips,
    num_pairs: int,
    cross_prompt_share: float,
    *,
    prompts: Collection[str],
    seed: int,
    purpose: str,
) -> pd.DataFrame:
    """Draw pairs, the prompts in turn; no pair is drawn twice, and the order of its clips is random.

    Args:
        clips: of every prompt.
        num_pairs: wanted number; fewer if the clips do not allow as many.
        cross_prompt_share: share of pairs whose second clip was made for a neighbouring prompt.
        prompts: those that pairs are about.
        seed, purpose: a draw depends on these and its number.

    Returns:
        pair_id, prompt, the places of the two clips (a, b), and whether one was made for another prompt (crossed).
    """
    by_prompt: dict[str, list[int]] = {}
    for at, prompt in enumerate(clips.prompts):
        by_prompt.setdefault(prompt, []).append(at)
    asked = [prompt for prompt in all_prompts() if prompt in prompts]
    drawn: dict[str, tuple[str, int, int, bool]] = {}
    for attempt in range(4 * num_pairs):
        prompt = asked[attempt % len(asked)]
        random = np.random.default_rng(sample_seed(seed, f"{purpose} pair", attempt))
        crossed = bool(random.random() < cross_prompt_share)
        other = neighbouring_prompt(random, prompt, int(random.integers(1, 3))) if crossed else prompt
        first, second = int(random.choice(by_prompt[prompt])), int(random.choice(by_prompt[other]))
        if first != second:
            identifier = pair_id(prompt_id(prompt), clips.video_ids[first], clips.video_ids[second])
            ends = (first, second) if random.random() < 0.5 else (second, first)
            drawn.setdefault(identifier, (prompt, *ends, crossed))
        if len(drawn) == num_pairs:
            break
    rows = [(identifier, *row) for identifier, row in drawn.items()]
    return pd.DataFrame(rows, columns=["pair_id", "prompt", "a", "b", "crossed"])


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
        table with the columns of ``schemas.HumanPreferences``, ``preference_<criterion>``, ``crossed``, and of the
        hidden utility of A minus that of B, ``utility`` and ``utility_<criterion>``.
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
            "crossed": pairs["crossed"],
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
