"""Start of a training: a vision-language model with a new head, or a reward; identity of the training."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vr_pipeline.engine.config import CheckpointParameters
from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash
from vr_pipeline.rewards.videoreward.network import VideoRewardNetwork, load_network, new_network
from vr_pipeline.rewards.videoreward.settings import NetworkSettings, VideoRewardSettings, read_artifact
from vr_pipeline.rewards.videoreward.training.config import PreferenceRewardTrainingParameters
from vr_pipeline.rewards.videoreward.training.labels import LabelledPairs, trainable
from vr_pipeline.storage.atomic import names_and_hashes
from vr_pipeline.vlm.loading import judge_identity, load_family


def network_settings(parameters: PreferenceRewardTrainingParameters) -> NetworkSettings:
    """Return the given settings of the network, else those of the reward at the start."""
    if parameters.network is not None:
        return parameters.network
    return read_artifact(_reward_folder(parameters)).network


def start_network(parameters: PreferenceRewardTrainingParameters) -> VideoRewardNetwork:
    """Load the model with a new head and special tokens, or the reward."""
    if parameters.start is not None:
        assert parameters.network is not None
        return new_network(load_family(parameters.start), parameters.network, parameters.seed)
    names = ("device", "dtype", "threads", "num_frames", "frames_per_second", "min_pixels", "max_pixels")
    given = _start_reward(parameters)
    return load_network(_reward_folder(parameters), **{name: getattr(given, name) for name in names})


def _start_reward(parameters: PreferenceRewardTrainingParameters) -> VideoRewardSettings:
    assert parameters.start_reward is not None
    return parameters.start_reward


def _reward_folder(parameters: PreferenceRewardTrainingParameters) -> Path:
    path = _start_reward(parameters).path
    if path is None:
        raise InputError("the reward at the start has no folder", remedy="Set its path", field="start_reward.path")
    return Path(path).expanduser()


def start_hash(parameters: PreferenceRewardTrainingParameters) -> str:
    """Return the content hash of the model at the start."""
    if parameters.start is not None:
        return judge_identity(parameters.start)
    folder = _reward_folder(parameters)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix in (".json", ".safetensors"))
    return content_hash("videoreward folder", *names_and_hashes(files, folder))


_NO_PART_OF_IDENTITY: Any = {
    **dict.fromkeys(CheckpointParameters.model_fields, True),
    **dict.fromkeys(("memory_mb", "reader_threads"), True),
    # The content of the model's folder counts, not its name.
    **{name: {"path", "device"} for name in ("start", "start_reward")},
}


def training_identity(pairs: LabelledPairs, index: pd.DataFrame, parameters: PreferenceRewardTrainingParameters) -> str:
    """Hash what determines a training: settings, weights at the start, pairs, labels and clips of both sides."""
    rows = np.concatenate([trainable(pairs, parameters), pairs.rows("validation")])
    contents = dict(zip(index["video_id"].astype(str), index["sha256"].astype(str), strict=True))
    return content_hash(
        "preference reward training",
        parameters.model_dump_json(exclude=_NO_PART_OF_IDENTITY),
        start_hash(parameters),
        *pairs.contents(rows),
        *(f"{name} {contents[name]}" for name in pairs.clips(rows)),
    )
