"""Questions about rendered clips whose correct answer is known: what they show, in words of the judge's captions."""

import numpy as np
import pandas as pd

from vr_pipeline.identifiers import content_hash, prompt_id, sample_seed, video_id
from vr_pipeline.micro_world.config import CaptionParameters, SceneParameters
from vr_pipeline.micro_world.world import (
    FRAMES_PER_SECOND,
    SHIPPED_SCENES,
    Scene,
    all_prompts,
    render,
    sample_scene,
)
from vr_pipeline.work import WorkItem, WorkPlan

QUESTION = "what is in the clip ?"
"""The question about every clip."""


def caption_questions(
    parameters: CaptionParameters, *, seed: int, scenes: SceneParameters = SHIPPED_SCENES
) -> tuple[WorkPlan, pd.DataFrame]:
    """Render clips of every prompt, each with the question what it shows.

    A clip depends on the seed, its prompt and its number alone.

    Args:
        parameters: number of clips and flaws.
        seed: of the scenes.
        scenes: share of fast clips, and how much likelier flaws are in them.

    Returns:
        the clips, and the questions: id, video, prompt (the question), answer (five words) and group (the prompt that
        the clip was rendered for, so that clips of one prompt stay on one side of a split).
    """
    drawn: dict[str, Scene] = {}
    rows = []
    for prompt in all_prompts():
        for number in range(parameters.clips_per_prompt):
            random = np.random.default_rng(sample_seed(seed, f"captions {prompt_id(prompt)}", number))
            scene = sample_scene(random, prompt, flaw_scale=parameters.flaw_scale, scenes=scenes)
            name = video_id(prompt_id(prompt), number, content_hash("micro-world captions", seed))
            drawn[name] = scene
            rows.append(
                {"id": name, "video": f"{name}.mp4", "prompt": QUESTION, "answer": scene.caption, "group": prompt}
            )
    items = [
        WorkItem(name, content_hash("scene", repr(scene)), {"prompt": scene.prompt, "fps": FRAMES_PER_SECOND})
        for name, scene in drawn.items()
    ]
    plan = WorkPlan(
        items,
        lambda _, batch: [render(drawn[item.key]) for item in batch],
        batch_size=64,
        description="clips to describe",
    )
    return plan, pd.DataFrame(rows)
