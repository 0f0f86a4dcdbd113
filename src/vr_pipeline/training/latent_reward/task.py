"""Training of a generator's first blocks to predict the preferred clip of a pair at the same time and noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vr_pipeline.engine.groups import Group
from vr_pipeline.engine.loop import Task
from vr_pipeline.engine.order import EpochOrder
from vr_pipeline.generators.latent_reward import LatentReward
from vr_pipeline.identifiers import sample_seed
from vr_pipeline.rewards.videoreward.losses import Targets, summed_loss
from vr_pipeline.rewards.videoreward.training.labels import learned_from
from vr_pipeline.rewards.videoreward.training.report import figures_by_dimension
from vr_pipeline.training.latent_reward.config import LatentRewardTrainingParameters
from vr_pipeline.training.latent_reward.data import LatentPair, LatentPairs, noise_pairs

if TYPE_CHECKING:
    import torch

Times = tuple[float, float]

_HELD_OUT = -1
"""Number of the first draw of held-out pairs, counting down; draws of the training are its epochs, from 0."""


def even_times(times: Times, count: int) -> list[Times]:
    """Return intervals of equal length that cover the times."""
    return list(pairwise(np.linspace(*times, count + 1).tolist()))


class LatentRewardTask(Task):
    """A latent reward in training."""

    description = "train latent reward"
    metric = "validation_accuracy"
    validates_together = True

    def __init__(self, reward: LatentReward, data: LatentPairs, parameters: LatentRewardTrainingParameters) -> None:
        """Prepare the reward for training.

        Args:
            reward: the start, changed in place.
            data: all pairs with their splits.
            parameters: all settings.
        """
        super().__init__(parameters)
        self.reward, self.data, self.parameters = reward, data, parameters
        self.generator, self.device = reward.blocks.generator, reward.blocks.generator.device
        self.pairs = trained_pairs(data, parameters)
        self.order = EpochOrder(self.pairs, [pair.pair_id for pair in self.pairs], parameters.seed)
        if parameters.gradient_checkpointing:
            reward.blocks.network.enable_gradient_checkpointing()

    def weights(self) -> list[torch.nn.Parameter]:
        return self.reward.weights()

    def samples(self, step: int) -> list[str]:
        return [f"pair {pair.pair_id}" for pair, _ in self._chosen(step)]

    def _chosen(self, step: int) -> list[tuple[LatentPair, int]]:
        return self.order.of_step(step, self.parameters.batch_size)

    def _targets(self, pairs: Sequence[LatentPair]) -> Targets:
        import torch

        label = torch.from_numpy(self.data.label[[pair.row for pair in pairs]]).float()
        return Targets(label.to(self.device), torch.empty(0))

    @contextmanager
    def _in_mode(self, *, training: bool) -> Iterator[None]:
        """Set the mode of network and head within the block, then restore evaluation."""
        parts = [self.reward.blocks.network, self.reward.head]
        for part in parts:
            part.train(training)
        try:
            yield
        finally:
            for part in parts:
                part.eval()

    def step(self, step: int, group: Group) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        import torch

        given, chosen = self.parameters, self._chosen(step)
        labels = int(self._targets([pair for pair, _ in chosen]).present(given.loss).sum())
        share = group.share(chosen)
        sums = torch.zeros(4, dtype=torch.float64)
        torch.manual_seed(sample_seed(given.seed, f"dropout of process {group.rank}", step))
        with self._in_mode(training=True):
            for start in range(0, len(share), given.samples_per_pass):
                part = share[start : start + given.samples_per_pass]
                scores = self._scores([pair for pair, _ in part], [(epoch, given.times) for _, epoch in part])
                targets = self._targets([pair for pair, _ in part])
                loss = summed_loss(given.loss, scores, targets, theta=given.theta) / max(labels, 1)
                loss.backward()  # type: ignore[no-untyped-call]
                sums += torch.cat([loss.detach().cpu().double()[None], _order_sums(scores, targets.label)])
        total, right, decided, size = group.gather({"sums": sums})["sums"].view(4, -1).sum(dim=1).unbind()
        statistics = {"accuracy": right / decided, "difference": size / decided} if decided > 0 else {}
        return total, statistics

    def _scores(
        self, pairs: Sequence[LatentPair], draws: Sequence[tuple[int, Times]], *, one_noise: bool = True
    ) -> torch.Tensor:
        """Return scores of both clips of pairs, [pairs, 2, dimensions]."""
        batch = noise_pairs(self.generator, self.data, pairs, draws, self.parameters.seed, one_noise=one_noise)
        condition = {name: value.to(self.device) for name, value in batch.condition.items()}
        with self.generator.autocast():
            scores = self.reward.scores(batch.noised.to(self.device), batch.timesteps.to(self.device), condition)
        return scores.float().view(2, len(pairs), -1).transpose(0, 1)

    def held_out_scores(
        self, pairs: Sequence[LatentPair], times: Sequence[Times], group: Group, *, one_noise: bool = True
    ) -> NDArray[np.float64]:
        """Return scores at one time in each interval, [pairs, intervals, 2, dimensions], computed by all processes.

        Args:
            pairs: to score.
            times: the intervals.
            group: the processes.
            one_noise: whether both clips of a pair have the same noise, as in training.
        """
        import torch

        share = list(group.share(pairs))
        found = np.empty((0, len(times) * 2 * len(self.data.names)))
        size = max(1, self.parameters.samples_per_pass // len(times))
        with torch.no_grad(), self._in_mode(training=False):
            for start in range(0, len(share), size):
                part = share[start : start + size]
                repeated = [pair for pair in part for _ in times]
                draws = [(_HELD_OUT - number, one) for _ in part for number, one in enumerate(times)]
                scores = self._scores(repeated, draws, one_noise=one_noise).cpu().double().numpy()
                found = np.concatenate([found, scores.reshape(len(part), -1)])
        return group.gather_rows(found, len(pairs)).reshape(len(pairs), len(times), 2, -1)

    def validate(self, step: int, group: Group) -> float:
        """Return the accuracy on pairs without ties, averaged over dimensions, at times spread as in training.

        Adds less than 1e-5 for a higher likelihood, which decides between equally accurate checkpoints.
        """
        import torch

        given, pairs = self.parameters, self.data.of("validation")
        times = even_times(given.times, given.validation_times)
        scores = self.held_out_scores(pairs, times, group).reshape(len(pairs) * len(times), 2, -1)
        label = self.data.label[[pair.row for pair in pairs]].repeat(len(times), axis=0)
        targets = Targets(torch.from_numpy(label), torch.empty(0))
        present = max(int(targets.present(given.loss).sum()), 1)
        loss = float(summed_loss(given.loss, torch.from_numpy(scores), targets, theta=given.theta)) / present
        accuracy = figures_by_dimension(scores, label, self.data.names)
        known = {name: value for name, value in accuracy.items() if not np.isnan(value)}
        self._figures = {"validation_loss": loss} | {f"accuracy_{name}": value for name, value in known.items()}
        return float(np.mean(list(known.values())) if known else 0.0) + 1e-5 * float(np.exp(-min(loss, 50.0)))


def trained_pairs(data: LatentPairs, parameters: LatentRewardTrainingParameters) -> list[LatentPair]:
    """Return the training pairs with at least one label that the loss uses."""
    usable = learned_from(data.label, parameters)
    return [pair for pair in data.of("train") if usable[pair.row]]


def _order_sums(scores: Any, label: Any) -> Any:
    """Return number of correct labels, number of labels, and sum of leads, over labels without ties."""
    import torch

    lead = (label * (scores[:, 0] - scores[:, 1])).detach().cpu().double()
    decided = (label.abs() == 1).cpu()
    return torch.stack([((lead > 0) & decided).sum(), decided.sum(), torch.where(decided, lead, 0.0).sum()]).double()
