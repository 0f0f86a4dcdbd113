"""What all generators that are pipelines of diffusers share: loading, batches of fixed size, adapters."""

from __future__ import annotations

import contextlib
import copy
import inspect
from abc import abstractmethod
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from vr_pipeline.errors import InputError
from vr_pipeline.generators.config import GeneratorParameters, Offload
from vr_pipeline.generators.contract import (
    ALL_PARTS,
    Frames,
    Generator,
    Images,
    Part,
    batches,
    resolve_device,
    sampling_identity,
    weights_identity,
)
from vr_pipeline.generators.fitting import (
    adapter_of,
    full_weights_of,
    load_adapter,
    load_full_weights,
    misfit,
    remove_adapters,
)
from vr_pipeline.generators.guidance import guided, load_guidance
from vr_pipeline.generators.loading import load_pipeline
from vr_pipeline.generators.policy import FullWeights, Policy
from vr_pipeline.generators.prompt_texts import TEXT_ENCODERS, PromptTexts
from vr_pipeline.generators.settings import Relied
from vr_pipeline.generators.sizes import CheckedSizes
from vr_pipeline.generators.watch import watch_numbers
from vr_pipeline.runtime.memory import free_memory
from vr_pipeline.work import ItemFailure

if TYPE_CHECKING:
    import torch


class PipelineGenerator(PromptTexts, CheckedSizes, Generator):
    """A text-to-video or text-to-image pipeline of diffusers behind the contract.

    Attributes:
        pipeline_class: name of the pipeline's class in diffusers.
        component: name of the denoiser in the pipeline; also the prefix of an adapter's tensors.
        autoencoder_dtype: precision of the autoencoder whatever the configuration says of the rest; None for the same.
        relied_on: settings of a model that the code takes for granted.
        pipeline_options: arguments of the pipeline beside its parts.
        optional_parts: names of parts that some models of the family lack.
        adds_first_frame_noise: the published training added noise to first frames, so that ours can.
        steerable: a reward of latents can steer its sampling; the embeddings of a prompt are all of its condition.
    """

    pipeline_class: ClassVar[str]
    relied_on: ClassVar[Relied]
    pipeline_options: ClassVar[dict[str, object]] = {}
    optional_parts: ClassVar[tuple[str, ...]] = ()
    adds_first_frame_noise: ClassVar[bool] = False
    autoencoder_dtype: ClassVar[str | None] = None
    steerable: ClassVar[bool] = False
    component: ClassVar[str] = "transformer"
    lora_targets: ClassVar[tuple[str, ...]] = ("to_q", "to_k", "to_v", "to_out.0")

    def __init__(self, pipeline: Any, parameters: GeneratorParameters, identity: str) -> None:
        import torch

        if parameters.first_frame_noise and not self.adds_first_frame_noise:
            raise InputError(
                f"the family '{parameters.family}' was trained without noise on first frames",
                field="generator.first_frame_noise",
                remedy="set it to false",
            )
        if parameters.threads is not None:
            torch.set_num_threads(parameters.threads)
        self.pipeline = pipeline
        self.parameters = parameters
        self.folder = Path(pipeline.config.get("_name_or_path") or parameters.path)
        self.device = torch.device(resolve_device(parameters.device))
        if self._has(*ALL_PARTS):
            self.check_size()
        # Offload is for sampling, which needs all parts; a denoiser alone stays where it is trained.
        self._place(parameters.offload if self._has(*ALL_PARTS) else "none")
        self.dtype: torch.dtype = getattr(torch, parameters.dtype)
        # Sharding changes the class of the denoiser.
        self.denoiser_class: Any = type(self.denoiser)
        self._frozen: torch.nn.Module | None = None
        self._is_tuned = False
        self._trained_from: dict[str, torch.dtype] | None = None
        self.weights_identity = identity
        self.identity = sampling_identity(parameters, identity)
        # Now, while the weights are the original ones: the reward may keep blocks of them, and a policy changes them.
        self.guidance = load_guidance(self) if self._has("denoiser") else None

    @classmethod
    def load(cls, parameters: GeneratorParameters, parts: Collection[Part] = ALL_PARTS) -> Self:
        """Load from a folder in diffusers layout or from the hub; safetensors only.

        Raises:
            InputError: if the model is not of the family's kind, or its weights are not whole.
        """
        return cls(cls._load_pipeline(parameters, parts), parameters, weights_identity(parameters))

    @classmethod
    def _load_pipeline(cls, parameters: GeneratorParameters, parts: Collection[Part], **components: Any) -> Any:
        import diffusers

        pipeline = getattr(diffusers, cls.pipeline_class)
        known = inspect.signature(pipeline.__init__).parameters
        return load_pipeline(
            pipeline,
            parameters,
            {part: [name for name in cls._component_names(part) if name in known] for part in ALL_PARTS},
            parts,
            relied_on=cls.relied_on,
            own_classes=cls.own_classes(),
            precisions={"autoencoder": cls.autoencoder_dtype or parameters.dtype},
            optional=cls.optional_parts,
            **cls.pipeline_options,
            **components,
        )

    @classmethod
    def _component_names(cls, part: Part) -> tuple[str, ...]:
        """Return names that a part has in pipelines; not every pipeline has all of them."""
        names = {"denoiser": (cls.component,), "autoencoder": ("vae",), "text_encoder": TEXT_ENCODERS}
        return names[part]

    @classmethod
    def own_classes(cls) -> dict[str, type]:
        """Classes of parts that are not in diffusers or transformers; none for the published models."""
        return {}

    def _has(self, *parts: Part) -> bool:
        return all(getattr(self.pipeline, self._component_names(part)[0], None) is not None for part in parts)

    @property
    def pixels_a_token(self) -> int:
        return int(self.pipeline.vae_scale_factor)

    def _place(self, offload: Offload) -> None:
        """Put the pipeline's parts on the device, or behind hooks that bring each there when it computes."""
        self._offload: Offload = offload if can_offload(self.device) else "none"
        if self._offload == "model":
            self.pipeline.enable_model_cpu_offload(device=self.device)
        elif self._offload == "sequential":
            self.pipeline.enable_sequential_cpu_offload(device=self.device)
        else:
            self.pipeline.to(self.device)
        self.pipeline.set_progress_bar_config(disable=True)

    @contextlib.contextmanager
    def _within_reach(self) -> Iterator[None]:
        """Have the weights themselves for the length of a block.

        Behind hooks they may be empty shells, into which nothing can be loaded, and layers that are added need hooks.
        """
        if self._offload == "none":
            yield
            return
        self.pipeline.remove_all_hooks()
        try:
            yield
        finally:
            self._place(self._offload)

    def ready(self, part: Any) -> Any:
        return part.to(self.device) if self._offload == "none" else part

    @property
    def denoiser(self) -> torch.nn.Module:
        return getattr(self.pipeline, self.component)  # type: ignore[no-any-return]

    def denoisers(self) -> dict[str, torch.nn.Module]:
        """Return the networks of the denoiser, mostly one, by the names that the pipeline gives them."""
        return {name: getattr(self.pipeline, name) for name in self._component_names("denoiser")}

    @contextlib.contextmanager
    def encoders(self) -> Iterator[None]:
        if self._has(*ALL_PARTS):
            yield
            return
        trained, offload = self.pipeline, self._offload
        # A complete pipeline around the same denoiser, since pipelines derive sizes from their parts when made.
        self.pipeline = self._load_pipeline(self.parameters, ALL_PARTS, **self.denoisers())
        # Sequential offload would put others in the place of the weights that an optimiser holds.
        self._place("none" if self.parameters.offload == "none" else "model")
        try:
            yield
        finally:
            self.pipeline.remove_all_hooks()
            self.pipeline, self._offload = trained, offload
            self.denoiser.to(self.device)
            free_memory()

    # -- sampling ---------------------------------------------------------------------------------------------------

    def sample_each(
        self, prompts: Sequence[str], seeds: Sequence[int], images: Images | None = None
    ) -> list[Frames | ItemFailure]:
        import torch

        self.check_images(prompts, images)
        if not prompts or len(prompts) != len(seeds):
            raise ValueError(f"as many seeds as prompts are needed, and one at least; got {len(prompts)}, {len(seeds)}")
        size = self.parameters.batch_size
        made: list[Frames | ItemFailure] = []
        for part in batches(len(prompts), size):
            real = len(prompts[part])
            given = {} if images is None else self.image_argument([*images[part], *[images[part][-1]] * (size - real)])
            # Weights in training are float32, whatever the precision of all else.
            precision = self.autocast() if self._trained_from is not None else contextlib.nullcontext()
            with (
                precision,
                watch_numbers(self.pipeline, size) as watch,
                guided(self.pipeline, self.guidance, self.noise_share_of_step, watch),
            ):
                clips = self.run_pipeline(
                    prompt=self.plain([*prompts[part], *[prompts[part][-1]] * (size - real)]),
                    height=self.parameters.height,
                    width=self.parameters.width,
                    num_inference_steps=self.parameters.num_inference_steps,
                    guidance_scale=self.parameters.guidance_scale,
                    # Noise is drawn on the CPU, so that a seed means the same clip on every device.
                    generator=[
                        torch.Generator("cpu").manual_seed(seed)
                        for seed in [*seeds[part], *[seeds[part][-1]] * (size - real)]
                    ],
                    output_type="np",
                    callback_on_step_end=watch.after_step,
                    **given,
                )[:real]
            self.check_shape(clips.shape[1:4])
            made += [
                self._failure(place) if (place := watch.lost_in(row, clip)) else _to_bytes(clip)
                for row, clip in enumerate(clips)
            ]
        return made

    def image_argument(self, images: Images) -> dict[str, Any]:
        """Return how the pipeline is given first frames."""
        raise NotImplementedError(f"{type(self).__name__} takes no images")

    def noise_share_of_step(self, timestep: torch.Tensor) -> float:
        """Return the share of noise t in the latents at the scheduler's present step, which has this time."""
        raise NotImplementedError(f"{type(self).__name__} cannot be steered")

    def time_at(self, share: float) -> torch.Tensor:
        """Return the time of training, a scalar, at which latents hold a share of noise of 0 to 1."""
        raise NotImplementedError(f"{type(self).__name__} has no such time")

    def _failure(self, place: str) -> ItemFailure:
        dtype = self.parameters.dtype
        advice = "check the model's weights" if dtype == "float32" else f"{dtype} may overflow: try another dtype"
        return ItemFailure(f"the clip has values that are no finite numbers, first {place}; {advice}")

    @abstractmethod
    def run_pipeline(self, **arguments: Any) -> Any:
        """Call the pipeline with the arguments all families share and the family's own.

        Returns:
            floats in 0 to 1, [clips, frames, height, width, 3].
        """

    def pixels(self, clips: Frames, dtype: torch.dtype) -> torch.Tensor:
        """Return clips as the autoencoders want them: -1 to 1, [clips, 3, frames, height, width], on the device."""
        import torch

        channels_first = torch.from_numpy(np.ascontiguousarray(clips)).permute(0, 4, 1, 2, 3)
        return (channels_first.to(self.device, torch.float32) / 127.5 - 1.0).to(dtype)

    def posterior_mode(self, clips: Frames, *, as_images: bool = False) -> torch.Tensor:
        """Return what the autoencoder makes of clips, before any scaling, on its device.

        The mode, not a sample: latents are cached, and a cached draw would freeze one noise.

        Args:
            as_images: drop the axis of frames, of which there is one.
        """
        import torch

        vae = self.ready(self.pipeline.vae)
        pixels = self.pixels(clips, vae.dtype)
        with torch.no_grad():
            return vae.encode(pixels[:, :, 0] if as_images else pixels).latent_dist.mode()  # type: ignore[no-any-return]

    @property
    def training_timesteps(self) -> int:
        return int(self.pipeline.scheduler.config.num_train_timesteps)

    # -- policies ---------------------------------------------------------------------------------------------------

    def policy(self) -> Policy:
        with self._within_reach():
            if self._is_tuned:
                return full_weights_of(self.denoiser, self.component, self.weights_identity, self._trained_from or {})
            return adapter_of(self.denoisers(), self.weights_identity)

    def load_policy(self, policy: Policy | None) -> None:
        if policy is not None and policy.base != self.weights_identity:
            raise InputError(
                "the policy was trained on another model than the one it is to change",
                field="generator.path",
                remedy="train the policy again on this model, or give the model it was trained on",
            )
        if policy is not None and policy.component not in self.denoisers():
            raise misfit(f"it changes the part '{policy.component}', and this model's denoiser is its {self.component}")
        with self._within_reach():
            self._replace_policy(policy)

    def _replace_policy(self, policy: Policy | None) -> None:
        for network in self.denoisers().values():
            remove_adapters(network)
        if self._is_tuned:
            setattr(self.pipeline, self.component, self.ready(self._original()))
        self._frozen, self._is_tuned, self._trained_from = None, False, None
        if isinstance(policy, FullWeights):
            load_full_weights(self.denoiser, policy)
            self._is_tuned = True
        elif policy is not None:
            load_adapter(self.denoisers(), policy)

    def _original(self) -> torch.nn.Module:
        """Return the denoiser as it was before its weights were changed."""
        # A copy that is spread over several processes is of no use to one of them.
        if self._frozen is not None and not hasattr(self._frozen, "unshard"):
            return self._frozen
        from vr_pipeline.storage.models import load_complete

        return load_complete(  # type: ignore[no-any-return]
            self.denoiser_class, self.folder / self.component, field="generator.path", dtype=self.dtype
        )

    def original_weights(self) -> dict[str, torch.Tensor]:
        """Return the denoiser's weights without any policy, by the names that its class gives them."""
        with self._within_reach():
            network = self._original() if self._is_tuned else self.denoiser
            # Layers with an adapter keep theirs one level deeper.
            return {
                name.replace(".base_layer.", "."): value.detach()
                for name, value in network.state_dict().items()
                if ".lora_" not in name
            }

    def train_all_weights(self, *, reference: bool) -> list[Any]:
        self.load_policy(None)
        self._frozen = copy.deepcopy(self.denoiser).requires_grad_(False).eval() if reference else None
        self._is_tuned = True
        self._trained_from = {name: value.dtype for name, value in self.denoiser.state_dict().items()}
        weights = [value for _, value in sorted(self.denoiser.named_parameters())]
        for value in weights:
            # A step of common size vanishes when added to a weight of half precision. Buffers stay as they are: some
            # hold positions in double precision.
            value.data = value.data.float()
        self.denoiser.requires_grad_(True)
        return weights

    @contextlib.contextmanager
    def reference(self) -> Iterator[None]:
        if not self._is_tuned:
            with super().reference():
                yield
            return
        assert self._frozen is not None, "no reference was kept"
        trained = self.denoiser
        setattr(self.pipeline, self.component, self._frozen)
        try:
            yield
        finally:
            setattr(self.pipeline, self.component, trained)

    def networks(self) -> list[torch.nn.Module]:
        return [self.denoiser] if self._frozen is None else [self.denoiser, self._frozen]

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        import torch

        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)


def _to_bytes(clip: Any) -> Frames:
    return np.round(np.clip(clip, 0.0, 1.0) * 255.0).astype(np.uint8)  # type: ignore[no-any-return]


def can_offload(device: torch.device) -> bool:
    """Return whether a device has memory of its own, which offload could spare."""
    return device.type != "cpu"
