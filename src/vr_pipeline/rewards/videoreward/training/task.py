"""Training of a VideoReward on pairs of clips, scored with the pair's prompt in all dimensions."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vr_pipeline.engine.determinism import deterministic
from vr_pipeline.engine.groups import Group, launched_processes, training_group
from vr_pipeline.engine.loop import Observe, Task, best_checkpoint, train_stored
from vr_pipeline.engine.order import EpochOrder
from vr_pipeline.identifiers import sample_seed
from vr_pipeline.rewards.training.clips import ReadClip, TrainingClips, shown_frames
from vr_pipeline.rewards.training.parameters import for_samples, precision_of
from vr_pipeline.rewards.videoreward.calibration import seen_clips
from vr_pipeline.rewards.videoreward.losses import Targets, summed_loss
from vr_pipeline.rewards.videoreward.network import VideoRewardNetwork
from vr_pipeline.rewards.videoreward.settings import Calibration
from vr_pipeline.rewards.videoreward.training.config import PreferenceRewardTrainingParameters
from vr_pipeline.rewards.videoreward.training.labels import LabelledPairs, label_pairs, trainable
from vr_pipeline.rewards.videoreward.training.parts import TrainedParts
from vr_pipeline.rewards.videoreward.training.report import HeldOut, calibrate_on, figures_by_dimension, report_on
from vr_pipeline.rewards.videoreward.training.start import (
    network_settings,
    start_hash,
    start_network,
    training_identity,
)
from vr_pipeline.vlm.families.base import PreparedClip

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class TrainedReward:
    """Result of a training.

    Attributes:
        network: with the best checkpoint's weights.
        calibration: chosen on validation pairs.
        provenance: origin of the model.
        report: one row per dimension and for the total, on test pairs.
        reliability: predicted and observed probabilities on the same pairs.
        log: one row per step.
        summary: figures of the run.
    """

    network: VideoRewardNetwork
    calibration: Calibration
    provenance: dict[str, Any]
    report: pd.DataFrame
    reliability: pd.DataFrame
    log: pd.DataFrame
    summary: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write the reward's folder."""
        self.network.save(folder, self.calibration, self.provenance)


def train_preference_reward(
    preferences: pd.DataFrame,
    video_index: pd.DataFrame,
    read: ReadClip,
    parameters: PreferenceRewardTrainingParameters,
    *,
    observe: Observe | None = None,
) -> TrainedReward:
    """Train a VideoReward, keep the checkpoint most accurate on validation pairs, and calibrate it on them.

    The same input and threads give the same weights on the same machine. Processes launched together share the passes
    of every step, and differ from one process by rounding only.

    Args:
        preferences: table of :class:`vr_pipeline.schemas.HumanPreferences`.
        video_index: their clips, schema ``VideoIndex``.
        read: see :func:`~vr_pipeline.rewards.training.clips.read_from`.
        parameters: settings of the training.
        observe: see :func:`vr_pipeline.engine.loop.train`.

    Raises:
        InputError: see :func:`~vr_pipeline.rewards.videoreward.training.labels.label_pairs`, or the processes cannot
            share the passes of a step evenly.
    """
    import torch

    parameters.check_processes(launched_processes())
    dimensions = network_settings(parameters).dimensions
    # Find errors before loading a model and reading clips.
    label_pairs(preferences, video_index, dimensions, parameters)
    with deterministic(parameters.threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(parameters.seed)
        network = start_network(parameters)
        with training_group(network.family.device) as group:
            sampling = shown_frames(network.family, parameters.start)
            clips = TrainingClips(
                read,
                network.family.prepare,
                sampling,
                memory_mb=parameters.memory_mb,
                threads=parameters.reader_threads,
            )
            names = pd.concat([preferences["video_id_a"], preferences["video_id_b"]]).astype(str)
            index = clips.usable_index(video_index, names, group)
            pairs = label_pairs(preferences, index, dimensions, parameters)
            task = PreferenceRewardTask(network, pairs, clips, parameters)
            task.identity = training_identity(pairs, index, parameters)
            return task.finish(train_stored(task, group=group, observe=observe), group)


class PreferenceRewardTask(Task):
    """Teaches a network which clip of a pair people preferred, in every dimension."""

    description = "train reward"
    metric = "validation_accuracy"
    validates_together = True

    def __init__(
        self,
        network: VideoRewardNetwork,
        pairs: LabelledPairs,
        clips: TrainingClips[PreparedClip],
        parameters: PreferenceRewardTrainingParameters,
    ) -> None:
        """Prepare the network for training, in place."""
        self.network, self.pairs, self.clips = network, pairs, clips
        self.rows = trainable(pairs, parameters)
        self.parameters = for_samples(parameters, len(self.rows))
        super().__init__(self.parameters)
        self.parts = TrainedParts(network, self.parameters)
        if parameters.gradient_checkpointing:
            network.family.enable_gradient_checkpointing()
        table = pairs.table
        self.names, self.prompts = table["pair_id"].tolist(), table["prompt"].tolist()
        self.ends = list(zip(table["video_id_a"], table["video_id_b"], strict=True))
        self.order = EpochOrder(self.rows.tolist(), [self.names[row] for row in self.rows], parameters.seed)

    def weights(self) -> list[torch.nn.Parameter]:
        return self.parts.weights()

    def optimizers(self, weights: Sequence[torch.Tensor]) -> Sequence[torch.optim.Optimizer]:
        return self.parts.optimizers()

    def samples(self, step: int) -> list[str]:
        return [f"pair {self.names[row]}" for row in self._batch(step)]

    def _batch(self, step: int) -> list[int]:
        return [row for row, _ in self.order.of_step(step, self.parameters.batch_size)]

    def _targets(self, rows: Sequence[int] | NDArray[np.int64]) -> Targets:
        import torch

        device, rows = self.network.family.device, np.asarray(rows, dtype=np.int64)
        label, grades = (torch.from_numpy(values[rows]).float() for values in (self.pairs.label, self.pairs.grades))
        return Targets(label.to(device), grades.to(device))

    def step(self, step: int, group: Group) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        import torch

        given, batch = self.parameters, self._batch(step)
        self.network.family.model.train()
        # Every present label has the same weight in all passes.
        labels = int(self._targets(batch).present(given.loss).sum())
        size = given.samples_per_pass
        sums = torch.zeros(6, dtype=torch.float64)
        for number in range(group.rank, given.passes, group.size):
            rows = batch[number * size : (number + 1) * size]
            torch.manual_seed(sample_seed(given.seed, f"pass {number}", step))
            scores, targets = self._scores(rows, one_pass=True), self._targets(rows)
            loss = summed_loss(given.loss, scores, targets, theta=self.parts.theta, centre=given.grade_centre) / max(
                labels, 1
            )
            loss.backward()  # type: ignore[no-untyped-call]
            sums += torch.cat([loss.detach().cpu().double()[None], _order_sums(scores, targets)])
        loss_sum, right, decided, size_decided, tied, size_tied = (
            group.gather({"sums": sums})["sums"].view(6, -1).sum(dim=1).unbind()
        )
        statistics = {"theta": torch.tensor(self.parts.theta_now)} if given.loss == "btt" else {}
        if decided > 0:
            statistics |= {"accuracy": right / decided, "difference": size_decided / decided}
        if tied > 0:
            statistics["tied_difference"] = size_tied / tied
        return loss_sum, statistics

    def _scores(self, rows: Sequence[int], *, one_pass: bool = False) -> torch.Tensor:
        """Return raw scores of both clips of pairs, [pairs, 2, dimensions], scoring each clip once."""
        import torch

        wanted = [(video, self.prompts[row]) for row in rows for video in self.ends[row]]
        each = list(dict.fromkeys(wanted))
        place = {one: at for at, one in enumerate(each)}
        with precision_of(self.network.family, self.parameters.start or self.parameters.start_reward):
            scores = self.network.scores(
                self.clips.prepared([video for video, _ in each]), [prompt for _, prompt in each], one_pass=one_pass
            )
        return scores[torch.tensor([place[one] for one in wanted], device=scores.device)].view(len(rows), 2, -1)

    def held_out_scores(self, rows: NDArray[np.int64], group: Group) -> NDArray[np.float64]:
        """Return raw scores as inference gives them, [pairs, 2, dimensions]; each process scores its share."""
        import torch

        self.network.family.model.eval()
        share = list(group.share(rows.tolist()))
        size, count = self.parameters.samples_per_pass, len(self.pairs.names)
        found = np.empty((0, 2 * count))
        with torch.no_grad():
            for start in range(0, len(share), size):
                scores = self._scores(share[start : start + size]).cpu().double().numpy()
                found = np.concatenate([found, scores.reshape(len(scores), -1)])
        return group.gather_rows(found, len(rows)).reshape(-1, 2, count)

    def validate(self, step: int, group: Group) -> float:
        """Return the mean accuracy over dimensions on pairs without tie, plus at most 1e-5 by likelihood."""
        import torch

        rows = self.pairs.rows("validation")
        scores = self.held_out_scores(rows, group)
        targets = Targets(torch.from_numpy(self.pairs.label[rows]), torch.from_numpy(self.pairs.grades[rows]))
        present = int(targets.present(self.parameters.loss).sum())
        with torch.no_grad():
            theta = self.parts.theta_now
            given, raw = self.parameters, torch.from_numpy(scores)
            loss = summed_loss(given.loss, raw, targets, theta=theta, centre=given.grade_centre) / max(present, 1)
        accuracy = figures_by_dimension(scores, self.pairs.label[rows], self.pairs.names)
        known = [value for value in accuracy.values() if not np.isnan(value)]
        self._figures = {"validation_loss": float(loss)} | {
            f"accuracy_{name}": value for name, value in accuracy.items() if not np.isnan(value)
        }
        return float(np.mean(known) if known else 0.0) + 1e-5 * float(np.exp(-min(float(loss), 50.0)))

    def finish(self, log: pd.DataFrame, group: Group) -> TrainedReward:
        """Calibrate on validation, report on the test side, and restore the model's form."""
        given, pairs = self.parameters, self.pairs
        sides = {}
        for split in ("validation", "test"):
            rows = pairs.rows(split)
            sides[split] = HeldOut.of(pairs, rows, self.held_out_scores(rows, group))
        theta = self.parts.theta_now if given.loss == "btt" else given.theta
        seen = seen_clips([self.clips.shapes[clip] for clip in pairs.clips(self.rows)])
        calibration = calibrate_on(sides["validation"], theta=theta, seen=seen)
        chose = not len(pairs.rows("test"))
        if chose:
            logger.warning(
                "The test side has no pairs: the report uses the pairs that chose checkpoint and calibration, so its "
                "figures are too optimistic"
            )
        report, reliability = report_on(sides["validation" if chose else "test"], calibration, given.held_out)
        trained = sum(weight.numel() for weight in self.weights())
        self.parts.finish()
        summary = {
            "steps": len(log),
            **best_checkpoint(log, self.metric),
            "theta": theta,
            "training_pairs": len(self.rows),
            "pairs": pairs.counts(),
            "left_out": {
                "pairs": len(pairs.left_out),
                "examples": pairs.left_out.head(20).to_dict(orient="records"),
            },
            "report_is_on_validation": chose,
            "by_dimension": _by_dimension(report),
            "trained_weights": trained,
        }
        provenance = {
            "trained_by": "preference_reward_training",
            "training": self.identity,
            "start": start_hash(given),
            "loss": given.loss,
            "pairs": len(self.rows),
            "step": summary["best_step"],
        }
        return TrainedReward(self.network, calibration, provenance, report, reliability, log, summary)


def _order_sums(scores: torch.Tensor, targets: Targets) -> torch.Tensor:
    """Return numbers of correct and all labels without tie, their sum of differences, and those of ties."""
    import torch

    difference = (scores[:, 0] - scores[:, 1]).detach().cpu().double()
    label = targets.label.cpu().double()
    decided, tied = label.abs() == 1, label == 0
    right = ((label * difference > 0) & decided).sum()
    lead = torch.where(decided, label * difference, 0.0).sum()
    apart = torch.where(tied, difference.abs(), 0.0).sum()
    return torch.stack([right, decided.sum(), lead, tied.sum(), apart]).double()


def _by_dimension(report: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    columns = ["n", "ties", "accuracy_with_ties", "accuracy_without_ties", "always_tie", "log_likelihood"]
    return {
        str(row["dimension"]): {name: None if pd.isna(row[name]) else float(row[name]) for name in columns}
        for _, row in report.iterrows()
    }
