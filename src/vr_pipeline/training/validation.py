"""Rewards of checkpoints: clips for held-out prompts, the same seeds at every checkpoint, judged and weighed.

The mean reward on the validation split decides which checkpoint of a training is the policy (Xu et al. 2024,
VisionReward, section 4.2: a checkpoint every 40 steps, the one of highest reward on a validation set is kept).
All checkpoints get the same prompts and seeds, so their differences are less noisy than their rewards.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from vr_pipeline.engine.groups import is_main_process
from vr_pipeline.engine.state import WEIGHTS
from vr_pipeline.errors import InputError, storage_explained
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.plans import sample_items, video_items
from vr_pipeline.generators.policy import ORIGINAL, Adapter
from vr_pipeline.identifiers import content_hash
from vr_pipeline.runtime.live_curves import checkpoint_row
from vr_pipeline.runtime.memory import free_memory
from vr_pipeline.storage.atomic import write_text
from vr_pipeline.training.config import DpoTrainingParameters, ValidationParameters
from vr_pipeline.work import WorkPlan

if TYPE_CHECKING:
    from vr_pipeline.generators.contract import Generator
    from vr_pipeline.generators.policy import Policy
    from vr_pipeline.items.folder import ItemFolder
    from vr_pipeline.rewards.contract import RewardModel

logger = logging.getLogger(__name__)

COLUMNS = ["step", "policy", "reward", "se", "clips", "failed", "chosen", "gap_low", "gap_high"]

Observe = Callable[[Mapping[str, float]], None]
"""Takes what a checkpoint got: its step, and numbers whose names begin with ``validation_``."""

Rewards = Sequence[tuple[str, float]]
"""Prompt and reward of each clip of a checkpoint."""

FillFolder = Callable[[Path, dict[str, Any], WorkPlan], "ItemFolder"]
"""Makes what is missing of a plan in a folder, in a format, and opens it."""

SavePolicy = Callable[[Path, "Policy"], None]
"""Writes a policy to a folder, which is there only when it is whole."""


class CheckpointValidation:
    """Judges the weights that a generator holds at a step; made anew for every training.

    Clips and answers are kept under the identity of the weights that made them, and the result of every step under
    the identity of the training: one that resumes after a kill makes and judges nothing again. The weights
    are kept beside these results, in a folder named by their identity (``parameters.validation.keep_weights``).

    Args:
        pairs: the pairs of the training; part of its identity.
        prompts: table with prompt_id, prompt and split.
        reward: what measures the clips.
        parameters: the training; ``parameters.validation`` must be set.
        fill: where and how clips and answers are stored.
        save: writes the weights of checkpoints; None keeps none.
        observe: called with the rewards of every checkpoint as soon as it is judged, those of the original first.

    Raises:
        InputError: no prompt is left in the splits.
    """

    metric = "validation_reward"
    chooses = True

    def __init__(
        self,
        pairs: pd.DataFrame,
        prompts: pd.DataFrame,
        reward: RewardModel,
        parameters: DpoTrainingParameters,
        *,
        fill: FillFolder,
        save: SavePolicy | None = None,
        observe: Observe | None = None,
    ) -> None:
        if parameters.validation is None:
            raise ValueError("there is nothing to validate by: parameters.validation is null")
        self._settings: ValidationParameters = parameters.validation
        self._prompts = validation_prompts(prompts, self._settings)
        self._pairs, self._reward, self._parameters = pairs, reward, parameters
        self._fill, self._save, self._observe = fill, save, observe
        self._folder = Path(self._settings.folder)
        self._generator: Generator | None = None
        self._training = ""

    def __call__(self, generator: Generator) -> Callable[[int], float | None]:
        """Judge the original weights, which the generator still has, and return what judges it after a step.

        Of several processes that train together, the first one judges.
        """
        self._generator = generator
        self._training = self._identity(generator)
        if is_main_process():
            if self._kept.is_dir():
                # The time of its last use, by which keep_newest goes.
                os.utime(self._kept)
            self._measure(0, None)
        return self.reward

    def reward(self, step: int) -> float | None:
        """Mean reward of the weights that the generator holds now; None in all processes but the first."""
        assert self._generator is not None, "call the object with a generator first"
        # Where weights are spread over processes, all have to ask for them together.
        policy = self._generator.policy()
        if not is_main_process():
            return None
        self._keep(step, policy)
        return float(self._measure(step, policy)["reward"])

    def baseline(self) -> float | None:
        """Mean reward of the original; None where its result was deleted meanwhile, or in another process."""
        path = self._record(0)
        return float(json.loads(path.read_text(encoding="utf-8"))["reward"]) if path.is_file() else None

    def table(self, log: pd.DataFrame) -> pd.DataFrame:
        """All validated checkpoints of a training, those before a kill included; step 0 is the original.

        Args:
            log: the training log, whose column validation_reward says which steps were validated.

        Returns:
            one row a checkpoint: step, policy (identity of the weights), reward (mean over clips), se (its standard
            error, prompts as clusters), clips, failed, chosen (it became the policy), gap_low and gap_high (interval
            of how far it is above the chosen one on the same prompts, see
            :func:`vr_pipeline.statistics.clustered.paired_gain`; those of all checkpoints hold together with 95 %) and
            dim_<name>.
        """
        from vr_pipeline.statistics.clustered import simultaneous

        judged: dict[int, float] = {}
        if "validation_reward" in log:
            rows = log.dropna(subset="validation_reward")
            judged = dict(zip(rows["step"].astype(int), rows["validation_reward"].astype(float), strict=True))
        places = {step: self._record(step) for step in (0, *judged)}
        there = [step for step, path in places.items() if path.is_file()]
        if len(there) < len(places):
            # A training of days must not end in an error for that.
            logger.warning("Results of %d judged checkpoints were deleted meanwhile", len(places) - len(there))
        if not there:
            return no_validation()
        records = {step: json.loads(places[step].read_text(encoding="utf-8")) for step in there}
        # The first of equals, as the training chose.
        best = max(judged, key=lambda step: judged[step], default=None)
        if "kept_step" in log and log["kept_step"].notna().any():
            # It went wrong and was ended, with weights from before: perhaps the original.
            best = int(log["kept_step"].dropna().iloc[-1])
        clips = {step: record.pop("rewards") for step, record in records.items()}
        unknown = (math.nan, math.nan)
        level = simultaneous(len(records) - 1)
        gaps = [_gap(clips[s], clips[best], level) if best in clips and s != best else unknown for s in records]
        table = (
            pd.DataFrame(list(records.values()))
            .assign(chosen=[step == best for step in records])
            .assign(gap_low=[low for low, _ in gaps], gap_high=[high for _, high in gaps])
        )
        return table[[*COLUMNS, *(name for name in table.columns if name not in COLUMNS)]]

    def close(self) -> None:
        """Free the reward's models, if they were kept."""
        self._reward.close()

    # -- one checkpoint ---------------------------------------------------------------------------------------------

    def _keep(self, step: int, policy: Policy) -> None:
        wanted = self._settings.keep_weights
        place = self._kept / policy.identity
        if self._save is None or place.is_dir() or not (isinstance(policy, Adapter) if wanted is None else wanted):
            return
        facts = {"settings": self._parameters.training.model_dump(mode="json"), "training": {"step": step}}
        with storage_explained(place, "the state of the training is kept"):
            self._save(place, replace(policy, provenance=facts))

    def _measure(self, step: int, weights: Policy | None) -> dict[str, Any]:
        from vr_pipeline.items.video_index import index_made_clips
        from vr_pipeline.statistics.clustered import clustered_mean

        policy = ORIGINAL if weights is None else weights.identity
        place = self._folder / "clips" / content_hash("checkpoint", self._generator_identity, policy)
        with _outside_training():
            videos = self._clips(place / "videos", policy, weights)
            index = index_made_clips(videos)
            stored = self._measurements(place / self._reward.kind, videos, index)
        try:
            measured = self._reward.collect(stored, index)
        except InputError as error:
            raise InputError(
                f"the clips of the checkpoint after step {step} have no reward: {error.problem}",
                remedy=f"{error.remedy}, or set dpo_training.validation to null",
                file=place,
                field=error.field,
            ) from error
        rewards = self._reward.rewards(measured, index)
        mean = clustered_mean(rewards["total"], rewards["prompt_id"])
        row = {
            "step": step,
            "policy": policy,
            "reward": mean.mean,
            "se": mean.se,
            "clips": len(rewards),
            "failed": len(index) - len(rewards),
            "rewards": rewards[["prompt_id", "total"]].to_numpy().tolist(),
            **{str(name): float(rewards[name].mean()) for name in rewards if str(name).startswith("dim_")},
        }
        _write_json(self._record(step), row)
        if self._observe is not None:
            self._observe(checkpoint_row(row))
        logger.info("validation reward after step %d: %.4f (standard error %.4f)", step, mean.mean, mean.se)
        return row

    def _clips(self, folder: Path, policy: str, weights: Policy | None) -> ItemFolder:
        generator = self._generator
        assert generator is not None
        items = video_items(
            self._prompts,
            producer=content_hash("validation", self._generator_identity, policy),
            parameters=generator.parameters,
            videos_per_prompt=self._settings.videos_per_prompt,
            seed=self._settings.seed,
            metadata={"policy": policy},
        )
        with contextlib.ExitStack() as stack:

            def setup() -> Generator:
                # Only if a clip is missing: the encoders of a large model take a minute to load.
                if weights is not None and self._parameters.training.sharding != "none":
                    # The weights in training are spread over processes, of which the others do not sample along.
                    whole = load_generator(generator.parameters)
                    whole.load_policy(weights)
                    return whole
                stack.enter_context(generator.encoders())
                return generator

            plan = WorkPlan(
                items=items,
                make_batch=sample_items,
                batch_size=generator.parameters.batch_size,
                description="validation videos",
                setup=setup,
            )
            try:
                return self._fill(folder, {"type": "video", "fps": generator.parameters.fps}, plan)
            finally:
                free_memory()

    def _measurements(self, folder: Path, videos: ItemFolder, index: pd.DataFrame) -> ItemFolder:
        try:
            return self._fill(folder, {"type": "parquet"}, self._reward.measure(videos, index))
        finally:
            if not self._settings.keep_judge:
                self.close()

    # -- identities -------------------------------------------------------------------------------------------------

    @property
    def _generator_identity(self) -> str:
        assert self._generator is not None
        return self._generator.identity

    @property
    def identity(self) -> str:
        """Hash of all that decides what a checkpoint gets, and which steps are checkpoints."""
        return content_hash(
            "validation",
            self._parameters.training.checkpoint_every,
            self._settings.model_dump_json(include={"splits", "num_prompts", "videos_per_prompt", "seed"}),
            *self._reward.depends_on,
            *sorted(self._prompts["prompt_id"]),
        )

    def _identity(self, generator: Generator) -> str:
        columns = ["prompt_id", "winner_video_id", "loser_video_id"]
        return content_hash(
            "validated training",
            generator.identity,
            self._parameters.training.model_dump_json(),
            self.identity,
            *sorted(" ".join(row) for row in self._pairs[columns].astype(str).itertuples(index=False)),
        )

    @property
    def _kept(self) -> Path:
        return self._folder / "trainings" / f"{self._training}{WEIGHTS}"

    def _record(self, step: int) -> Path:
        return self._folder / "trainings" / self._training / f"step-{step:06d}.json"


def _gap(clips: Rewards, others: Rewards, level: float) -> tuple[float, float]:
    """Interval of the first rewards' lead over the others on the prompts they share; NaN with too few."""
    from vr_pipeline.statistics.clustered import paired_gain

    shared = {prompt for prompt, _ in clips} & {prompt for prompt, _ in others}
    sides: list[list[Any]] = []
    for rewards in (clips, others):
        kept = [(prompt, value) for prompt, value in rewards if prompt in shared]
        sides += [[value for _, value in kept], [prompt for prompt, _ in kept]]
    gain = paired_gain(*sides, level=level)
    return gain.ci_low, gain.ci_high


def validation_prompts(prompts: pd.DataFrame, settings: ValidationParameters) -> pd.DataFrame:
    """Choose the prompts that checkpoints are judged on: of the splits, the first by identifier up to the limit.

    Raises:
        InputError: there are none.
    """
    chosen = prompts[prompts["split"].isin(settings.splits)].sort_values("prompt_id", ignore_index=True, kind="stable")
    if chosen.empty:
        raise InputError(
            f"no prompt is left in the splits {', '.join(settings.splits)}, so checkpoints cannot be validated",
            field="dpo_training.validation.splits",
            remedy="choose other splits, raise prompt_filtering.split.validation_fraction, supply more prompts, or set "
            "dpo_training.validation to null",
        )
    return chosen if settings.num_prompts is None else chosen.head(settings.num_prompts)


def no_validation() -> pd.DataFrame:
    """Return the table of a training whose checkpoints are not validated."""
    return pd.DataFrame(columns=COLUMNS).astype(
        {"step": int, "reward": float, "clips": int, "chosen": bool, "gap_low": float, "gap_high": float}
    )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with storage_explained(path, "what was judged before is kept"):
        write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


@contextlib.contextmanager
def _outside_training() -> Iterator[None]:
    """Sample and judge as elsewhere, and leave torch's threads and kernels as training has set them.

    A training that went on with another number of threads would round differently; and not every model has
    deterministic kernels on GPUs.
    """
    import torch

    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.set_num_threads(threads)
