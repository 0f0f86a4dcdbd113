"""Disk that the results of a run take, and what of them is there already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vr_pipeline.items.formats import item_format
from vr_pipeline.items.manifest import MANIFEST, PARTIAL_MANIFEST, ItemRecord, read_manifest, read_partial
from vr_pipeline.planning.rounds import rounds
from vr_pipeline.planning.settings import Settings
from vr_pipeline.planning.stages import ADAPTER_BYTES

if TYPE_CHECKING:
    from vr_pipeline.work import WorkPlan

BITS_PER_PIXEL = {"libx264": 1.0, "libx264rgb": 8.0}
"""Bits a pixel of a stored clip takes: H.264 at crf 10, and without loss (of 24). An assumption: content decides."""
ANSWER_BYTES = 24
"""Bytes an answer takes in a file of answers, about."""
SCORE_BYTES = 2_000
"""Bytes of a small table in a pack, with its record: a clip's scores, or a prompt's comparisons."""


@dataclass(frozen=True)
class Stored:
    """A kind of result on disk.

    Attributes:
        name: the dataset, or the folder.
        number: items it will consist of.
        bytes: what they will take.
        source: how that is known: calculated, assumed, or measured, on what is there.
        there: items that are finished, whatever made them.
        kept: how many of these the run as configured keeps; None if that is known only when the run gets there.
    """

    name: str
    number: int
    bytes: float
    source: str
    there: int = 0
    kept: int | None = None


def planned_storage(settings: Settings) -> list[Stored]:
    """Return what a run writes, the large things first."""
    found = [_of_round(one, each.system.recipes[0].name) for each in rounds(settings) for one in _paired(each)]
    found = found or _paired(settings)
    found.append(_clips(settings, "evaluation_videos", settings.evaluated_clips))
    return sorted(found, key=lambda one: -one.bytes)


def _of_round(stored: Stored, name: str) -> Stored:
    """Name what a round writes: datasets end in the round, other things in its number."""
    number = name.removeprefix("round_")
    return replace(stored, name=f"{stored.name} {number}" if " " in stored.name else f"{stored.name}_{name}")


def _paired(settings: Settings) -> list[Stored]:
    """Return what making clips, rewarding them and training on their pairs writes."""
    found = [_clips(settings, "videos", settings.made_clips)]
    questions, checklist = len(settings.checklist.questions), settings.system.reward == "checklist"
    each = int(settings.parameters["checklist_inference"].get("clips_per_item", 1)) if checklist else 1
    number = -(-settings.made_clips // each)
    size = ANSWER_BYTES * questions * settings.made_clips if checklist else SCORE_BYTES * number
    found.append(Stored("answer_shards" if checklist else "reward_shards", number, size, "assumed"))
    if settings.system.ranks_pairs:
        prompts = settings.paired_prompts
        found.append(Stored("comparison_shards", prompts, SCORE_BYTES * prompts, "assumed"))
    return found + _training(settings)


def _clips(settings: Settings, name: str, number: int) -> Stored:
    clip, codec = settings.generator, str(settings.clips.get("codec", "libx264rgb"))
    enlarged = int(settings.clips.get("enlarge", 1)) ** 2
    pixels = clip.num_frames * clip.height * clip.width * enlarged
    return Stored(name, number, number * pixels * BITS_PER_PIXEL.get(codec, 8.0) / 8, "assumed")


def _training(settings: Settings) -> list[Stored]:
    facts, training, recipes = settings.generator_facts, settings.training, settings.system.recipes
    if facts is None:
        return []
    clips, prompts = settings.encoded
    weights = facts.costs(training.training.lora.rank)
    full = training.training.method == "full"
    trained = weights.parameters if full else weights.adapter
    checkpoints = sum(settings.checkpoints(recipe.name) for recipe in recipes)
    kept = (checkpoints if not full else 0) + len(recipes)
    # The state has the weights, the best ones and the optimiser's.
    states = len(recipes) * (ADAPTER_BYTES + 4) * trained
    judged = (checkpoints + 1) * settings.validated_clips
    return [
        Stored("latents", -(-clips // training.shard_size), clips * facts.latent_bytes, "calculated"),
        Stored("prompt_conditions", -(-prompts // training.shard_size), prompts * facts.condition_bytes, "calculated"),
        Stored("policies, checkpoints", kept + len(recipes), 4 * trained * kept + states, "calculated"),
        replace(_clips(settings, "validation", judged), name="clips of checkpoints"),
    ]


def with_what_is_there(
    planned: Sequence[Stored], folders: Mapping[str, tuple[Path, Mapping[str, Any]]], plans: Mapping[str, WorkPlan]
) -> list[Stored]:
    """Add what is finished in the folders of items, and measure sizes on it.

    Args:
        folders: dataset to its folder and format.
        plans: dataset to what the run would make, where that is known before it runs.
    """
    found = []
    for one in planned:
        if one.name not in folders:
            found.append(one)
            continue
        records = finished_items(*folders[one.name])
        kept = None
        if (plan := plans.get(one.name)) is not None:
            wanted = {item.key: item.identity for item in plan.items}
            kept = sum(wanted.get(record.key) == record.identity for record in records)
        size, source = one.bytes, one.source
        if records:
            size, source = one.number * sum(record.bytes for record in records) / len(records), "measured"
        found.append(replace(one, there=len(records), kept=kept, bytes=size, source=source))
    return found


def finished_items(folder: Path, stored_as: Mapping[str, Any]) -> list[ItemRecord]:
    """Return the records of the items of a folder that were made, unfinished folders included."""
    known: dict[str, ItemRecord] = {}
    if (folder / MANIFEST).is_file():
        known |= {record.key: record for record in read_manifest(folder / MANIFEST).items}
    if (folder / PARTIAL_MANIFEST).is_file():
        expected = item_format(dict(stored_as)).model_dump()
        known |= {record.key: record for record in read_partial(folder / PARTIAL_MANIFEST, expected)}
    return [record for record in known.values() if record.status == "ok"]
