"""What limits a run: by stage, by the size of a batch, by the disk."""

from __future__ import annotations

from collections.abc import Sequence

from vr_pipeline.planning.rounds import made, trainings
from vr_pipeline.planning.settings import Settings
from vr_pipeline.planning.stages import GIB, Work
from vr_pipeline.planning.storage import Stored

SHORT = 0.01
"""Hours by the clock below which figures of GPUs say nothing about a run."""
COMMIT_SECONDS = 0.002
"""Assumed processor time of the run's own process per item, s."""
MANY_FILES = 1_000_000
"""Files of one kind from which on some file systems have no room for their entries; tables share files."""


def bounds(settings: Settings, works: Sequence[Work], stored: Sequence[Stored]) -> list[str]:
    """Say in sentences what the run is bound by, the most important first."""
    tflops, said = settings.gpu.tflops, []
    hours = {stage: sum(work.hours(tflops) for work in works if work.stage == stage) for stage in _stages(works)}
    total = sum(hours.values())
    if settings.generator_facts is None or (settings.reader is None and settings.server is None):
        said.append("nothing is known of a model: the hours are those of the others")
    elif total < SHORT:
        return ["the models are so small that programs take longer to start than GPUs to compute"]
    if total > 0:
        longest = max(hours, key=lambda stage: hours[stage])
        said.append(f"{longest} is {hours[longest] / total:.0%} of the time by the clock")
    asked = settings.held
    if asked > settings.processes:
        batch = next((one for one, _ in trainings(settings).values()), settings.training).training.batch_size
        said.append(f"training uses {settings.processes} of {asked} GPUs: a step has {batch} pairs")
    checked = [(work, one) for work in works for one in made(settings) if work.what.endswith(" checkpoints")]
    if checked and checked[0][0].gpus < asked:
        said.append(f"a checkpoint has {checked[0][1].validated_clips} clips to share")
    memory = settings.gpu.memory_gib * GIB
    said += [
        f"{work.stage} ({work.what}) needs {work.memory / GIB:.0f} GiB of {memory / GIB:.0f} on a GPU"
        for work in works
        if work.memory > memory
    ]
    clips = next((one for one in stored if one.name.startswith("videos")), None)
    making = next((work.hours(tflops) for work in works if work.what == "clips made"), 0.0)
    if clips is not None and making > 0:
        rate, files = clips.bytes / (3600 * making), clips.number / (3600 * making)
        if rate >= 1e6:
            said.append(f"clips are written at {rate / 1e6:,.0f} MB/s, {files:,.1f} files a second")
            busy = files * COMMIT_SECONDS
            said.append(f"recording them keeps the run's own process busy for {busy:.1%} of that time")
    large = [one for one in stored if one.number > MANY_FILES and not one.name.endswith("_shards")]
    said += [f"{one.name} is {one.number:,} files in 256 folders" for one in large]
    return said


def _stages(works: Sequence[Work]) -> list[str]:
    return list(dict.fromkeys(work.stage for work in works))
