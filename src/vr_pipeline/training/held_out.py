"""How a training does on pairs that it is not trained on, where no reward judges its checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vr_pipeline.identifiers import content_hash
from vr_pipeline.training.pairs import PairData
from vr_pipeline.training.step import collate

if TYPE_CHECKING:
    from vr_pipeline.generators.contract import Generator
    from vr_pipeline.training.config import DpoTrainingParameters, PreferenceTrainingParameters


class HeldOutPairs:
    """Measures the implicit accuracy of the weights that a generator holds at a step, on pairs of other prompts.

    A pair is ordered rightly if the policy's error on the winner, less the reference's, is below that on the loser
    (Wallace et al. 2023, Diffusion-DPO: the implicit reward), averaged over the same draws of noise and time at every
    checkpoint. The figure is only written to the log: a policy that orders pairs better does not make better clips for
    that, so it chooses no checkpoint.

    Args:
        data: held-out pairs; the first by identifier are taken.
        parameters: the training, which says how many, and by how many draws of noise and time each is measured.
    """

    metric = "held_out_accuracy"
    chooses = False

    def __init__(self, data: PairData, parameters: DpoTrainingParameters) -> None:
        chosen = sorted(data.pairs, key=lambda pair: pair.pair_id)[: parameters.held_out_pairs]
        self._data = PairData(chosen, data.latents, data.conditions)
        self._parameters, self._draws = parameters.training, parameters.held_out_draws

    @property
    def identity(self) -> str:
        """Hash of what is measured."""
        return content_hash("held-out pairs", self._draws, *(pair.pair_id for pair in self._data.pairs))

    def __call__(self, generator: Generator) -> Callable[[int], float | None]:
        """Return what measures the weights of the generator after a step."""

        def accuracy(step: int) -> float | None:
            return held_out_accuracy(generator, self._data, self._parameters, draws=self._draws)

        return accuracy

    def baseline(self) -> float | None:
        """Return None: the original is what is compared with."""
        return None


def held_out_accuracy(
    generator: Generator, data: PairData, parameters: PreferenceTrainingParameters, *, draws: int
) -> float | None:
    """Return the share of pairs that the generator's weights order rightly against its reference; ties count half.

    None where there are no pairs, or where nothing is kept to compare with (all weights are trained by an objective
    without reference).
    """
    import torch

    if not data.pairs or (parameters.method == "full" and not parameters.uses_reference):
        return None
    size = parameters.micro_batch_size or parameters.batch_size
    right = 0.0
    for start in range(0, len(data.pairs), size):
        some = data.pairs[start : start + size]
        gain = torch.zeros(len(some), dtype=torch.float64)
        for draw in range(draws):
            # Epochs of a training are 0 or more, so these draws are none of its own.
            batch = collate(generator, [(pair, -1 - draw) for pair in some], data, parameters)
            inputs = (batch.latents, batch.noise, batch.timesteps, batch.condition)
            with torch.no_grad(), generator.autocast():
                change = generator.prediction_error(*inputs)
                with generator.reference():
                    change = change - generator.prediction_error(*inputs)
            winners, losers = change.double().cpu().chunk(2)
            gain += losers - winners
        right += float((gain > 0).sum()) + 0.5 * float((gain == 0).sum())
    return right / len(data.pairs)
