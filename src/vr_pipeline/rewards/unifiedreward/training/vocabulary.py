"""New words of a tokenizer before training, and words that it does not know."""

import json
import logging
from collections.abc import Iterable, Sequence
from typing import Any

from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import sample_seed
from vr_pipeline.rewards.unifiedreward.rendering import parts_of
from vr_pipeline.rewards.unifiedreward.template import TASKS, UnifiedTemplate
from vr_pipeline.vlm.families.base import Family

logger = logging.getLogger(__name__)

_SPREAD = 0.1
"""Standard deviation of new embeddings around the mean of all, as a share of that of all."""


def add_words(family: Family, words: Sequence[str], *, seed: int) -> None:
    """Add words as tokens to the tokenizer, with embeddings near the mean.

    A word-level tokenizer gets them in its vocabulary. Others get them as added tokens that match whole words only, so
    that "1" does not match inside "12".

    Args:
        family: changed in place.
        words: known ones are skipped.
        seed: of the embeddings.

    Raises:
        InputError: the tokenizer splits a word.
    """
    import torch

    new = [word for word in dict.fromkeys(words) if not _is_token(family, word)]
    if not new:
        return
    model, tokenizer = family.model, family.tokenizer
    before = len(tokenizer)
    content = json.loads(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else {"model": {}}
    if content["model"].get("type") == "WordLevel":
        family.tokenizer = _with_vocabulary(tokenizer, content, new)
    else:
        from transformers import AddedToken

        tokenizer.add_tokens([AddedToken(word, single_word=True) for word in new])
    vars(family).pop("control_tokens", None)
    for word in new:
        if not _is_token(family, word):
            raise InputError(
                f"the tokenizer splits '{word}', so it cannot be a token",
                remedy="Give words of letters or digits only",
                field="unified_reward_training.new_words",
            )
    known = model.get_input_embeddings().weight.shape[0]
    if len(family.tokenizer) > known:
        model.resize_token_embeddings(len(family.tokenizer), mean_resizing=False)
    generator = torch.Generator().manual_seed(sample_seed(seed, "new words", len(new)))
    ends = {id(one.weight): one.weight for one in (model.get_input_embeddings(), model.get_output_embeddings())}
    with torch.no_grad():
        for weight in ends.values():
            old = weight[:before].float().cpu()
            noise = torch.randn((len(family.tokenizer) - before, old.shape[1]), generator=generator)
            weight[before : len(family.tokenizer)] = (old.mean(dim=0) + _SPREAD * old.std(dim=0) * noise).to(weight)


def check_words(family: Family, template: UnifiedTemplate, texts: Iterable[str]) -> None:
    """Reject a template with words unknown to the tokenizer; warn of unknown words in prompts and responses.

    Raises:
        InputError: the template has unknown words.
    """
    unknown = family.tokenizer.unk_token_id
    if unknown is None:
        return
    for text in _texts(template):
        if unknown in family.text_ids(text):
            raise InputError(
                f"the model's tokenizer does not know all words of the template's text '{text.strip()[:80]}'",
                remedy="Add them to 'new_words', or choose another template",
                field="unified_reward_training.new_words",
            )
    each = dict.fromkeys(texts)
    strange = [text for text in each if unknown in family.text_ids(text)]
    if strange:
        logger.warning(
            "%d of %d prompts and responses have words that the tokenizer does not know, for example '%s'",
            len(strange),
            len(each),
            strange[0][:80],
        )


def _texts(template: UnifiedTemplate) -> list[str]:
    """Return all texts of a template that become tokens."""
    found = [template.closing + template.end]
    for task in TASKS:
        kinds: Any = getattr(template, task)
        if kinds.pair is not None:
            found += [part for part in parts_of(kinds.pair.text) if isinstance(part, str)]
            found += kinds.pair.answers.texts
        if kinds.point is not None:
            found += [part for part in parts_of(kinds.point.text) if isinstance(part, str)]
            for line in kinds.point.lines:
                found += [line.question, line.before, *line.texts]
    return [text for text in found if text.strip()]


def _is_token(family: Family, word: str) -> bool:
    ids = family.text_ids(word)
    return len(ids) == 1 and ids[0] != family.tokenizer.unk_token_id


def _with_vocabulary(tokenizer: Any, content: dict[str, Any], words: Sequence[str]) -> Any:
    """Return a word-level tokenizer with more words; existing tokens keep their numbers."""
    from tokenizers import Tokenizer

    vocabulary = content["model"]["vocab"]
    start = len(tokenizer)
    vocabulary |= {word.lower(): start + at for at, word in enumerate(words)}
    return type(tokenizer)(
        tokenizer_object=Tokenizer.from_str(json.dumps(content)),
        **{name: value for name, value in tokenizer.special_tokens_map.items() if isinstance(value, str)},
        extra_special_tokens=[
            token.content
            for _, token in sorted(tokenizer.added_tokens_decoder.items())
            if token.special and token.content not in tokenizer.special_tokens_map.values()
        ],
    )
