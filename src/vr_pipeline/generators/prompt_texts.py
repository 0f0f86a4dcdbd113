"""Prompts as the text encoders of a pipeline read them: without control tokens, and said where one is too long."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Final

from vr_pipeline.generators.contract import Condition
from vr_pipeline.prompts.user_text import written_plainly

logger = logging.getLogger(__name__)

TOKENIZERS: Final = ("tokenizer", "tokenizer_2", "tokenizer_3")
TEXT_ENCODERS: Final = ("text_encoder", "text_encoder_2", "text_encoder_3")


class PromptTexts:
    """What pipelines do with prompts before they encode them."""

    pipeline: Any

    def plain(self, prompts: Sequence[str]) -> list[str]:
        """Return the prompts without control tokens of the text encoders, such as ``</s>``; others stay as they are.

        A prompt of which a text encoder reads only the beginning is named in the log, once.
        """
        readers = {name: one for name in TOKENIZERS if (one := getattr(self.pipeline, name, None)) is not None}
        texts = [written_plainly(prompt, readers.values()) for prompt in prompts]
        told: set[str] = self.__dict__.setdefault("_told", set())
        for name, tokenizer in readers.items():
            limit = self.text_limit(name)
            for text in dict.fromkeys(texts):
                if text not in told and (count := len(tokenizer(text, verbose=False)["input_ids"])) > limit:
                    told.add(text)
                    logger.warning(
                        "The model reads the first %d of %d tokens of the prompt '%s'%s.",
                        limit,
                        count,
                        text if len(text) <= 80 else f"{text[:80]}...",
                        " with one of its text encoders" if len(readers) > 1 else "",
                    )
        return texts

    def encode_texts(self, prompts: Sequence[str]) -> Condition:
        import torch

        for name in TEXT_ENCODERS:
            if (encoder := getattr(self.pipeline, name, None)) is not None:
                self.ready(encoder)
        with torch.no_grad():
            return {name: value.cpu() for name, value in self.encoded(self.plain(prompts)).items()}

    @abstractmethod
    def encoded(self, prompts: list[str]) -> Condition:
        """Return what the pipeline makes of prompts, every tensor [prompts, ...], of one size for all prompts."""

    @abstractmethod
    def ready(self, part: Any) -> Any:
        """Return a part of the pipeline on the device, unless hooks bring it there."""

    def text_limit(self, tokenizer: str) -> int:
        """Return how many tokens of a prompt the text encoder with this tokenizer reads, end of text included."""
        return int(getattr(self.pipeline, tokenizer).model_max_length)

    def chat_tokens(self, before: str = "", **options: bool) -> int:
        """Return the tokens that the tokenizer's template of a chat puts around a prompt.

        Args:
            before: what the system says before it; empty for nothing.
            options: of the template.
        """
        tokenizer = self.pipeline.tokenizer
        said = [{"role": "system", "content": before}] if before else []
        empty = tokenizer.apply_chat_template(
            [*said, {"role": "user", "content": ""}], tokenize=False, add_generation_prompt=True, **options
        )
        return len(tokenizer(empty)["input_ids"]) - len(tokenizer("")["input_ids"])
