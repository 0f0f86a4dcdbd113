"""A tiny model with the interface of CogVLM2-Video's published code: what goes in, what comes out, under which names.

Tests put this file and its configuration beside random weights, as a checkpoint that brings its own code.
"""

import math
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from .configuration_cogvlm import CogVLMConfig

TEXT, VISUAL = 0, 1


def build_position_ids(types: torch.Tensor) -> torch.Tensor:
    """Text and the first and last visual token of a run count one each, and so does the first of what is between."""
    rows = []
    for row in types.tolist():
        inner = [
            kind == VISUAL and 0 < at < len(row) - 1 and row[at - 1] == VISUAL and row[at + 1] == VISUAL
            for at, kind in enumerate(row)
        ]
        positions, here = [0], 0
        for at in range(1, len(row)):
            here += not (inner[at] and inner[at - 1])
            positions.append(here)
        rows.append(positions)
    return torch.tensor(rows)


class Rotary(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("inv_freq", self._compute_inv_freq(), persistent=False)

    def _compute_inv_freq(self, device: Any = None) -> torch.Tensor:
        return 1.0 / 500000 ** (torch.arange(0, self.size, 2, dtype=torch.float32, device=device) / self.size)

    def forward(self, query: Any, key: Any, position_ids: Any, max_seqlen: Any) -> Any:
        angle = (position_ids[..., None] * self.inv_freq)[:, None].repeat(1, 1, 1, 2)
        half = self.size // 2

        def turn(values: torch.Tensor) -> torch.Tensor:
            turned = torch.cat([-values[..., half:], values[..., :half]], dim=-1)
            return (values * angle.cos() + turned * angle.sin()).to(values.dtype)

        return turn(query), turn(key)


class Layer(nn.Module):
    def __init__(self, config: CogVLMConfig) -> None:
        super().__init__()
        self.heads, self.shared = config.num_attention_heads, config.num_multi_query_heads
        self.size = config.hidden_size // self.heads
        self.rotary_emb = Rotary(self.size)
        self.language_expert_query_key_value = nn.Linear(
            config.hidden_size, (self.heads + 2 * self.shared) * self.size, bias=False
        )
        self.language_expert_dense = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, 2 * config.hidden_size, bias=False)
        self.down_proj = nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.input_layernorm = nn.LayerNorm(config.hidden_size)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        token_type_ids: torch.Tensor,
        position_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        past_key_value: tuple[torch.Tensor, torch.Tensor] | None = None,
        output_attentions: bool = False,
        use_cache: bool = False,
    ) -> tuple[Any, ...]:
        batch, length, width = hidden_states.shape
        mixed = self.query_key_value(self.input_layernorm(hidden_states), token_type_ids)
        mixed = mixed.view(batch, length, -1, self.size).transpose(1, 2)
        query, key, value = mixed.split([self.heads, self.shared, self.shared], dim=1)
        query, key = self.rotary_emb(query, key, position_ids=position_ids, max_seqlen=position_ids.max() + 1)
        if past_key_value is not None:
            key, value = torch.cat([past_key_value[0], key], dim=2), torch.cat([past_key_value[1], value], dim=2)
        kept = (key, value) if use_cache else None
        groups = self.heads // self.shared
        scores = query / math.sqrt(self.size) @ key.repeat_interleave(groups, dim=1).transpose(-1, -2)
        if attention_mask is not None:
            scores = scores + attention_mask
        seen = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype) @ value.repeat_interleave(groups, dim=1)
        seen = seen.transpose(1, 2).reshape(batch, length, width)
        hidden_states = hidden_states + self.dense(seen, token_type_ids)
        hidden_states = hidden_states + self.mlp(self.post_attention_layernorm(hidden_states), token_type_ids)
        return (hidden_states, kept) if use_cache else (hidden_states,)

    def query_key_value(self, states: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        return self.language_expert_query_key_value(states)

    def dense(self, states: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        return self.language_expert_dense(states)

    def mlp(self, states: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        return self.down_proj(torch.nn.functional.silu(self.up_proj(states)))


class Vision(nn.Module):
    """Patches merged two by two, with a mark before and behind."""

    def __init__(self, config: CogVLMConfig) -> None:
        super().__init__()
        step = 2 * config.vision_config["patch_size"]
        self.patches = nn.Conv2d(3, config.hidden_size, kernel_size=step, stride=step)
        self.boi = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.eoi = nn.Parameter(torch.zeros(1, 1, config.hidden_size))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        return torch.cat([self.boi.expand(len(images), -1, -1), tokens, self.eoi.expand(len(images), -1, -1)], dim=1)


class CogVLMPreTrainedModel(PreTrainedModel):
    config_class = CogVLMConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = False

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding, nn.Conv2d)):
            module.weight.data.normal_(std=0.3)


class CogVLMVideoModel(CogVLMPreTrainedModel):
    layer_class = Layer

    def __init__(self, config: CogVLMConfig) -> None:
        super().__init__(config)
        self.padding_idx = config.pad_token_id
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, self.padding_idx)
        self.layers = nn.ModuleList([self.layer_class(config) for _ in range(config.num_hidden_layers)])
        self.norm = nn.LayerNorm(config.hidden_size)
        self.vision = Vision(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embed_tokens

    def encode_images(self, images: list[list[torch.Tensor]]) -> torch.Tensor:
        return self.vision(images[0][0])

    def forward(
        self,
        input_ids: torch.Tensor,
        images: list[list[torch.Tensor]],
        token_type_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
    ) -> BaseModelOutputWithPast:
        hidden = self.embed_tokens(input_ids)
        features = self.encode_images(images).flatten(0, 1).to(hidden.dtype)
        hidden = hidden.index_put([token_type_ids == VISUAL], features)
        length = input_ids.shape[1]
        mask = torch.full((length, length), torch.finfo(hidden.dtype).min).triu(1)[None, None].to(hidden)
        positions = build_position_ids(token_type_ids)
        for layer in self.layers:
            hidden = layer(hidden, token_type_ids, positions, attention_mask=mask)[0]
        return BaseModelOutputWithPast(last_hidden_state=self.norm(hidden))


class CogVLMVideoForCausalLM(CogVLMPreTrainedModel):
    _auto_class = "AutoModelForCausalLM"
    model_class = CogVLMVideoModel

    def __init__(self, config: CogVLMConfig) -> None:
        super().__init__(config)
        self.model = self.model_class(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.model.embed_tokens

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def forward(self, **inputs: Any) -> CausalLMOutputWithPast:
        return CausalLMOutputWithPast(logits=self.lm_head(self.model(**inputs).last_hidden_state).float())

    def build_conversation_input_ids(
        self, tokenizer: Any, *, query: str, history: list[Any], images: list[torch.Tensor], template_version: str
    ) -> dict[str, Any]:
        """``images`` holds one clip as [channels, frames, height, width] in 0 to 255."""
        if template_version != "chat" or history:
            raise ValueError("the stand-in knows the first turn of a chat only")
        size = self.config.vision_config["image_size"]
        pixels = _pixels(images[0], size)
        visual = (size // self.config.vision_config["patch_size"] // 2) ** 2 + 2
        token_ids, kinds = [tokenizer.bos_token_id], [TEXT]
        for number in range(len(pixels)):
            time = tokenizer.encode(str(number), add_special_tokens=False)
            token_ids += [self.model.padding_idx] * visual + time
            kinds += [VISUAL] * visual + [TEXT] * len(time)
        text = tokenizer.encode(f"Question: {query} Answer:", add_special_tokens=False)
        token_ids, kinds = token_ids + text, kinds + [TEXT] * len(text)
        return {
            "input_ids": torch.tensor(token_ids),
            "token_type_ids": torch.tensor(kinds),
            "attention_mask": torch.ones(len(token_ids), dtype=torch.long),
            "images": [pixels],
        }


def _pixels(clip: torch.Tensor, size: int) -> torch.Tensor:
    """The shorter side to ``size``, then the centre, frame by frame."""
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    frames = []
    for frame in clip.transpose(0, 1):
        height, width = frame.shape[1:]
        new = (math.floor(height / width * size), size) if width < height else (size, math.floor(width / height * size))
        scaled = torch.nn.functional.interpolate(((frame / 255.0 - mean) / std)[None], size=new, mode="bilinear")[0]
        top, left = round((new[0] - size) / 2), round((new[1] - size) / 2)
        frames.append(scaled[:, top : top + size, left : left + size])
    return torch.stack(frames)
