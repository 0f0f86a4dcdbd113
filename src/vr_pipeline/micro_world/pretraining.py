"""Training the tiny generators of the micro-world from scratch: denoiser and text encoder together."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from vr_pipeline.engine.config import CheckpointParameters
from vr_pipeline.engine.determinism import deterministic
from vr_pipeline.engine.groups import Group
from vr_pipeline.engine.loop import Task, train_stored
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.pipeline_kinds import VideoPipelineGenerator
from vr_pipeline.identifiers import code_hash, content_hash, sample_seed
from vr_pipeline.micro_world.config import PretrainingParameters
from vr_pipeline.micro_world.generator import MicroWorldGenerator
from vr_pipeline.micro_world.patch_vae import PatchVAE
from vr_pipeline.micro_world.world import all_prompts

TEXT_LENGTH = 7
"""Six words of a prompt and the end of text."""


def build_tokenizer() -> Any:
    """Return a word-level tokenizer over the words of all prompts, ending each text with </s> as T5 does."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    words = sorted({word for prompt in all_prompts() for word in prompt.split()})
    vocabulary = {word: index for index, word in enumerate(["<pad>", "</s>", "<unk>", *words])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", vocabulary["</s>"])])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=TEXT_LENGTH,
    )


def text_encoder_sizes(tokenizer: Any) -> dict[str, Any]:
    """Return the settings of the tiny text encoders, T5 and UMT5 alike."""
    return {
        "vocab_size": len(tokenizer),
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 64,
        "num_layers": 1,
        "num_heads": 4,
        "dropout_rate": 0.0,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def build_pipeline(vae: PatchVAE, parameters: PretrainingParameters, seed: int) -> Any:
    """Return an untrained ``CogVideoXPipeline`` with random weights drawn from the seed."""
    from diffusers import CogVideoXDDIMScheduler, CogVideoXPipeline, CogVideoXTransformer3DModel
    from transformers import T5Config, T5EncoderModel

    tokenizer = build_tokenizer()
    torch.manual_seed(sample_seed(seed, "initial weights", 0))
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=parameters.num_attention_heads,
        attention_head_dim=24,
        in_channels=vae.config.latent_channels,
        out_channels=vae.config.latent_channels,
        time_embed_dim=64,
        text_embed_dim=32,
        num_layers=parameters.num_layers,
        sample_width=2,
        sample_height=2,
        # Two latent frames; the library derives them as (sample_frames - 1) / 4 + 1. A mismatch would recompute the
        # positions in every call.
        sample_frames=5,
        patch_size=1,
        max_text_seq_length=TEXT_LENGTH,
        spatial_interpolation_scale=1.0,
    )
    text_encoder = T5EncoderModel(T5Config(**text_encoder_sizes(tokenizer)))
    scheduler = CogVideoXDDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        snr_shift_scale=3.0,
    )
    return CogVideoXPipeline(
        tokenizer=tokenizer, text_encoder=text_encoder, vae=vae, transformer=transformer, scheduler=scheduler
    )


def untrained(
    vae: PatchVAE, sampling: GeneratorParameters, parameters: PretrainingParameters, seed: int
) -> MicroWorldGenerator:
    """Return the tiny CogVideoX before its training."""
    return MicroWorldGenerator(build_pipeline(vae, parameters, seed), sampling, identity="untrained")


def pretrain_generator(
    clips: npt.NDArray[np.uint8],
    prompts: Sequence[str],
    make: Callable[[], VideoPipelineGenerator],
    parameters: PretrainingParameters,
    *,
    seed: int,
) -> tuple[Any, list[dict[str, float]]]:
    """Train the denoiser and the text encoder on clips and their prompts.

    Args:
        clips: uint8 [clips, frames, height, width, 3].
        prompts: the prompt of each clip.
        make: returns the untrained generator, with a fitted autoencoder.
        parameters: training settings.
        seed: seed of batches, noise and timesteps.

    Returns:
        the pipeline with averaged weights, and the training log (step, loss averaged over 100 steps).
    """
    with deterministic(parameters.threads):
        generator = make()
        latents = torch.cat([generator.encode_frames(clips[at : at + 512]) for at in range(0, len(clips), 512)])
        random = np.random.default_rng(sample_seed(seed, "caption noise", 0))
        choices = all_prompts()
        noisy_prompts = [
            str(random.choice(choices)) if random.random() < parameters.caption_noise else prompt for prompt in prompts
        ]
        tokens = generator.pipeline.tokenizer(
            noisy_prompts, padding="max_length", max_length=TEXT_LENGTH, return_tensors="pt"
        ).input_ids
        task = PretrainingTask(generator, latents, tokens, parameters, seed)
        # Processes that were launched together each train alone, to the same weights.
        log = train_stored(task, group=Group())
        task.modules.eval()
    return generator.pipeline, _means(log)


class PretrainingTask(Task):
    """Trains denoiser and text encoder together on latents of clips and the tokens of their prompts."""

    description = "pretrain generator"

    def __init__(
        self,
        generator: VideoPipelineGenerator,
        latents: torch.Tensor,
        tokens: torch.Tensor,
        parameters: PretrainingParameters,
        seed: int,
    ) -> None:
        super().__init__(parameters)
        self.generator, self.latents, self.tokens = generator, latents, tokens
        self.modules = torch.nn.ModuleList([generator.pipeline.transformer, generator.pipeline.text_encoder]).train()
        self.draw = torch.Generator().manual_seed(sample_seed(seed, "pretraining", 0))
        self.drawn = 0
        self.identity = content_hash(
            "pretraining",
            type(generator).__name__,
            seed,
            parameters.model_dump_json(exclude={*CheckpointParameters.model_fields, "checkpoint_every"}),
            latents.numpy().tobytes(),
            tokens.numpy().tobytes(),
            code_hash("vr_pipeline.engine.loop", "vr_pipeline.engine.optimisation", __name__),
        )

    def weights(self) -> list[torch.Tensor]:
        return list(self.modules.parameters())

    def _draw(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Draw rows, noise and timesteps of the next step."""
        rows = torch.randint(0, len(self.latents), (self.settings.batch_size,), generator=self.draw)
        noise = torch.randn(self.latents[rows].shape, generator=self.draw)
        self.drawn += 1
        return rows, noise, self.generator.draw_timesteps(len(rows), self.draw)

    def step(self, step: int, group: Group) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        while self.drawn < step - 1:
            # A resumed training draws what was drawn before.
            self._draw()
        rows, noise, timesteps = self._draw()
        condition = {"prompt_embeddings": self.generator.pipeline.text_encoder(self.tokens[rows])[0]}
        loss = self.generator.prediction_error(self.latents[rows], noise, timesteps, condition).mean()
        loss.backward()
        return loss.detach(), {}


def _means(log: pd.DataFrame) -> list[dict[str, float]]:
    """Average the loss over every 100 steps."""
    parts = (log[at : at + 100] for at in range(0, len(log), 100))
    return [{"step": int(part["step"].iloc[-1]), "loss": float(np.mean(part["loss"].to_list()))} for part in parts]
