"""Pairs, criteria and files of a study, from the tables of a catalog."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vr_pipeline.annotation import queue
from vr_pipeline.annotation.choice import Selection, order_pairs
from vr_pipeline.annotation.grading import GradingSession
from vr_pipeline.annotation.guide import grades_key, load_guide
from vr_pipeline.annotation.items import clips_to_grade, known_items
from vr_pipeline.annotation.queue import Order, Pair
from vr_pipeline.annotation.secret import study_secret
from vr_pipeline.annotation.session import AnnotationSession
from vr_pipeline.annotation.store import Journal
from vr_pipeline.errors import InputError
from vr_pipeline.preferences.journal import OVERALL, Grade, Label, Study

if TYPE_CHECKING:
    import pandas as pd

    from vr_pipeline.checklist import Checklist

_PLAIN_CRITERION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")
CLIPS = "clips"
"""Source and default study of given clips that are not compared yet."""
GENERATORS = "generators"
"""Source and default study of clips of several generators, compared with each other."""
_NEEDED = {
    "generated": ("video_index", "videos", "rewards", "video_generation", "mpo_dpo"),
    "preferences": ("preference_video_index", "preference_videos", None, "", ""),
    CLIPS: ("preference_clips", "preference_videos", None, "", ""),
    GENERATORS: ("preference_clips", "preference_videos", None, "preference_generation", ""),
    "policies": ("evaluation_video_index", "evaluation_videos", "evaluation_rewards", "evaluation", "evaluation"),
}
_TO_LIST_PREFERENCES = "kedro run --to-outputs=preference_video_index"


@dataclass(frozen=True)
class Offer:
    """Pairs in order, criteria with their hints, and files by name."""

    pairs: list[Pair]
    criteria: list[str]
    hints: Mapping[str, list[str]]
    files: Mapping[str, Path]

    def session(
        self, study: Study, journal: Journal[Label], *, order: Order, seed: int, annotator: str | None
    ) -> AnnotationSession:
        """Return the open study."""
        if annotator is not None:
            annotator = " ".join(annotator.split())
        secret = study_secret(journal.path)
        return AnnotationSession(
            study, self.pairs, self.criteria, self.hints, journal, self.files, order, seed, secret, annotator
        )


def make_study(name: str | None, source: str, policies: str | None, checklist: Checklist | None = None) -> Study:
    """Return the study for the command's options.

    Args:
        name: of the study; None for the source or the policies.
        source: generated, preferences, clips or generators.
        policies: two names separated by a comma, instead of a source.
        checklist: for grades of single clips; None to compare pairs.

    Raises:
        InputError: there are not two policies, policies are to be graded, or the name is not a plain file name.
    """
    pair: tuple[str, ...] = ()
    if policies is not None:
        pair = tuple(part.strip() for part in policies.split(","))
        if len(pair) != 2 or not all(pair):
            raise InputError("give two policies", remedy="write --policies original,mpo", field="--policies")
        source = "policies"
        if checklist is not None:
            remedy = "remove --policies or --checklist"
            raise InputError("policies cannot be graded", remedy=remedy, field="--policies")
    chosen = name or ("_vs_".join(pair) if pair else source + ("_grades" if checklist else ""))
    if not _PLAIN_NAME.fullmatch(chosen):
        raise InputError(
            f"'{chosen}' is not a valid name of a study",
            remedy="use letters, digits, dots, hyphens and underscores",
            field="--study",
        )
    key = "" if checklist is None else grades_key(checklist)
    return Study(study=chosen, source=source, policies=pair, checklist=key)


def journal_path(project: Path, env: str, study: str) -> Path:
    """Return the path of a study's journal."""
    return project / "data" / "01_raw" / "annotations" / env / f"{study}.jsonl"


def usual_guide(project: Path, checklist: Checklist) -> Path | None:
    """Return the guide with the name of a checklist, or None."""
    path = project / "conf" / "checklists" / "guides" / f"{checklist.name}.yml"
    return path if _PLAIN_NAME.fullmatch(checklist.name) and path.is_file() else None


def make_offer(
    catalog: Any,
    study: Study,
    selection: Selection | None = None,
    *,
    dimensions: str | None = None,
    criteria: str | None = None,
) -> Offer:
    """Return pairs, criteria and files of a study.

    Args:
        catalog: with ``load`` and ``exists`` by name.
        study: the study.
        selection: which pairs, and their order; None for defaults.
        dimensions: names of the checklist's dimensions separated by commas, 'all', or None for none.
        criteria: names of other criteria separated by commas; None for none.

    Raises:
        InputError: a table is missing, a dimension is unknown, or the name of a criterion is invalid.
    """
    selection = selection or Selection()
    seed, per_prompt = selection.seed, selection.per_prompt
    index_name, _, rewards_name, _, rewards_pipeline = _NEEDED[study.source]
    _require(catalog, index_name, study.source)
    index = catalog.load(index_name)
    if study.source == "policies":
        candidates = queue.policy_pairs(index, (study.policies[0], study.policies[1]))
    elif study.source == "preferences":
        candidates = queue.named_pairs(index, catalog.load("human_preferences"))
    elif study.source in (CLIPS, GENERATORS):
        candidates = queue.pairs_of_prompts(
            _as_index(index, catalog.load("preference_videos")),
            per_prompt=per_prompt,
            seed=seed,
            across=study.source == GENERATORS,
        )
    else:
        candidates = queue.pairs_of_prompts(index, per_prompt=per_prompt, seed=seed)
    rewards = None
    if selection.order == "informative" or (selection.order == "disagreement" and len(selection.rewards) < 2):
        rewards = _predicted(catalog, rewards_name, rewards_pipeline)
    names, hints = _dimensions(catalog, dimensions)
    asked = [name for name in dict.fromkeys([*names, *_further(criteria)]) if name != OVERALL]
    if selection.order in ("active", "disagreement"):
        predicted = None if rewards is None else dict(zip(rewards["video_id"], rewards["total"], strict=True))
        shown = order_pairs(candidates, selection, catalog, study.source, predicted)
    else:
        candidates = candidates if rewards is None else queue.with_margins(candidates, rewards)
        shown = queue.ordered(candidates, selection.order, seed=seed, limit=selection.pairs)
    return Offer(shown, [*asked, OVERALL], hints, clip_files(catalog, study))


def make_grading(
    catalog: Any, study: Study, checklist: Checklist, guide_file: Path | None, *, seed: int, limit: int | None
) -> Callable[[Journal[Grade], str | None], GradingSession]:
    """Return a function that opens a graded annotation with a journal and perhaps its only annotator.

    Args:
        catalog: with ``load`` and ``exists`` by name.
        study, checklist: of the annotation.
        guide_file: its guide; None for defaults.
        seed: of the order.
        limit: largest number of clips; None for all.

    Raises:
        InputError: a table is missing, there are no clips, or the guide or its tables are invalid.
    """
    index_name = _NEEDED[study.source][0]
    _require(catalog, index_name, study.source)
    index = catalog.load(index_name)
    if study.source in (CLIPS, GENERATORS):
        index = _as_index(index, catalog.load("preference_videos"))
    guide, criteria = load_guide(guide_file, checklist)
    clips = clips_to_grade(index, clip_files(catalog, study), seed=seed)
    folder = guide_file.parent if guide_file is not None else Path()
    training, control = (known_items(folder, name, checklist, clips) for name in (guide.training, guide.control))

    def opened(journal: Journal[Grade], annotator: str | None) -> GradingSession:
        only = None if annotator is None else " ".join(annotator.split())
        secret = study_secret(journal.path)
        return GradingSession(
            study, clips[:limit], training, control, checklist, guide, criteria, journal, seed, secret, only
        )

    return opened


def _as_index(clips: pd.DataFrame, folder: Mapping[str, Path]) -> pd.DataFrame:
    """Return given clips as a video index, without reading them."""
    from vr_pipeline.identifiers import prompt_id

    return clips.rename(columns={"file": "path"}).assign(
        prompt_id=[prompt_id(prompt) for prompt in clips["prompt"]],
        status=["ok" if file in folder else "failed" for file in clips["file"]],
    )


def clip_files(catalog: Any, study: Study) -> Mapping[str, Path]:
    """Return the path of every clip of a study's source by its name in the index."""
    _, folder_name, _, _, _ = _NEEDED[study.source]
    _require(catalog, folder_name, study.source)
    folder = catalog.load(folder_name)
    if isinstance(folder, Mapping):
        return folder
    records = folder.records
    return {str(name): folder.folder / str(name) for name in records.loc[records["status"] == "ok", "filename"]}


def _predicted(catalog: Any, name: str | None, pipeline: str) -> Any:
    """Return rewards of the clips, for human preferences computed from answers and weights."""
    if name is not None:
        if not catalog.exists(name):
            raise InputError(
                f"there are no predicted rewards yet ({name})",
                remedy=f"run the pipeline {pipeline} first, or use --order random",
                field="--order",
            )
        return catalog.load(name)
    from vr_pipeline.rewards.checklist.model import ChecklistReward
    from vr_pipeline.rewards.checklist.weights import RewardWeights

    for needed in ("preference_answers", "reward_weights"):
        if not catalog.exists(needed):
            raise InputError(
                f"there are no predicted rewards of these clips yet ({needed} is missing)",
                remedy="run 'kedro run --to-outputs=reward_agreement' first, or use --order random",
                field="--order",
            )
    reward = ChecklistReward(catalog.load("checklist"), RewardWeights.from_json(catalog.load("reward_weights")))
    return reward.rewards(catalog.load("preference_answers"), catalog.load("preference_video_index"))


def _further(criteria: str | None) -> list[str]:
    if criteria is None:
        return []
    names = [name.strip() for name in criteria.split(",")]
    for name in names:
        if not _PLAIN_CRITERION.fullmatch(name):
            raise InputError(
                f"'{name}' is not a valid name of a criterion",
                remedy="use letters, digits, hyphens and underscores, and separate names by commas",
                field="--criteria",
            )
    return names


def _dimensions(catalog: Any, dimensions: str | None) -> tuple[list[str], dict[str, list[str]]]:
    if dimensions is None:
        return [], {}
    checklist = catalog.load("checklist")
    names = list(checklist.dimensions)
    if dimensions.strip().casefold() != "all":
        wanted = [name.strip() for name in dimensions.split(",") if name.strip()]
        unknown = [name for name in wanted if name not in names]
        if unknown or not wanted:
            raise InputError(
                f"the checklist has no dimension '{unknown[0] if unknown else dimensions}'",
                remedy=f"use {', '.join(names)}, or 'all'",
                field="--dimensions",
            )
        names = list(dict.fromkeys(wanted))
    hints = {name: [question.text for question in checklist.questions_of(name)] for name in names}
    return names, hints


def _require(catalog: Any, name: str, source: str) -> None:
    if catalog.exists(name):
        return
    pipeline = _NEEDED[source][3]
    command = f"kedro run --pipeline={pipeline}" if pipeline else _TO_LIST_PREFERENCES
    remedy = f"first run '{command}' in this environment"
    if source == CLIPS:
        remedy = "make an environment with 'kedro init-data --prompts FILE --videos FOLDER', and use it with --env"
    raise InputError(
        f"there are no clips to compare yet ({name} is missing)",
        remedy=remedy,
        field="--source" if source != "policies" else "--policies",
    )
