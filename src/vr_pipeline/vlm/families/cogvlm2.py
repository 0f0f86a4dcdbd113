"""What CogVLM2 for images and CogVLM2-Video have in common: they bring their own modelling code.

That code comes with the checkpoint and runs on this machine, so it is loaded only where the configuration consents
(``trust_remote_code: true``) and names the commit (``revision``). Of it are used: the tokenizer, ``encode_images``, the
decoder layers one by one with their tuples of keys and values, the norm and the head. Its own way of asking,
``build_conversation_input_ids`` and ``generate``, is not: prefix and question are laid out here to the same tokens,
token positions and pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

from vr_pipeline.errors import InputError
from vr_pipeline.video.read import Frames
from vr_pipeline.vlm.families.base import Family, PreparedClip, Settings
from vr_pipeline.vlm.media import Visual

if TYPE_CHECKING:
    import torch


class CogVLM2(Family):
    """One clip or image of square frames stands first, and text behind it."""

    model_name = "AutoModelForCausalLM"
    remote_code = True
    shown: ClassVar[str]
    """What the model reads, for messages."""
    has_experts: ClassVar[bool]
    """Whether its layers send visual tokens through weights of their own."""

    def __init__(self, model: Any, tokenizer: Any, settings: Settings) -> None:
        super().__init__(model, tokenizer, settings)
        experts = [name for name, _ in model.named_modules() if "vision_expert" in name or name.endswith("vision_mlp")]
        if experts and not self.has_experts:
            raise InputError(
                f"this checkpoint sends visual tokens through weights of their own ('{experts[0]}')",
                remedy="Use a CogVLM2-Video checkpoint, or family cogvlm2_image for a CogVLM2 that reads images",
                field="judge.path",
            )
        if self.has_experts and not experts:
            raise InputError(
                "this checkpoint has no weights of their own for visual tokens",
                remedy="Use a CogVLM2 checkpoint for images, or family cogvlm2_video for a CogVLM2-Video",
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

    @property
    def tokens_of_frame(self) -> int:
        """Visual tokens of a frame: patches, merged two by two, and a mark before and behind."""
        vision = self.model.config.vision_config
        return int((vision["image_size"] // vision["patch_size"] // 2) ** 2 + 2)

    def enable_gradient_checkpointing(self) -> None:
        self._decoder.checkpointing = True

    def prepare(self, frames: Frames, frames_per_second: float | None) -> PreparedClip:
        return self.joined([self.visual(frames, frames_per_second)])

    def check_order(self, pieces: Sequence[Visual | Sequence[int]]) -> None:
        super().check_order(pieces)
        visuals = [number for number, piece in enumerate(pieces) if isinstance(piece, Visual)]
        # The tokenizer's first token is part of the clip's, as the published code lays a request out.
        if visuals != [0]:
            held = f"text before its {self.shown}" if len(visuals) == 1 else f"{len(visuals)} clips or images"
            raise InputError(
                f"this model reads one {self.shown} with text behind it, but the request holds {held}",
                remedy=f"Use a template with one {self.shown}, which stands first, or another family of models",
            )


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
        if attention_mask.ndim == 2:
            # Each token sees all before it, and what was read earlier.
            total = length if cache is None else length + cache.get_seq_length()
            seen = torch.ones((len(hidden), 1, length, total), dtype=torch.bool, device=hidden.device)
            attention_mask = seen.tril(total - length)
        bias = torch.zeros(attention_mask.shape, dtype=hidden.dtype, device=hidden.device)
        bias.masked_fill_(~attention_mask, torch.finfo(hidden.dtype).min)
        if position_ids.ndim == 2:
            position_ids = torch.stack([position_ids, position_ids])
        shared: dict[str, Any] = {
            # 1 for visual tokens, in which a second axis of positions differs from the first; of no effect without
            # experts, but the layers ask for it.
            "token_type_ids": (position_ids[0] != position_ids[1]).long(),
            "position_ids": position_ids[0],
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


def _restore_rotary_frequencies(model: Any) -> None:
    """Compute the frequencies of rotary positions where they are no part of the checkpoint.

    transformers builds a model without values and fills in the checkpoint; it cannot know how remote code computes a
    buffer that is not stored, and leaves it undefined.
    """
    for module in model.modules():
        if "inv_freq" in getattr(module, "_non_persistent_buffers_set", ()) and hasattr(module, "_compute_inv_freq"):
            old = module.inv_freq
            module.inv_freq = module._compute_inv_freq(old.device).to(old.dtype)
