"""All rewards, by their ``type`` in a configuration."""

import json
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from vr_pipeline.config import Parameters, TrainedHere
from vr_pipeline.errors import InputError
from vr_pipeline.rewards.contract import Ranker, RewardModel
from vr_pipeline.runtime.setting_names import validated

REWARDS = {
    "auditor": "vr_pipeline.micro_world.auditor:AuditorReward",
    "checklist": "vr_pipeline.rewards.checklist.model:ChecklistReward",
    "diversity": "vr_pipeline.rewards.diversity:DiversityReward",
    "ensemble": "vr_pipeline.rewards.ensemble:EnsembleReward",
    "oracle": "vr_pipeline.micro_world.reward:OracleReward",
    "scores": "vr_pipeline.rewards.scores:ScoresReward",
    "signals": "vr_pipeline.rewards.signals:SignalsReward",
    "unifiedreward": "vr_pipeline.rewards.unifiedreward.model:UnifiedReward",
    "videoreward": "vr_pipeline.rewards.videoreward.model:VideoReward",
}
"""``package.module:class`` of every :class:`~vr_pipeline.rewards.contract.RewardModel`."""


class RewardChoice(TrainedHere):
    """The reward of a block: the one in 'path', or the one trained in this project."""

    of_the_given: ClassVar[frozenset[str]] = frozenset({"revision", "family", "template"})


_FILES = ("reward.json", "artifacts/reward.json")


def load_reward_model(config: Mapping[str, Any] | str | Path, *, folder: Path | None = None) -> RewardModel:
    """Load a reward: clips in, ``total`` and ``dim_<name>`` out.

    Args:
        config: a mapping with ``type`` (a key of :data:`REWARDS`) and the settings of that reward; a YAML or JSON file
            with such a mapping; or a folder with a ``reward.json``. ``micro_world/videoreward`` and
            ``micro_world/unifiedreward`` are shipped.
        folder: start of a mapping's relative paths; those of a file start from its folder.

    Returns:
        a model with ``.score(clips, prompts, fps=None)``, a table of ``total`` and ``dim_<name>``.

    Raises:
        InputError: the file is missing, or does not describe a reward.
    """
    source: Path | None = None
    if not isinstance(config, Mapping):
        from vr_pipeline.project.template import model_folder

        source = _file_of(model_folder(config))
        config, folder = _read(source), source.parent
    made, settings = checked_settings(config, source)
    return made.from_settings(settings, folder or Path())


def checked_settings(config: Mapping[str, Any], source: Path | None = None) -> tuple[type[RewardModel], Parameters]:
    """Check the configuration of a reward without reading its files.

    Args:
        config: see :func:`load_reward_model`.
        source: its file, for messages.

    Returns:
        class and settings of the reward.

    Raises:
        InputError: the type is unknown, or a setting is wrong.
    """
    settings = RewardChoice.taken(config)
    kind = settings.pop("type", None)
    if kind not in REWARDS:
        raise InputError(
            f"unknown type of reward '{kind}'",
            remedy=f"Use one of {', '.join(sorted(REWARDS))}",
            file=source,
            field="type",
        )
    made: type[RewardModel] = pkgutil.resolve_name(REWARDS[kind])
    what = f"the reward of type '{kind}' cannot be loaded: "
    return made, validated(made.Settings, settings, remedy="Correct the setting", file=source, what=what)


def load_ranker(config: Mapping[str, Any] | str | Path) -> Ranker:
    """Load the ranker of a reward, configured as for :func:`load_reward_model`.

    It compares two clips of a prompt: ``p_a``, ``p_b``, ``p_tie``, ``position_bias`` and ``better``.
    """
    return ranker_of(load_reward_model(config))


def ranker_of(model: RewardModel) -> Ranker:
    """Return the ranker of a loaded reward."""
    ranker: Ranker = pkgutil.resolve_name(model.ranks_by)(model)
    return ranker


def _file_of(place: Path) -> Path:
    if place.is_file():
        return place
    for name in _FILES:
        if (place / name).is_file():
            return place / name
    raise InputError("no reward found", remedy="Give a folder with a reward.json, or a YAML or JSON file", file=place)


def _read(source: Path) -> Mapping[str, Any]:
    import yaml

    text = source.read_text(encoding="utf-8")
    try:
        content = json.loads(text) if source.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        problem = " ".join(str(error).split())
        raise InputError(f"the file cannot be read ({problem})", remedy="Correct it", file=source) from error
    if not isinstance(content, Mapping):
        raise InputError("the file does not describe a reward", remedy="Give a mapping with 'type'", file=source)
    return content
