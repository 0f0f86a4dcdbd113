"""Text and tokens around a question about a clip and its response."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, model_validator

from vr_pipeline.config import Parameters
from vr_pipeline.errors import InputError
from vr_pipeline.rewards.unifiedreward.rendering import rendered, slots_of
from vr_pipeline.vlm.families.base import Family
from vr_pipeline.vlm.media import Piece

_ASKS_FOR_YES_OR_NO = " Answer yes or no."
"""Text after a question in the families' settings for judges; the rest is the model's chat format."""


class DialogueParameters(Parameters):
    """The text around a question, as in the model's training."""

    text: str | None = Field(
        None,
        description="Text up to the response, with [[clip]] for the clip or image and [[prompt]] for the question; "
        "without [[prompt]] all questions are the same. Null: the family's chat format.",
    )
    end: str | None = Field(
        None, min_length=1, description="The token that ends a response; null: the tokenizer's end of text."
    )

    @model_validator(mode="after")
    def _has_its_places(self) -> DialogueParameters:
        if self.text is not None and sorted(slots_of(self.text)) not in (["clip"], ["clip", "prompt"]):
            raise ValueError("'text' must contain [[clip]] once and may contain [[prompt]] once")
        return self


def dialogue_text(family: Family, dialogue: DialogueParameters) -> str:
    """Return the text up to the response, with placeholders."""
    if dialogue.text is not None:
        return dialogue.text
    own = family.default_settings
    behind = own.after_question.removeprefix(_ASKS_FOR_YES_OR_NO)
    # The clip brings the marks around it.
    before = own.before_clip.removesuffix(_mark(family, "vision_start_token_id"))
    after = own.after_clip.removeprefix(_mark(family, "vision_end_token_id"))
    return f"{before}[[clip]]{after}{own.before_question}[[prompt]]{behind}"


def _mark(family: Family, name: str) -> str:
    number = getattr(family.model.config, name, None)
    return str(family.tokenizer.convert_ids_to_tokens(number)) if number is not None else ""


def question_pieces(family: Family, dialogue: DialogueParameters, key: str, prompt: str) -> tuple[Piece, ...]:
    """Return the pieces of a request up to the response; control tokens in the question become plain text."""
    return rendered(family, dialogue_text(family, dialogue), {"clip": key}, {"prompt": prompt})


def end_token(family: Family, dialogue: DialogueParameters) -> int:
    """Return the token that ends a response.

    Raises:
        InputError: the tokenizer has none, or the given one is several tokens.
    """
    if dialogue.end is None:
        number = family.tokenizer.eos_token_id
        if number is None:
            raise InputError(
                "the model's tokenizer has no end-of-text token",
                remedy="Set the token that ends a response",
                field="vlm_dpo.dialogue.end",
            )
        return int(number)
    found = family.text_ids(dialogue.end)
    if len(found) != 1:
        raise InputError(
            f"'{dialogue.end}' is {len(found)} tokens of the model",
            remedy="Give one token that ends a response, such as <|im_end|>",
            field="vlm_dpo.dialogue.end",
        )
    return found[0]


def response_ids(family: Family, dialogue: DialogueParameters, response: str) -> tuple[int, ...]:
    """Return the tokens of a response and its end; control tokens in the response become plain text."""
    return (*family.user_text_ids(response), end_token(family, dialogue))


def stops(family: Family, dialogue: DialogueParameters) -> Sequence[int]:
    """Return the tokens at which generation stops: the response's end and those of the checkpoint."""
    named = getattr(family.model.generation_config, "eos_token_id", None)
    others = [named] if isinstance(named, int) else list(named or ())
    return list(dict.fromkeys([end_token(family, dialogue), *others]))
