"""A reward of noised latents: the generator's first blocks, pooled, with one score per dimension.

Source: Liu et al. 2025, Improving Video Generation with Human Feedback, section 5 (Flow-NRG): a reward model that
sees what the sampler sees, x_t, so that its gradient can steer sampling. A difference of 1 between the scores of two
clips is one natural logarithm of the odds that the first is preferred, in every dimension.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from vr_pipeline.config import Parameters
from vr_pipeline.engine.config import LoRAParameters
from vr_pipeline.errors import InputError
from vr_pipeline.generators.contract import Condition, Generator
from vr_pipeline.generators.diffusers_pipeline import PipelineGenerator
from vr_pipeline.generators.early_blocks import EarlyBlocks
from vr_pipeline.identifiers import content_hash
from vr_pipeline.runtime.setting_names import read_settings as read_json_settings

if TYPE_CHECKING:
    import torch

SETTINGS_FILE, WEIGHTS_FILE = "latent_reward.json", "weights.safetensors"
_REMEDY = "run the pipeline latent_reward_training again, or copy the whole folder"

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class LatentRewardNetworkParameters(Parameters):
    """What the network of a latent reward is made of."""

    blocks: int = Field(8, ge=1, description="How many of the denoiser's blocks it has, from the first.")
    pooling: Literal["attention", "mean"] = Field(
        "attention",
        description="How hidden states of all tokens become one: attention with one learned query, or their mean.",
    )
    lora: LoRAParameters | None = Field(
        None, description="A low-rank update of the blocks; null trains all of their weights."
    )


class LatentRewardSettings(Parameters):
    """The file latent_reward.json of a latent reward's folder."""

    type: Literal["latent_reward"] = Field("latent_reward", description="The kind of model.")
    dimensions: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")], ...] = Field(
        min_length=1, description="What is scored, in the order of the scores."
    )
    network: LatentRewardNetworkParameters = Field(description="Blocks and pooling.")
    times: tuple[Share, Share] = Field(
        (0.0, 1.0), description="Times that it was trained at, from 0 (a clip) to 1 (noise alone)."
    )
    base: str = Field(description="Identity of the generator's weights, which the blocks are from.")
    provenance: dict[str, Any] = Field(default={}, description="What it was trained on.")

    @model_validator(mode="after")
    def _consistent(self) -> LatentRewardSettings:
        if len(set(self.dimensions)) != len(self.dimensions):
            raise ValueError("two dimensions have the same name")
        if self.times[0] > self.times[1]:
            raise ValueError("'times' is from the lowest to the highest")
        return self


class LatentReward:
    """Noised latents in, one score per dimension out, differentiable with respect to the latents.

    Attributes:
        settings: dimensions, blocks, pooling, times of training, base.
        blocks: the generator's first blocks; a copy, so that the denoiser that samples stays as it is.
        head: what makes scores of hidden states, float32.
    """

    def __init__(self, generator: Generator, settings: LatentRewardSettings, seed: int = 0) -> None:
        """Make a reward that is to be trained: the generator's blocks, with a new head.

        Args:
            generator: with its denoiser loaded; its policy, if any, is ignored.
            settings: of the reward; ``base`` is the generator's.
            seed: of the head, and of the low-rank update.

        Raises:
            InputError: the generator has other weights, or fewer blocks.
        """
        import torch

        from vr_pipeline.engine.fine_tuning import FineTuning

        if not isinstance(generator, PipelineGenerator) or generator.weights_identity != settings.base:
            raise InputError(
                "the latent reward was made for another generator than this one",
                field="latent_reward",
                remedy="train it again for this generator, or choose the generator that it was made for",
            )
        self.settings = settings
        self.blocks = EarlyBlocks(generator, settings.network.blocks)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = _new_head(self.blocks, settings).to(generator.device)
            frozen = [weight for weight in self.blocks.network.parameters() if not weight.requires_grad]
            self._tuning = FineTuning(self.blocks.network, settings.network.lora, generator.lora_targets)
        for weight in frozen:
            weight.requires_grad_(False)
        self._trained = sorted(name for name, weight in self._all_weights().items() if weight.requires_grad)

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Names of the scores."""
        return self.settings.dimensions

    @property
    def identity(self) -> str:
        """Hash of all that its files hold."""
        import hashlib

        digest = hashlib.sha256()
        for name, value in self._arrays().items():
            digest.update(f"{name} {value.shape}".encode())
            digest.update(value.tobytes())
        return content_hash("latent reward", _as_text(self.settings), digest.hexdigest())

    def scores(self, noised: torch.Tensor, timesteps: torch.Tensor, condition: Condition) -> torch.Tensor:
        """Return one score per dimension, float32 [batch, dimensions], differentiable with respect to ``noised``.

        Args:
            noised: latents x_t as the generator's ``predict`` takes them, [batch, ...].
            timesteps: on the generator's own scale, [batch].
            condition: of the prompts, as ``encode_prompts`` gives it, every tensor [batch, ...].
        """
        hidden = self.head["norm"](self.blocks.hidden(noised, timesteps, condition))
        if self.settings.network.pooling == "mean":
            pooled = hidden.mean(dim=1)
        else:
            query = self.head.get_parameter("query.weight")[None].expand(len(hidden), -1, -1)
            pooled = self.head["attention"](query, hidden, hidden, need_weights=False)[0][:, 0]
        return self.head["scores"](pooled)  # type: ignore[no-any-return]

    def weights(self) -> list[torch.nn.Parameter]:
        """Return what is trained, in a fixed order: the head, and the blocks or their low-rank update."""
        return list(self.named_weights().values())

    def named_weights(self) -> dict[str, torch.nn.Parameter]:
        """Return the same by name."""
        named = self._all_weights()
        return {name: named[name] for name in self._trained}

    def freeze(self) -> None:
        """Make gradients end at the latents: what steers sampling needs none for weights."""
        for part in (self.blocks.network, self.head):
            part.requires_grad_(False).eval()

    def _all_weights(self) -> dict[str, torch.nn.Parameter]:
        return {
            f"{kind}.{name}": weight
            for kind, part in (("blocks", self.blocks.network), ("head", self.head))
            for name, weight in part.named_parameters()
        }

    def _arrays(self) -> dict[str, Any]:
        return {name: weight.detach().float().cpu().numpy() for name, weight in self.named_weights().items()}

    def save(self, folder: Path) -> None:
        """Write the folder: settings, the weights that training changes, and checksums.

        Args:
            folder: an existing folder.
        """
        from vr_pipeline.storage.atomic import write_checksums
        from vr_pipeline.storage.tensors import write_tensors

        (folder / SETTINGS_FILE).write_text(_as_text(self.settings), encoding="utf-8")
        write_tensors(folder / WEIGHTS_FILE, self._arrays())
        write_checksums(folder)

    @classmethod
    def load(cls, folder: Path, generator: Generator) -> LatentReward:
        """Load a reward for the generator that it was made for; its weights are frozen.

        Raises:
            InputError: there is none in the folder, it is damaged, or it was made for another generator.
        """
        import torch

        from vr_pipeline.storage.models import check_model_files
        from vr_pipeline.storage.tensors import read_tensors

        settings = read_settings(folder)
        check_model_files(folder, field="latent_reward")
        path = folder / WEIGHTS_FILE
        tensors = read_tensors(path, remedy=_REMEDY)
        reward = cls(generator, settings)
        wanted = reward.named_weights()
        if odd := sorted(wanted.keys() ^ tensors.keys()):
            what = "is missing" if odd[0] in wanted else "belongs nowhere in this reward"
            raise InputError(f"the weight '{odd[0]}' {what}", file=path, remedy=_REMEDY)
        with torch.no_grad():
            for name, weight in wanted.items():
                if tensors[name].shape != weight.shape:
                    shapes = f"{list(tensors[name].shape)} instead of {list(weight.shape)}"
                    raise InputError(f"the weight '{name}' is of shape {shapes}", file=path, remedy=_REMEDY)
                weight.copy_(tensors[name])
        reward.freeze()
        return reward


def _as_text(settings: LatentRewardSettings) -> str:
    return json.dumps(settings.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def read_settings(folder: Path) -> LatentRewardSettings:
    """Read latent_reward.json of a folder.

    Raises:
        InputError: there is none, or it is not that of a latent reward.
    """
    path = folder / SETTINGS_FILE
    if not path.is_file():
        raise InputError("there is no latent reward in this folder", file=folder, remedy=_REMEDY)
    return read_json_settings(path, LatentRewardSettings, remedy=_REMEDY)


def _new_head(blocks: EarlyBlocks, settings: LatentRewardSettings) -> torch.nn.ModuleDict:
    from torch import nn

    # No biases: they add the same to the scores of all clips, so that pairs say nothing of them.
    parts: dict[str, nn.Module] = {"norm": nn.LayerNorm(blocks.width, bias=False)}
    if settings.network.pooling == "attention":
        parts["query"] = nn.Embedding(1, blocks.width)
        parts["attention"] = nn.MultiheadAttention(blocks.width, blocks.heads, bias=False, batch_first=True)
    parts["scores"] = nn.Linear(blocks.width, len(settings.dimensions), bias=False)
    # All clips are nearly alike before training.
    nn.init.normal_(parts["scores"].weight, std=0.02)  # type: ignore[arg-type]
    return nn.ModuleDict(parts)
