"""Pieces of a request from a template's text with placeholders.

The text is split at its placeholders once, so inserted texts cannot add placeholders or control tokens.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from weakref import WeakKeyDictionary

from vr_pipeline.errors import InputError
from vr_pipeline.vlm.families.base import Family
from vr_pipeline.vlm.media import Piece

Keys = str | Sequence[str]
"""Key of a visual, or the keys of a clip's frames as images."""

Tokens = tuple[int, ...]

_PLACEHOLDER = re.compile(r"\[\[(\w+)\]\]")
_DIGITS = "0123456789"


@dataclass(frozen=True)
class Slot:
    """A placeholder."""

    name: str


Part = str | Slot


def parts_of(text: str) -> tuple[Part, ...]:
    """Split a text at its placeholders, without empty texts."""
    found: list[Part] = []
    end = 0
    for match in _PLACEHOLDER.finditer(text):
        found += [text[end : match.start()], Slot(match[1])]
        end = match.end()
    return tuple(part for part in (*found, text[end:]) if part != "")


def slots_of(text: str) -> list[str]:
    """Return the names of a text's placeholders, in order."""
    return [part.name for part in parts_of(text) if isinstance(part, Slot)]


def rendered(
    family: Family, text: str, shown: Mapping[str, Keys], written: Mapping[str, str], *, between: str = ""
) -> tuple[Piece, ...]:
    """Return the pieces of a text with clips and users' texts inserted.

    Args:
        family: has the tokenizer.
        text: with placeholders and control tokens.
        shown: visuals by placeholder.
        written: users' texts by placeholder, in which control tokens become plain text.
        between: text between two frames of a clip that is shown as images.

    Raises:
        InputError: a placeholder has no value, or the text contains the placeholder token of frames.
    """
    pieces: list[Piece] = []
    run: list[Part] = []

    def close() -> None:
        if token_ids := _run_ids(family, run, written):
            pieces.append(token_ids)
        run.clear()

    for part in parts_of(text):
        if isinstance(part, Slot) and part.name in shown:
            keys = shown[part.name]
            for number, key in enumerate([keys] if isinstance(keys, str) else keys):
                if number and between:
                    run.append(between)
                close()
                pieces.append(key)
        else:
            run.append(part)
    close()
    return tuple(pieces)


def _run_ids(family: Family, run: Sequence[Part], written: Mapping[str, str]) -> Tokens:
    """Return the tokens of consecutive texts, tokenised as one text like the model's processor.

    If that makes a control token from users' texts, these are tokenised one by one.
    """
    for part in run:
        if isinstance(part, Slot) and written.get(part.name) is None:
            raise InputError(
                f"the template needs '{part.name}', which is missing",
                remedy=f"Give it, or use a template without [[{part.name}]]",
                field=part.name,
            )
    meant = [number for part in run if isinstance(part, str) for number in _controls(family, family.text_ids(part))]
    if not set(meant).isdisjoint(family.placeholder_ids):
        raise InputError(
            "the template's text contains the placeholder token of frames",
            remedy="Remove it: [[clip]], [[first]] and [[second]] insert clips",
            field="template",
        )
    whole = family.text_ids("".join(part if isinstance(part, str) else written[part.name] for part in run))
    if _controls(family, whole) == meant:
        return tuple(whole)
    return tuple(
        number
        for before, name, after in _surroundings(run)
        for number in family.user_text_ids(written[name], before=before, after=after)
    )


def _surroundings(run: Sequence[Part]) -> list[tuple[str, str, str]]:
    """Return each slot with the template's text before and after it, which together are the whole run.

    Text between two slots is split after its last line break, where tokenizers rarely merge.
    """
    befores: list[str] = []
    names: list[str] = []
    afters: list[str] = []
    pending = ""
    for part in run:
        if isinstance(part, str):
            pending += part
            continue
        cut = pending.rfind("\n") + 1 if names else 0
        if names:
            afters.append(pending[:cut])
        befores.append(pending[cut:])
        names.append(part.name)
        pending = ""
    return list(zip(befores, names, [*afters, pending], strict=True))


def _controls(family: Family, token_ids: Sequence[int]) -> list[int]:
    return [number for number in token_ids if number in family.control_tokens]


_numbers: WeakKeyDictionary[Family, dict[object, tuple[Tokens, tuple[Tokens, ...]]]] = WeakKeyDictionary()


def number_ids(family: Family, label: str, numbers: Sequence[str], after: str) -> tuple[Tokens, tuple[Tokens, ...]]:
    """Return the common first tokens of a label with any number, and the other tokens of each number.

    Label and number are tokenised together, since some tokenizers merge the space between them. Results are cached as
    long as the family exists.

    Args:
        family: has the tokenizer.
        label: text before the number.
        numbers: as text.
        after: text that ends the number; empty if more digits may follow.

    Raises:
        InputError: two numbers have the same tokens, such as that of unknown words.
    """
    known = _numbers.setdefault(family, {})
    # New words change the tokens of other texts.
    key = (len(family.tokenizer), label, tuple(numbers), after)
    if key not in known:
        known[key] = _number_ids(family, label, numbers, after)
    return known[key]


def _number_ids(family: Family, label: str, numbers: Sequence[str], after: str) -> tuple[Tokens, tuple[Tokens, ...]]:
    spelled = [tuple(family.text_ids(label + number + after)) for number in numbers]
    any_digit = [tuple(family.text_ids(label + digit + after)) for digit in _DIGITS]
    columns = zip(*spelled, *any_digit, strict=False)
    count = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
    rests = tuple(one[count:] for one in spelled)
    if not after and any(
        tuple(family.text_ids(label + one + "5"))[: len(ids)] != ids for one, ids in zip(numbers, spelled, strict=True)
    ):
        raise InputError(
            "the model's tokenizer merges digits, so a number cannot be read digit by digit",
            remedy="Use a template without 'open' numbers",
            field="template",
        )
    if len(set(rests)) < len(rests) or not all(rests):
        raise InputError(
            f"two numbers of the scale {numbers[0]} to {numbers[-1]} have the same tokens",
            remedy="Use a template with another scale, or a model whose tokenizer has these numbers",
            field="template",
        )
    return spelled[0][:count], rests
