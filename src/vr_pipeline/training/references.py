"""Errors of the frozen original for pairs at fixed draws of noise and time, computed once for all epochs and recipes.

Every pair is computed alone, so the numbers do not depend on the batch or on which training computes them first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vr_pipeline.errors import InputError
from vr_pipeline.generators.contract import Generator
from vr_pipeline.generators.policy import bytes_of
from vr_pipeline.identifiers import content_hash
from vr_pipeline.storage.atomic import replaced
from vr_pipeline.training.config import PreferenceTrainingParameters
from vr_pipeline.training.pairs import PairData, TrainingPair
from vr_pipeline.training.step import collate

if TYPE_CHECKING:
    import torch

_UNSAVED = 256
"""Number of new entries after which the file is written again; a kill loses at most these."""


class ReferenceErrors:
    """Errors of the original and norms of its predictions, by pair and draw.

    An entry's name is a hash of the latents, the text condition, the noise and everything else that determines the
    errors, so another model, clip or prompt never uses it.

    Args:
        generator: with the original as its reference.
        data: latents and text conditions.
        parameters: the training.
        folder: of one safetensors file per generator; None keeps entries in memory.
    """

    def __init__(
        self, generator: Generator, data: PairData, parameters: PreferenceTrainingParameters, folder: Path | None
    ) -> None:
        self._generator, self._data, self._parameters = generator, data, parameters
        settings = (parameters.seed, parameters.noise, parameters.threads, parameters.compile)
        start = [generator.start.identity] if generator.start and generator.start.renewed else []
        self._base = content_hash("reference errors", generator.identity, *map(str, settings), *start)
        self._file = folder / f"{self._base}.safetensors" if folder is not None else None
        self._contents: dict[str, str] = {}
        self._entries = _read(self._file) if self._file is not None and self._file.is_file() else {}
        self._unsaved = 0

    def __len__(self) -> int:
        return len(self._entries)

    def of(self, chosen: Sequence[tuple[TrainingPair, int]]) -> torch.Tensor:
        """Return errors and norms of pairs, each with its epoch: [2, samples] in the order of a batch."""
        import torch

        found = []
        for pair, epoch in chosen:
            name = self._name(pair, epoch)
            if name not in self._entries:
                self._entries[name] = self._computed(pair, epoch)
                self._unsaved += 1
            found.append(self._entries[name])
        if self._unsaved >= _UNSAVED:
            self.save()
        # [pairs, 2, sides] to [2, sides x pairs]: winners first.
        return torch.stack(found).permute(1, 2, 0).flatten(1)

    def save(self) -> None:
        """Write the entries, merged with those that another training wrote meanwhile."""
        from safetensors.torch import save_file

        if self._file is None or not self._unsaved:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        if self._file.is_file():
            self._entries = _read(self._file) | self._entries
        with replaced(self._file) as temporary:
            save_file(dict(sorted(self._entries.items())), temporary)
        self._unsaved = 0

    def _computed(self, pair: TrainingPair, epoch: int) -> torch.Tensor:
        import torch

        batch = collate(self._generator, [(pair, epoch)], self._data, self._parameters)
        with torch.no_grad(), self._generator.autocast(), self._generator.reference():
            made = self._generator.residuals(batch.latents, batch.noise, batch.timesteps, batch.condition)
        return torch.stack([made.error(), made.norm()]).float().cpu()

    def _name(self, pair: TrainingPair, epoch: int) -> str:
        if pair.pair_id not in self._contents:
            tensors = [self._data.latents[clip] for clip in pair.clips]
            tensors += [value for _, value in sorted(self._data.conditions[pair.prompt_id].items())]
            parts = [bytes(bytes_of(value.cpu())) for value in tensors]
            self._contents[pair.pair_id] = content_hash(pair.pair_id, str(pair.seeds), *parts)
        return content_hash(self._base, self._contents[pair.pair_id], str(self._parameters.draw_of(epoch)))


def _read(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(
            f"stored errors of the original are damaged ({error})",
            file=path,
            remedy="delete the file; they are computed again",
        ) from error
