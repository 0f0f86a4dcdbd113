"""Configuration of the stand-in."""

from typing import Any

from transformers import PretrainedConfig


class CogVLMConfig(PretrainedConfig):
    def __init__(
        self,
        vocab_size: int = 64,
        hidden_size: int = 32,
        num_hidden_layers: int = 3,
        num_attention_heads: int = 4,
        num_multi_query_heads: int = 2,
        pad_token_id: int = 0,
        template_version: str = "chat",
        vision_config: dict[str, int] | None = None,
        **options: Any,
    ) -> None:
        self.vocab_size, self.hidden_size, self.num_hidden_layers = vocab_size, hidden_size, num_hidden_layers
        self.num_attention_heads, self.num_multi_query_heads = num_attention_heads, num_multi_query_heads
        self.template_version = template_version
        self.vision_config = vision_config or {"image_size": 24, "patch_size": 4, "hidden_size": 24}
        super().__init__(pad_token_id=pad_token_id, **options)
