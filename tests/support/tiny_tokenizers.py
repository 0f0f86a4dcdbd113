"""A tokenizer of bytes that writes any text, merges across words' borders and has the families' special tokens."""

from __future__ import annotations

from functools import cache
from typing import Any

MARKS = ("<pad>", "<unk>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
MARKS += ("<|video_pad|>", "<image>", "<video>", "<end>", "<answer>")


@cache
def byte_tokenizer(size: int = 500) -> Any:
    """Return it, trained on a few lines; digits stand alone, as in the tokenizers of Qwen."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    lines = ["Caption: [a red ball] Image 1 is better than Image 2. Both videos are equally good. score: 4\n"] * 9
    built = Tokenizer(models.BPE())
    split = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    built.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(split, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    built.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(MARKS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    built.train_from_iterator(lines, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=built, unk_token="<unk>", pad_token="<pad>", eos_token="<|im_end|>")
