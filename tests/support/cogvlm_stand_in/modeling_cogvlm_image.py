"""A tiny model with the interface of CogVLM2's published code for images: visual tokens have weights of their own."""

from typing import Any

import torch
from torch import nn

from .configuration_cogvlm import CogVLMConfig
from .modeling_cogvlm import TEXT, VISUAL, CogVLMVideoForCausalLM, CogVLMVideoModel, Layer


def get_expert_mask(types: torch.Tensor) -> torch.Tensor:
    """Visual tokens but for the last of a run."""
    mask = torch.zeros_like(types, dtype=torch.bool)
    mask[:, :-1] = (types[:, :-1] == VISUAL) & (types[:, 1:] == VISUAL)
    return mask


def routed(states: torch.Tensor, types: torch.Tensor, visual: Any, text: Any) -> torch.Tensor:
    mask = get_expert_mask(types)
    of_text = text(states[~mask])
    result = of_text.new_empty((*states.shape[:2], of_text.shape[-1]))
    return result.index_put((mask,), visual(states[mask])).index_put((~mask,), of_text)


class ExpertLayer(Layer):
    def __init__(self, config: CogVLMConfig) -> None:
        super().__init__(config)
        mixed = self.language_expert_query_key_value
        self.vision_expert_query_key_value = nn.Linear(mixed.in_features, mixed.out_features, bias=True)
        self.vision_expert_dense = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.vision_mlp = nn.Sequential(
            nn.Linear(config.hidden_size, 2 * config.hidden_size, bias=False),
            nn.SiLU(),
            nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False),
        )

    def query_key_value(self, states: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        return routed(states, types, self.vision_expert_query_key_value, self.language_expert_query_key_value)

    def dense(self, states: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        return routed(states, types, self.vision_expert_dense, self.language_expert_dense)

    def mlp(self, states: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        return routed(states, types, self.vision_mlp, lambda one: super(ExpertLayer, self).mlp(one, types))


class CogVLMModel(CogVLMVideoModel):
    layer_class = ExpertLayer

    def encode_images(self, images: list[list[torch.Tensor]]) -> torch.Tensor:
        return self.vision(torch.stack([image for row in images for image in row]))


class CogVLMForCausalLM(CogVLMVideoForCausalLM):
    _auto_class = "AutoModelForCausalLM"
    model_class = CogVLMModel

    def build_conversation_input_ids(
        self, tokenizer: Any, *, query: str, history: list[Any], images: list[Any], template_version: str
    ) -> dict[str, Any]:
        """``images`` holds one Pillow image."""
        import numpy as np
        from PIL import Image

        if template_version != "chat" or history or len(images) != 1:
            raise ValueError("the stand-in knows the first turn of a chat about one image only")
        size = self.config.vision_config["image_size"]
        square = np.array(images[0].resize((size, size), Image.Resampling.BICUBIC))
        mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
        std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
        pixels = (torch.from_numpy(square).permute(2, 0, 1).float() / 255 - mean) / std
        visual = (size // self.config.vision_config["patch_size"] // 2) ** 2 + 2
        text = tokenizer.encode(f"Question: {query} Answer:", add_special_tokens=False)
        token_ids = [tokenizer.bos_token_id, *[self.model.padding_idx] * visual, *text]
        return {
            "input_ids": torch.tensor(token_ids),
            "token_type_ids": torch.tensor([TEXT, *[VISUAL] * visual, *[TEXT] * len(text)]),
            "attention_mask": torch.ones(len(token_ids), dtype=torch.long),
            "images": [pixels],
        }
