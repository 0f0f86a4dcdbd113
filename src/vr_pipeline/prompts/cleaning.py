"""Apply the cleaning rules to prompts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from vr_pipeline.identifiers import normalise_prompt
from vr_pipeline.prompts.config import CleaningParameters
from vr_pipeline.prompts.rules import EXACT_DUPLICATES, RULES, Drop, Prompt


@dataclass(frozen=True)
class CleaningOutcome:
    """The cleaning result of a prompt.

    Args:
        text: the clean text, or the text when the prompt was dropped.
        changed_by: names of the rules that changed the text, in order.
        rule: the rule that dropped it, empty if kept.
        reason: of the drop, empty if kept.
        nearest: position of the earlier prompt that it repeats; None if there is none.
    """

    text: str
    changed_by: tuple[str, ...] = ()
    rule: str = ""
    reason: str = ""
    nearest: int | None = None

    @property
    def kept(self) -> bool:
        """Whether the prompt passed every rule."""
        return not self.rule


def clean_prompts(prompts: Iterable[Prompt], parameters: CleaningParameters) -> list[CleaningOutcome]:
    """Apply the configured rules; return one outcome per prompt, in order."""
    seen: dict[tuple[str, str], int] = {}
    return [_clean(prompt, position, seen, parameters) for position, prompt in enumerate(prompts)]


def _clean(
    prompt: Prompt, position: int, seen: dict[tuple[str, str], int], parameters: CleaningParameters
) -> CleaningOutcome:
    changed: list[str] = []
    for name in parameters.rules:
        if name == EXACT_DUPLICATES:
            first = seen.setdefault((normalise_prompt(prompt.text), prompt.image), position)
            result: str | Drop = prompt.text if first == position else Drop("equal to an earlier prompt", first)
        else:
            result = RULES[name](prompt, parameters)
        if isinstance(result, Drop):
            return CleaningOutcome(prompt.text, tuple(changed), name, result.reason, result.nearest)
        if result != prompt.text:
            changed.append(name)
            prompt = replace(prompt, text=result)
    return CleaningOutcome(prompt.text, tuple(changed))
