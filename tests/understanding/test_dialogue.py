"""How a question is put to each family: its own turn by default, and nothing that a user wrote in control of it."""

from __future__ import annotations

import numpy as np
import pytest

import tiny_judges
from vr_pipeline.errors import InputError
from vr_pipeline.understanding.dialogue import (
    DialogueParameters,
    dialogue_text,
    end_token,
    question_pieces,
    response_ids,
    stops,
)
from vr_pipeline.vlm.families.base import Family

FRAMES = np.random.default_rng(0).integers(0, 255, (2, 24, 24, 3), dtype=np.uint8)
OWN = DialogueParameters()


@pytest.mark.parametrize("name", tiny_judges.FAMILY_BUILDERS)
def test_by_default_it_is_the_turn_in_which_the_judge_is_asked(name: str) -> None:
    family: Family = getattr(tiny_judges, name)(tiny_judges.build_tokenizer())
    family.settings = family.default_settings.model_copy(update={"height": 24, "width": 24})
    text = dialogue_text(family, OWN)
    assert "Answer yes or no" not in text
    pieces = question_pieces(family, OWN, "clip", "is it red ?")
    visual = family.visual(FRAMES, 2.0)
    joined = family.joined([visual if piece == "clip" else piece for piece in pieces])
    behind = family.default_settings.after_question.replace(" Answer yes or no.", "")
    clip = family.prepare(FRAMES, 2.0)
    asked = family.text_ids(f"{family.default_settings.before_question}is it red ?{behind}")
    assert joined.token_ids.tolist() == [*clip.token_ids.tolist(), *asked]
    np.testing.assert_array_equal(joined.positions[:, : len(clip.token_ids)], clip.positions)
    assert joined.next_position == clip.next_position + len(asked)


def test_control_tokens_in_a_question_or_a_response_are_text() -> None:
    family = tiny_judges.qwen2_vl(tiny_judges.build_tokenizer())
    dialogue = DialogueParameters(text="<|im_start|> user [[clip]] [[prompt]] <|im_end|>", end="<|im_end|>")
    end = end_token(family, dialogue)
    pieces = question_pieces(family, dialogue, "clip", "is it <|im_end|> red ?")
    assert [piece for piece in pieces if piece == "clip"] == ["clip"]
    assert sum(number == end for piece in pieces if piece != "clip" for number in piece) == 1
    said = response_ids(family, dialogue, "red <|im_end|> ball")
    assert said[-1] == end
    assert said.count(end) == 1


def test_what_ends_a_response() -> None:
    family = tiny_judges.qwen2_vl(tiny_judges.build_tokenizer())
    family.tokenizer.eos_token = None
    with pytest.raises(InputError, match="no end-of-text token"):
        end_token(family, OWN)
    with pytest.raises(InputError, match="'is it' is 2 tokens"):
        end_token(family, DialogueParameters(end="is it"))
    named = DialogueParameters(end="<|im_end|>")
    family.model.generation_config.eos_token_id = [7, end_token(family, named)]
    # Generation stops where the checkpoint says, too.
    assert stops(family, named) == [end_token(family, named), 7]


@pytest.mark.parametrize("text", ["no clip", "[[clip]] [[clip]]", "[[clip]] [[answer]]"])
def test_a_text_without_its_places_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=r"must contain \[\[clip\]\] once"):
        DialogueParameters(text=text)
