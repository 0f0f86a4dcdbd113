"""Division into train, validation and test, stable for new prompts and without near-duplicates across splits.

A prompt's split depends only on its identifier, so adding or removing prompts does not move others. Of two similar
prompts in different splits, the later one is dropped.
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
    """Return 'train', 'validation' or 'test' from the identifier's hash in [0, 1).

    Test is first and training last, so that the validation share does not change the test split.
    """
    place = int(content_hash("split", parameters.salt, prompt_identifier), 16) / 2**64
    if place < parameters.test_fraction:
        return "test"
    if place < parameters.test_fraction + parameters.validation_fraction:
        return "validation"
    return "train"


def surplus(identifiers: Sequence[str], splits: Sequence[str], parameters: SplitParameters) -> list[int]:
    """Return positions of the training prompts above ``train_prompts``, in order.

    They are drawn by a hash of the prompt, so that a new prompt replaces at most one.
    """
    training = [index for index, split in enumerate(splits) if split == "train"]
    if parameters.train_prompts is None:
        return []
    training.sort(key=lambda index: content_hash("train prompts", parameters.salt, identifiers[index]))
    return sorted(training[parameters.train_prompts :])


@dataclass(frozen=True)
class Leak:
    """A prompt to drop because of a similar kept prompt in another split.

    Args:
        index: of the prompt.
        nearest: index of the earlier kept prompt.
        similarity: of both prompts.
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
    """Return the prompts to drop so that no similar prompts are in different splits.

    Args:
        prompts: texts in the order of the scan; the earlier of two is kept.
        splits: of the prompts.
        parameters: thresholds; 1 turns a comparison off.
        embeddings: unit vectors [prompts, axes]; None skips the comparison by meaning.
        block_size: number of prompts per side of a tile of cosines.
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
