"""What all generators that are pipelines of diffusers share: loading, batches of fixed size, adapters."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from vr_pipeline.errors import InputError
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import (
    Adapter,
    Frames,
    Generator,
    batches,
    resolve_device,
    sampling_identity,
    weights_identity,
)

if TYPE_CHECKING:
    import torch


class PipelineGenerator(Generator):
    """A text-to-video or text-to-image pipeline of diffusers behind the contract.

    Attributes:
        pipeline_class: name of the pipeline's class in diffusers.
        component: name of the denoiser in the pipeline; also the prefix of an adapter's tensors.
    """

    pipeline_class: ClassVar[str]
    component: ClassVar[str] = "transformer"

    def __init__(self, pipeline: Any, parameters: GeneratorParameters, identity: str) -> None:
        import torch

        if parameters.threads is not None:
            torch.set_num_threads(parameters.threads)
        self.pipeline = pipeline
        self.parameters = parameters
        self.device = torch.device(resolve_device(parameters.device))
        if parameters.offload == "model":
            pipeline.enable_model_cpu_offload(device=self.device)
        elif parameters.offload == "sequential":
            pipeline.enable_sequential_cpu_offload(device=self.device)
        else:
            pipeline.to(self.device)
        pipeline.set_progress_bar_config(disable=True)
        # Asked of the model once: it answers by walking through all of its modules.
        self.dtype: torch.dtype = self.denoiser.dtype  # type: ignore[assignment]
        self.weights_identity = identity
        self.identity = sampling_identity(parameters, identity)

    @classmethod
    def load(cls, parameters: GeneratorParameters) -> Self:
        """Load from a folder in diffusers layout or from the hub; safetensors only."""
        import diffusers
        import torch

        identity = weights_identity(parameters)
        pipeline = getattr(diffusers, cls.pipeline_class).from_pretrained(
            parameters.path,
            revision=parameters.revision,
            dtype=getattr(torch, parameters.dtype),
            use_safetensors=True,
            **cls.own_components(Path(parameters.path)),
        )
        return cls(pipeline, parameters, identity)

    @classmethod
    def own_components(cls, folder: Path) -> dict[str, Any]:
        """Parts of the pipeline whose classes are not in diffusers; none for the published models."""
        return {}

    @property
    def denoiser(self) -> torch.nn.Module:
        return getattr(self.pipeline, self.component)  # type: ignore[no-any-return]

    # -- sampling ---------------------------------------------------------------------------------------------------

    def sample(self, prompts: Sequence[str], seeds: Sequence[int]) -> Frames:
        import torch

        if not prompts or len(prompts) != len(seeds):
            raise ValueError(f"as many seeds as prompts are needed, and one at least; got {len(prompts)}, {len(seeds)}")
        size = self.parameters.batch_size
        made: list[Frames] = []
        for part in batches(len(prompts), size):
            real = len(prompts[part])
            clips = self.run_pipeline(
                prompt=[*prompts[part], *[prompts[part][-1]] * (size - real)],
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
            )[:real]
            made.append(np.round(np.clip(clips, 0.0, 1.0) * 255.0).astype(np.uint8))
        return np.concatenate(made)

    @abstractmethod
    def run_pipeline(self, **arguments: Any) -> Any:
        """Call the pipeline with the arguments all families share and the family's own.

        Returns:
            floats in 0 to 1, [clips, frames, height, width, 3].
        """

    def pixels(self, clips: Frames, dtype: torch.dtype) -> torch.Tensor:
        """Clips as the autoencoders want them: -1 to 1, [clips, 3, frames, height, width], on the device."""
        import torch

        channels_first = torch.from_numpy(np.ascontiguousarray(clips)).permute(0, 4, 1, 2, 3)
        return (channels_first.to(self.device, torch.float32) / 127.5 - 1.0).to(dtype)

    def release_encoders(self) -> None:
        import gc

        for name in ("vae", "text_encoder", "text_encoder_2"):
            if getattr(self.pipeline, name, None) is not None:
                setattr(self.pipeline, name, None)
        gc.collect()

    # -- adapters ---------------------------------------------------------------------------------------------------

    def adapter(self) -> Adapter:
        from peft.utils import get_peft_model_state_dict

        name, config = next(iter(self.denoiser.peft_config.items()))  # type: ignore[union-attr, operator]
        state = get_peft_model_state_dict(self.denoiser, adapter_name=name)
        return Adapter(
            tensors={f"{self.component}.{key}": state[key].detach().float().cpu().clone() for key in sorted(state)},
            config={
                "r": config.r,
                "lora_alpha": config.lora_alpha,
                "target_modules": sorted(config.target_modules),
            },
            base=self.weights_identity,
        )

    def load_adapter(self, adapter: Adapter | None) -> None:
        self.pipeline.unload_lora_weights()
        if adapter is None:
            return
        if adapter.base != self.weights_identity:
            raise InputError(
                "the adapter was trained on another model than the one it is to change",
                field="generator.path",
                remedy="train the adapter again on this model, or give the model it was trained on",
            )
        self.denoiser.load_lora_adapter(  # type: ignore[operator]
            dict(adapter.tensors),
            prefix=self.component,
            metadata={f"{self.component}.{name}": value for name, value in adapter.config.items()},
        )
