"""Train a judge on answered questions: all questions of a clip packed behind one prefix, answers and captions at once.

VisionReward (section 3.1) fine-tunes a vision-language model on yes/no questions, balanced so that each question is
answered yes and no equally often. The loss is cross entropy over the whole vocabulary at the place of the answer, so
the judge also learns to say nothing but yes and no there.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vr_pipeline.checklist.schema import PROMPT_PLACEHOLDER, Checklist
from vr_pipeline.engine.config import CheckpointParameters
from vr_pipeline.engine.groups import Group
from vr_pipeline.engine.loop import Observe, Task
from vr_pipeline.identifiers import content_hash
from vr_pipeline.judges.training.config import JudgeTrainingParameters
from vr_pipeline.judges.training.drawing import Drawing
from vr_pipeline.judges.training.examples import JudgeExample, Parts, check_labels, labels_matrix
from vr_pipeline.judges.training.report import figures_by_source, question_report, report_by_source
from vr_pipeline.vlm.loading import judge_identity
from vr_pipeline.vlm.packing import Segment

if TYPE_CHECKING:
    import torch

    from vr_pipeline.vlm.families.base import Family, PreparedClip

logger = logging.getLogger(__name__)

_COLUMNS = ["step", "loss", "answer_loss", "caption_loss", "learning_rate", "gradient_norm", "balanced_accuracy"]


@dataclass(frozen=True, eq=False)
class TrainedJudge:
    """What training gives.

    Attributes:
        family: the model with the best checkpoint's weights.
        report: one row per source and question on clips of the test split (of validation where there is none): see
            :func:`vr_pipeline.judges.training.report.question_report`.
        log: one row per step: step, loss, answer_loss, caption_loss, learning_rate, gradient_norm, balanced_accuracy.
        summary: figures of the run.
    """

    family: Family
    report: pd.DataFrame
    log: pd.DataFrame
    summary: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write the judge's folder."""
        self.family.save(folder)


def train_judge(
    examples: Sequence[JudgeExample],
    checklist: Checklist,
    parameters: JudgeTrainingParameters,
    *,
    observe: Observe | None = None,
) -> TrainedJudge:
    """Train a judge and keep the checkpoint with the best balanced accuracy on held-out clips.

    The same examples, parameters and number of threads give the same weights on the same machine. Processes that were
    launched together share the passes of every step and the clips of every validation, and end with the weights that
    one process would have but for rounding.

    Args:
        examples: annotated clips; a part is held out by :func:`~vr_pipeline.judges.training.examples.is_held_out`.
        checklist: texts of the questions.
        parameters: model, optimiser, schedule and checkpoints.
        observe: as :func:`vr_pipeline.engine.loop.train` takes it.

    Raises:
        InputError: there are no examples, or all are on one side of the split, or a label names no question, or the
            processes cannot share the passes of a step evenly.
    """
    import torch

    from vr_pipeline.engine.determinism import deterministic
    from vr_pipeline.engine.groups import launched_processes, training_group
    from vr_pipeline.engine.loop import train_stored

    parameters.check_processes(launched_processes())
    check_labels(examples, checklist)
    parts = Parts(examples, parameters.validation_share)
    with deterministic(parameters.threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(parameters.seed)
        task = JudgeTask(parts, checklist, parameters)
        with training_group(task.family.device) as group:
            task.drawing.weigh(show=group.main)
            return task.finish(train_stored(task, group=group, observe=observe)[_COLUMNS], group)


def start_family(parameters: JudgeTrainingParameters, parts: Parts, checklist: Checklist) -> Family:
    """Load or make the model that training starts from; a new tiny judge knows the words of all parts."""
    if parameters.start is not None:
        from vr_pipeline.vlm.loading import load_family

        return load_family(parameters.start)
    from vr_pipeline.judges.training.tiny import create_tiny_judge, words_of

    assert parameters.tiny is not None
    texts = {question.text.replace(PROMPT_PLACEHOLDER, " ") for question in checklist.questions}
    for example in (*parts.training, *parts.validation, *parts.held_out):
        texts |= {example.prompt, example.caption}
    family: Family = create_tiny_judge(parameters.tiny, words_of(texts), seed=parameters.seed)
    return family


class JudgeTask(Task):
    """Teaches a judge's model the answers, and captions where there are some."""

    description = "train judge"
    metric = "balanced_accuracy"
    validates_together = True

    def __init__(self, parts: Parts, checklist: Checklist, parameters: JudgeTrainingParameters) -> None:
        from vr_pipeline.engine.fine_tuning import FineTuning
        from vr_pipeline.judges.vlm import VisionLanguageJudge
        from vr_pipeline.vlm.config import JudgeParameters

        super().__init__(parameters)
        self.parts, self.parameters = parts, parameters
        self.question_ids = checklist.question_ids
        self.texts = {question.question_id: question.text for question in checklist.questions}
        self.identity = training_identity(parts, checklist, parameters)
        self.family = start_family(parameters, parts, checklist)
        asking = parameters.start or JudgeParameters(family="qwen2_vl", path="./new")
        self.judge: VisionLanguageJudge = VisionLanguageJudge(self.family, asking, identity="in training")
        self.fine_tuning = FineTuning(self.family.model, parameters.lora, self.family.lora_targets)
        if parameters.gradient_checkpointing:
            self.family.enable_gradient_checkpointing()
        self.yes, self.no = self._target("Yes", self.judge.yes_ids), self._target("No", self.judge.no_ids)
        self.drawing = Drawing(parts.training, self.question_ids, parameters)
        self.prepared: dict[int, PreparedClip] = {}
        self.prepared_bytes = 0

    def _target(self, word: str, spellings: Sequence[int]) -> int:
        """Return the token that is taught: the usual spelling where it is one token."""
        usual = self.family.text_ids(word)
        return usual[0] if len(usual) == 1 and usual[0] in spellings else spellings[0]

    def weights(self) -> list[torch.nn.Parameter]:
        return self.fine_tuning.weights()

    def optimizers(self, weights: Sequence[torch.Tensor]) -> list[torch.optim.Optimizer]:
        """AdamW for everything, or for all but the layers' matrices, which Muon then trains."""
        from vr_pipeline.engine.muon import adam_and_muon

        return adam_and_muon(weights, self.parameters, self.parameters.matrix_learning_rate, model=self.family.model)

    def step(self, step: int, group: Group) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        import torch

        self.family.model.train()
        count = self.parameters.passes
        losses = torch.zeros(2, dtype=torch.float64)
        for number in range(group.rank, count, group.size):
            loss, parts = self._loss((step - 1) * count + number)
            (loss / count).backward()
            losses += torch.tensor(parts, dtype=torch.float64) / count
        answer, caption = group.gather({"losses": losses})["losses"].view(2, -1).sum(dim=1)
        return answer + self.parameters.caption_weight * caption, {"answer_loss": answer, "caption_loss": caption}

    def _loss(self, number: int) -> tuple[torch.Tensor, tuple[float, float]]:
        """Loss of a pass, and the losses of answers and captions that it is made of."""
        import torch

        from vr_pipeline.vlm.prefix import packed_logits

        drawing = self.drawing
        drawn = drawing.of_pass(number)
        torch.manual_seed(drawn.seed)
        clips, segments = [], []
        targets: list[int] = []
        answer_weights: list[float] = []
        caption_weights: list[float] = []
        for at, questions in zip(drawn.examples, drawn.questions, strict=True):
            example = self.parts.training[at]
            clips.append(self._prepared(at, example))
            row = []
            for question in questions:
                text = self.texts[question].replace(PROMPT_PLACEHOLDER, example.prompt)
                row.append(self.judge.question_segment(text))
                label = bool(example.labels[question])
                targets.append(self.yes if label else self.no)
                answer_weights.append(drawing.answer_weights.get((question, label), 1.0))
                caption_weights.append(0.0)
            if self.parameters.caption_weight and example.caption:
                segment, words = self._caption_segment(example.caption)
                row.append(segment)
                targets.extend(words)
                answer_weights.extend([0.0] * len(words))
                caption_weights.extend([1.0] * len(words))
            segments.append(row)
        with self._precision():
            logits = packed_logits(self.family, clips, segments)
        wanted = torch.tensor(targets, device=self.family.device)
        losses = torch.nn.functional.cross_entropy(logits, wanted, reduction="none")
        answer = _weighted_mean(losses, answer_weights, drawing.weight_per_pass)
        caption = _weighted_mean(losses, caption_weights)
        return answer + self.parameters.caption_weight * caption, (float(answer.detach()), float(caption.detach()))

    def _precision(self) -> AbstractContextManager[Any]:
        """Reduced precision of activations where the configuration asks for it."""
        import torch

        start = self.parameters.start
        return self.family.autocast(getattr(torch, start.dtype) if start else torch.float32)

    def _caption_segment(self, caption: str) -> tuple[Segment, list[int]]:
        """Put the caption behind its question: every one of its words is predicted from those before it."""
        family, settings = self.family, self.family.settings
        # The question is the configuration's own text: its control tokens are meant.
        asked = family.text_ids(settings.before_question + self.parameters.caption_question + settings.after_question)
        words = family.user_text_ids(caption)
        end = family.tokenizer.eos_token_id
        targets = [*words, end] if end is not None else words
        token_ids = (*asked, *targets[:-1])
        return Segment(token_ids, tuple(range(len(asked) - 1, len(token_ids)))), targets

    def _prepared(self, number: int, example: JudgeExample) -> PreparedClip:
        if number not in self.prepared:
            clip = self.judge.prepare(example.read(), example.frames_per_second, example.prompt)
            # Small clips are prepared once, as long as the memory meant for clips holds them.
            size = sum(array.nbytes for array in clip.vision.values())
            if size > 1_000_000 or self.prepared_bytes + size > self.parameters.memory_mb * 1e6:
                return clip
            self.prepared[number] = clip
            self.prepared_bytes += size
        return self.prepared[number]

    def validate(self, step: int, group: Group) -> float:
        part = self.parts.validation[: self.parameters.validation_clips]
        p_yes, _ = self._answers(part, group)
        report = question_report(p_yes, labels_matrix(part, self.question_ids), self.question_ids)
        return float(report["balanced_accuracy"].mean())

    def _answers(
        self, examples: Sequence[JudgeExample], group: Group
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Probabilities of yes and outside masses [examples, questions]; each process asks about its share."""
        self.family.model.eval()
        texts = [self.texts[question] for question in self.question_ids]
        p_yes, outside = np.empty((2, 0, len(texts)))
        size = self.parameters.samples_per_pass
        share = group.share(examples)
        for start in range(0, len(share), size):
            part = share[start : start + size]
            rates = [example.frames_per_second for example in part]
            with self._precision():
                answered = self.judge.answer(
                    [example.read() for example in part],
                    texts,
                    [example.prompt for example in part],
                    frames_per_second=rates if all(rates) else None,  # type: ignore[arg-type]
                )
            p_yes, outside = np.concatenate([p_yes, answered[0]]), np.concatenate([outside, answered[1]])
        return group.gather_rows(p_yes, len(examples)), group.gather_rows(outside, len(examples))

    def finish(self, log: pd.DataFrame, group: Group) -> TrainedJudge:
        """Report on the weights that the training left, and give the model back as it came."""
        parts = self.parts
        p_yes, outside = self._answers(parts.held_out, group)
        report = report_by_source(p_yes, parts.held_out, self.question_ids)
        if parts.held_out_chose_the_checkpoint:
            logger.warning(
                "No clip is of split 'test': the report is about the clips that chose the checkpoint, so that its "
                "figures are rather too high"
            )
        self.fine_tuning.finish()
        summary = {
            "by_source": figures_by_source(report),
            "median_outside_mass": float(np.median(outside)),
            "answers_per_step": self.parameters.answers_per_step,
            "training_examples": len(parts.training),
            "validation_examples": len(parts.validation),
            "held_out_examples": len(parts.held_out),
            "held_out_chose_the_checkpoint": parts.held_out_chose_the_checkpoint,
            "parameters": int(sum(weight.numel() for weight in self.family.model.parameters())),
        }
        return TrainedJudge(self.family, report, log, summary)


def training_identity(parts: Parts, checklist: Checklist, parameters: JudgeTrainingParameters) -> str:
    """Hash what determines a training: settings, checklist, weights at the start, clips of each part."""
    clips = [
        content_hash(
            part,
            example.video_id,
            example.content,
            repr(example.frames_per_second),
            example.prompt,
            example.caption,
            repr(sorted(example.labels.items())),
        )
        for part, examples in (("training", parts.training), ("validation", parts.validation))
        for example in examples
    ]
    return content_hash(
        "judge training",
        parameters.model_dump_json(exclude={*CheckpointParameters.model_fields}),
        checklist.hash,
        # The content of the model's folder, which may be another under the same name.
        judge_identity(parameters.start) if parameters.start is not None else "",
        *clips,
    )


def _weighted_mean(losses: torch.Tensor, weights: Sequence[float], total: float | None = None) -> torch.Tensor:
    """Sum of weights times losses over ``total``, or over the sum of the weights."""
    import torch

    tensor = torch.tensor(weights, dtype=losses.dtype, device=losses.device)
    return (losses * tensor).sum() / (tensor.sum().clamp_min(1e-8) if total is None else total)
