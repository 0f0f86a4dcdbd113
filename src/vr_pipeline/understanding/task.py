"""DPO of a vision-language model on pairs of responses.

The reference is the model before training. Its log-probabilities are computed once, before the first step, in passes
that do not depend on where an interrupted training resumes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vr_pipeline.engine.config import CheckpointParameters, LoRAParameters
from vr_pipeline.engine.determinism import deterministic
from vr_pipeline.engine.groups import Group, launched_processes, training_group
from vr_pipeline.engine.loop import Observe, Task, train_stored
from vr_pipeline.engine.order import EpochOrder
from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash, sample_seed
from vr_pipeline.rewards.training.clips import TrainingClips
from vr_pipeline.rewards.training.parts import ModelParts
from vr_pipeline.runtime.progress import progress_bar
from vr_pipeline.understanding.answering import Answerer, answerer_identity
from vr_pipeline.understanding.config import ResponseTrainingParameters, VlmDpoParameters
from vr_pipeline.understanding.dialogue import question_pieces, response_ids
from vr_pipeline.understanding.losses import dpo_losses, margins
from vr_pipeline.understanding.media import QuestionMedia
from vr_pipeline.understanding.policy import TrainedAdapter, TrainedVlm
from vr_pipeline.vlm.likelihood import log_likelihoods
from vr_pipeline.vlm.media import Request, Visual

if TYPE_CHECKING:
    import torch

_VERSION = "1"
"""Changed when the same settings and pairs train another model."""


def train_vlm(
    pairs: pd.DataFrame,
    index: pd.DataFrame,
    media: Any,
    parameters: VlmDpoParameters,
    *,
    observe: Observe | None = None,
) -> TrainedVlm:
    """Train a model on pairs of responses, and keep the checkpoint with the best validation.

    The same input and number of threads give the same weights on the same machine. Processes of one launch share the
    passes of every step.

    Args:
        pairs: schema ``ResponsePairs``.
        index: their questions, with the side of the split; pairs of test questions are not used.
        media: paths by file name.
        parameters: model, dialogue and training.
        observe: see :func:`vr_pipeline.engine.loop.train`.

    Raises:
        InputError: there are no training pairs, both responses of a pair are the same tokens, or the processes cannot
            share the passes of a step evenly.
    """
    import torch

    given = parameters.training
    given.check_processes(launched_processes())
    sides = pairs_by_side(pairs, index)
    with deterministic(given.threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(given.seed)
        answerer = Answerer.load(parameters.model, parameters.dialogue)
        with training_group(answerer.family.device) as group:
            task = ResponseTask(answerer, sides, QuestionMedia(media, index), given)
            task.identity = training_identity(sides, parameters)
            task.read_reference(group)
            return task.finish(train_stored(task, group=group, observe=observe), parameters)


def pairs_by_side(pairs: pd.DataFrame, index: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the training and validation pairs of usable questions, sorted by identifier.

    Raises:
        InputError: there are no training pairs.
    """
    usable = index[index["status"] == "ok"].drop_duplicates("question_id").set_index("question_id")
    table = pairs[pairs["question_id"].isin(usable.index)].copy()
    table["sha256"] = table["question_id"].map(usable["sha256"])
    side = table["question_id"].map(usable["split"])
    found = {
        name: table[side == name].sort_values("pair_id", kind="stable", ignore_index=True)
        for name in ("train", "validation")
    }
    if not len(found["train"]):
        raise InputError(
            f"none of {len(pairs)} pairs belongs to a training question",
            remedy="Give more questions, or lower the shares of 'split'",
            field="vlm_dpo.split",
        )
    return found


def training_identity(sides: dict[str, pd.DataFrame], parameters: VlmDpoParameters) -> str:
    """Hash everything that determines a training: settings, initial weights, dialogue, pairs of each side."""
    columns = ["pair_id", "question_id", "prompt", "chosen", "rejected", "sha256"]
    listed = [
        content_hash(side, *(str(value) for value in row))
        for side, table in sides.items()
        for row in table[columns].itertuples(index=False)
    ]
    return content_hash(
        "response dpo",
        _VERSION,
        parameters.training.model_dump_json(exclude={*CheckpointParameters.model_fields}),
        answerer_identity(parameters.model, parameters.dialogue),
        *listed,
    )


class ResponseTask(Task):
    """Raises the probability of chosen over rejected responses, relative to the model before training."""

    description = "train model"
    metric = "validation_log_likelihood"
    validates_together = True

    def __init__(
        self,
        answerer: Answerer,
        sides: dict[str, pd.DataFrame],
        media: QuestionMedia,
        parameters: ResponseTrainingParameters,
    ) -> None:
        """Prepare the model for training.

        Args:
            answerer: the model; changed in place.
            sides: of :func:`pairs_by_side`.
            media: clips and images of questions.
            parameters: all settings.
        """
        super().__init__(parameters)
        self.answerer, self.parameters = answerer, parameters
        family = self.family = answerer.family
        self.table = pd.concat([sides["train"], sides["validation"]], ignore_index=True)
        self.trained, self.count = len(sides["train"]), len(self.table)
        self.requests = [self._request(row) for row in self.table.to_dict("records")]
        self.names = self.table["pair_id"].astype(str).tolist()
        self.clips: TrainingClips[Visual] = TrainingClips(
            media.read,
            family.visual,
            answerer.sampling,
            memory_mb=parameters.memory_mb,
            threads=parameters.reader_threads,
        )
        lora = parameters.lora
        self.parts = ModelParts(
            family, "frozen", "full" if lora is None else "lora", lora or LoRAParameters(), head=True
        )
        if parameters.gradient_checkpointing:
            family.enable_gradient_checkpointing()
        self.reference: NDArray[np.float64] = np.zeros((self.count, 2))
        self.order = EpochOrder(range(self.trained), self.names[: self.trained], parameters.seed)

    def _request(self, row: dict[Any, Any]) -> Request:
        family, dialogue = self.family, self.answerer.dialogue
        pieces = question_pieces(family, dialogue, str(row["question_id"]), str(row["prompt"]))
        chosen, rejected = (response_ids(family, dialogue, str(row[side])) for side in ("chosen", "rejected"))
        if chosen == rejected:
            raise InputError(
                f"both responses of pair '{row['pair_id']}' have the same tokens",
                remedy="Remove the pair, or use a model whose tokenizer knows the different words",
                field="chosen",
            )
        return Request(pieces, (chosen, rejected))

    def weights(self) -> list[torch.nn.Parameter]:
        return self.parts.weights()

    def samples(self, step: int) -> list[str]:
        return [f"pair {self.names[row]}" for row in self._batch(step)]

    def _batch(self, step: int) -> list[int]:
        return [row for row, _ in self.order.of_step(step, self.parameters.batch_size)]

    def log_probabilities(self, rows: Sequence[int]) -> torch.Tensor:
        """Return log-probabilities of whole responses (chosen, rejected), [pairs, 2]."""
        import torch

        requests = [self.requests[row] for row in rows]
        wanted = list(dict.fromkeys(str(self.table["question_id"].iloc[row]) for row in rows))
        visuals = dict(zip(wanted, self.clips.prepared(wanted), strict=True))
        with self.family.autocast(self.family.model.dtype):
            found = log_likelihoods(self.family, visuals, requests)
        return torch.stack([one.sum(dim=1) for one in found])

    def read_reference(self, group: Group) -> None:
        """Compute the log-probabilities by the model before training."""
        self.reference = self._read(range(self.count), group, description="read reference")

    def _read(self, rows: Sequence[int], group: Group, *, description: str) -> NDArray[np.float64]:
        """Return log-probabilities in evaluation mode, [pairs, 2]; each process computes its share."""
        import torch

        self.family.model.eval()
        share = list(group.share(rows))
        size = self.parameters.samples_per_pass
        found = np.empty((0, 2))
        bar = progress_bar(
            range(0, len(share), size), description=description, unit="pass", disable=not group.main, leave=False
        )
        with torch.no_grad():
            for start in bar:
                read = self.log_probabilities(share[start : start + size]).cpu().double().numpy()
                found = np.concatenate([found, read])
        return group.gather_rows(found, len(rows))

    def step(self, step: int, group: Group) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        import torch

        given, batch = self.parameters, self._batch(step)
        self.family.model.train()
        size = given.samples_per_pass
        sums = torch.zeros(5, dtype=torch.float64)
        for number in range(group.rank, given.passes, group.size):
            rows = batch[number * size : (number + 1) * size]
            torch.manual_seed(sample_seed(given.seed, f"pass {number}", step))
            policy = self.log_probabilities(rows)
            reference = torch.from_numpy(self.reference[rows]).to(policy.device, policy.dtype)
            losses = dpo_losses(policy, reference, given.beta)
            (losses.sum() / given.batch_size).backward()  # type: ignore[no-untyped-call]
            sums += _sums(policy.detach(), reference, losses.detach(), given.beta)
        loss, right, margin, chosen, rejected = (
            group.gather({"sums": sums})["sums"].view(5, -1).sum(dim=1) / given.batch_size
        ).unbind()
        return loss, {"accuracy": right, "margin": margin, "chosen_log_ratio": chosen, "rejected_log_ratio": rejected}

    def validate(self, step: int, group: Group) -> float | None:
        """Return the mean log-likelihood of the validation pairs under DPO: minus its loss."""
        import torch

        rows = range(self.trained, self.count)
        if not rows:
            return None
        policy = torch.from_numpy(self._read(rows, group, description="validate"))
        reference = torch.from_numpy(self.reference[self.trained :])
        margin = margins(policy, reference, self.parameters.beta)
        self._figures = {
            "validation_accuracy": float((margin > 0).double().mean()),
            "validation_margin": float(margin.mean()),
        }
        return -float(dpo_losses(policy, reference, self.parameters.beta).mean())

    def finish(self, log: pd.DataFrame, parameters: VlmDpoParameters) -> TrainedVlm:
        """Return the adapter and the model in its original form."""
        given = self.parameters
        adapter = TrainedAdapter.of(self.family, given.lora, parameters.model) if given.lora is not None else None
        trained = sum(weight.numel() for weight in self.weights())
        self.parts.finish()
        judged = log[self.metric] if self.metric in log else pd.Series(dtype=float)
        best = int(np.nanargmax(judged.to_numpy(dtype=float))) if judged.notna().any() else len(log) - 1
        summary = {
            "steps": len(log),
            "best_step": int(log["step"].iloc[best]),
            "training_pairs": self.trained,
            "validation_pairs": self.count - self.trained,
            "trained_weights": trained,
            **{
                name: float(log[name].iloc[best])
                for name in (self.metric, *self._figures)
                if name in log and pd.notna(log[name].iloc[best])
            },
        }
        provenance = {
            "trained_by": "vlm_dpo",
            "training": self.identity,
            "base": answerer_identity(parameters.model, parameters.dialogue),
            "family": parameters.model.family,
            "dialogue": json.loads(parameters.dialogue.model_dump_json()),
            "beta": given.beta,
            "pairs": self.trained,
            "step": summary["best_step"],
        }
        return TrainedVlm(self.family, adapter, provenance, log, summary)


def _sums(policy: torch.Tensor, reference: torch.Tensor, losses: torch.Tensor, beta: float) -> torch.Tensor:
    """Return sums over pairs: loss, correct order, margin, log-ratios of chosen and rejected."""
    import torch

    margin = margins(policy, reference, beta)
    ratios = (policy - reference).sum(dim=0)
    return torch.stack([losses.sum(), (margin > 0).sum(), margin.sum(), *ratios]).cpu().double()
