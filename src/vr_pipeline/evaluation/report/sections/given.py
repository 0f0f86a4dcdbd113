"""Given pairs: which were used or not and why, and changes of clips to fit the generator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from vr_pipeline.evaluation.report import elements
from vr_pipeline.evaluation.report.elements import Finding, Table, counted_rows
from vr_pipeline.evaluation.report.wording import counted
from vr_pipeline.generators.policy import ORIGINAL

_MOST_ROWS = 30
_PAIRS = {
    "given": "Pairs in the file",
    "kept": "Kept",
    "tie": "Ties, dropped",
    "same_clip": "The same clip twice, set aside",
    "clip_failed": "With a clip that cannot be used, set aside",
    "several_votes": "With several votes (the majority counts)",
    "contradicted": "Contradicted by an annotator",
}
_PROMPTS = {"train": "for training", "validation": "for validation", "test": "for the comparison of policies"}


def make(titles: Mapping[str, str], report: Mapping[str, Any]) -> list[Markup]:
    """Show counts of pairs, prompts and clips, reasons of unused pairs, and how people can compare policies."""
    pairs, prompts, clips = report["pairs"], report["prompts"], report["clips"]
    trained = next(name for name in titles if name != ORIGINAL)
    divided = ", ".join(f"{counted(prompts[name], 'prompt')} {use}" for name, use in _PROMPTS.items())
    made = [
        elements.findings(_remarks(report)),
        elements.paragraph(
            f"Pairs are split by prompt: {divided}. To see which policy people prefer, have them compare clips blind "
            f"with kedro annotate --policies {ORIGINAL},{trained} and the --env of this run; kedro annotate --report "
            "with the same options counts the answers."
        ),
        *map(elements.table, _tables(pairs, clips)),
    ]
    if report["set_aside"]:
        rows = [[one["prompt"], one["reason"]] for one in report["set_aside"][:_MOST_ROWS]]
        title = f"Pairs set aside ({min(len(rows), _MOST_ROWS)} of {len(report['set_aside']):,})"
        made.append(elements.table(Table(title, ["Prompt", "Reason"], rows, words=["Prompt", "Reason"])))
    return made


def _tables(pairs: Mapping[str, int], clips: Mapping[str, Any]) -> list[Table]:
    """Return counts of pairs, of changes of clips, and of the most frequent sizes of clips."""
    sizes = sorted(clips["sizes"].items(), key=lambda item: (-item[1], item[0]))[:_MOST_ROWS]
    counts = {title: pairs[name] for name, title in _PAIRS.items()}
    changes = {**{kind.capitalize(): number for kind, number in clips["changes"].items()}, "Set aside": clips["failed"]}
    return [
        Table("Given pairs", ["Pairs", "Number"], counted_rows(counts)),
        Table("Changes that made clips fit", ["Clips", "Number"], counted_rows(changes)),
        Table("Given clips", ["Frames x height x width", "Clips"], counted_rows(dict(sizes))),
    ]


def _remarks(report: Mapping[str, Any]) -> list[Finding]:
    pairs, prompts, clips = report["pairs"], report["prompts"], report["clips"]
    remarks = [
        Finding(
            f"{pairs['kept']:,} of {pairs['given']:,} given pairs are used; {pairs['tie']:,} are ties, "
            f"{pairs['same_clip'] + pairs['clip_failed']:,} are set aside with their reason (given_pair_decisions)."
        )
    ]
    if prompts["test"] == sum(prompts.values()):
        text = "There is only one prompt: policies are compared on the training prompt."
        remarks.append(Finding(text, "warning"))
    elif sum(prompts.values()) < 10:
        text = f"There are {sum(prompts.values())} prompts: too few to show what the policy does on others."
        remarks.append(Finding(text, "warning"))
    if enlarged := clips["changes"].get("enlarged", 0):
        text = f"{counted(enlarged, 'clip')} had to be enlarged: the policy may learn their blur."
        remarks.append(Finding(text, "warning"))
    return remarks
