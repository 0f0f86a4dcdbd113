"""Send prompts through the cleaning rules."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from vr_pipeline.identifiers import normalise_prompt
from vr_pipeline.prompts.config import CleaningParameters
from vr_pipeline.prompts.rules import EXACT_DUPLICATES, RULES, Drop, Prompt


@dataclass(frozen=True)
class CleaningOutcome:
    """What became of one prompt.

    Args:
        text: the clean text; of a dropped prompt what it was when it was dropped.
        changed_by: names of the rules that changed the text, in order.
        rule: the rule that dropped it, empty if it stays.
        reason: why, empty if it stays.
        nearest: position of the earlier prompt that it repeats, None if none.
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
    """Send prompts through the rules in the configured order.

    Returns:
        one outcome a prompt, in the same order.
    """
    seen: dict[str, int] = {}
    return [_clean(prompt, position, seen, parameters) for position, prompt in enumerate(prompts)]


def _clean(prompt: Prompt, position: int, seen: dict[str, int], parameters: CleaningParameters) -> CleaningOutcome:
    changed: list[str] = []
    for name in parameters.rules:
        if name == EXACT_DUPLICATES:
            first = seen.setdefault(normalise_prompt(prompt.text), position)
            result: str | Drop = prompt.text if first == position else Drop("equal to an earlier prompt", first)
        else:
            result = RULES[name](prompt, parameters)
        if isinstance(result, Drop):
            return CleaningOutcome(prompt.text, tuple(changed), name, result.reason, result.nearest)
        if result != prompt.text:
            changed.append(name)
            prompt = replace(prompt, text=result)
    return CleaningOutcome(prompt.text, tuple(changed))
