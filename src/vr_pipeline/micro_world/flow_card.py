"""Figures of the tiny Wan's clips, beside those of the tiny CogVideoX, and its model card."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vr_pipeline.generators.contract import Generator
from vr_pipeline.micro_world.card import file_hashes, render_card
from vr_pipeline.micro_world.config import MicroWorldParameters
from vr_pipeline.micro_world.oracle import Oracle
from vr_pipeline.micro_world.preferences import UTILITY, utilities
from vr_pipeline.micro_world.recogniser import answer_from
from vr_pipeline.micro_world.reward_pairs import sample_clips
from vr_pipeline.micro_world.world import ATTRIBUTES, parse_prompt

CLIPS_PER_PROMPT = 16
"""Clips per prompt for the figures of the card."""


@dataclass(frozen=True)
class SampleFigures:
    """Figures of a generator's clips by the oracle.

    Attributes:
        clips: number of sampled clips.
        attributes: share of clips that match the prompt, by attribute.
        utility: mean hidden utility of a clip.
    """

    clips: int
    attributes: Mapping[str, float]
    utility: float


def measure_samples(
    generator: Generator, oracle: Oracle, *, seed: int, clips_per_prompt: int = CLIPS_PER_PROMPT
) -> SampleFigures:
    """Sample clips of every prompt, and measure them by the oracle."""
    clips = sample_clips(generator, clips_per_prompt, seed=seed, purpose="figures of the flow")
    seen = oracle.recognise(clips.frames)
    named = [dict(zip(ATTRIBUTES, parse_prompt(prompt), strict=True)) for prompt in clips.prompts]
    shares = {
        attribute: float(
            np.mean(seen[attribute].argmax(axis=1) == [choices.index(names[attribute]) for names in named])
        )
        for attribute, choices in ATTRIBUTES.items()
    }
    questions = list(UTILITY)
    worth = utilities(answer_from(seen, clips.prompts, questions), questions)
    return SampleFigures(len(clips.prompts), shares, float(worth.mean()))


def flow_card(folder: Path, figures: SampleFigures, beside: SampleFigures, parameters: MicroWorldParameters) -> str:
    """Return the card in Markdown: the model, how it was made, and its figures by the oracle.

    Args:
        folder: of the model.
        figures: of its samples.
        beside: of the samples of the tiny CogVideoX, from the same seeds.
    """
    return render_card(
        "flow_card.md.j2",
        figures=figures,
        beside=beside,
        attributes=list(ATTRIBUTES),
        best=sum(UTILITY.values()),
        clips=parameters.clips,
        training=parameters.flow_pretraining,
        seed=parameters.seed,
        weights={part: _weights(folder / part) for part in ("transformer", "text_encoder")},
        hashes=file_hashes(folder),
    )


def _weights(folder: Path) -> int:
    """Count the weights of a part."""
    from math import prod

    from safetensors import safe_open

    count = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            count += sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return count
