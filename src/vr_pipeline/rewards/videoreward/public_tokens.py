"""Move the special tokens of a public checkpoint from vocabulary and tokenizer to separate embeddings."""

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
    """Load the checkpoint's tokenizer. Raises :class:`InputError` if it is missing or unreadable."""
    import transformers

    if not folder.is_dir():
        raise InputError("the checkpoint has no tokenizer", remedy="Download the checkpoint again", file=folder)
    try:
        return transformers.AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        problem = f"the tokenizer cannot be read ({reason_in_short(error)})"
        raise InputError(problem, remedy="Download the checkpoint again", file=folder) from error


def special_token_ids(tokenizer: Any, tokens: Sequence[str], rows: int, checkpoint: Path) -> list[int]:
    """Return the numbers of the special tokens, the last of the vocabulary.

    Raises:
        InputError: a token is missing, they are not the last, or the embedding has another number of rows.
    """
    added = tokenizer.get_added_vocab()

    def trouble(problem: str) -> InputError:
        return InputError(
            problem,
            remedy="Check that tokenizer and weights belong to the same checkpoint",
            file=checkpoint / "tokenizer",
            field="tokenizer",
        )

    for token in tokens:
        if token not in added:
            raise trouble(f"the special token {token} is missing")
    ids = [int(added[token]) for token in tokens]
    if tokens and len(tokenizer) != rows:
        raise trouble(f"the tokenizer has {len(tokenizer)} tokens, but the embedding has {rows} rows")
    if sorted(ids) != list(range(rows - len(ids), rows)):
        raise trouble(f"the special tokens have the numbers {ids}, not the last of the {rows} rows")
    if len(tokenizer) > rows:
        raise trouble(f"the tokenizer has {len(tokenizer)} tokens, but the embedding has only {rows} rows")
    return ids


def take_token_rows(made: State, token_ids: Sequence[int], *, tied: bool, file: Path) -> torch.Tensor:
    """Remove the special tokens from embedding and output, and return their embeddings, [tokens, hidden].

    Raises:
        InputError: embedding and output differ, although the architecture ties them.
    """
    import torch

    embedding, output = (
        next(name for name in made if weights.old_name(name) == old) for old in (weights.EMBEDDING, weights.OUTPUT)
    )
    if tied and not torch.equal(made[embedding], made[output]):
        raise InputError(
            "the weight differs from the embeddings, although this architecture ties them",
            remedy="Download the checkpoint again, and check that the base model is that of its training",
            file=file,
            field=output,
        )
    rows = made[embedding][list(token_ids)].clone()
    for name in (embedding, output):
        made[name] = made[name][: len(made[name]) - len(token_ids)].clone()
    return rows


def without_tokens(tokenizer: Any, tokens: Sequence[str]) -> Any:
    """Return a tokenizer without some of its added tokens."""
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
        raise RuntimeError("a special token remains in the tokenizer")
    return result
