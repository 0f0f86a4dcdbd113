"""Trains a judge on answered questions: all questions of a clip packed behind one prefix, answers and captions at once.

VisionReward (section 3.1) fine-tunes a vision-language model on yes/no questions, balanced so that each question is
answered yes and no equally often. The loss is cross entropy over the whole vocabulary at the place of the answer, so
the judge also learns to say nothing but yes and no there.
"""

from __future__ import annotations

import copy
import json
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vr_pipeline.checklist.schema import PROMPT_PLACEHOLDER, Checklist
from vr_pipeline.engine.groups import Group
from vr_pipeline.engine.state import open_state, write_state
from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash
from vr_pipeline.judges.config import JudgeTrainingParameters
from vr_pipeline.runtime.progress import progress_bar
from vr_pipeline.video.read import Frames, read_frames
from vr_pipeline.vlm.loading import judge_identity
from vr_pipeline.vlm.packing import Segment

if TYPE_CHECKING:
    import torch

    from vr_pipeline.judges.vlm import VisionLanguageJudge
    from vr_pipeline.vlm.families.base import Family, PreparedClip

logger = logging.getLogger(__name__)

Observe = Callable[[Mapping[str, float]], None]
"""Is told every row of the training log as it comes."""


@dataclass(frozen=True)
class StoredFrames:
    """Frames that are read from a file whenever they are needed, for more clips than the memory holds."""

    path: Path
    num_frames: int | None
    frames_per_second: float | None

    def read(self) -> Frames:
        """uint8 [frames, height, width, 3]. Raises :class:`vr_pipeline.video.read.VideoReadError`."""
        return read_frames(self.path, num_frames=self.num_frames, fps=self.frames_per_second)


@dataclass(frozen=True, eq=False)
class JudgeExample:
    """One clip under one prompt with known answers.

    Attributes:
        video_id: the clip; all examples of one clip fall on the same side of the validation split.
        frames: uint8 [frames, height, width, 3], or where they are read from.
        prompt: what ``[[prompt]]`` stands for.
        labels: question_id -> yes.
        caption: a text the clip can be described by, or empty.
        frames_per_second: of ``frames``, where known.
        split: 'train', 'validation' (chooses the checkpoint) or 'test' (reported only); empty lets
            :func:`is_held_out` choose between train and validation.
        source: where the clip comes from; the report has a part a source.
        content: hash of the clip's file, where known; an interrupted training does not go on with other clips.
    """

    video_id: str
    frames: Frames | StoredFrames
    prompt: str
    labels: Mapping[str, bool]
    caption: str = ""
    frames_per_second: float | None = None
    split: str = ""
    source: str = ""
    content: str = ""

    def read(self) -> Frames:
        """The frames themselves."""
        return self.frames.read() if isinstance(self.frames, StoredFrames) else self.frames


@dataclass(frozen=True, eq=False)
class TrainedJudge:
    """What training gives.

    Attributes:
        family: the model with the best checkpoint's weights.
        report: a row a source and question on clips of the test split (of validation where there is none): see
            :func:`question_report`.
        log: a row a step: step, loss, answer_loss, caption_loss, learning_rate, gradient_norm, balanced_accuracy.
        summary: figures of the run.
    """

    family: Family
    report: pd.DataFrame
    log: pd.DataFrame
    summary: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Writes the judge's folder."""
        self.family.save(folder)


def is_held_out(video_id: str, share: float) -> bool:
    """Whether a clip belongs to the validation part: a property of the clip alone, not of order or seed."""
    return int(content_hash("judge validation", video_id, length=12), 16) < share * 16**12


def count_answers(examples: Sequence[JudgeExample]) -> Counter[tuple[str, bool]]:
    """How often each (question, answer) occurs."""
    return Counter((question, bool(answer)) for example in examples for question, answer in example.labels.items())


def balance_weights(counts: Mapping[tuple[str, bool], int]) -> dict[tuple[str, bool], float]:
    """Weights (question, answer) -> 0.5 / share of that answer, so that yes and no weigh the same in each question.

    Together the answers of a question weigh as much as they are many. A question with one kind of answer only gets
    weight 1 for it.

    Args:
        counts: (question, answer) -> how often it occurs, or is asked; at least once.
    """
    weights: dict[tuple[str, bool], float] = {}
    for question, answer in counts:
        share = counts[question, answer] / (counts.get((question, True), 0) + counts.get((question, False), 0))
        weights[question, answer] = 0.5 / share if share < 1 else 1.0
    return weights


def question_report(
    p_yes: NDArray[np.float64], labels: NDArray[np.float64], question_ids: Sequence[str], *, bins: int = 10
) -> pd.DataFrame:
    """How well each question is answered.

    Args:
        p_yes: [examples, questions].
        labels: [examples, questions], 1 yes, 0 no, NaN unknown.

    Returns:
        question_id, n, positives (share of yes), accuracy, balanced_accuracy (mean of the accuracies on yes and on no;
        of the one kind where only one occurs), calibration_error (expected, equal-width bins), calibration (the curve:
        mean p_yes, share of yes and n of each bin that is not empty, as JSON).
    """
    rows = []
    edges = np.linspace(0, 1, bins + 1)[1:-1]
    for at, question in enumerate(question_ids):
        known = ~np.isnan(labels[:, at])
        truth, probability = labels[known, at] > 0.5, p_yes[known, at]
        said = probability > 0.5
        kinds = [float((said == truth)[truth == kind].mean()) for kind in (True, False) if (truth == kind).any()]
        curve, error = [], 0.0
        where = np.digitize(probability, edges)
        for number in range(bins):
            inside = where == number
            if inside.any():
                mean, share = float(probability[inside].mean()), float(truth[inside].mean())
                curve.append([round(mean, 4), round(share, 4), int(inside.sum())])
                error += abs(mean - share) * float(inside.mean())
        rows.append(
            {
                "question_id": question,
                "n": int(known.sum()),
                "positives": float(truth.mean()) if len(truth) else math.nan,
                "accuracy": float((said == truth).mean()) if len(truth) else math.nan,
                "balanced_accuracy": float(np.mean(kinds)) if kinds else math.nan,
                "calibration_error": error if len(truth) else math.nan,
                "calibration": json.dumps(curve),
            }
        )
    return pd.DataFrame(rows)


def labels_matrix(examples: Sequence[JudgeExample], question_ids: Sequence[str]) -> NDArray[np.float64]:
    """Labels as [examples, questions]: 1 yes, 0 no, NaN where not annotated."""
    return np.array(
        [
            [float(example.labels[question]) if question in example.labels else math.nan for question in question_ids]
            for example in examples
        ]
    )


def start_family(parameters: JudgeTrainingParameters, vocabulary: Callable[[], Sequence[str]]) -> Family:
    """The model that training starts from, on its device.

    Args:
        parameters: says which.
        vocabulary: called for a new tiny judge only: the words it shall know.
    """
    if parameters.tiny is not None:
        from vr_pipeline.judges.training.tiny import create_tiny_judge

        family: Family = create_tiny_judge(parameters.tiny, vocabulary(), seed=parameters.seed)
        return family
    from vr_pipeline.vlm.loading import load_family

    assert parameters.start is not None
    return load_family(parameters.start)


def train_judge(
    examples: Sequence[JudgeExample],
    checklist: Checklist,
    parameters: JudgeTrainingParameters,
    *,
    checkpoint_folder: Path | None = None,
    observe: Observe | None = None,
) -> TrainedJudge:
    """Trains a judge and keeps the checkpoint with the best balanced accuracy on held-out clips.

    The same examples, parameters and number of threads give the same weights on the same machine. Processes that were
    launched together share the passes of every step and the clips of every validation, and end with the weights that
    one process would have but for rounding.

    Args:
        examples: annotated clips; a part is held out by :func:`is_held_out`.
        checklist: texts of the questions.
        parameters: model, optimiser and schedule.
        checkpoint_folder: state is stored here at every validation, and an interrupted run goes on from it. The last
            stays: a training of the same identity takes it up instead of being done again.
        observe: called by the main process with every row of the log, those of before a stop included.

    Raises:
        InputError: there are no examples, or all are on one side of the split, or a label names no question, or the
            processes cannot share the passes of a step evenly.
    """
    import torch

    from vr_pipeline.engine.determinism import deterministic
    from vr_pipeline.engine.groups import launched_processes, training_group

    check_processes(parameters, launched_processes())
    question_ids = checklist.question_ids
    known = set(question_ids)
    for example in examples:
        for question in example.labels:
            if question not in known:
                raise InputError(
                    f"annotation of video '{example.video_id}' names the unknown question '{question}'",
                    remedy="Correct the annotation or use the checklist it was made with",
                    field="question_id",
                )
    parts: dict[str, list[JudgeExample]] = {"train": [], "validation": [], "test": []}
    for example in examples:
        split = example.split
        if split not in ("validation", "test"):
            split = "validation" if is_held_out(example.video_id, parameters.validation_share) else "train"
        parts[split].append(example)
    if not parts["train"] or not parts["validation"]:
        raise InputError(
            f"{len(parts['train'])} annotated clips for training and {len(parts['validation'])} for validation",
            remedy="Annotate more clips or change validation_share",
            field="judge_training.validation_share",
        )
    with deterministic(parameters.threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(parameters.seed)
        run = _Run(parts, checklist, parameters, checkpoint_folder, observe)
        with training_group(run.family.device) as run.group:
            return run.train()


def check_processes(parameters: JudgeTrainingParameters, processes: int) -> None:
    """Whether so many processes can share the passes of a step. Raises :class:`InputError` where they cannot."""
    if parameters.accumulation % processes:
        raise InputError(
            f"{processes} processes cannot share the passes of a step evenly: "
            f"accumulation is {parameters.accumulation}",
            remedy=f"Set accumulation to a multiple of {processes}, and clips_per_batch (the clips of a pass, now "
            f"{parameters.clips_per_batch}) so that their product, the clips of a step, is what you want",
            field="judge_training.accumulation",
        )


class _Run:
    """One training run."""

    def __init__(
        self,
        parts: Mapping[str, Sequence[JudgeExample]],
        checklist: Checklist,
        parameters: JudgeTrainingParameters,
        checkpoint_folder: Path | None,
        observe: Observe | None,
    ) -> None:
        from vr_pipeline.judges.vlm import VisionLanguageJudge
        from vr_pipeline.vlm.config import JudgeParameters

        self.checklist, self.parameters = checklist, parameters
        self.training, self.validation = parts["train"], parts["validation"]
        self.held_out = parts["test"] or parts["validation"]
        self.checkpoint_folder, self.observe = checkpoint_folder, observe
        self.group = Group()
        self.question_ids = checklist.question_ids
        self.texts = {question.question_id: question.text for question in checklist.questions}
        self.family = start_family(parameters, self._vocabulary)
        asking = parameters.start or JudgeParameters(family="qwen2_vl", path="./new")
        self.judge: VisionLanguageJudge = VisionLanguageJudge(self.family, asking, identity="in training")
        if parameters.lora is not None:
            self._add_lora()
        else:
            self.family.model.requires_grad_(True)
        self._keep_trained_weights_precise()
        if parameters.gradient_checkpointing:
            self.family.enable_gradient_checkpointing()
        self.yes, self.no = self._target("Yes", self.judge.yes_ids), self._target("No", self.judge.no_ids)
        self.balance = balance_weights(count_answers(self.training))
        self.answer_weights: dict[tuple[str, bool], float] = {}
        self.weight_per_pass: float | None = None
        self.prepared: dict[int, PreparedClip] = {}
        self.prepared_bytes = 0
        self.passes = 0

    def _target(self, word: str, spellings: Sequence[int]) -> int:
        """The token that is taught: the usual spelling where it is one token."""
        usual = self.family.text_ids(word)
        return usual[0] if len(usual) == 1 and usual[0] in spellings else spellings[0]

    def _vocabulary(self) -> list[str]:
        from vr_pipeline.judges.training.tiny import words_of

        texts = {question.text.replace(PROMPT_PLACEHOLDER, " ") for question in self.checklist.questions}
        for example in (*self.training, *self.validation, *self.held_out):
            texts |= {example.prompt, example.caption}
        return words_of(texts)

    def _add_lora(self) -> None:
        from peft import LoraConfig, inject_adapter_in_model

        lora = self.parameters.lora
        assert lora is not None
        self.family.model.requires_grad_(False)
        config = LoraConfig(
            r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=list(lora.target_modules)
        )
        # Injected in place: the families reach into the model by its own names.
        inject_adapter_in_model(config, self.family.model)

    def _keep_trained_weights_precise(self) -> None:
        """Trained weights in float32 where the model is not: small steps would vanish in the rounding of bfloat16."""
        import torch

        self.loaded_dtypes = {name: weight.dtype for name, weight in self.family.model.named_parameters()}
        for weight in self.family.model.parameters():
            if weight.requires_grad and weight.dtype != torch.float32:
                weight.data = weight.data.float()

    def _restore_dtypes(self) -> None:
        """The model is kept in the precision in which it came."""
        for name, weight in self.family.model.named_parameters():
            weight.data = weight.data.to(self.loaded_dtypes.get(name, weight.dtype))

    def train(self) -> TrainedJudge:
        import torch

        parameters = self.parameters
        self._weigh_answers()
        weights = [weight for weight in self.family.model.parameters() if weight.requires_grad]
        optimisers = self._optimisers()
        average = [weight.detach().clone() for weight in weights] if parameters.average_decay else None
        batches = self._batches()
        log: list[dict[str, float]] = []
        best: tuple[float, list[torch.Tensor]] = (-1.0, [])
        first_step = 1
        restored = self._restore(weights, optimisers, average)
        if restored is not None:
            first_step, log, best = restored
            self.passes = (first_step - 1) * parameters.accumulation
            for _ in range(self.passes):
                next(batches)
        if self.group.from_main(first_step) != first_step:
            raise InputError(
                "the processes of this training see different checkpoints",
                file=self._state_path(),
                remedy="Put the folder of checkpoints on a disk that all machines share",
            )
        for row in log:
            self._show(row)
        progress = progress_bar(
            range(first_step, parameters.steps + 1),
            description="train judge",
            initial=first_step - 1,
            unit="step",
            disable=not self.group.main,
        )
        for step in progress:
            self.family.model.train()
            rate = learning_rate(step, parameters)
            for optimiser in optimisers:
                for group in optimiser.param_groups:
                    group["lr"] = group["initial_lr"] * rate / parameters.learning_rate
            losses = self._accumulate(batches, weights)
            norm = float(torch.nn.utils.clip_grad_norm_(weights, parameters.max_gradient_norm))
            if not np.isfinite([*losses, norm]).all():
                raise InputError(
                    f"the training diverged: at step {step} the losses of answers and captions are "
                    f"{losses[0]:g} and {losses[1]:g}, the gradient norm {norm:g}",
                    remedy="Lower learning_rate, or set dtype of start to bfloat16 or float32; training resumes from "
                    "its last state in checkpoint_folder",
                    field="judge_training.learning_rate",
                )
            for optimiser in optimisers:
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            if average is not None and parameters.average_decay is not None:
                # A young average would be dominated by the random start: its memory grows with the steps made.
                decay = min(parameters.average_decay, (1 + step) / (10 + step))
                torch._foreach_lerp_(average, [weight.detach() for weight in weights], 1 - decay)
            row = {
                "step": step,
                "loss": float(losses[0] + parameters.caption_weight * losses[1]),
                "answer_loss": float(losses[0]),
                "caption_loss": float(losses[1]),
                "learning_rate": rate,
                "gradient_norm": norm,
                "balanced_accuracy": math.nan,
            }
            due = step % parameters.validate_every == 0 or step == parameters.steps
            if due:
                with self._averaged(weights, average):
                    row["balanced_accuracy"] = self._validate()
                    if row["balanced_accuracy"] > best[0]:
                        best = (row["balanced_accuracy"], [weight.detach().clone() for weight in weights])
                progress.set_postfix(loss=f"{row['loss']:.3f}", balanced_accuracy=f"{row['balanced_accuracy']:.3f}")
            log.append(row)
            self._show(row)
            if due and self.group.main:
                self._store(step, weights, optimisers, average, log, best)
        with torch.no_grad():
            for weight, kept in zip(weights, best[1], strict=True):
                weight.copy_(kept)
        return self._finish(pd.DataFrame(log))

    def _accumulate(self, batches: Iterator[list[int]], weights: Sequence[torch.Tensor]) -> NDArray[np.float64]:
        """Gradients of a step's passes, summed over all processes; mean loss of the answers and of the captions."""
        import torch

        count = self.parameters.accumulation
        losses = torch.zeros(2, dtype=torch.float64)
        for number in range(count):
            batch = next(batches)
            if number % self.group.size == self.group.rank:
                loss, parts = self._loss(batch)
                (loss / count).backward()
                losses += torch.tensor(parts, dtype=torch.float64) / count
            self.passes += 1
        if self.group.size > 1:
            # A weight that no pass of this process used may have been used by another's; one that none used keeps none.
            used = torch.tensor([weight.grad is not None for weight in weights])
            anywhere = self.group.gather({"used": used})["used"].view(-1, self.group.size).any(dim=1)
            chosen = [weight for weight, wanted in zip(weights, anywhere, strict=True) if wanted]
            for weight in chosen:
                if weight.grad is None:
                    weight.grad = torch.zeros_like(weight)
            self.group.sum_gradients(chosen)
        return self.group.gather({"losses": losses})["losses"].view(2, -1).sum(dim=1).numpy()

    def _show(self, row: Mapping[str, float]) -> None:
        if self.observe is not None and self.group.main:
            self.observe({name: value for name, value in row.items() if not math.isnan(value)})

    def _optimisers(self) -> list[torch.optim.Optimizer]:
        """AdamW for everything, or for all but the layers' matrices, which Muon then trains."""
        import torch

        parameters = self.parameters
        model = self.family.model
        ends = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
        trained = [weight for weight in self.family.model.parameters() if weight.requires_grad]
        muon = parameters.matrix_learning_rate is not None
        matrices = [weight for weight in trained if muon and weight.ndim == 2 and id(weight) not in ends]
        chosen = {id(weight) for weight in matrices}
        optimisers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(
                [weight for weight in trained if id(weight) not in chosen],
                lr=parameters.learning_rate,
                betas=(0.9, parameters.beta2),
                weight_decay=parameters.weight_decay,
                fused=True,
            )
        ]
        if matrices:
            from vr_pipeline.engine.muon import Muon

            rate = float(parameters.matrix_learning_rate or 0.0)
            optimisers.append(Muon(matrices, lr=rate, weight_decay=parameters.weight_decay))
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["initial_lr"] = group["lr"]
        return optimisers

    def _finish(self, log: pd.DataFrame) -> TrainedJudge:
        self.family.model.eval()
        p_yes, outside = self._answers(self.held_out)
        labels = labels_matrix(self.held_out, self.question_ids)
        sources = np.array([example.source for example in self.held_out])
        reports = []
        for source in sorted(set(sources)):
            rows = sources == source
            part = question_report(p_yes[rows], labels[rows], self.question_ids)
            part.insert(0, "source", source)
            reports.append(part)
        report = pd.concat(reports, ignore_index=True)
        if self.held_out is self.validation:
            logger.warning(
                "No clip is of split 'test': the report is about the clips that chose the checkpoint, so that its "
                "figures are rather too high"
            )
        if self.parameters.lora is not None:
            _merge_lora(self.family.model)
        self._restore_dtypes()
        by_source = {
            str(source or "all"): {
                "accuracy": float(part["accuracy"].mean()),
                "balanced_accuracy": float(part["balanced_accuracy"].mean()),
                "lowest_balanced_accuracy": float(part["balanced_accuracy"].min()),
            }
            for source, part in report.groupby("source")
        }
        summary = {
            "by_source": by_source,
            "median_outside_mass": float(np.median(outside)),
            "training_examples": len(self.training),
            "validation_examples": len(self.validation),
            "held_out_examples": len(self.held_out),
            "held_out_chose_the_checkpoint": self.held_out is self.validation,
            "parameters": int(sum(weight.numel() for weight in self.family.model.parameters())),
        }
        return TrainedJudge(self.family, report, log, summary)

    def _batches(self) -> Iterator[list[int]]:
        """Numbers of examples, each once an epoch, in an order that the seed determines."""
        size = self.parameters.clips_per_batch
        order = np.random.default_rng(self.parameters.seed)
        queue: list[int] = []
        while True:
            while len(queue) < size:
                queue.extend(order.permutation(len(self.training)).tolist())
            yield queue[:size]
            queue = queue[size:]

    def _loss(self, batch: Sequence[int]) -> tuple[torch.Tensor, tuple[float, float]]:
        import torch

        from vr_pipeline.vlm.prefix import packed_logits

        seed, asked = self._draw(batch, self.passes)
        torch.manual_seed(seed)
        clips, segments = [], []
        targets: list[int] = []
        answer_weights: list[float] = []
        caption_weights: list[float] = []
        for number, questions in zip(batch, asked, strict=True):
            example = self.training[number]
            clips.append(self._prepared(number, example))
            row = []
            for question in questions:
                row.append(self._question_segment(question, example.prompt))
                label = bool(example.labels[question])
                targets.append(self.yes if label else self.no)
                answer_weights.append(self.answer_weights.get((question, label), 1.0))
                caption_weights.append(0.0)
            if self.parameters.caption_weight and example.caption:
                segment, words = self._caption_segment(example.caption)
                row.append(segment)
                targets.extend(words)
                answer_weights.extend([0.0] * len(words))
                caption_weights.extend([1.0] * len(words))
            segments.append(row)
        device = self.family.device
        with self._precision():
            logits = packed_logits(self.family, clips, segments)
        losses = torch.nn.functional.cross_entropy(logits, torch.tensor(targets, device=device), reduction="none")
        answer = _weighted_mean(losses, answer_weights, self.weight_per_pass)
        caption = _weighted_mean(losses, caption_weights)
        return answer + self.parameters.caption_weight * caption, (float(answer.detach()), float(caption.detach()))

    def _precision(self) -> AbstractContextManager[Any]:
        """Reduced precision of activations where the configuration asks for it."""
        import torch

        start = self.parameters.start
        if start is None or start.dtype == "float32":
            return nullcontext()
        return torch.autocast(self.family.device.type, dtype=getattr(torch, start.dtype))

    def _weigh_answers(self) -> None:
        """Weights of the answers that will be asked, and their sum a pass; neither where drawing alone balances.

        The whole training's questions are drawn beforehand: so the weights of yes and of no are the same over all that
        is asked, not about so. Losses are divided by the mean sum of a pass, not by its own: that would take from rare
        answers what their weights give them, most where a pass has few clips.
        """
        parameters = self.parameters
        if parameters.questions_per_clip is not None and not parameters.exact_balance:
            return
        asked: Counter[tuple[str, bool]] = Counter()
        passes = parameters.steps * parameters.accumulation
        numbers = progress_bar(range(passes), description="draw questions", disable=not self.group.main, leave=False)
        for number, batch in zip(numbers, self._batches(), strict=False):
            for at, questions in zip(batch, self._draw(batch, number)[1], strict=True):
                labels = self.training[at].labels
                asked.update((question, bool(labels[question])) for question in questions)
        self.answer_weights, self.weight_per_pass = balance_weights(asked), asked.total() / passes

    def _draw(self, batch: Sequence[int], number: int) -> tuple[int, list[list[str]]]:
        """The seed of a pass and the questions it asks about each of its clips.

        They depend on the number of the pass alone, so that a resumed run draws what it would have drawn.
        """
        random = np.random.default_rng([self.parameters.seed, number])
        seed = int(random.integers(2**31))
        return seed, [self._questions(self.training[at], random) for at in batch]

    def _questions(self, example: JudgeExample, random: np.random.Generator) -> list[str]:
        asked = [question for question in self.question_ids if question in example.labels]
        count = self.parameters.questions_per_clip
        if count is None or count >= len(asked):
            return asked
        odds = np.array([self.balance[question, bool(example.labels[question])] for question in asked])
        chosen = random.choice(len(asked), size=count, replace=False, p=odds / odds.sum())
        return [asked[at] for at in sorted(chosen)]

    def _question_segment(self, question: str, prompt: str) -> Segment:
        return self.judge.question_segment(self.texts[question].replace(PROMPT_PLACEHOLDER, prompt))

    def _caption_segment(self, caption: str) -> tuple[Segment, list[int]]:
        """The caption behind its question: every one of its words is predicted from those before it."""
        family = self.family
        asked = self.judge.question_segment(self.parameters.caption_question).token_ids
        words = family.user_text_ids(caption)
        end = family.tokenizer.eos_token_id
        targets = [*words, end] if end is not None else words
        token_ids = (*asked, *targets[:-1])
        return Segment(token_ids, tuple(range(len(asked) - 1, len(token_ids)))), targets

    def _prepared(self, number: int, example: JudgeExample) -> PreparedClip:
        if number not in self.prepared:
            clip = self.judge.prepare(example.read(), example.frames_per_second)
            # Small clips are prepared once, as long as the memory meant for clips holds them.
            size = sum(array.nbytes for array in clip.vision.values())
            if size > 1_000_000 or self.prepared_bytes + size > self.parameters.memory_mb * 1e6:
                return clip
            self.prepared[number] = clip
            self.prepared_bytes += size
        return self.prepared[number]

    def _answers(self, examples: Sequence[JudgeExample]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Probabilities of yes and outside masses [examples, questions]; each process asks about its share."""
        texts = [self.texts[question] for question in self.question_ids]
        p_yes, outside = np.empty((2, 0, len(texts)))
        size = self.parameters.clips_per_batch
        share = self.group.share(examples)
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
        return self._of_all(p_yes, len(examples)), self._of_all(outside, len(examples))

    def _of_all(self, rows: NDArray[np.float64], count: int) -> NDArray[np.float64]:
        """Rows of all processes in the order of the examples; shares may differ by one, so they are filled up."""
        import torch

        longest = -(-count // self.group.size)
        filled = np.full((longest, rows.shape[1]), math.nan)
        filled[: len(rows)] = rows
        gathered = self.group.gather({"rows": torch.from_numpy(filled)})["rows"]
        return gathered.view(-1, rows.shape[1])[:count].numpy()

    def _validate(self) -> float:
        self.family.model.eval()
        part = self.validation[: self.parameters.validation_clips]
        p_yes, _ = self._answers(part)
        report = question_report(p_yes, labels_matrix(part, self.question_ids), self.question_ids)
        return float(report["balanced_accuracy"].mean())

    def _averaged(self, weights: list[Any], average: list[Any] | None) -> AbstractContextManager[None]:
        return nullcontext() if average is None else _Swapped(weights, average)

    def _state_path(self) -> Path | None:
        return None if self.checkpoint_folder is None else self.checkpoint_folder / "training_state.safetensors"

    @cached_property
    def _identity(self) -> str:
        """Hash of what determines the training: settings, checklist, weights at the start, clips of each part."""
        start = self.parameters.start
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
            for part, examples in (("training", self.training), ("validation", self.validation))
            for example in examples
        ]
        return content_hash(
            "judge training",
            self.parameters.model_dump_json(exclude={"checkpoint_folder", "retrain", "kept_trainings"}),
            self.checklist.hash,
            # The content of the model's folder, which may be another under the same name.
            judge_identity(start) if start is not None else "",
            *clips,
        )

    def _store(self, step: int, weights: Any, optimisers: Any, average: Any, log: Any, best: Any) -> None:
        import torch

        path = self._state_path()
        if path is None:
            return
        tensors: dict[str, torch.Tensor] = {}
        for name, values in (("weights", weights), ("average", average or []), ("best", best[1])):
            tensors |= {f"{name}/{at}": value.detach() for at, value in enumerate(values)}
        groups = []
        for number, optimiser in enumerate(optimisers):
            stored = optimiser.state_dict()
            groups.append(stored["param_groups"])
            for at, entries in stored["state"].items():
                tensors |= {f"optimiser/{number}/{at}/{key}": torch.as_tensor(entry) for key, entry in entries.items()}
        header = {"identity": self._identity, "step": step, "log": log, "best_value": best[0], "groups": groups}
        # Copies, since the format refuses tensors that share memory.
        copies = {name: tensor.to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
        write_state(path, copies, header, finished=step == self.parameters.steps)

    def _restore(self, weights: Any, optimisers: Any, average: Any) -> tuple[int, list[dict[str, float]], Any] | None:
        """The state of an interrupted run of the same identity: the result is as if it had not been interrupted."""
        import torch

        path = self._state_path()
        if path is None or not path.exists():
            return None
        with open_state(path, device=str(self.family.device)) as (file, header):
            if header["identity"] != self._identity:
                logger.warning("The stored state of another training is ignored: %s", path)
                return None
            if header["finished"] and self.parameters.retrain:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        with torch.no_grad():
            for at, weight in enumerate(weights):
                weight.copy_(tensors[f"weights/{at}"])
            for at, mean in enumerate(average or []):
                mean.copy_(tensors[f"average/{at}"])
        for number, (optimiser, groups) in enumerate(zip(optimisers, header["groups"], strict=True)):
            state: dict[int, dict[str, torch.Tensor]] = {}
            for name, tensor in tensors.items():
                kind, *rest = name.split("/")
                if kind == "optimiser" and int(rest[0]) == number:
                    state.setdefault(int(rest[1]), {})[rest[2]] = tensor
            optimiser.load_state_dict({"state": state, "param_groups": groups})
        best = [tensors[f"best/{at}"] for at in range(sum(name.startswith("best/") for name in tensors))]
        logger.info("Training goes on after step %d.", header["step"])
        return header["step"] + 1, header["log"], (header["best_value"], best)


class _Swapped(AbstractContextManager[None]):
    """Within this context the weights hold other values."""

    def __init__(self, weights: list[Any], values: list[Any]) -> None:
        self.weights, self.values = weights, values

    def __enter__(self) -> None:
        import torch

        self.kept = [weight.detach().clone() for weight in self.weights]
        with torch.no_grad():
            for weight, value in zip(self.weights, self.values, strict=True):
                weight.copy_(value)

    def __exit__(self, *exception: object) -> None:
        import torch

        with torch.no_grad():
            for weight, value in zip(self.weights, self.kept, strict=True):
                weight.copy_(value)


def learning_rate(step: int, parameters: JudgeTrainingParameters) -> float:
    """Learning rate of a step, counted from 1: linear warm-up, then the schedule down to 0 at the last step."""
    if step <= parameters.warmup_steps:
        return parameters.learning_rate * step / parameters.warmup_steps
    if parameters.schedule == "constant":
        return parameters.learning_rate
    share = (step - parameters.warmup_steps) / max(parameters.steps - parameters.warmup_steps, 1)
    if parameters.schedule == "linear":
        return parameters.learning_rate * (1 - share)
    return parameters.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


def _weighted_mean(losses: torch.Tensor, weights: Sequence[float], total: float | None = None) -> torch.Tensor:
    """Sum of weights times losses over ``total``, or over the sum of the weights."""
    import torch

    tensor = torch.tensor(weights, dtype=losses.dtype, device=losses.device)
    return (losses * tensor).sum() / (tensor.sum().clamp_min(1e-8) if total is None else total)


def _merge_lora(model: Any) -> None:
    """Adds every low-rank update to its weight and removes the adapter's modules."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge(safe_merge=True)
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent) if parent else model, attribute, copy.copy(module.get_base_layer()))
