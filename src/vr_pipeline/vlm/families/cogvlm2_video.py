"""CogVLM2-Video and VisionReward-Video, which bring their own modelling code.

That code comes with the checkpoint and runs on this machine, so it is loaded only where the configuration consents
(``trust_remote_code: true``) and names the commit (``revision``). Of it are used: the tokenizer, ``encode_images``, the
decoder layers one by one with their tuples of keys and values, the norm and the head. Its own way of asking,
``build_conversation_input_ids`` and ``generate``, is not: prefix and question are laid out here to the same tokens,
token positions and pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from vr_pipeline.errors import InputError
from vr_pipeline.video.read import Frames
from vr_pipeline.vlm.families.base import Family, PreparedClip, Settings
from vr_pipeline.vlm.frames import check_elongation

if TYPE_CHECKING:
    import torch


class CogVLM2Video(Family):
    """Every frame is a square of visual tokens between two marks, followed by its number; an image is frame 0."""

    model_name = "AutoModelForCausalLM"
    remote_code = True
    default_settings = Settings(
        before_clip="",
        after_clip="",
        before_question="Question: ",
        after_question=" Answer:",
        num_frames=24,
        frames_per_second=1.0,
    )

    def __init__(self, model: Any, tokenizer: Any, settings: Settings) -> None:
        super().__init__(model, tokenizer, settings)
        experts = [name for name, _ in model.named_modules() if "vision_expert" in name or name.endswith("vision_mlp")]
        if experts:
            raise InputError(
                f"this checkpoint sends visual tokens through weights of their own ('{experts[0]}')",
                remedy="Use a CogVLM2-Video checkpoint; the CogVLM2 models for images are not supported",
                field="judge.path",
            )
        _restore_rotary_frequencies(model)
        self._decoder = _Decoder(model.model)

    @property
    def placeholder_ids(self) -> tuple[int, ...]:
        return (int(self.model.model.padding_idx),)

    @property
    def language_model(self) -> Any:
        return self._decoder

    def enable_gradient_checkpointing(self) -> None:
        self._decoder.checkpointing = True

    def prepare(self, frames: Frames, frames_per_second: float | None) -> PreparedClip:
        vision = self.model.config.vision_config
        # Neighbouring patches are merged two by two, and every frame has a mark before and behind.
        visual = (vision["image_size"] // vision["patch_size"] // 2) ** 2 + 2
        token_ids, positions = [self.tokenizer.bos_token_id], [0]
        for number in range(len(frames)):
            last = positions[-1]
            token_ids += list(self.placeholder_ids) * visual
            # The marks stand for themselves; all that is between them shares one position.
            positions += [last + 1, *[last + 2] * (visual - 2), last + 3]
            time = self.text_ids(str(number))
            token_ids += time
            positions += range(last + 4, last + 4 + len(time))
        pixels = _short_side_and_centre(frames, vision["image_size"], self.settings)
        return PreparedClip(np.array(token_ids), np.array([positions]), positions[-1] + 1, {"pixels": pixels})

    def vision_features(self, clips: Sequence[PreparedClip]) -> torch.Tensor:
        import torch

        parts = []
        for clip in clips:
            pixels = torch.from_numpy(clip.vision["pixels"]).to(self.device, self.model.dtype)
            parts.append(self.model.model.encode_images([[pixels]]).flatten(0, 1))
        return torch.cat(parts)


class _Decoder:
    """The remote code's layers as the decoders of transformers are called."""

    def __init__(self, model: Any) -> None:
        self.model, self.checkpointing = model, False

    def __call__(
        self,
        *,
        inputs_embeds: torch.Tensor,
        position_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        past_key_values: Any = None,
        use_cache: bool = False,
    ) -> SimpleNamespace:
        import torch
        from torch.utils.checkpoint import checkpoint

        hidden, cache = inputs_embeds, past_key_values
        length = hidden.shape[1]
        bias = torch.zeros(attention_mask.shape, dtype=hidden.dtype, device=hidden.device)
        bias.masked_fill_(~attention_mask, torch.finfo(hidden.dtype).min)
        shared: dict[str, Any] = {
            # Of no effect without experts, but the layers ask for it.
            "token_type_ids": torch.zeros(hidden.shape[:2], dtype=torch.long, device=hidden.device),
            "position_ids": position_ids,
            "attention_mask": bias,
            "use_cache": use_cache,
        }
        for number, layer in enumerate(self.model.layers):
            if self.checkpointing and self.model.training and cache is None:
                hidden = checkpoint(layer, hidden, use_reentrant=False, **shared)[0]
                continue
            past = None
            if cache is not None and cache.get_seq_length(number):
                past = (cache.layers[number].keys, cache.layers[number].values)
            outputs = layer(hidden, past_key_value=past, **shared)
            hidden = outputs[0]
            if cache is not None:
                keys, values = outputs[-1]
                cache.update(keys[:, :, -length:], values[:, :, -length:], number)
        return SimpleNamespace(last_hidden_state=self.model.norm(hidden))


def _short_side_and_centre(frames: Frames, size: int, settings: Settings) -> Any:
    """Normalised pixels, the shorter side scaled to ``size``, the centre kept; float32 [frames, 3, size, size].

    In the published order and without antialiasing, as the model was trained. Frame by frame: a long picture is large
    before its centre is cut out.

    Raises:
        ValueError: one side is more than 200 times the other.
    """
    import torch

    height, width = frames.shape[1:3]
    check_elongation(height, width)
    mean, std = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in (settings.mean, settings.std))
    scaled = (int(height / width * size), size) if width < height else (size, int(width / height * size))
    top, left = round((scaled[0] - size) / 2.0), round((scaled[1] - size) / 2.0)
    centres = []
    for frame in frames:
        values = (torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None].float() / 255.0 - mean) / std
        values = torch.nn.functional.interpolate(values, size=scaled, mode="bilinear", align_corners=False)
        centres.append(values[:, :, top : top + size, left : left + size].clone())
    return torch.cat(centres).numpy()


def _restore_rotary_frequencies(model: Any) -> None:
    """Compute the frequencies of rotary positions where they are no part of the checkpoint.

    transformers builds a model without values and fills in the checkpoint; it cannot know how remote code computes a
    buffer that is not stored, and leaves it undefined.
    """
    for module in model.modules():
        if "inv_freq" in getattr(module, "_non_persistent_buffers_set", ()) and hasattr(module, "_compute_inv_freq"):
            old = module.inv_freq
            module.inv_freq = module._compute_inv_freq(old.device).to(old.dtype)
