"""The rewards there are, by the name that a configuration gives as ``type``."""

from __future__ import annotations

import json
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vr_pipeline.errors import InputError

if TYPE_CHECKING:
    from vr_pipeline.config import Parameters
    from vr_pipeline.rewards.contract import Ranker, RewardModel

REWARDS = {
    "checklist": "vr_pipeline.rewards.checklist.model:ChecklistReward",
    "ensemble": "vr_pipeline.rewards.ensemble:EnsembleReward",
    "oracle": "vr_pipeline.micro_world.reward:OracleReward",
    "scores": "vr_pipeline.rewards.scores:ScoresReward",
    "videoreward": "vr_pipeline.rewards.videoreward.model:VideoReward",
}
"""``package.module:class`` of every :class:`~vr_pipeline.rewards.contract.RewardModel`."""

_FILES = ("reward.json", "artifacts/reward.json")


def load_reward_model(config: Mapping[str, Any] | str | Path, *, folder: Path | None = None) -> RewardModel:
    """Load a reward: clips in, ``total`` and ``dim_<name>`` out.

    Args:
        config: a mapping with ``type`` (a key of :data:`REWARDS`) and the settings of that reward; or a YAML or JSON
            file that holds one; or a folder with such a ``reward.json``, as packaged reward models are.
        folder: where relative paths of a mapping start from; those of a file start from its folder.

    Returns:
        a model with ``.score(clips, prompts, fps=None)``, a table of ``total`` and ``dim_<name>``.

    Raises:
        InputError: there is no such file, or it does not describe a reward.
    """
    source: Path | None = None
    if not isinstance(config, Mapping):
        source = _file_of(Path(config).expanduser())
        config, folder = _read(source), source.parent
    made, settings = checked_settings(config, source)
    return made.from_settings(settings, folder or Path())


def checked_settings(config: Mapping[str, Any], source: Path | None = None) -> tuple[type[RewardModel], Parameters]:
    """Check the configuration of a reward without reading its files.

    Args:
        config: see :func:`load_reward_model`.
        source: the file that holds it, for messages.

    Returns:
        the class of the reward, and its settings.

    Raises:
        InputError: there is no reward of this type, or a setting is wrong.
    """
    from pydantic import ValidationError

    from vr_pipeline.runtime.setting_names import setting_trouble

    settings = dict(config)
    kind = settings.pop("type", None)
    if kind not in REWARDS:
        raise InputError(
            f"there is no reward of type '{kind}'",
            remedy=f"Give one of {', '.join(sorted(REWARDS))}",
            file=source,
            field="type",
        )
    made: type[RewardModel] = pkgutil.resolve_name(REWARDS[kind])
    try:
        return made, made.Settings.model_validate(settings)
    except ValidationError as error:
        field, problem = setting_trouble(error, made.Settings)
        raise InputError(
            f"the reward of type '{kind}' cannot be made: {problem}",
            remedy="Correct the setting",
            file=source,
            field=field or None,
        ) from error


def load_ranker(config: Mapping[str, Any] | str | Path) -> Ranker:
    """Load a ranker: two clips of a prompt in, ``p_a``, ``p_b``, ``p_tie`` and ``position_bias`` out.

    Args:
        config: what :func:`load_reward_model` takes: a reward ranks by its totals, or as it says.
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
    raise InputError(
        "there is no reward here", remedy="Give a folder with a reward.json, or a file that describes one", file=place
    )


def _read(source: Path) -> Mapping[str, Any]:
    import yaml

    text = source.read_text(encoding="utf-8")
    try:
        content = json.loads(text) if source.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        problem = " ".join(str(error).split())
        raise InputError(f"the file cannot be read ({problem})", remedy="Correct it", file=source) from error
    if not isinstance(content, Mapping):
        raise InputError("the file describes no reward", remedy="Give a mapping with 'type'", file=source)
    return content
