"""Conditions of prompts: what the encoders make of their texts, and of their first frames if they have some."""

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.generators import family_of
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import Condition, Generator
from vr_pipeline.identifiers import IMAGE, image_content
from vr_pipeline.items.folder import ItemFolder
from vr_pipeline.training.shards import Tensors, TensorShards, only_numbers, plan_shards
from vr_pipeline.video.first_frames import read_first_frame
from vr_pipeline.work import WorkPlan

_SEPARATOR = "/"


def plan_conditions(
    prompts: pd.DataFrame, prompt_ids: Sequence[str], parameters: GeneratorParameters, shard_size: int
) -> WorkPlan:
    """Plan the conditions of prompts, ``shard_size`` prompts encoded together and kept in one file.

    Args:
        prompts: table with prompt_id and prompt, and image if clips start from images.
        prompt_ids: prompts that are needed.
        parameters: the generator whose text encoder is used.
        shard_size: prompts per shard.

    Raises:
        InputError: if the table lacks a prompt, or images that the generator needs.
    """
    images = dict(zip(prompts["prompt_id"].astype(str), prompts[IMAGE], strict=True)) if IMAGE in prompts else None
    texts = dict(zip(prompts["prompt_id"].astype(str), prompts["prompt"].astype(str), strict=True))
    needed = sorted(set(prompt_ids))
    missing = [name for name in needed if name not in texts]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(needed)} prompts of the pairs are not in the table of prompts, for instance "
            f"{missing[0]!r}",
            remedy="run the pipelines from prompt_filtering on, so that videos and prompts match",
        )
    family_of(parameters.family).check_images(needed, None if images is None else needed)
    of_images = (parameters.num_frames, parameters.vae_tiling, parameters.first_frame_noise) if images else ()
    return plan_shards(
        "prompts",
        {name: texts[name] + (f" {image_content(images[name])}" if images else "") for name in needed},
        lambda generator, names: _encode(generator, texts, images, names),
        parameters,
        part="text_encoder",
        # The size of the clips is part of the conditions of some families.
        settings=(parameters.height, parameters.width, *of_images),
        size=shard_size,
    )


def _encode(
    generator: Generator, texts: Mapping[str, str], images: Mapping[str, str] | None, names: Sequence[str]
) -> Tensors:
    given = [] if images is None else [[read_first_frame(images[name]) for name in names]]
    condition = generator.encode_prompts([texts[name] for name in names], *given)
    encoded = {
        f"{name}{_SEPARATOR}{kind}": value[row : row + 1].clone()
        for row, name in enumerate(names)
        for kind, value in condition.items()
    }
    return only_numbers(encoded, "text conditions")


class ConditionShards(Mapping[str, "Condition"]):
    """Text conditions by prompt_id, every tensor [1, ...], read on access.

    Attributes:
        set_aside: prompts for which the text encoder returned NaN; they are not among the conditions.
    """

    def __init__(self, folder: ItemFolder) -> None:
        self._tensors = TensorShards(folder)
        self._kinds: dict[str, list[str]] = {}
        self.set_aside = {name.rpartition(_SEPARATOR)[0] for name in self._tensors.set_aside}
        for name in self._tensors:
            prompt_id, _, kind = name.rpartition(_SEPARATOR)
            if prompt_id in self.set_aside:
                continue
            self._kinds.setdefault(prompt_id, []).append(kind)

    def __getitem__(self, prompt_id: str) -> Condition:
        return {kind: self._tensors[f"{prompt_id}{_SEPARATOR}{kind}"] for kind in sorted(self._kinds[prompt_id])}

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)
