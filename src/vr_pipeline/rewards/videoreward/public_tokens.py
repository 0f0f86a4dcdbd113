"""The special tokens of a public checkpoint: they leave vocabulary and tokenizer, for embeddings of their own."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vr_pipeline.errors import InputError
from vr_pipeline.rewards.videoreward import public_weights as weights
from vr_pipeline.storage.models import reason_in_short

if TYPE_CHECKING:
    import torch

    from vr_pipeline.rewards.videoreward.public_weights import State


def read_tokenizer(folder: Path) -> Any:
    """Load the checkpoint's tokenizer. Raises :class:`InputError` where there is none."""
    import transformers

    if not folder.is_dir():
        raise InputError("the checkpoint lacks its tokenizer", remedy="fetch the checkpoint again", file=folder)
    try:
        return transformers.AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        problem = f"the tokenizer cannot be read ({reason_in_short(error)})"
        raise InputError(problem, remedy="fetch the checkpoint again", file=folder) from error


def special_token_ids(tokenizer: Any, tokens: Sequence[str], rows: int, checkpoint: Path) -> list[int]:
    """Return the numbers of the special tokens, which end the vocabulary.

    Raises:
        InputError: the tokenizer lacks one, they are not the last, or the embedding has another number of rows.
    """
    added = tokenizer.get_added_vocab()

    def trouble(problem: str) -> InputError:
        return InputError(
            problem,
            remedy="see that tokenizer and weights belong to one checkpoint",
            file=checkpoint / "tokenizer",
            field="tokenizer",
        )

    for token in tokens:
        if token not in added:
            raise trouble(f"the special token {token} is missing")
    ids = [int(added[token]) for token in tokens]
    if tokens and len(tokenizer) != rows:
        raise trouble(f"the tokenizer has {len(tokenizer)} tokens, and the embedding {rows} rows")
    if sorted(ids) != list(range(rows - len(ids), rows)):
        raise trouble(f"the special tokens have the numbers {ids}, and not the last of the {rows} rows")
    if len(tokenizer) > rows:
        raise trouble(f"the tokenizer has {len(tokenizer)} tokens, and the embedding only {rows} rows")
    return ids


def take_token_rows(made: State, token_ids: Sequence[int], *, tied: bool, file: Path) -> torch.Tensor:
    """Take the special tokens out of embedding and output, and return their embeddings, [tokens, hidden].

    Raises:
        InputError: embedding and output are one weight in this architecture, and two in the state.
    """
    import torch

    embedding, output = (
        next(name for name in made if weights.old_name(name) == old) for old in (weights.EMBEDDING, weights.OUTPUT)
    )
    if tied and not torch.equal(made[embedding], made[output]):
        raise InputError(
            "the weight differs from the embeddings, with which it is one in this architecture",
            remedy="fetch the checkpoint again, and see that the base model is the one it was trained from",
            file=file,
            field=output,
        )
    rows = made[embedding][list(token_ids)].clone()
    for name in (embedding, output):
        made[name] = made[name][: len(made[name]) - len(token_ids)].clone()
    return rows


def without_tokens(tokenizer: Any, tokens: Sequence[str]) -> Any:
    """Return a tokenizer that does not know some of its added tokens."""
    import transformers

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer.save_pretrained(folder)
        path = folder / "tokenizer.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        content["added_tokens"] = [one for one in content["added_tokens"] if one["content"] not in tokens]
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        path = folder / "tokenizer_config.json"
        options = json.loads(path.read_text(encoding="utf-8"))
        for field in ("extra_special_tokens", "additional_special_tokens"):
            if isinstance(options.get(field), list):
                options[field] = [one for one in options[field] if one not in tokens]
        known = options.get("added_tokens_decoder", {})
        for number in [number for number, one in known.items() if one["content"] in tokens]:
            del known[number]
        path.write_text(json.dumps(options, ensure_ascii=False), encoding="utf-8")
        result = transformers.AutoTokenizer.from_pretrained(str(folder))
    if set(tokens) & set(result.get_vocab()):
        raise RuntimeError("a special token stayed in the tokenizer")
    return result
