"""Sets of rendered clips, reproducible clip by clip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vr_pipeline.generators.contract import Generator
from vr_pipeline.identifiers import sample_seed
from vr_pipeline.micro_world.config import MicroWorldParameters, SceneParameters
from vr_pipeline.micro_world.world import (
    SHIPPED_SCENES,
    Scene,
    all_prompts,
    answers,
    perturbed_prompt,
    render,
    sample_scene,
)


@dataclass(frozen=True)
class RenderedClips:
    """Rendered clips with their scenes.

    Attributes:
        judged_prompts: the prompt each clip is judged against; each attribute is correct in half of them.
        frames: uint8 [clips, frames, height, width, 3].
    """

    scenes: list[Scene]
    judged_prompts: list[str]
    frames: npt.NDArray[np.uint8]

    def part(self, places: list[int]) -> RenderedClips:
        """Return the clips in some places."""
        prompts = [self.judged_prompts[at] for at in places]
        return RenderedClips([self.scenes[at] for at in places], prompts, self.frames[places])

    def labels(self, question_ids: list[str]) -> npt.NDArray[np.bool_]:
        """Return True answers about the judged prompts, [clips, questions]."""
        rows = [answers(scene, prompt) for scene, prompt in zip(self.scenes, self.judged_prompts, strict=True)]
        return np.array([[row[question] for question in question_ids] for row in rows])


def render_clips(
    count: int, *, seed: int, purpose: str, flaw_scale: float = 1.0, scenes: SceneParameters = SHIPPED_SCENES
) -> RenderedClips:
    """Render clips for one purpose.

    The prompts are taken in turn, so that every one has the same share; clip i depends on the seed, the purpose and
    i alone.
    """
    prompts = all_prompts()
    drawn, judged = [], []
    for index in range(count):
        prompt = prompts[index % len(prompts)]
        random = np.random.default_rng(sample_seed(seed, purpose, index))
        drawn.append(sample_scene(random, prompt, flaw_scale=flaw_scale, scenes=scenes))
        judged.append(perturbed_prompt(random, prompt))
    return RenderedClips(drawn, judged, np.stack([render(scene) for scene in drawn]))


def rendered_for(purpose: str, count: int, parameters: MicroWorldParameters) -> RenderedClips:
    """Render clips of this world for one purpose."""
    return render_clips(
        count,
        seed=parameters.seed,
        purpose=purpose,
        flaw_scale=parameters.clips.flaw_scale,
        scenes=parameters.scenes,
    )


def generate_clips(
    generator: Generator, count: int, *, seed: int, purpose: str
) -> tuple[list[str], npt.NDArray[np.uint8]]:
    """Sample clips for one purpose, the prompts in turn; clip i depends on the seed, the purpose and i alone.

    Returns:
        the prompt each clip is judged against, and the frames, as in :class:`RenderedClips`.
    """
    choices = all_prompts()
    prompts = [choices[index % len(choices)] for index in range(count)]
    seeds = [sample_seed(seed, purpose, index) for index in range(count)]
    judged = [perturbed_prompt(np.random.default_rng(own), prompt) for prompt, own in zip(prompts, seeds, strict=True)]
    return judged, generator.sample(prompts, seeds)
