"""Templates in which the prompt stands before the clip: clips of one prompt share it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from judge_families import FAMILIES
from plain_likelihood import plain_answers
from tiny_judges import QUESTIONS
from vr_pipeline.errors import InputError
from vr_pipeline.vlm.config import JudgeParameters
from vr_pipeline.vlm.loading import judge_identity, read_settings
from vr_pipeline.vlm.prefix import read_lead

RATES = [2.0, 4.0, 1.0]
PROMPTS = ["red ball", "a blue ring moves left", "red ball"]


def with_prompt_first(family: Any, text: str = "does it show [[prompt]] ") -> Any:
    settings = family.settings
    family.settings = settings.model_copy(update={"before_clip": text + settings.before_clip})
    return family


@pytest.mark.parametrize("name", FAMILIES)
def test_a_prompt_before_the_clip_is_read_once_for_all_its_clips(
    name: str,
    tokenizer: Any,
    clips: list[np.ndarray],
    make_judge: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Answers equal those of the plain class, among clips of other prompts and however many are read at a time."""
    family = with_prompt_first(FAMILIES[name].build(tokenizer))
    expected = plain_answers(make_judge(family), clips, PROMPTS, RATES)
    other = plain_answers(make_judge(family), clips, ["ball", *PROMPTS[1:]], RATES)
    # The prompt counts, also for questions that do not repeat it.
    assert np.abs(other - expected)[0, 0, 0] > 1e-5
    read: list[tuple[int, ...]] = []

    def counted(family: Any, token_ids: tuple[int, ...]) -> Any:
        read.append(token_ids)
        return read_lead(family, token_ids)

    monkeypatch.setattr("vr_pipeline.judges.vlm.read_lead", counted)
    for prefix, chunk, batch in [("packed", 5, 3), ("packed", 2, 1), ("cached", 2, 3), ("auto", 5, 2)]:
        judge = make_judge(family, prefix=prefix, question_chunk_size=chunk, clip_batch=batch)
        found = np.stack(judge.answer(clips, QUESTIONS, PROMPTS, frames_per_second=RATES))
        np.testing.assert_allclose(found, expected, atol=1e-4)
        assert read == [family.lead_ids(PROMPTS[0]), family.lead_ids(PROMPTS[1])]
        read.clear()


def test_clips_without_prompts_are_rejected(
    tokenizer: Any, clips: list[np.ndarray], make_judge: Callable[..., Any]
) -> None:
    judge = make_judge(with_prompt_first(FAMILIES["qwen2_vl"].build(tokenizer)))
    with pytest.raises(InputError, match="prompt"):
        judge.answer(clips, ["is it red ?"])


def test_control_tokens_in_the_prompt_are_plain_text(tokenizer: Any) -> None:
    family = with_prompt_first(FAMILIES["qwen2_vl"].build(tokenizer))
    control = next(iter(family.control_tokens))
    ids = family.lead_ids(f"red {family.tokenizer.convert_ids_to_tokens(control)} ball")
    assert control not in ids
    assert ids[0] == family.lead_ids("red")[0]


def test_the_configuration_sets_the_text_before_the_clip(tmp_path: Any) -> None:
    from vr_pipeline.vlm.families.qwen2_vl import Qwen2VL

    parameters = JudgeParameters(family="qwen2_vl", path=str(tmp_path), before_clip="<user> [[prompt]] <clip>")
    assert read_settings(Qwen2VL, str(tmp_path), parameters).before_clip == "<user> [[prompt]] <clip>"
    server = {"url": "http://127.0.0.1:1/v1"}
    with pytest.raises(ValueError, match="before_clip cannot be set for a model behind a server"):
        JudgeParameters(family="openai_compatible", path="m", before_clip="[[prompt]]", server=server)


def test_a_judge_without_this_setting_keeps_the_identity_it_had() -> None:
    """Stored answers stay valid; a judge that sets it is another one."""
    given = {"family": "qwen2_vl", "path": "org/model", "revision": "0" * 40}
    assert judge_identity(JudgeParameters(**given)) == "45eb003b3a48d459"
    assert judge_identity(JudgeParameters(**given, before_clip="[[prompt]]")) != "45eb003b3a48d459"


def test_clips_of_one_length_share_a_batch(
    tokenizer: Any, clips: list[np.ndarray], make_judge: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of mixed clips hold hardly any padding, and the answers keep the order of the clips."""
    family = FAMILIES["qwen2_vl"].build(tokenizer)
    mixed = [clips[at] for at in (0, 1, 2, 1, 0, 2)]
    prompts = ["ball", "red ball", "ball", "red ball", "ball", "ball"]
    alone = make_judge(family, clip_batch=1).answer(mixed, QUESTIONS, prompts)
    widths: list[list[int]] = []
    embed = family.embed_prefixes

    def watched(some: Any) -> Any:
        widths.append([len(clip.token_ids) for clip in some])
        return embed(some)

    monkeypatch.setattr(family, "embed_prefixes", watched)
    together = make_judge(family, clip_batch=2).answer(mixed, QUESTIONS, prompts)
    np.testing.assert_allclose(np.stack(together), np.stack(alone), atol=1e-5)
    assert all(len(batch) == 2 and len(set(batch)) == 1 for batch in widths)
