"""Training of a UnifiedReward by cross entropy of answers, with pairs and points of all tasks in every step."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vr_pipeline.engine.determinism import deterministic
from vr_pipeline.engine.groups import Group, launched_processes, training_group
from vr_pipeline.engine.loop import Observe, Task, best_checkpoint, train_stored
from vr_pipeline.identifiers import content_hash, sample_seed
from vr_pipeline.rewards.training.clips import ReadClip, TrainingClips
from vr_pipeline.rewards.training.parameters import for_samples, precision_of
from vr_pipeline.rewards.training.parts import ModelParts
from vr_pipeline.rewards.unifiedreward.settings import UnifiedArtifact
from vr_pipeline.rewards.unifiedreward.template import UnifiedTemplate
from vr_pipeline.rewards.unifiedreward.training.asking import (
    ItemRequests,
    ReadyClip,
    alike,
    all_visuals,
    clip_maker,
    request_length,
)
from vr_pipeline.rewards.unifiedreward.training.config import UnifiedRewardTrainingParameters
from vr_pipeline.rewards.unifiedreward.training.drawing import Drawing, Shown
from vr_pipeline.rewards.unifiedreward.training.labelled import LabelledItems, label_items
from vr_pipeline.rewards.unifiedreward.training.reading import WIDTH, Read, read_items
from vr_pipeline.rewards.unifiedreward.training.report import chosen_by, report_on, tie_thresholds
from vr_pipeline.rewards.unifiedreward.training.start import Start, training_identity
from vr_pipeline.rewards.unifiedreward.training.trained import TrainedUnifiedReward, figures_by_task
from vr_pipeline.rewards.unifiedreward.training.vocabulary import check_words
from vr_pipeline.vlm.families.base import Family
from vr_pipeline.vlm.likelihood import log_likelihoods
from vr_pipeline.vlm.loading import family_name

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

_COUNTED = ("pair", "point")


def train_unified_reward(
    items: pd.DataFrame,
    video_index: pd.DataFrame,
    read: ReadClip,
    parameters: UnifiedRewardTrainingParameters,
    *,
    observe: Observe | None = None,
) -> TrainedUnifiedReward:
    """Train a UnifiedReward, and keep the checkpoint with the best order of validation items.

    The same input and threads give the same weights on the same machine. Processes launched together share the passes
    of every step, and differ from one process by rounding only.

    Args:
        items: table of :class:`vr_pipeline.schemas.UnifiedItems`.
        video_index: their clips, schema ``VideoIndex``.
        read: see :func:`~vr_pipeline.rewards.training.clips.read_from`.
        parameters: settings of the training.
        observe: see :func:`vr_pipeline.engine.loop.train`.

    Raises:
        InputError: see :func:`~vr_pipeline.rewards.unifiedreward.training.labelled.label_items`, or the processes
            cannot share the passes of a step evenly.
    """
    import torch

    parameters.check_processes(launched_processes())
    start = Start.of(parameters)
    # Find errors before loading a model and reading clips.
    label_items(items, video_index, start.template, parameters)
    with deterministic(parameters.threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(parameters.seed)
        family = start.load(parameters)
        texts = [*items["prompt"], *items["response_a"], *items["response_b"]]
        check_words(family, start.template, (text for text in texts if text))
        with training_group(family.device) as group:
            clips = TrainingClips(
                read,
                clip_maker(family, start.template),
                start.sampling(family),
                memory_mb=parameters.memory_mb,
                threads=parameters.reader_threads,
            )
            index = clips.usable_index(video_index, [*items["video_id_a"], *items["video_id_b"]], group)
            labelled = label_items(items, index, start.template, parameters)
            task = UnifiedRewardTask(family, start.template, labelled, clips, parameters)
            task.identity = training_identity(labelled, index, start, parameters)
            return task.finish(train_stored(task, group=group, observe=observe), start, group)


class UnifiedRewardTask(Task):
    """Teaches a model the answers of items.

    The loss of an item is minus the log-likelihood of its whole answer; the loss of a step is their mean.
    """

    description = "train reward"
    metric = "validation_accuracy"
    validates_together = True

    def __init__(
        self,
        family: Family,
        template: UnifiedTemplate,
        items: LabelledItems,
        clips: TrainingClips[ReadyClip],
        parameters: UnifiedRewardTrainingParameters,
    ) -> None:
        """Prepare the model for training, in place."""
        self.family, self.template, self.items, self.clips = family, template, items, clips
        rows, table = items.rows("train"), items.table
        self.names = table["item_id"].tolist()
        weights = [
            float(weight) * parameters.source_weights.get(source, 1.0)
            for weight, source in zip(table["weight"].iloc[rows], table["source"].iloc[rows], strict=True)
        ]
        self.drawing = Drawing(rows.tolist(), [self.names[row] for row in rows], weights, seed=parameters.seed)
        self.parameters = for_samples(parameters, self.drawing.per_epoch)
        super().__init__(self.parameters)
        self.requests = ItemRequests(family, template, table)
        self.judged = self._validated()
        self.parts = ModelParts(family, parameters.vision, parameters.language, parameters.lora, head=True)
        if parameters.gradient_checkpointing:
            family.enable_gradient_checkpointing()

    def _validated(self) -> NDArray[np.int64]:
        """Return the validation items of each task and form, limited by a hash."""
        found = []
        for task, form in self.items.kinds("validation"):
            rows = self.items.rows("validation", task=task, form=form).tolist()
            rows.sort(key=lambda row: content_hash("validated", self.parameters.seed, self.names[row]))
            found += rows[: self.parameters.validation_items]
        return np.array(sorted(found), dtype=np.int64)

    def weights(self) -> list[torch.nn.Parameter]:
        return self.parts.weights()

    def optimizers(self, weights: Sequence[torch.Tensor]) -> Sequence[torch.optim.Optimizer]:
        """Return AdamW, or AdamW and Muon for the layers' matrices."""
        from vr_pipeline.engine.muon import adam_and_muon

        return adam_and_muon(weights, self.parameters, self.parameters.matrix_learning_rate, model=self.family.model)

    def samples(self, step: int) -> list[str]:
        return [f"item {self.names[one.row]}" for one in self._batch(step)]

    def _batch(self, step: int) -> list[Shown]:
        return self.drawing.of_step(step, self.parameters.batch_size)

    def step(self, step: int, group: Group) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        import torch

        given, batch = self.parameters, self._batch(step)
        self.family.model.train()
        size = given.samples_per_pass
        # Loss and items of each form; correct pairs, pairs without tie, and those whose first is better.
        sums = torch.zeros(2 * len(_COUNTED) + 3, dtype=torch.float64)
        for number in range(group.rank, given.passes, group.size):
            torch.manual_seed(sample_seed(given.seed, f"pass {number}", step))
            loss, counted = self._pass(batch[number * size : (number + 1) * size])
            (loss / len(batch)).backward()  # type: ignore[no-untyped-call]
            sums += counted
        sums = group.gather({"sums": sums})["sums"].view(len(sums), -1).sum(dim=1)
        losses, counts = sums[: len(_COUNTED)], sums[len(_COUNTED) : 2 * len(_COUNTED)]
        right, decided, first = sums[2 * len(_COUNTED) :]
        statistics = {f"{form}_loss": losses[at] / counts[at] for at, form in enumerate(_COUNTED) if counts[at] > 0}
        if counts[0] > 0:
            statistics["pair_accuracy"] = right / counts[0]
        if decided > 0:
            statistics["first_is_better"] = first / decided
        return losses.sum() / len(batch), statistics

    def _pass(self, shown: Sequence[Shown]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed loss of items, and the sums for the step's statistics."""
        import torch

        names = list(dict.fromkeys(clip for one in shown for clip in self.requests.clips(one.row)))
        ready = dict(zip(names, self.clips.prepared(names), strict=True))
        visuals = all_visuals(ready)
        asked = [self.requests.to_learn(one.row, ready, turned=one.turned) for one in shown]
        lengths = [request_length(visuals, one.request) for one in asked]
        counted = torch.zeros(2 * len(_COUNTED) + 3, dtype=torch.float64)
        losses = []
        for places in alike(lengths):
            with precision_of(self.family, self.parameters.start or self.parameters.start_reward):
                found = log_likelihoods(self.family, visuals, [asked[at].request for at in places])
            for at, logs in zip(places, found, strict=True):
                whole, right = logs.float().sum(dim=1), asked[at].right
                losses.append(-whole[right])
                form = 0 if self.requests.is_pair(shown[at].row) else 1
                counted[form] -= float(whole[right].detach())
                counted[len(_COUNTED) + form] += 1
                if form == 0:
                    flags = [int(whole.argmax()) == right, right < 2, right == 0]
                    counted[2 * len(_COUNTED) :] += torch.tensor(flags, dtype=torch.float64)
        return torch.stack(losses).sum(), counted

    def read(self, rows: NDArray[np.int64], group: Group) -> Read:
        """Read items as inference does; each process reads its share."""
        self.family.model.eval()
        share = list(group.share(rows.tolist()))
        with precision_of(self.family, self.parameters.start or self.parameters.start_reward):
            found = read_items(self.family, self.requests, self.clips, share, batch=self.parameters.samples_per_pass)
        return Read.of(group.gather_rows(found.reshape(-1, WIDTH), len(rows)))

    def validate(self, step: int, group: Group) -> float:
        """Return the mean share in correct order over tasks and forms, plus at most 1e-5 by likelihood."""
        read = self.read(self.judged, group)
        shares = {name: value for name, value in chosen_by(self.items, self.judged, read).items() if value == value}
        loss = -float(read.right.mean())
        self._figures = {"validation_loss": loss} | {f"accuracy_{name}": value for name, value in shares.items()}
        accuracy = float(np.mean(list(shares.values()))) if shares else 0.0
        return accuracy + 1e-5 * float(np.exp(-min(loss, 50.0)))

    def finish(self, log: pd.DataFrame, start: Start, group: Group) -> TrainedUnifiedReward:
        """Choose tie thresholds on validation, report on the test side, and restore the model's form."""
        items, given = self.items, self.parameters
        rows = {split: items.rows(split) for split in ("validation", "test")}
        read = {split: self.read(own, group) for split, own in rows.items()}
        chose = not len(rows["test"])
        if chose:
            logger.warning(
                "The test side has no items: the report uses the items that chose the checkpoint, so its figures are "
                "too optimistic"
            )
        side = "validation" if chose else "test"
        thresholds = tie_thresholds(items, rows["validation"], read["validation"])
        report = report_on(items, rows[side], read[side], thresholds, given.held_out)
        trained = sum(weight.numel() for weight in self.weights())
        self.parts.finish()
        summary = {
            "steps": len(log),
            **best_checkpoint(log, self.metric),
            "items": items.counts(),
            "left_out": {
                "items": len(items.left_out),
                "examples": items.left_out.head(20).to_dict(orient="records"),
            },
            "report_is_on_validation": chose,
            "tie_thresholds": thresholds,
            "by_task": figures_by_task(report),
            "first_is_better": float(log["first_is_better"].mean()) if "first_is_better" in log else None,
            "trained_weights": trained,
        }
        provenance = {
            "trained_by": "unified_reward_training",
            "training": self.identity,
            "start": start.identity,
            "items": len(items.rows("train")),
            "step": summary["best_step"],
        }
        return TrainedUnifiedReward(self.family, self._artifact(provenance), report, log, summary)

    def _artifact(self, provenance: dict[str, Any]) -> UnifiedArtifact:
        trained = self.items.table.iloc[self.items.rows("train")]["task"]
        most = self.parameters.task or str(trained.value_counts().sort_index(kind="stable").idxmax())
        return UnifiedArtifact.model_validate(
            {
                "family": family_name(self.family),
                "template": self.template,
                "task": most,
                "provenance": provenance,
            }
        )
