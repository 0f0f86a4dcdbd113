"""Test prompts that are also training prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from vr_pipeline.identifiers import prompt_id
from vr_pipeline.prompts.rouge import tokenize
from vr_pipeline.prompts.rouge_join import as_strings

NEAR = 0.7
"""Rouge-L F1 above which prompts are near-duplicates, as in prompt filtering (VisionReward, section 4.1)."""

COLUMNS = ("tested", "trained", "prompt_id", "prompt", "kind", "similarity", "nearest_prompt")


def prompt_overlaps(
    tested: Mapping[str, Sequence[str]],
    trained: Mapping[str, Sequence[str]],
    *,
    threshold: float = NEAR,
    skip: frozenset[tuple[str, str]] = frozenset(),
) -> pd.DataFrame:
    """Return the test prompts that are also training prompts, by equal normalised text or nearly.

    Args:
        tested: name of a test -> its prompts.
        trained: name of a training -> its prompts.
        threshold: Rouge-L F1 above which prompts are near-duplicates, 0 to 1.
        skip: (tested, trained) not to compare.

    Returns:
        tested, trained, prompt_id, prompt, kind ('exact' or 'near'), similarity (Rouge-L F1; 1 if exact) and
        nearest_prompt, sorted; one row per test prompt and overlapping training.
    """
    rows = []
    for name, prompts in tested.items():
        for by, others in trained.items():
            if (name, by) not in skip:
                rows += [{"tested": name, "trained": by, **row} for row in _overlaps(prompts, others, threshold)]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.sort_values(["tested", "trained", "prompt_id"], ignore_index=True, kind="stable")


def _overlaps(prompts: Sequence[str], others: Sequence[str], threshold: float) -> list[dict[str, object]]:
    asked = {prompt_id(prompt): prompt for prompt in reversed(prompts)}
    known = {prompt_id(prompt): prompt for prompt in reversed(others)}
    rows: list[dict[str, object]] = [
        {"prompt_id": key, "prompt": asked[key], "kind": "exact", "similarity": 1.0, "nearest_prompt": known[key]}
        for key in asked.keys() & known.keys()
    ]
    left = sorted(asked.keys() - known.keys())
    texts = [known[key] for key in sorted(known)]
    for key, (similarity, nearest) in zip(left, _nearest([asked[key] for key in left], texts), strict=True):
        if similarity > threshold:
            near = {"kind": "near", "similarity": similarity, "nearest_prompt": nearest}
            rows.append({"prompt_id": key, "prompt": asked[key], **near})
    return rows


def _nearest(prompts: Sequence[str], others: Sequence[str]) -> list[tuple[float, str]]:
    """Return the largest Rouge-L F1 of each prompt with the others, and the first prompt with it."""
    from rapidfuzz.distance import LCSseq
    from rapidfuzz.process import cdist

    if not prompts or not others:
        return [(0.0, "")] * len(prompts)
    numbers: dict[str, int] = {}
    tokens = [tuple(numbers.setdefault(word, len(numbers)) for word in tokenize(text)) for text in (*prompts, *others)]
    strings = as_strings(tokens, len(numbers))
    asked, known = strings[: len(prompts)], strings[len(prompts) :]
    lengths = np.array([len(one) for one in known])
    found = []
    for one in asked:
        lcs = cdist([one], known, scorer=LCSseq.similarity, dtype=np.int64)[0]
        # F1 of precision lcs / n and recall lcs / m is 2 lcs / (n + m).
        f1 = 2 * lcs / np.maximum(lengths + len(one), 1)
        best = int(f1.argmax())
        found.append((float(f1[best]), others[best]))
    return found
