"""Accuracy of a training on held-out pairs, if no reward judges its checkpoints."""

from vr_pipeline.generators.contract import Generator
from vr_pipeline.identifiers import content_hash
from vr_pipeline.training.config import DpoTrainingParameters, PreferenceTrainingParameters
from vr_pipeline.training.pairs import PairData
from vr_pipeline.training.preference_trainer import Validation
from vr_pipeline.training.step import collate


class HeldOutPairs:
    """Measures the implicit accuracy of a generator's current weights, on pairs of other prompts.

    A pair is ordered correctly if the policy's error on the winner, minus the reference's, is below that on the loser
    (Wallace et al. 2023, Diffusion-DPO: the implicit reward), averaged over the same draws of noise and time at every
    checkpoint. The figure is only logged and selects no checkpoint, because a policy that orders pairs better does not
    necessarily make better clips.

    Args:
        data: held-out pairs; the first by identifier are used.
        parameters: the training, with the numbers of pairs and of draws of noise and time.
    """

    def __init__(self, data: PairData, parameters: DpoTrainingParameters) -> None:
        chosen = sorted(data.pairs, key=lambda pair: pair.pair_id)[: parameters.held_out_pairs]
        self._data = PairData(chosen, data.latents, data.conditions)
        self._parameters, self._draws = parameters.training, parameters.held_out_draws

    @property
    def identity(self) -> str:
        """Hash of pairs and draws."""
        return content_hash("held-out pairs", self._draws, *(pair.pair_id for pair in self._data.pairs))

    def judging(self, generator: Generator) -> Validation:
        """Return the measurement of the generator's weights after each step that is a checkpoint."""
        return Validation(
            lambda _: held_out_accuracy(generator, self._data, self._parameters, draws=self._draws),
            self.identity,
            metric="held_out_accuracy",
            chooses=False,
        )


def held_out_accuracy(
    generator: Generator, data: PairData, parameters: PreferenceTrainingParameters, *, draws: int
) -> float | None:
    """Return the share of pairs that the generator's weights order correctly against its reference; ties count half.

    None without pairs, or without a reference (all weights are trained by an objective that needs none).
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
            # Epochs of a training are 0 or more, so it never uses these draws.
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
