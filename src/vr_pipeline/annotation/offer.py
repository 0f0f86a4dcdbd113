"""What a study offers: pairs, criteria and files, from the tables of a catalog."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vr_pipeline.annotation import queue
from vr_pipeline.annotation.queue import Order, Pair
from vr_pipeline.annotation.secret import study_secret
from vr_pipeline.annotation.session import AnnotationSession
from vr_pipeline.annotation.store import Journal
from vr_pipeline.errors import InputError
from vr_pipeline.preferences.journal import OVERALL, Study

if TYPE_CHECKING:
    import pandas as pd

_PLAIN_CRITERION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")
CLIPS = "clips"
"""The source, and the usual study, of given clips that nobody has compared yet."""
_NEEDED = {
    "generated": ("video_index", "videos", "rewards", "video_generation", "mpo_dpo"),
    "preferences": ("preference_video_index", "preference_videos", None, "", ""),
    CLIPS: ("preference_clips", "preference_videos", None, "", ""),
    "policies": ("evaluation_video_index", "evaluation_videos", "evaluation_rewards", "evaluation", "evaluation"),
}
_TO_LIST_PREFERENCES = "kedro run --to-outputs=preference_video_index"


@dataclass(frozen=True)
class Offer:
    """What is shown: pairs in order, criteria with their hints, files by name."""

    pairs: list[Pair]
    criteria: list[str]
    hints: Mapping[str, list[str]]
    files: Mapping[str, Path]

    def session(
        self, study: Study, journal: Journal, *, order: Order, seed: int, annotator: str | None
    ) -> AnnotationSession:
        """Return the study, ready to be answered."""
        if annotator is not None:
            annotator = " ".join(annotator.split())
        secret = study_secret(journal.path)
        return AnnotationSession(
            study, self.pairs, self.criteria, self.hints, journal, self.files, order, seed, secret, annotator
        )


def make_study(name: str | None, source: str, policies: str | None) -> Study:
    """Return what the command's options ask for.

    Args:
        name: of the study; None takes the source, or the policies.
        source: generated, preferences or clips.
        policies: two names with a comma between them; they take the place of the source.

    Raises:
        InputError: not two policies, or a name that is no plain file name.
    """
    pair: tuple[str, ...] = ()
    if policies is not None:
        pair = tuple(part.strip() for part in policies.split(","))
        if len(pair) != 2 or not all(pair):
            raise InputError("two policies are compared", remedy="write --policies original,mpo", field="--policies")
        source = "policies"
    chosen = name or ("_vs_".join(pair) if pair else source)
    if not _PLAIN_NAME.fullmatch(chosen):
        raise InputError(
            f"'{chosen}' is no name of a study",
            remedy="use letters, digits, dots, hyphens and underscores",
            field="--study",
        )
    return Study(study=chosen, source=source, policies=pair)


def journal_path(project: Path, env: str, study: str) -> Path:
    """Return where the journal of a study lies."""
    return project / "data" / "01_raw" / "annotations" / env / f"{study}.jsonl"


def make_offer(
    catalog: Any,
    study: Study,
    *,
    dimensions: str | None,
    criteria: str | None = None,
    order: Order,
    seed: int,
    pairs: int,
    per_prompt: int,
) -> Offer:
    """Return pairs, criteria and files of a study.

    Args:
        catalog: loads datasets by name and says whether they exist.
        dimensions: names of the checklist's with commas, 'all', or None for none of them.
        criteria: names of further criteria with commas; None for none.
        order, seed, pairs, per_prompt: see :mod:`vr_pipeline.annotation.queue`.

    Raises:
        InputError: a table is missing, a dimension is unknown, or a criterion has no plain name.
    """
    index_name, _, rewards_name, _, rewards_pipeline = _NEEDED[study.source]
    _require(catalog, index_name, study.source)
    index = catalog.load(index_name)
    if study.source == "policies":
        candidates = queue.policy_pairs(index, (study.policies[0], study.policies[1]))
    elif study.source == "preferences":
        candidates = queue.named_pairs(index, catalog.load("human_preferences"))
    elif study.source == CLIPS:
        candidates = queue.pairs_of_prompts(
            _as_index(index, catalog.load("preference_videos")), per_prompt=per_prompt, seed=seed
        )
    else:
        candidates = queue.pairs_of_prompts(index, per_prompt=per_prompt, seed=seed)
    if order == "informative":
        rewards = _predicted(catalog, rewards_name, rewards_pipeline)
        candidates = queue.with_margins(candidates, rewards)
    names, hints = _dimensions(catalog, dimensions)
    asked = [name for name in dict.fromkeys([*names, *_further(criteria)]) if name != OVERALL]
    shown = queue.ordered(candidates, order, seed=seed, limit=pairs)
    return Offer(shown, [*asked, OVERALL], hints, clip_files(catalog, study))


def _as_index(clips: pd.DataFrame, folder: Mapping[str, Path]) -> pd.DataFrame:
    """Given clips with the columns that pairs are made from, before a run has looked at them."""
    from vr_pipeline.identifiers import prompt_id

    return clips.rename(columns={"file": "path"}).assign(
        prompt_id=[prompt_id(prompt) for prompt in clips["prompt"]],
        status=["ok" if file in folder else "failed" for file in clips["file"]],
    )


def clip_files(catalog: Any, study: Study) -> Mapping[str, Path]:
    """Path of every clip of a study's source by its name in the index."""
    _, folder_name, _, _, _ = _NEEDED[study.source]
    _require(catalog, folder_name, study.source)
    folder = catalog.load(folder_name)
    if isinstance(folder, Mapping):
        return folder
    records = folder.records
    return {str(name): folder.folder / str(name) for name in records.loc[records["status"] == "ok", "filename"]}


def _predicted(catalog: Any, name: str | None, pipeline: str) -> Any:
    """Rewards of the clips; those of clips that people compared are made from answers and weights."""
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
                f"'{name}' is no name of a criterion",
                remedy="write names of letters, digits, hyphens and underscores, with commas between them",
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
                remedy=f"choose among {', '.join(names)}, or write 'all'",
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
    remedy = f"run '{command}' in this environment first"
    if source == CLIPS:
        remedy = "make an environment of your clips by 'kedro init-data --prompts FILE --videos FOLDER', and name it"
    raise InputError(
        f"there are no clips to compare yet ({name} is missing)",
        remedy=remedy,
        field="--source" if source != "policies" else "--policies",
    )
