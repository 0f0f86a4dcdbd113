"""Division into train, validation and test that survives new prompts and lets no near-duplicate cross.

A prompt's split depends on nothing but its identifier, so prompts that are added or removed move no other. What that
leaves open, two similar prompts in different splits, is settled by dropping the later one, not by moving it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vr_pipeline.identifiers import content_hash
from vr_pipeline.prompts.config import SplitParameters
from vr_pipeline.prompts.rouge import greedy_rouge_scan
from vr_pipeline.prompts.segments import segments
from vr_pipeline.prompts.semantic import greedy_cosine_scan


def split_of(prompt_identifier: str, parameters: SplitParameters) -> str:
    """'train', 'validation' or 'test', by the place of the identifier's hash in [0, 1).

    Test lies first and training last, so a changed validation share never moves a prompt into or out of test.
    """
    place = int(content_hash("split", parameters.salt, prompt_identifier), 16) / 2**64
    if place < parameters.test_fraction:
        return "test"
    if place < parameters.test_fraction + parameters.validation_fraction:
        return "validation"
    return "train"


@dataclass(frozen=True)
class Leak:
    """A prompt that is dropped because a kept one in another split is too similar.

    Args:
        index: the prompt.
        nearest: the kept prompt before it, in another split.
        measure: 'Rouge-L F1' or 'cosine'.
    """

    index: int
    nearest: int
    similarity: float
    measure: str


def find_leaks(
    prompts: Sequence[str],
    splits: Sequence[str],
    parameters: SplitParameters,
    embeddings: npt.NDArray[np.float32] | None = None,
    *,
    block_size: int = 1024,
) -> list[Leak]:
    """Return prompts to drop so that no two similar ones are left in different splits.

    Args:
        prompts: texts in the order of the scan; the earlier of two stays.
        parameters: thresholds, each switched off by 1.
        embeddings: unit vectors [prompts, axes]; None skips the comparison by meaning.
        block_size: prompts a side of a tile of cosines.
    """
    words = greedy_rouge_scan(prompts, parameters.rouge_threshold, groups=splits, tokens=segments)
    leaks = [
        Leak(index, int(words.nearest[index]), float(words.similarity[index]), "Rouge-L F1")
        for index in np.flatnonzero(words.nearest >= 0).tolist()
    ]
    if embeddings is not None and len(words.kept):
        kept = words.kept
        meaning = greedy_cosine_scan(
            embeddings[kept],
            parameters.semantic_threshold,
            groups=[splits[index] for index in kept.tolist()],
            block_size=block_size,
        )
        leaks.extend(
            Leak(int(kept[index]), int(kept[meaning.nearest[index]]), float(meaning.similarity[index]), "cosine")
            for index in np.flatnonzero(meaning.nearest >= 0).tolist()
        )
    return sorted(leaks, key=lambda leak: leak.index)
