"""Rewards of checkpoints on clips for validation prompts, with the same seeds at every checkpoint.

The checkpoint with the highest mean reward becomes the policy (Xu et al. 2024, VisionReward, section 4.2: a checkpoint
every 40 steps, selected by the reward on a validation set). All checkpoints use the same prompts and seeds, so their
differences are less noisy than their rewards.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from vr_pipeline.engine.determinism import outside_training
from vr_pipeline.engine.groups import current_group, training_group
from vr_pipeline.engine.state import WEIGHTS
from vr_pipeline.errors import InputError, storage_explained
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.plans import sample_items, video_items
from vr_pipeline.generators.policy import ORIGINAL, Adapter
from vr_pipeline.identifiers import content_hash
from vr_pipeline.runtime.live_curves import checkpoint_row
from vr_pipeline.runtime.memory import free_memory
from vr_pipeline.storage.atomic import write_text
from vr_pipeline.storage.turns import one_at_a_time
from vr_pipeline.training.bound import BELOW, Bound
from vr_pipeline.training.config import DpoTrainingParameters, ValidationParameters
from vr_pipeline.training.inputs import HOLD_OUT
from vr_pipeline.training.judged import kept_step, no_validation, validation_prompts, validation_table
from vr_pipeline.training.preference_trainer import Validation
from vr_pipeline.training.reward_hacking import ALARM, Alarm, clip_moments, prompt_means
from vr_pipeline.work import WorkPlan

if TYPE_CHECKING:
    from vr_pipeline.generators.contract import Generator
    from vr_pipeline.generators.policy import Policy
    from vr_pipeline.items.folder import ItemFolder
    from vr_pipeline.rewards.contract import RewardModel

logger = logging.getLogger(__name__)

Observe = Callable[[Mapping[str, float]], None]
"""Receives a checkpoint's step, and figures whose names begin with ``validation_``."""

FillFolder = Callable[[Path, dict[str, Any], WorkPlan], "ItemFolder"]
"""Makes the missing items of a plan in a folder, in a format, and opens it."""


class PolicyFiles(NamedTuple):
    """How policies are stored.

    Attributes:
        save: writes a policy to a folder, which exists only when it is complete.
        load: reads it.
    """

    save: Callable[[Path, Policy], None]
    load: Callable[[Path], Policy]


class CheckpointValidation:
    """Judges the current weights of a generator at a step; create one per training.

    Clips and answers are stored under the identity of the weights, and the result of every step under the identity of
    the training, so a training that resumes after a kill repeats nothing. The weights are stored beside these results,
    in a folder named by their identity (``parameters.validation.keep_weights``).

    Args:
        pairs: the pairs of the training; part of its identity.
        prompts: table with prompt_id, prompt and split.
        reward: scores the clips.
        parameters: the training; ``parameters.validation`` must be set.
        fill: stores clips and answers.
        files: stores and reads the weights of checkpoints; None stores none.
        hold_outs: rewards by name that also score the clips, but select nothing.
        observe: called with the rewards of every checkpoint after it is judged, those of the original first.

    Raises:
        InputError: no prompt is left in the splits.
    """

    def __init__(
        self,
        pairs: pd.DataFrame,
        prompts: pd.DataFrame,
        reward: RewardModel,
        parameters: DpoTrainingParameters,
        *,
        fill: FillFolder,
        files: PolicyFiles | None = None,
        observe: Observe | None = None,
        hold_outs: Mapping[str, RewardModel] | None = None,
    ) -> None:
        if parameters.validation is None:
            raise ValueError("there is nothing to validate by: parameters.validation is null")
        self._settings: ValidationParameters = parameters.validation
        self._prompts = validation_prompts(prompts, self._settings)
        self._pairs, self._reward, self._parameters = pairs, reward, parameters
        self._hold_outs = dict(hold_outs or {})
        self._fill, self._files, self._observe = fill, files, observe
        self._folder = Path(self._settings.folder)
        self._generator: Generator | None = None
        self._training = ""
        self._judged: dict[int, dict[str, Any]] = {}
        self._figures: dict[str, float] = {}
        training = parameters.training
        checkpoints = math.ceil(training.steps / training.checkpoint_every) if training.checkpoint_every else 1
        self._bound = Bound(self._settings.bound)
        self._alarm = Alarm(self._settings.alarm, self._hold_outs, len(self._prompts), checkpoints)

    def __call__(self, generator: Generator) -> Callable[[int], float | None]:
        """Judge the initial weights, and return the function that judges the generator after a step.

        Processes that train together each sample and judge a share of the clips; the main one stores the results.
        """
        self._generator = generator
        self._training = self._identity(generator)
        self._judged.clear()
        self._alarm.report_absence()
        self._bound.report_absence(len(self._prompts))
        with training_group(next(generator.denoiser.parameters()).device) as group:
            if group.main and self._kept.is_dir():
                # Time of last use, for keep_newest.
                os.utime(self._kept)
            self._measure(0, generator.start.adapter if generator.start else None)
        return self.reward

    def judging(self, generator: Generator) -> Validation:
        """Judge the original weights as :meth:`__call__`, and return the judging of the training."""
        return Validation(
            self(generator),
            self.identity,
            baseline=self.baseline,
            together=True,
            figures=self.figures,
            ends_on=ALARM if self._alarm.stops else "",
        )

    def reward(self, step: int) -> float | None:
        """Return the mean reward of the generator's current weights; None in all processes but the main one."""
        assert self._generator is not None, "call the object with a generator first"
        # All processes have to call this together if weights are sharded.
        policy = self._generator.policy()
        if current_group().main:
            self._keep(step, policy)
        return self._measure(step, policy)

    def figures(self) -> dict[str, float]:
        """Return figures of the last checkpoint for the log.

        ``alarm_since`` is the step since which an alarm holds, ``dimensions_below`` the number of dimensions
        below the original.
        """
        return self._figures

    def earlier_policy(self, log: pd.DataFrame) -> tuple[int, Policy | None] | None:
        """Return the step and the weights that alarm and bound choose instead of those that the training kept.

        Returns:
            None if both choose the same as the training; weights of None for the original.

        Raises:
            InputError: the weights of this checkpoint were deleted.
        """
        kept, chosen = kept_step(log), self._chosen(log)
        if chosen is None or chosen == kept:
            return None
        if not chosen:
            return 0, None
        policy = (self._read(chosen) or {"policy": ""})["policy"]
        place = self._kept / policy
        if self._files is None or not policy or not place.is_dir():
            raise InputError(
                f"the weights after step {chosen}, which alarm and bound of the validation choose, are not there",
                remedy="Train again with --retrain, or set dpo_training.validation.alarm.action to report and bound "
                "to none",
                file=place,
            )
        return chosen, self._files.load(place)

    def baseline(self) -> float | None:
        """Return the mean reward of the original; None if its result was deleted, or in another process."""
        record = self._read(0)
        return None if record is None else float(record["reward"])

    def table(self, log: pd.DataFrame) -> pd.DataFrame:
        """Return all validated checkpoints of a training, including those before a kill; step 0 is the original.

        Args:
            log: the training log, in which validated steps have a validation_reward.

        Returns:
            one row per checkpoint: step, policy (identity of the weights), reward (mean over clips), se (its standard
            error, prompts as clusters), clips, failed, chosen (it became the policy), gap_low and gap_high
            (simultaneous 95 % interval of its lead over the chosen one on the same prompts, see
            :func:`vr_pipeline.statistics.clustered.paired_gain`) and dim_<name>.
        """
        records = self._records(log)
        if not records:
            return no_validation()
        chosen = self._chosen(log)
        return validation_table(records, chosen, with_alarms=self._alarm.possible, bounded=self._bound.acts)

    def _chosen(self, log: pd.DataFrame) -> int | None:
        return kept_step(log, alarms=self._alarm.acts, bound=self._bound.acts)

    def _records(self, log: pd.DataFrame) -> dict[int, dict[str, Any]]:
        """Return the records of the original and of the checkpoints in a log, by step; deleted ones are missing."""
        judged = log.dropna(subset="validation_reward")["step"].tolist() if "validation_reward" in log else []
        records = {step: self._read(step) for step in (0, *map(int, judged))}
        there = {step: record for step, record in records.items() if record is not None}
        if len(there) < len(records):
            # A long training must not fail because of this.
            deleted = len(records) - len(there)
            logger.warning("Results of %d judged checkpoints were deleted; the table lacks them", deleted)
        return there

    def close(self) -> None:
        """Free the models of the rewards."""
        for reward in (self._reward, *self._hold_outs.values()):
            reward.close()

    # -- one checkpoint ---------------------------------------------------------------------------------------------

    def _keep(self, step: int, policy: Policy) -> None:
        wanted = self._settings.keep_weights
        place = self._kept / policy.identity
        if self._files is None or place.is_dir() or not (isinstance(policy, Adapter) if wanted is None else wanted):
            return
        facts = {"settings": self._parameters.training.model_dump(mode="json"), "training": {"step": step}}
        with storage_explained(place, "the state of the training is kept"):
            self._files.save(place, replace(policy, provenance=facts))

    def _measure(self, step: int, weights: Policy | None) -> float | None:
        from vr_pipeline.items.video_index import index_made_clips
        from vr_pipeline.statistics.clustered import clustered_mean

        policy = ORIGINAL if weights is None else weights.identity
        place = self._folder / "clips" / content_hash("checkpoint", self._generator_identity, policy)
        # Trainings at the same time share the clips of the original.
        with outside_training(), one_at_a_time(place) if current_group().main else contextlib.nullcontext():
            videos = self._clips(place / "videos", policy, weights)
            index = index_made_clips(videos)
            stored = self._measurements(self._reward, place / self._reward.kind, videos, index)
            held_out = {
                name: (reward, stored)
                # Another reward of the same answers.
                if type(reward) is type(self._reward) and reward.measured_by == self._reward.measured_by
                else (reward, self._measurements(reward, place / f"hold-out {name}", videos, index))
                for name, reward in self._hold_outs.items()
            }
        if not current_group().main:
            return None
        try:
            measured = self._reward.collect(stored, index)
        except InputError as error:
            raise InputError(
                f"the clips of the checkpoint of step {step} have no reward: {error.problem}",
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
        columns, moments = dict[str, Any](), dict[str, Any]()
        for name, (reward, kept) in held_out.items():
            others = reward.rewards(reward.collect(kept, index), index)
            seen = clustered_mean(others["total"], others["prompt_id"])
            row |= {f"{HOLD_OUT}{name}": seen.mean, f"{HOLD_OUT}{name}_se": seen.se}
            columns[name], moments[name] = prompt_means(others), clip_moments(rewards, others)
        row |= {"held_out": columns, "means": prompt_means(rewards), "moments": moments}
        self._raise_alarm(row)
        if self._bound.acts and step and (original := self._read(0)) is not None:
            row["below"] = below = self._bound.below(row, original)
            self._figures[BELOW] = float(len(below))
        path = self._record(step)
        with storage_explained(path, "earlier results are kept"):
            write_text(path, json.dumps(row, indent=1, sort_keys=True) + "\n")
        self._judged[step] = row
        if self._observe is not None:
            self._observe(checkpoint_row(row))
        logger.info("validation reward after step %d: %.4f (standard error %.4f)", step, mean.mean, mean.se)
        return mean.mean

    def _raise_alarm(self, row: dict[str, Any]) -> None:
        """Test a checkpoint against the earlier ones, and put the alarm, if there is one, into its row."""
        self._figures = {}
        if not self._alarm.possible or not row["step"]:
            return
        steps = sorted(int(path.stem.removeprefix("step-")) for path in self._record(0).parent.glob("step-*.json"))
        earlier = [record for step in steps if step < row["step"] and (record := self._read(step)) is not None]
        row["alarm"] = self._alarm.find([*earlier, row])
        if row["alarm"] is not None:
            self._figures = {ALARM: float(row["alarm"]["since_step"])}

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
                # Only if a clip is missing, since loading the encoders of a large model takes a minute.
                if weights is not None and self._parameters.training.sharding != "none":
                    # The weights in training are sharded, but each process samples its own clips.
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

    def _measurements(self, reward: RewardModel, folder: Path, videos: ItemFolder, index: pd.DataFrame) -> ItemFolder:
        try:
            return self._fill(folder, {"type": "table"}, reward.measure(videos, index))
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
        """Hash of everything that determines the rewards of checkpoints, and which steps are checkpoints."""
        return content_hash(
            "validation",
            self._parameters.training.checkpoint_every,
            self._settings.model_dump_json(include={"splits", "num_prompts", "videos_per_prompt", "seed"}),
            *self._reward.depends_on,
            *sorted(self._prompts["prompt_id"]),
            *self._alarm.depends_on,
            *self._bound.depends_on,
        )

    def _identity(self, generator: Generator) -> str:
        columns = ["prompt_id", "winner_video_id", "loser_video_id"]
        return content_hash(
            "validated training",
            generator.identity + (generator.start.identity if generator.start else ""),
            self._parameters.training.model_dump_json(),
            self.identity,
            *sorted(" ".join(row) for row in self._pairs[columns].astype(str).itertuples(index=False)),
        )

    @property
    def _kept(self) -> Path:
        return self._folder / "trainings" / f"{self._training}{WEIGHTS}"

    def _record(self, step: int) -> Path:
        return self._folder / "trainings" / self._training / f"step-{step:06d}.json"

    def _read(self, step: int) -> dict[str, Any] | None:
        """Return the record of a judged step, which is read once; None if it was deleted."""
        path = self._record(step)
        if not path.is_file():
            return None
        if step not in self._judged:
            self._judged[step] = json.loads(path.read_text(encoding="utf-8"))
        return dict(self._judged[step])
