"""The contract between generators and everything that uses them.

A family supplies the parts that differ (how latents look, which quantity the network predicts); sampling, adapters
and the per-sample prediction error are the same for all.
"""

from __future__ import annotations

import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from vr_pipeline.errors import InputError, PipelineError
from vr_pipeline.generators.config import GeneratorParameters, GuidanceReward
from vr_pipeline.generators.policy import Policy, Start
from vr_pipeline.generators.residuals import Residuals
from vr_pipeline.generators.starting import holding, load_start, reference_of
from vr_pipeline.identifiers import content_hash
from vr_pipeline.runtime.devices import resolve_device as resolve_device
from vr_pipeline.storage.hub import is_local
from vr_pipeline.work import ItemFailure

if TYPE_CHECKING:
    import torch

Frames = npt.NDArray[np.uint8]
Condition = dict[str, "torch.Tensor"]
Images = Sequence[Frames]
"""First frames of clips, each uint8 [height, width, 3]."""


Part = Literal["denoiser", "autoencoder", "text_encoder"]

_DIFFUSERS_FOLDER = "give the folder of a model in diffusers layout, or the name of one on the hub"

ALL_PARTS: tuple[Part, ...] = ("denoiser", "autoencoder", "text_encoder")
"""The parts of a generator that hold weights. Encoding needs one of the last two, training the first, sampling all."""


class Generator(ABC):
    """A generator of videos or images from text, or of videos from text and a first frame.

    Attributes:
        prediction_type: what the network predicts: 'velocity', 'noise' or 'flow'.
        error_space: the space in which :meth:`prediction_error` measures; recorded with every training run, because
            the strength beta of preference losses has no meaning without it.
        lora_targets: names of the linear layers that get adapters unless the configuration names others.
        frame_axis: axis of the latent frames in a batch of latents; None where a clip is a picture.
        lone_frames: frames that the autoencoder takes by themselves, before it takes the others in groups.
        takes_image: every clip starts from an image, its first frame.
        start: with which the training of an adapter starts; None: with one whose output is zero.
    """

    prediction_type: ClassVar[str]
    error_space: ClassVar[str]
    lora_targets: ClassVar[tuple[str, ...]]
    frame_axis: ClassVar[int | None] = None
    lone_frames: ClassVar[int] = 0
    takes_image: ClassVar[bool] = False

    @property
    def leading_copies(self) -> int:
        """Latent frames of a clip that are copies of the first, before it; they are no part of what is shown."""
        return 0

    @property
    def given_frames(self) -> int:
        """Latent frames at the start of a clip that the condition fixes; no error is measured on them."""
        return 0

    parameters: GeneratorParameters
    identity: str
    """Hash of weights and sampling settings: equal identities give equal clips on the same machine."""
    start: Start | None = None
    _initial: Sequence[tuple[Any, Any]] = ()

    @classmethod
    @abstractmethod
    def load(cls, parameters: GeneratorParameters, parts: Collection[Part] = ALL_PARTS) -> Generator:
        """Load the named parts of the model from a folder or the hub."""

    @property
    @abstractmethod
    def denoiser(self) -> torch.nn.Module:
        """The network that preference training adapts."""

    @classmethod
    def check_images(cls, prompts: Sequence[str], images: Sequence[object] | None) -> None:
        """Check that every prompt has an image if the clips start from one, and that none has if they do not.

        Raises:
            InputError: if this is not so.
        """
        if cls.takes_image and images is None:
            raise InputError(
                "this generator makes clips from a first frame, and the prompts have no images",
                field="image",
                remedy="name an image beside every prompt (image_folder of raw_prompts in the catalog, --image of "
                "kedro sample), or choose a text-to-video family",
            )
        if images is not None and not cls.takes_image:
            raise InputError(
                "the prompts have images, and this generator makes clips from text alone",
                field="generator.family",
                remedy="choose an image-to-video family, such as wan_i2v or cogvideox_i2v, or remove image_folder of "
                "raw_prompts from the catalog",
            )
        if images is not None and len(images) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts need as many images, not {len(images)}")

    def sample(self, prompts: Sequence[str], seeds: Sequence[int], images: Images | None = None) -> Frames:
        """Make one clip for each prompt, its initial noise drawn from the seed beside it.

        Args:
            prompts: the texts.
            seeds: one for each.
            images: first frames, of any size, one for each; only of families that take them.

        Returns:
            uint8 array [clips, frames, height, width, 3].

        Raises:
            PipelineError: if the model's output for one of them is not finite.
        """
        made = self.sample_each(prompts, seeds, images)
        for clip in made:
            if isinstance(clip, ItemFailure):
                raise PipelineError(clip.reason)
        return np.stack(made)  # type: ignore[arg-type]

    @abstractmethod
    def sample_each(
        self, prompts: Sequence[str], seeds: Sequence[int], images: Images | None = None
    ) -> list[Frames | ItemFailure]:
        """Make clips as :meth:`sample` does; a clip for which the model gives no numbers stands as a failure.

        Batches are padded to the configured batch size, so that a clip does not depend on how many others were asked
        for.
        """

    @abstractmethod
    def encode_frames(self, clips: Frames) -> torch.Tensor:
        """Return latents of clips, scaled as the denoiser sees them, [clips, ...], float32 on the CPU."""

    def encode_prompts(self, prompts: Sequence[str], images: Images | None = None) -> Condition:
        """Return conditions of texts and first frames, every tensor [prompts, ...], on the CPU."""
        self.check_images(prompts, images)
        texts = self.encode_texts(prompts)
        return texts if images is None else texts | self.encode_images(images)

    @abstractmethod
    def encode_texts(self, prompts: Sequence[str]) -> Condition:
        """Return text conditions, every tensor [prompts, ...], on the CPU."""

    def encode_images(self, images: Images) -> Condition:
        """Return conditions of first frames, every tensor [images, ...], on the CPU."""
        raise NotImplementedError(f"{type(self).__name__} takes no images")

    @abstractmethod
    def encoders(self) -> contextlib.AbstractContextManager[None]:
        """Have autoencoder and text encoder within a block, so that a generator loaded for training can sample.

        They are loaded on entry, if they are not there, and freed on leaving.
        """

    @property
    @abstractmethod
    def training_timesteps(self) -> int:
        """Number of timesteps of the generator's training, T."""

    @abstractmethod
    def draw_timesteps(self, count: int, random: torch.Generator) -> torch.Tensor:
        """Return timesteps for training, [count], drawn on the CPU."""

    @abstractmethod
    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Return noised latents x_t."""

    @abstractmethod
    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Return what a perfect network would predict at x_t, in the error space."""

    def timesteps_at(self, shares: torch.Tensor) -> torch.Tensor:
        """Return the timesteps at shares of the way from a clip (0) to noise alone (1), [count]: whole numbers."""
        return (shares * (self.training_timesteps - 1)).round().long()

    def noise_share(self, timesteps: torch.Tensor) -> torch.Tensor:
        """Return share of noise in x_t, 0 for data and 1 for noise alone, [count]; rectified flows only.

        Raises:
            InputError: if the family is no flow.
        """
        raise InputError(
            f"a generator whose network predicts {self.prediction_type} has no straight path from data to noise",
            field="training.beta_falls_with_noise",
            remedy="set it to false, or choose a generator of rectified flow",
        )

    def initial_noise(self, shape: Sequence[int], seed: int) -> torch.Tensor:
        """Return the noise that :meth:`sample` starts from for a seed, as latents of a clip, [...]; flows only.

        Raises:
            InputError: if the family is no flow.
        """
        raise InputError(
            f"a generator whose network predicts {self.prediction_type} has no straight path from a clip to the noise "
            "it was made from",
            field="training.noise",
            remedy="set it to drawn, or choose a generator of rectified flow",
        )

    @abstractmethod
    def predict(self, noised: torch.Tensor, timesteps: torch.Tensor, condition: Condition) -> torch.Tensor:
        """Return the network's prediction, in the error space."""

    def residuals(
        self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor, condition: Condition
    ) -> Residuals:
        """Return the prediction and what a perfect network would predict, both in the error space.

        Latent frames that the condition fixes (:attr:`given_frames`) are left out.
        """
        prediction = self.predict(self.add_noise(latents, noise, timesteps), timesteps, condition)
        target = self.target(latents, noise, timesteps)
        if self.frame_axis is not None and (start := self.given_frames):
            length = target.shape[self.frame_axis] - start
            prediction, target = (one.narrow(self.frame_axis, start, length) for one in (prediction, target))
        return Residuals(prediction, target, self.frame_axis)

    def prediction_error(
        self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor, condition: Condition
    ) -> torch.Tensor:
        """Return squared error of the prediction, averaged over a sample's latents that are not given, [batch]."""
        return self.residuals(latents, noise, timesteps, condition).error()

    # -- policies ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def policy(self) -> Policy:
        """Return a copy of the current adapter, or of all weights while these are what is trained."""

    @abstractmethod
    def load_policy(self, policy: Policy | None) -> None:
        """Replace the current policy with another, or go back to the original weights."""

    @abstractmethod
    def train_all_weights(self, *, reference: bool) -> list[Any]:
        """Make all weights of the denoiser trainable, in float32 whatever the configured precision.

        Args:
            reference: keep a frozen copy in the configured precision, which :meth:`reference` switches to.

        Returns:
            the trainable parameters, in a fixed order.
        """

    @abstractmethod
    def networks(self) -> list[torch.nn.Module]:
        """Return the denoiser, and the frozen copy of it if there is one."""

    @abstractmethod
    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Compute in the configured precision within a block, while trained weights stay in float32."""

    def add_adapter(self, *, rank: int, alpha: float, targets: Sequence[str] | None, seed: int) -> list[Any]:
        """Replace the current adapter, if any, with a trainable low-rank one: that of ``start``, or one of output zero.

        Returns:
            the trainable parameters, in a fixed order.
        """
        import torch
        from peft import LoraConfig

        names = sorted(targets or self.lora_targets)
        self.load_policy(None)
        self.denoiser.requires_grad_(False)
        config = LoraConfig(r=rank, lora_alpha=alpha, init_lora_weights=True, target_modules=names)
        if self.start is not None:
            load_start(self, self.start, config)
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.denoiser.add_adapter(config)  # type: ignore[operator]
        parameters = [value for _, value in sorted(self.denoiser.named_parameters()) if value.requires_grad]
        if not parameters:
            raise InputError(
                "no layer of the generator matches the adapter's targets",
                field="adapter.targets",
                remedy="name linear layers of the denoiser, or leave the field out for the family's own",
            )
        for value in parameters:
            # Adapters are trained in float32 whatever the precision of the frozen model.
            value.data = value.data.float()
        self._initial = reference_of(self.start, parameters)
        return parameters

    @contextlib.contextmanager
    def reference(self) -> Iterator[None]:
        """Within this context the denoiser is the frozen reference: no adapter, or that of a start which renews it.

        A family that trains all weights switches networks.
        """
        if self._initial:
            with holding(self._initial):
                yield
            return
        self.denoiser.disable_adapters()  # type: ignore[operator]
        try:
            yield
        finally:
            self.denoiser.enable_adapters()  # type: ignore[operator]


def folder_identity(folder: Path, field: str = "generator.path", remedy: str = _DIFFUSERS_FOLDER) -> str:
    """Hash all model files in a folder (names and content), so that a changed model is never taken for the old.

    Args:
        folder: the model.
        field: the parameter that names it.
        remedy: what to do where it holds no weights.

    Raises:
        InputError: if there is no such folder or it has no weights.
    """
    from vr_pipeline.storage.atomic import names_and_hashes

    files = sorted(path for path in folder.rglob("*") if path.suffix in {".safetensors", ".json", ".txt", ".model"})
    if not any(path.suffix == ".safetensors" for path in files):
        raise InputError("there are no model weights (*.safetensors) here", file=folder, field=field, remedy=remedy)
    return content_hash(*names_and_hashes(files, folder))


def weights_identity(parameters: GeneratorParameters) -> str:
    """Return the identity of the weights: the content of a folder, or name and revision on the hub.

    Raises:
        InputError: if the path looks like a folder and is none.
    """
    folder = Path(parameters.path).expanduser()
    if folder.is_dir():
        return folder_identity(folder)
    if is_local(parameters.path):
        raise InputError(
            "the generator's folder does not exist", file=folder, field="generator.path", remedy=_DIFFUSERS_FOLDER
        )
    if parameters.revision is None:
        raise InputError(
            f"'{parameters.path}' is no folder here, and as a model on the hub it can change under its name",
            field="generator.revision",
            remedy="set revision to a commit of the model, so that stored clips keep their meaning, or give a folder",
        )
    return f"{parameters.path}@{parameters.revision}"


def sampling_identity(parameters: GeneratorParameters, weights: str | None = None) -> str:
    """Return hash of weights and of every setting that can change a clip's bits: what a clip's identity starts from.

    Nothing is loaded. Batch size, threads and the kind of device belong to it, because they change rounding.
    """
    # What is off leaves identities as they were before it existed.
    off = {"vae_tiling"} if not parameters.vae_tiling else set()
    settings = parameters.model_dump_json(
        exclude={"path", "revision", "fps", "offload", "device", "guidance_reward", "first_frame_noise"} | off
    )
    device = resolve_device(parameters.device).partition(":")[0]
    guided = () if parameters.guidance_reward is None else (guidance_identity(parameters.guidance_reward),)
    return content_hash("generator", weights or weights_identity(parameters), settings, device, *guided)


def guidance_identity(guidance: GuidanceReward) -> str:
    """Return hash of the reward that steers sampling, by its content, and of how it does.

    Raises:
        InputError: there is no such reward.
    """
    remedy = "train one by kedro run --pipeline=latent_reward_training, or give its folder"
    reward = folder_identity(Path(guidance.model).expanduser(), "generator.guidance_reward.model", remedy)
    settings = guidance.model_dump(exclude={"model"})
    # The order in which weights are written does not count.
    return content_hash("guidance", reward, json.dumps(settings, sort_keys=True))


def batches(count: int, size: int) -> Iterator[slice]:
    """Return consecutive slices of at most ``size`` that cover ``count`` items."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
