"""Training items of the embedded UnifiedReward, of two tasks, with clips whose correct answers are known.

Video generation: generated clips, compared on the whole and graded by criterion as simulated people do. Video
understanding: rendered clips and texts that describe them in words of the judge's captions, some of them wrong.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.identifiers import content_hash, prompt_id, sample_seed, video_id
from vr_pipeline.micro_world.captions import QUESTION
from vr_pipeline.micro_world.clips import RenderedClips
from vr_pipeline.micro_world.config import UnifiedItemParameters
from vr_pipeline.micro_world.preferences import CRITERIA, utilities_by_criterion
from vr_pipeline.micro_world.recogniser import answer_from
from vr_pipeline.micro_world.reward_pairs import GeneratedClips
from vr_pipeline.micro_world.world import (
    BACKGROUNDS,
    COLOURS,
    DIRECTIONS,
    FRAMES_PER_SECOND,
    SHAPES,
    neighbouring_prompt,
)

RIGHT_WORDS: Final = "right_words"
"""The dimension in which descriptions are graded: the number of correct words, 0 to 5."""
GRADES: Final = (1, 10)
"""Lowest and highest grade of a criterion."""
GRADE_STEP: Final = 0.5
"""Utility per grade, the same in every criterion, so that the mean of grades orders clips as the whole utility."""

_PLACES: Final[tuple[tuple[str, ...], ...]] = (
    tuple(COLOURS),
    SHAPES,
    DIRECTIONS,
    tuple(BACKGROUNDS),
    ("constant", *COLOURS),
)
"""The possible words of each place of a description."""


def best_by_criterion(checklist: Checklist) -> dict[str, float]:
    """Return the hidden utility of a clip without any flaw, by criterion."""
    perfect = utilities_by_criterion(np.ones((1, len(checklist.question_ids))), checklist)
    return {name: float(values[0]) for name, values in perfect.items()}


def grade_clips(
    clips: GeneratedClips,
    recognised: Mapping[str, npt.NDArray[np.float64]],
    checklist: Checklist,
    parameters: UnifiedItemParameters,
    *,
    prompts: frozenset[str],
    seed: int,
) -> pd.DataFrame:
    """Grade clips by criterion as simulated people do: 10 for a clip without flaw, one less for each half of utility.

    Every clip is graded twice: under its own prompt, and under one that differs in one or two attributes.

    Args:
        recognised: of :meth:`~vr_pipeline.micro_world.oracle.Oracle.recognise`.
        prompts: prompts under which clips are graded; others are left out.

    Returns:
        prompt, video_id, dimension (a key of :data:`~vr_pipeline.micro_world.preferences.CRITERIA`), grade, source.
    """
    rows, places = [], []
    for at, (clip, own) in enumerate(zip(clips.video_ids, clips.prompts, strict=True)):
        random = np.random.default_rng(sample_seed(seed, f"grade {clip}", 0))
        for prompt in (own, neighbouring_prompt(random, own, int(random.integers(1, 3)))):
            if prompt in prompts:
                places.append(at)
                rows.append((clip, prompt, random))
    shown = {name: classes[places] for name, classes in recognised.items()}
    said = answer_from(shown, [prompt for _, prompt, _ in rows], checklist.question_ids)
    best, low, high = best_by_criterion(checklist), *GRADES
    utility = utilities_by_criterion(said, checklist)
    found = []
    for at, (clip, prompt, random) in enumerate(rows):
        for name in CRITERIA:
            lost = best[name] - utility[name][at] + random.normal(scale=parameters.grade_noise)
            value = high - lost / GRADE_STEP
            found.append((prompt, clip, name, float(np.clip(np.round(value), low, high))))
    table = pd.DataFrame(found, columns=["prompt", "video_id", "dimension", "grade"])
    return table.assign(source="simulated from a hidden utility")


def describe_clips(
    clips: RenderedClips, video_ids: list[str], parameters: UnifiedItemParameters, *, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Describe rendered clips correctly and incorrectly, compare two descriptions of each and grade one.

    Returns:
        comparisons (a pair with its ``answer``: the description with more correct words, a tie if equal), and grades
        (the number of correct words), one row per clip each; see
        :func:`~vr_pipeline.rewards.unifiedreward.training.items.items_of` and ``items_from_ratings``.
    """
    compared, graded = [], []
    for scene, clip in zip(clips.scenes, video_ids, strict=True):
        random = np.random.default_rng(sample_seed(seed, f"describe {clip}", 0))
        true = scene.caption.split()
        texts = [_described(random, true, parameters.broken_share) for _ in range(3)]
        right = [right_words(text, true) for text in texts]
        if texts[0] != texts[1]:
            answer = "tie" if right[0] == right[1] else ("first" if right[0] > right[1] else "second")
            compared.append((QUESTION, clip, " ".join(texts[0]), " ".join(texts[1]), answer))
        graded.append((QUESTION, clip, " ".join(texts[2]), RIGHT_WORDS, float(right[2])))
    return (
        pd.DataFrame(compared, columns=["prompt", "video_id_a", "response_a", "response_b", "answer"]),
        pd.DataFrame(graded, columns=["prompt", "video_id", "response", "dimension", "grade"]),
    )


def right_words(said: list[str], true: list[str]) -> int:
    """Count the places of a description with the correct word."""
    return sum(one == other for one, other in zip(said, true, strict=False))


def _described(random: np.random.Generator, true: list[str], broken_share: float) -> list[str]:
    """Return a description with 0 to 4 wrong words; sometimes a word is missing or repeated."""
    words = list(true)
    for at in random.permutation(len(true))[: random.integers(0, len(true))]:
        words[at] = str(random.choice([word for word in _PLACES[at] if word != true[at]]))
    if random.random() < broken_share:
        at = int(random.integers(len(words)))
        words[at : at + 1] = [] if random.random() < 0.5 else [words[at]] * 2
    return words


def rendered_metadata(clips: RenderedClips, *, seed: int, purpose: str) -> tuple[list[str], list[dict[str, Any]]]:
    """Return identifiers of rendered clips, and their metadata for the index of clips."""
    ids, rows = [], []
    for number, scene in enumerate(clips.scenes):
        identifier = prompt_id(scene.prompt)
        ids.append(video_id(identifier, number, content_hash("micro-world", purpose, seed)))
        known = {"prompt_id": identifier, "prompt": scene.prompt, "sample_index": number}
        made = {"seed": sample_seed(seed, purpose, number), "generator": f"micro_world {purpose}"}
        rows.append({**known, **made, "fps": FRAMES_PER_SECOND})
    return ids, rows
