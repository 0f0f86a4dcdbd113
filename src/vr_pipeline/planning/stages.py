"""GPU time and memory of every stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from vr_pipeline.judges.training.config import JudgeTrainingParameters
from vr_pipeline.planning.models import reader_facts
from vr_pipeline.planning.rounds import STAGE, made, round_of
from vr_pipeline.planning.settings import PROMPT_TOKENS, Settings

GIB = 2**30
ADAPTER_BYTES = 16
"""A trained weight in float32 with its gradient and the two moments of AdamW."""
FULL_BYTES = 18
"""The same, with the frozen copy that the reference is."""


@dataclass(frozen=True)
class Work:
    """A part of a stage.

    Attributes:
        stage, what: the stage, and what is done, a plural noun with its verb.
        number: of items.
        operations: of one item.
        gpus: GPUs that share the items.
        memory: bytes on each GPU; weights and what training keeps, without workspaces.
        seconds: of one item, where its time was published.
        known: whether there are figures for the model.
        requests: to a server that does the work elsewhere.
    """

    stage: str
    what: str
    number: int
    operations: float = 0.0
    gpus: int = 1
    memory: float = 0.0
    seconds: float | None = None
    known: bool = True
    requests: int = 0

    def gpu_hours(self, tflops: float) -> float:
        """Return GPU-hours at what a GPU sustains."""
        seconds = self.operations / (1e12 * tflops) if self.seconds is None else self.seconds
        return self.number * seconds / 3600

    def hours(self, tflops: float) -> float:
        """Return hours by the clock, all GPUs busy."""
        return self.gpu_hours(tflops) / max(1, min(self.gpus, self.number))

    @property
    def source(self) -> str:
        """How the time is known."""
        if not self.known:
            return "unknown"
        return "published" if self.seconds is not None else "calculated" if self.operations else ""


def planned_work(settings: Settings) -> list[Work]:
    """Return the work of all stages of the system, in their order."""
    works: list[Work] = []
    for stage in settings.system.stages:
        if stage.startswith(STAGE):
            works += _round(round_of(settings, stage), stage)
            continue
        of_stage = _STAGES.get(stage)
        works += of_stage(settings) if of_stage is not None else [Work(stage, "tables, on the CPU", 0)]
    return works


def _sampled(settings: Settings, stage: str, what: str, number: int, gpus: int) -> Work:
    facts = settings.generator_facts
    if facts is None:
        return Work(stage, what, number, gpus=gpus, known=False)
    seconds = facts.published_seconds(settings.gpu.name)
    memory = sampling_memory(settings)
    return Work(stage, what, number, facts.make, gpus, memory, seconds)


def sampling_memory(settings: Settings) -> float:
    """Return the bytes of the generator's parts that lie on the GPU together while it samples."""
    facts = settings.generator_facts
    if facts is None:
        return 0.0
    parts = facts.weights
    match settings.generator.offload:
        case "none":
            return sum(parts.values())
        case "model":
            return max(parts.values())
    return parts["denoiser"] / facts.costs(1).blocks


def _judged(settings: Settings, stage: str, what: str, number: int, gpus: int) -> Work:
    if settings.server is not None:
        return Work(stage, what, number, requests=number * len(settings.checklist.questions))
    if settings.reader is None:
        return Work(stage, what, number, gpus=gpus, known=False)
    return Work(stage, what, number, settings.judging, gpus, settings.reader.weights)


def _answers(settings: Settings) -> Iterator[Work]:
    yield _judged(settings, "checklist_inference", "clips judged", settings.made_clips, settings.workers)
    yield from _given_answers(settings, "checklist_inference")


def _given_answers(settings: Settings, stage: str) -> Iterator[Work]:
    if settings.counts.preference_clips:
        yield _judged(settings, stage, "given clips judged", settings.counts.preference_clips, settings.workers)


def _online_start(settings: Settings) -> Iterator[Work]:
    yield from _given_answers(settings, "online_start")
    facts, prompts = settings.generator_facts, max(one.paired_prompts for one in made(settings))
    what = ("online_start", "prompts encoded", prompts)
    if facts is None:
        yield Work(*what, gpus=settings.workers, known=False)
    else:
        yield Work(*what, facts.encode_prompt, settings.workers, facts.weights["text_encoder"])


def _round(settings: Settings, stage: str) -> Iterator[Work]:
    """Plan a round: clips of the last policy, their answers, and the training on their pairs."""
    yield _sampled(settings, stage, "clips made", settings.made_clips, settings.workers)
    yield _judged(settings, stage, "clips judged", settings.made_clips, settings.workers)
    # Prompts are encoded once for all rounds.
    yield from (replace(work, stage=stage) for work in _training(settings) if work.what != "prompts encoded")


def _ranking(settings: Settings) -> Iterator[Work]:
    reader = settings.reader
    if reader is None:
        yield Work("pair_ranking", "pairs compared", settings.comparisons, gpus=settings.workers, known=False)
        return
    # Both orders; the two share what the vision tower makes.
    visual, text = 2 * settings.visual_tokens, PROMPT_TOKENS
    operations = reader.read(visual, text) + reader.read(visual, text, seen=0)
    number = settings.comparisons
    yield Work("pair_ranking", "pairs compared", number, operations, settings.workers, reader.weights)


def _training(settings: Settings) -> Iterator[Work]:
    facts, recipes = settings.generator_facts, settings.system.recipes
    gpus, (number, prompts) = settings.processes, settings.encoded
    if facts is None:
        yield Work("dpo_training", "clips encoded", number, gpus=settings.workers, known=False)
    else:
        weights = facts.weights
        yield Work("dpo_training", "clips encoded", number, facts.encode, settings.workers, weights["autoencoder"])
        yield Work(
            "dpo_training", "prompts encoded", prompts, facts.encode_prompt, settings.workers, weights["text_encoder"]
        )
    for recipe in recipes:
        training = settings.training.for_recipe(recipe.name).training
        what = f"pairs in {training.steps:,} steps, {recipe.name}"
        if facts is None:
            yield Work("dpo_training", what, training.steps * training.batch_size, gpus=gpus, known=False)
            continue
        costs = facts.costs(training.lora.rank)
        operations = costs.pair_checkpointed if training.gradient_checkpointing else costs.pair
        memory = training_memory(settings, recipe.name)
        yield Work("dpo_training", what, training.steps * training.batch_size, operations, gpus, memory)
    checkpoints = sum(settings.checkpoints(recipe.name) for recipe in recipes)
    if checkpoints:
        # The original is judged once for all recipes. A checkpoint's clips are shared, the checkpoints come in turn.
        clips_of_all = (checkpoints + 1) * settings.validated_clips
        share = min(gpus, settings.validated_clips) or 1
        yield _sampled(settings, "dpo_training", f"clips of {checkpoints + 1} checkpoints", clips_of_all, share)
        yield _judged(settings, "dpo_training", "the same judged", clips_of_all, share)


def training_memory(settings: Settings, recipe: str) -> float:
    """Return the bytes of a training on each GPU: weights, state, and what one pass keeps for its backward pass."""
    facts = settings.generator_facts
    if facts is None:
        return 0.0
    training = settings.training.for_recipe(recipe).training
    costs = facts.costs(training.lora.rank)
    if training.method == "lora":
        state = facts.weights["denoiser"] + ADAPTER_BYTES * costs.adapter
    else:
        state = FULL_BYTES * costs.parameters / (settings.processes if training.sharding == "fsdp2" else 1)
    share = max(1, training.batch_size // settings.processes)
    together = min(training.micro_batch_size or share, share)
    return state + together * costs.kept(checkpointing=training.gradient_checkpointing)


def _evaluation(settings: Settings) -> Iterator[Work]:
    number = settings.evaluated_clips
    yield _sampled(settings, "evaluation", "clips of all policies", number, settings.workers)
    yield _judged(settings, "evaluation", "the same judged", number, settings.workers)


def _judge_training(settings: Settings) -> Iterator[Work]:
    training = JudgeTrainingParameters.model_validate(settings.parameters["judge_training"])
    number, what, start = training.steps * training.batch_size, f"clips in {training.steps:,} steps", training.start
    reader = (
        reader_facts(start.path, start.dtype, settings.known) if start is not None and training.tiny is None else None
    )
    if reader is None:
        yield Work("judge_training", what, number, gpus=settings.processes, known=False)
        return
    each = settings.question_tokens / max(1, len(settings.checklist.questions))
    # Forward, backward to the adapters, and the forward pass again for the checkpoints of its gradients.
    passes = 3 if training.gradient_checkpointing else 2
    operations = passes * reader.read(settings.visual_tokens, each * (training.questions_per_clip or 1))
    yield Work("judge_training", what, number, operations, settings.processes, reader.weights)


_STAGES: dict[str, Callable[[Settings], Iterable[Work]]] = {
    "judge_training": _judge_training,
    "online_start": _online_start,
    "prompt_filtering": lambda given: [Work("prompt_filtering", "prompts, on the CPU", given.counts.prompts)],
    "video_generation": lambda given: [
        _sampled(given, "video_generation", "clips made", given.made_clips, given.workers)
    ],
    "checklist_inference": _answers,
    "reward_scoring": lambda given: [_judged(given, "reward_scoring", "clips scored", given.made_clips, given.workers)],
    "pair_ranking": _ranking,
    "dpo_training": _training,
    "evaluation": _evaluation,
}
