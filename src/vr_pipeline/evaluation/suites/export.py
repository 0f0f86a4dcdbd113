"""Export of a policy's clips for a suite, with a manifest."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from vr_pipeline.evaluation.suites.names import Suite, SuitePrompt
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import Generator, sampling_identity
from vr_pipeline.generators.plans import sample_items, video_items
from vr_pipeline.generators.policy import Policy
from vr_pipeline.identifiers import content_hash, prompt_id
from vr_pipeline.items.folder import ItemFolder
from vr_pipeline.storage.atomic import replaced, write_text
from vr_pipeline.work import WorkItem, WorkPlan

VIDEOS, MANIFEST, ITEMS = "videos", "manifest.json", "items"
"""Content of an export: clips under the suite's names, the manifest, and items to resume."""


def plan_export(
    prompts: Sequence[SuitePrompt], generator: GeneratorParameters, policy: Policy | None, *, seed: int
) -> WorkPlan:
    """Plan the clips of a policy for the prompts of a suite, with seeds from prompt and number.

    Args:
        prompts: from :func:`~vr_pipeline.evaluation.suites.names.read_suite_prompts`.
        generator: the generator.
        policy: the policy; None for the original.
        seed: base seed.
    """
    base = sampling_identity(generator)
    producer = base if policy is None else content_hash("policy", base, policy.identity)
    items: list[WorkItem] = []
    for prompt in prompts:
        table = pd.DataFrame({"prompt_id": [prompt_id(prompt.prompt)], "prompt": [prompt.text]})
        items += video_items(
            table,
            producer=producer,
            parameters=generator,
            videos_per_prompt=prompt.clips,
            seed=seed,
            metadata={"suite_prompt": prompt.prompt, "dimensions": json.dumps(prompt.dimensions)},
        )

    def setup() -> Generator:
        from vr_pipeline.generators import load_generator

        made = load_generator(generator)
        if policy is not None:
            made.load_policy(policy)
        return made

    return WorkPlan(items, sample_items, generator.batch_size, "clips of the suite", setup)


def write_export(made: ItemFolder, folder: Path, suite: Suite, description: dict[str, Any]) -> pd.DataFrame:
    """Link the clips under the suite's names, write the manifest, and remove clips of an earlier export.

    Args:
        made: the clips.
        folder: of the export.
        suite: the suite.
        description: other fields of the manifest, such as the policy.

    Returns:
        one row per clip: file, prompt, text, sample_index, seed, fps, num_frames, height, width, status, error.
    """
    rows = []
    place = folder / VIDEOS
    place.mkdir(parents=True, exist_ok=True)
    for record in made.records.to_dict("records"):
        name = suite.file_name(record["suite_prompt"], record["sample_index"])
        if record["status"] == "ok":
            _link(made.path(record["key"]), place / name)
        known = {key: record.get(key) for key in ("fps", "num_frames", "height", "width")}
        rows.append(
            {
                "file": name,
                "prompt": record["suite_prompt"],
                "text": record["prompt"],
                "dimensions": json.loads(record["dimensions"]),
                **{key: record[key] for key in ("sample_index", "seed", "status", "error")},
                **{key: None if pd.isna(value) else value for key, value in known.items()},
            }
        )
    rows.sort(key=lambda row: (row["prompt"], row["sample_index"]))
    wanted = {row["file"] for row in rows if row["status"] == "ok"}
    for stranger in place.iterdir():
        if stranger.name not in wanted and stranger.suffix == ".mp4":
            stranger.unlink()
    document = {"suite": suite.name, "source": suite.source, **description, "clips": rows}
    write_text(folder / MANIFEST, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    return pd.DataFrame(rows)


def _link(source: Path, target: Path) -> None:
    """Link a file under another name, or copy it if the file system cannot."""
    if target.exists() and os.path.samefile(source, target):
        return
    with replaced(target, durable=False) as temporary:
        with suppress(OSError):
            os.link(source, temporary)
        if not temporary.exists():
            shutil.copyfile(source, temporary)
