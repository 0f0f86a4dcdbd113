"""Checks of users' files; bad content is returned as findings, not raised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from vr_pipeline.checklist.load import examine_checklist
from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import normalise_prompt
from vr_pipeline.own_data.findings import Findings
from vr_pipeline.preferences.clip_names import ClipNames
from vr_pipeline.preferences.formats import examine_preferences
from vr_pipeline.preferences.rows import file_identifier
from vr_pipeline.prompts.read import read_prompts
from vr_pipeline.runtime.progress import progress_bar
from vr_pipeline.storage.tables import are_few, bad_rows
from vr_pipeline.video.first_frames import MIN_SIDE, first_frame
from vr_pipeline.video.read import VideoReadError, read_clip

if TYPE_CHECKING:
    from vr_pipeline.prompts.config import PromptFilteringParameters, SplitParameters

_LARGEST_TRIAL = 2000
_SMALL = 300
_FEW_PAIRS = 30
_SALTS = 60
_TRIALS = 6


@dataclass
class PromptCheck:
    """A file of prompts: usable rows, and for small files their numbers by split after filtering."""

    findings: Findings = field(default_factory=Findings)
    prompts: list[str] = field(default_factory=list)
    splits: dict[str, int] | None = None
    split: SplitParameters | None = None


@dataclass
class ClipsCheck:
    """A folder of clips with its file: preferences, or the prompts of the clips."""

    findings: Findings = field(default_factory=Findings)
    pairs: int = 0
    clips: int = 0
    prompts: int = 0


@dataclass
class ChecklistCheck:
    """A checklist."""

    findings: Findings = field(default_factory=Findings)
    checklist: Checklist | None = None


def check_prompts(
    path: Path,
    parameters: PromptFilteringParameters,
    *,
    prompt_column: str | None = None,
    row_a_clip: bool = False,
    images: Path | None = None,
) -> PromptCheck:
    """Read a file of prompts and try the filter on it.

    Args:
        prompt_column: its column with the prompts; None finds it by its name.
        parameters: of the filter. If their split leaves a small file without training or test prompts, another split
            is proposed.
        row_a_clip: the file names one clip per row, so it may repeat prompts.
        images: folder of the first frames that the prompts name; None for prompts of text alone.
    """
    check = PromptCheck()
    try:
        image_of = None if images is None else partial(first_frame, images, min_side=MIN_SIDE)
        table = read_prompts(path, prompt_column=prompt_column, image_of=image_of)
    except InputError as error:
        check.findings.raised(error)
        return check
    if row_a_clip:
        table = table[(table["problem"] != "") | ~table["prompt"].map(normalise_prompt).duplicated()]
    bad = table[table["problem"] != ""]
    for row, problem in zip(bad["row"], bad["problem"], strict=True):
        check.findings.warning(problem, "the row is left out", path, int(row), "prompt")
    check.prompts = table.loc[table["problem"] == "", "prompt"].tolist()
    if len(table) <= _LARGEST_TRIAL:
        _try_filter(check, table, path, parameters)
    return check


def _try_filter(check: PromptCheck, table: pd.DataFrame, path: Path, parameters: PromptFilteringParameters) -> None:
    """Run the steps that need no text model, and find a split with training and test prompts."""
    from vr_pipeline.pipelines.prompt_filtering import nodes
    from vr_pipeline.prompts.embedders import load_embedder
    from vr_pipeline.prompts.embedding_store import Embeddings, embedding_keys

    clean, dropped = nodes.clean_prompts(table, parameters)
    distinct, same_words = nodes.drop_same_words(clean, parameters)
    texts = distinct["prompt"].tolist()
    embeddings: Any = None
    if parameters.semantic.enabled and texts:
        embeddings = Embeddings(embedding_keys(texts), load_embedder(parameters.semantic.embedder).embed(texts))
    kept, same_meaning = nodes.drop_same_meaning(distinct, embeddings, parameters) if texts else (distinct, dropped[:0])
    for gone in (dropped, same_words, same_meaning):
        rows = gone[gone["step"] != "read"]
        for rule, row in zip(rows["rule"], rows["row"], strict=True):
            problem = f"the filter will drop it ({rule.replace('_', ' ')})"
            remedy = "you need not do anything; prompt_filter_decisions will have the reason"
            check.findings.warning(problem, remedy, path, int(row), "prompt")
    if kept.empty:
        check.findings.error(
            f"none of {len(check.prompts)} prompts passes the filter",
            "use prompts of several words that differ from each other, or relax prompt_filtering",
            path,
        )
        return
    kept = kept.assign(cleaned_prompt=kept["prompt"], embedded_prompt=kept["prompt"], language_model="")
    best: tuple[tuple[int, ...], SplitParameters, dict[str, int]] | None = None
    for split in _divisions(parameters.split, kept["prompt_id"].tolist()):
        divided, _ = nodes.split_prompts(kept, embeddings, parameters.model_copy(update={"split": split}))
        counts = {name: int((divided["split"] == name).sum()) for name in ("train", "validation", "test")}
        # Training needs two prompts, the other splits one; then as few prompts as possible are dropped as similar.
        worth = (min(counts["train"], 2), min(counts["test"], 1), min(counts["validation"], 1), len(divided))
        if best is None or worth > best[0]:
            best = (worth, split, counts)
        if worth == (2, 1, 1, len(kept)):
            break
    if best is None:
        return
    _, check.split, check.splits = best
    missing = [name for name in ("train", "test") if not check.splits[name]]
    if missing:
        check.findings.error(
            f"{len(kept)} of {len(check.prompts)} prompts pass the filter, so there are none for "
            f"{' and '.join(missing)}",
            "add prompts that differ from each other (ten or more), or relax prompt_filtering",
            path,
        )


def _divisions(split: SplitParameters, identifiers: Sequence[str]) -> list[SplitParameters]:
    """Return splits to try: the configured one, then the most even ones; some may still drop similar prompts."""
    from vr_pipeline.prompts.split import split_of

    if len(identifiers) >= _SMALL:
        return [split]
    shares = {"test_fraction": 0.25, "validation_fraction": 0.1 if len(identifiers) >= 8 else 0.0}
    candidates = []
    for salt in range(_SALTS):
        candidate = split.model_copy(update={**shares, "salt": f"own data {salt}"})
        counts = Counter(split_of(identifier, candidate) for identifier in identifiers)
        wanted = [counts["train"] >= 2, counts["test"] >= 1, counts["validation"] >= 1]
        distance = abs(counts["test"] - 0.25 * len(identifiers))
        candidates.append((-sum(wanted), distance, salt, candidate))
    return [split, *(candidate for *_, candidate in sorted(candidates, key=lambda entry: entry[:3])[:_TRIALS])]


def check_preferences(
    path: Path,
    videos: Path,
    *,
    format: str = "plain",  # the word of the catalog entry
    labels: Mapping[str, str] | None = None,
    columns: Mapping[str, str] | None = None,
    criterion: str = "Overall",
) -> ClipsCheck:
    """Read a file of preferences, find its clips and decode the first and last frame of each."""
    check = ClipsCheck()
    table, problems = examine_preferences(path, format, labels=labels, columns=columns, criterion=criterion)
    if are_few(problems, table.attrs.get("entries", 0)):  # as the reader will do
        for problem in problems:
            problem.problem = f"the row is left out: {problem.problem}"
            check.findings.raised(problem, "warning")
        table = table[~table.index.isin(list(bad_rows(problems)))]
    else:
        for problem in problems:
            check.findings.raised(problem)
    folder = _clips_of(videos, check.findings)
    if folder is None:
        return check
    names = ClipNames(videos, folder, path.parent)
    files: list[dict[str, str]] = []
    records = [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
    for position, row in zip(table.index, records, strict=True):
        found = {}
        line = int(position) if format != "annotations" else None
        for side in "ab":
            column = "video_path" if row[f"video_path_{side}"] else "video_id"
            name = str(row[f"{column}_{side}"])
            if not name:  # already reported
                continue
            file = names.find(name)
            if file is None:
                check.findings.error(*names.why_not(name), path, line, f"{column}_{side}")
            else:
                found[side] = file
        if len(found) == 2 and found["a"] == found["b"] and row["video_id_a"] != row["video_id_b"]:
            both = f"both names refer to the clip {found['a']}"
            check.findings.error(both, "correct the pair", path, line, "video_path_b")
        files.append(found)
    _find_conflicts(check.findings, table, path)
    used = sorted({file for found in files for file in found.values()} if len(table) else folder)
    unreadable = _unreadable(folder, used)
    for name, reason in unreadable.items():
        lost = sum(name in found.values() for found in files)
        _leave_out(check.findings, folder[name], reason, f" with {lost} preference(s)" if lost else "")
    usable = [
        row
        for row, found in zip(records, files, strict=True)
        if len(found) == 2 and not set(found.values()) & set(unreadable)
    ]
    check.pairs, check.clips = len({row["pair_id"] for row in usable}), len(used) - len(unreadable)
    check.prompts = len({row["prompt"] for row in usable})
    if not check.findings.has_errors:
        _look_for_enough(usable, check, path)
    return check


def check_given_clips(path: Path, videos: Path, *, prompt_column: str | None = None, alone: bool = True) -> ClipsCheck:
    """Match the clips of a folder with prompts, and decode the first and last frame of each.

    Args:
        path: the file of prompts; see :func:`vr_pipeline.preferences.given_clips.examine_given_clips`.
        prompt_column: the column with the prompts; None finds it by its name.
        alone: whether these clips are compared only with each other, not with other generators'.
    """
    from vr_pipeline.preferences.given_clips import examine_given_clips, no_clip_of_a_prompt

    check = ClipsCheck()
    folder = _clips_of(videos, check.findings)
    if folder is None:
        return check
    try:
        table, problems, strangers = examine_given_clips(
            path, ClipNames(videos, folder, path.parent), list(folder), prompt_column=prompt_column
        )
    except InputError as error:
        check.findings.raised(error)
        return check
    for one in problems if len(table) or problems else [no_clip_of_a_prompt(path, videos)]:
        check.findings.raised(one)
    if len(table) and strangers:
        named = f"{strangers[0]}, {strangers[1]}" if len(strangers) > 1 else strangers[0]
        problem = f"{len(strangers)} clip(s) have no prompt, for instance {named}"
        check.findings.warning(problem, "they are not shown; add them to the file of prompts", videos)
    for file, number in table["file"].value_counts().items():
        if number > 1:
            problem = f"clip '{file}' has {number} prompts"
            check.findings.error(problem, "keep the one that it was made for", path)
    unreadable = _unreadable(folder, sorted(set(table["file"])))
    for name, reason in unreadable.items():
        _leave_out(check.findings, folder[name], reason, "")
    of_prompt = table.loc[~table["file"].isin(list(unreadable)), "prompt"].value_counts()
    check.clips, check.prompts = int(of_prompt.sum()), len(of_prompt)
    check.pairs = int((of_prompt * (of_prompt - 1) // 2).sum())
    if alone and len(table) and int((of_prompt > 1).sum()) < 2:
        problem = "fewer than two prompts have several clips; comparing and testing need more"
        check.findings.error(problem, "add prompts with several clips each", path)
    return check


def _clips_of(videos: Path, findings: Findings) -> Mapping[str, Path] | None:
    """Return the clips of a folder; None, with a finding, if it has none."""
    from vr_pipeline.datasets.clips import ClipFolder

    if not videos.is_dir():
        findings.error("the folder of clips does not exist", "correct the path, or create the folder", videos)
        return None
    folder = ClipFolder(videos)
    if not len(folder):
        findings.error("the folder contains no clips", "put the compared clips there", videos)
        return None
    return folder


def _unreadable(folder: Mapping[str, Path], names: Sequence[str]) -> dict[str, str]:
    reasons = {}
    for name in progress_bar(names, description="look at clips", unit="clip", leave=False):
        try:
            read_clip(folder[name], num_frames=2)
        except VideoReadError as error:
            reasons[name] = error.problem
    return reasons


def _leave_out(findings: Findings, path: Path, reason: str, what: str) -> None:
    findings.warning(f"the clip cannot be read: {reason}", f"it is left out{what} unless you replace it", path)


def _find_conflicts(findings: Findings, table: pd.DataFrame, path: Path) -> None:
    """Report clip names used with several prompts; a clip named by its path counts separately for each prompt."""
    prompts: dict[str, set[str]] = {}
    for side in "ab":
        columns = (table[f"video_id_{side}"], table["prompt"], table[f"video_path_{side}"])
        for identifier, prompt, file in zip(*columns, strict=True):
            if identifier and prompt.strip() and identifier != file_identifier(prompt, file):
                prompts.setdefault(identifier, set()).add(prompt)
    for identifier, found in sorted(prompts.items()):
        if len(found) > 1:
            first, second, *_ = sorted(found)
            findings.error(
                f"clip '{identifier}' occurs with {len(found)} prompts, for instance '{first}' and '{second}'",
                "correct the rows, or name the clip by its path to judge it for each prompt",
                path,
                field="prompt",
            )


def _look_for_enough(usable: Sequence[Mapping[str, Any]], check: ClipsCheck, path: Path) -> None:
    decided = sum(row["preference"] != "tie" for row in usable)
    if not decided:
        problem = "no preference has two readable clips" if not usable else "every preference is a tie"
        check.findings.error(problem, "weights need preferences that are no ties", path, field="preference")
    elif check.prompts < 2:
        problem = "all preferences are about one prompt, so none can be held out for testing"
        check.findings.error(problem, "add preferences for other prompts", path, field="prompt")
    elif decided < _FEW_PAIRS:
        check.findings.warning(
            f"{decided} decided preferences are few: weights and agreement will be uncertain",
            "check their intervals; start with some hundred preferences for fifty prompts",
            path,
        )


def check_checklist(path: Path) -> ChecklistCheck:
    """Read a checklist and report everything that is wrong with it."""
    checklist, problems = examine_checklist(path)
    check = ChecklistCheck(checklist=checklist)
    for problem in problems:
        check.findings.raised(problem)
    return check
