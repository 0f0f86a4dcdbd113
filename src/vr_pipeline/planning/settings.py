"""What a plan is computed from: the environment's settings, and numbers of prompts, pairs and GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.evaluation.config import EvaluationParameters
from vr_pipeline.generators.config import GeneratorParameters, VideoGenerationParameters
from vr_pipeline.pairs.config import PairRankingParameters, PairSelectionParameters
from vr_pipeline.pipelines.systems import System
from vr_pipeline.planning.models import GeneratorFacts, ReaderFacts, generator_facts, reader_facts
from vr_pipeline.project.machines import Gpu
from vr_pipeline.prompts.config import SplitParameters
from vr_pipeline.rewards.registry import RewardChoice
from vr_pipeline.runners.config import RunnerConfiguration, TorchrunRoute
from vr_pipeline.training.config import DpoTrainingParameters
from vr_pipeline.vlm.config import ChecklistJudgeParameters, ServerParameters

ASSUMED_GPU = Gpu(name="GPU", memory_gib=80, tflops=300)
"""GPU assumed without a machine profile, with the rate that a large GPU sustains in bfloat16."""
ASSUMED_PROMPTS = 22_000
"""The published number of prompts, where there is no file to count (Xu et al. 2024, VisionReward)."""
PAIRS_PER_PROMPT = 9_400 / 22_000
"""The published share of prompts that give a pair (the same)."""
ASSUMED_FRAMES, ASSUMED_PIXELS = 8, 200_704
"""Frames of a clip, and their area in pixels, assumed for a reward whose settings leave both to its folder."""
PROMPT_TOKENS = 60
"""Approximate number of tokens of a prompt with the words around it."""


@dataclass(frozen=True)
class Counts:
    """Numbers that files or the user give.

    Attributes:
        prompts: raw prompts, or those of each split once they are divided.
        source: where the number of prompts comes from: counted, given or assumed.
        splits: prompts by split, where they are known.
        pairs: pairs of a recipe, where they are known.
        preference_clips: clips that people compared.
    """

    prompts: int
    source: str
    splits: Mapping[str, int] | None = None
    pairs: int | None = None
    preference_clips: int = 0


@dataclass(frozen=True)
class Settings:
    """An environment, a system, a machine and numbers, ready to be planned.

    Attributes:
        most_prompts: prompts for which clips are made, at most; None for all of their splits.
        replay: pairs of earlier rounds that a training also takes, per new pair.
    """

    system: System
    parameters: Mapping[str, Any]
    checklist: Checklist
    runner: RunnerConfiguration
    counts: Counts
    known: Mapping[str, Any]
    clips: Mapping[str, Any]
    gpu: Gpu = ASSUMED_GPU
    gpus: int | None = None
    most_prompts: int | None = None
    replay: float = 0.0
    generator: GeneratorParameters = field(init=False)
    generation: VideoGenerationParameters = field(init=False)
    judge: ChecklistJudgeParameters = field(init=False)
    training: DpoTrainingParameters = field(init=False)
    evaluation: EvaluationParameters = field(init=False)
    selection: PairSelectionParameters = field(init=False)
    ranking: PairRankingParameters = field(init=False)

    def __post_init__(self) -> None:
        blocks: dict[str, tuple[str, Any]] = {
            "generator": ("generator", GeneratorParameters),
            "generation": ("video_generation", VideoGenerationParameters),
            "judge": ("judge", ChecklistJudgeParameters),
            "training": ("dpo_training", DpoTrainingParameters),
            "evaluation": ("evaluation", EvaluationParameters),
            "selection": ("pair_selection", PairSelectionParameters),
            "ranking": ("pair_ranking", PairRankingParameters),
        }
        for name, (block, kind) in blocks.items():
            object.__setattr__(self, name, kind.model_validate(self.parameters[block]))

    # -- numbers ----------------------------------------------------------------------------------------------------

    def prompts(self, splits: list[Any]) -> int:
        """Return the number of prompts in splits: as divided, else from the shares, as if filtering dropped none."""
        if self.counts.splits is not None:
            return sum(self.counts.splits.get(split, 0) for split in splits)
        split = SplitParameters.model_validate(self.parameters["prompt_filtering"].get("split") or {})
        shares = {"test": split.test_fraction, "validation": split.validation_fraction}
        shares["train"] = 1 - sum(shares.values())
        return sum(round(shares[name] * self.counts.prompts) for name in splits)

    @property
    def made_clips(self) -> int:
        """Clips made to be paired."""
        return self.paired_prompts * self.generation.videos_per_prompt

    @property
    def paired_prompts(self) -> int:
        """Prompts for which clips are made to be paired."""
        number = self.prompts(list(self.generation.splits))
        return min(number, self.most_prompts or number)

    @property
    def evaluated_clips(self) -> int:
        """Clips of the original and all policies for held-out prompts."""
        policies = 1 + len(self.system.recipes)
        return policies * self.prompts(list(self.evaluation.splits)) * self.evaluation.videos_per_prompt

    @property
    def pairs(self) -> int:
        """Pairs of a recipe."""
        if self.counts.pairs is not None:
            return self.counts.pairs
        group, made = self.selection.group_size, self.generation.videos_per_prompt
        groups = max(1, made // group) if group else 1
        return round(PAIRS_PER_PROMPT * groups * self.paired_prompts)

    @property
    def encoded(self) -> tuple[int, int]:
        """Clips and prompts of the pairs of all recipes, at most; those of replayed pairs too."""
        pairs = self.pairs * len(self.system.recipes)
        clips = min(2 * pairs, self.made_clips)
        return round(clips * (1 + self.replay)), min(pairs, self.paired_prompts)

    @property
    def comparisons(self) -> int:
        """Pairs of clips that a model compares."""
        made = self.generation.videos_per_prompt
        size = min(made, self.selection.group_size or made)
        each = {"adjacent": size // 2, "all": size * (size - 1) // 2, "random": self.ranking.number or size // 2}
        return self.paired_prompts * max(1, made // size) * each[self.ranking.pairs]

    def checkpoints(self, recipe: str) -> int:
        """Judged checkpoints of a recipe's training, without the original."""
        if self.training.validation is None:
            return 0
        training = self.training.for_recipe(recipe).training
        every = training.checkpoint_every
        return training.steps // every + bool(training.steps % every) if every else 1

    @property
    def validated_clips(self) -> int:
        """Clips that each checkpoint makes."""
        settings = self.training.validation
        if settings is None:
            return 0
        prompts = self.prompts(list(settings.splits))
        return min(prompts, settings.num_prompts or prompts) * settings.videos_per_prompt

    # -- models -----------------------------------------------------------------------------------------------------

    @cached_property
    def generator_facts(self) -> GeneratorFacts | None:
        """What is known of the generator."""
        return generator_facts(self.generator, self.known)

    @cached_property
    def reader(self) -> ReaderFacts | None:
        """What is known of the model that judges clips."""
        if self.system.reward == "checklist":
            dtype = self.judge.dtype if self.judge.quantisation == "none" else self.judge.quantisation
            found = reader_facts(self.judge.path, dtype, self.known)
            if self.judge.served:
                return found
            start = self.parameters["judge_training"].get("start") or {}
            # A judge that is not trained yet is as large as the model it starts from.
            return found or reader_facts(start.get("path"), dtype, self.known)
        block, (path, _) = self.parameters[self.system.reward_block], self.model(self.system.reward_block)
        return reader_facts(path, block.get("dtype") or "float32", self.known, str(block.get("type")))

    def model(self, block: str) -> tuple[str | None, str | None]:
        """Return path and revision of the model that a block of parameters names; the trained one where it says so."""
        named: dict[str, GeneratorParameters | ChecklistJudgeParameters]
        named = {"generator": self.generator, "judge": self.judge}
        if block in named:
            return named[block].path, named[block].revision
        given = RewardChoice.taken(self.parameters[block])
        return given.get("path"), given.get("revision")

    @property
    def server(self) -> ServerParameters | None:
        """The server of the judge, if it is behind one."""
        return self.judge.server if self.system.reward == "checklist" else None

    @property
    def shown(self) -> tuple[int, int]:
        """Frames of a clip, and the area of each in pixels, as the judge or the reward sees it."""
        block = self.parameters["judge" if self.system.reward == "checklist" else self.system.reward_block]
        rate, most, clip = block.get("frames_per_second"), block.get("num_frames"), self.generator
        shown = clip.num_frames if rate is None else max(1, int(clip.num_frames / clip.fps * rate))
        if rate is None and self.system.reward != "checklist":
            shown = min(shown, ASSUMED_FRAMES)
        area = min(
            block.get("max_pixels") or ASSUMED_PIXELS, max(clip.height * clip.width, block.get("min_pixels") or 1)
        )
        return min(shown, most or shown), area

    @property
    def visual_tokens(self) -> float:
        """Visual tokens of a clip, as the judge or the reward sees it."""
        assert self.reader is not None
        return self.reader.tokens(*self.shown)

    @property
    def question_tokens(self) -> float:
        """Tokens of all questions of the checklist: four characters each, and nine around a question."""
        return sum(len(question.text) / 4 + 9 for question in self.checklist.questions)

    @property
    def judging(self) -> float:
        """Operations of one judgement of a clip."""
        assert self.reader is not None
        text = self.question_tokens if self.system.reward == "checklist" else PROMPT_TOKENS
        return self.reader.read(self.visual_tokens, text)

    # -- places -----------------------------------------------------------------------------------------------------

    @property
    def held(self) -> int:
        """GPUs that are held, and paid, as long as the run takes."""
        return self.gpus or max(self.workers, self.processes)

    @property
    def workers(self) -> int:
        """GPUs that share the items of a stage."""
        return self.gpus or self.runner.execution.workers

    @property
    def processes(self) -> int:
        """GPUs that train together: as routed, or as many as share the batch evenly."""
        batch = self.training.training.batch_size
        if self.gpus is not None:
            return max(size for size in range(1, min(self.gpus, batch) + 1) if batch % size == 0)
        route = self.runner.routes.get("train", self.runner.default)
        return route.processes * route.machines if isinstance(route, TorchrunRoute) else 1
