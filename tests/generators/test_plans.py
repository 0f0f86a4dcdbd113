"""Clips that are to be made: what their names, seeds and identities depend on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.plans import sample_items, video_items
from vr_pipeline.identifiers import sample_seed
from vr_pipeline.work import WorkItem

PROMPTS = pd.DataFrame({"prompt_id": ["p0", "p1", "p2"], "prompt": ["a cat", "a dog", "a hen"]})
PARAMETERS = GeneratorParameters(family="cogvideox", path="owner/model", revision="abc", fps=6.0)


def items(prompts: pd.DataFrame = PROMPTS, **changes: Any) -> list[WorkItem]:
    settings: dict[str, Any] = {"producer": "x", "parameters": PARAMETERS, "videos_per_prompt": 2, "seed": 5}
    return video_items(prompts, **settings | changes)


def test_every_sample_has_its_name_its_seed_and_what_it_was_made_of() -> None:
    made = items(metadata={"policy": "mpo"})
    assert len({item.key for item in made}) == len({item.identity for item in made}) == 6
    assert [item.metadata for item in made] == [
        {
            "prompt_id": f"p{row}",
            "prompt": prompt,
            "sample_index": sample,
            "seed": sample_seed(5, f"p{row}", sample),
            "generator": "x",
            "fps": 6.0,
            "policy": "mpo",
        }
        for row, prompt in enumerate(["a cat", "a dog", "a hen"])
        for sample in range(2)
    ]


def test_a_clip_does_not_depend_on_what_else_is_made() -> None:
    by_key = {item.key: item for item in items()}
    for others in (items(PROMPTS.iloc[::-1]), items(PROMPTS.iloc[1:2]), items(videos_per_prompt=1)):
        assert all(by_key[item.key] == item for item in others)


def test_another_producer_seed_or_prompt_makes_another_clip() -> None:
    base = {item.identity for item in items()}
    other_text = PROMPTS.assign(prompt=PROMPTS["prompt"] + " runs")
    for other in (items(producer="y"), items(seed=6), items(other_text)):
        assert base.isdisjoint(item.identity for item in other)
    for other in (items(producer="y"), items(seed=6)):
        assert {item.key for item in items()}.isdisjoint(item.key for item in other)


def test_items_are_sampled_from_their_prompts_and_seeds() -> None:
    class Echo:
        def sample_each(self, prompts: list[str], seeds: list[int]) -> np.ndarray:
            return np.array([[prompt, str(seed)] for prompt, seed in zip(prompts, seeds, strict=True)])

    clips = sample_items(Echo(), items()[1:3])  # type: ignore[arg-type]
    expected = [["a cat", str(sample_seed(5, "p0", 1))], ["a dog", str(sample_seed(5, "p1", 0))]]
    assert [list(clip) for clip in clips] == expected
