"""Parameters of prompt filtering. The defaults suit prompts by people for real generators."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from vr_pipeline.config import Parameters
from vr_pipeline.prompts.rules import RULES, Limits
from vr_pipeline.runtime.endpoint import EndpointParameters

DEFAULT_RULES = (
    "normalise_unicode",
    "remove_control_characters",
    "remove_web_addresses",
    "remove_generator_flags",
    "collapse_white_space",
    "drop_empty",
    "drop_length",
    "drop_symbol_soup",
    "drop_repeated_words",
    "drop_poor_content",
    "drop_other_scripts",
    "drop_other_languages",
    "drop_unsafe",
    "drop_exact_duplicates",
)


class CleaningParameters(Limits):
    """Cleaning rules in their order, and their limits."""

    rules: tuple[str, ...] = Field(
        default=DEFAULT_RULES,
        description="names of functions in vr_pipeline.prompts.rules, applied in this order",
    )

    @field_validator("rules")
    @classmethod
    def _known_rules(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in value if name not in RULES]
        if unknown:
            raise ValueError(f"unknown cleaning rules {unknown}; known are {sorted(RULES)}")
        if len(set(value)) < len(value):
            raise ValueError("a cleaning rule is duplicated")
        if value[-1:] != ("drop_exact_duplicates",):
            raise ValueError(
                "the last cleaning rule must be drop_exact_duplicates: a prompt's identifier is its normalised text"
            )
        return value


class RougeParameters(Parameters):
    """Removal of prompts with nearly the words of an earlier one."""

    threshold: float = Field(
        default=0.7,
        gt=0,
        le=1,
        description="drop a prompt if its Rouge-L F1 with a kept one is above this; 1 turns this off",
    )


class EmbedderParameters(Parameters):
    """The embedding model of prompts."""

    kind: Literal["wordllama", "sentence_transformers"] = Field(
        default="wordllama",
        description="wordllama has its weights in its package; sentence_transformers loads any model by name",
    )
    model: str = Field(
        default="",
        description="for sentence_transformers: a name on the model hub, a folder, or 'package:NAME' for a Python "
        "package with the model's files; not used for wordllama",
    )
    scripts: tuple[str, ...] = Field(
        default=("LATIN",),
        description="Unicode scripts that the model covers (LATIN, CYRILLIC, CJK ...), LATIN up to U+024F; other "
        "prompts are not compared by meaning, and the report has their number; empty: all scripts",
    )
    device: str = Field(default="cpu", description="torch device of a sentence_transformers model")
    batch_size: int = Field(default=64, ge=1, description="prompts per batch")
    part_size: int = Field(default=8192, ge=1, description="write embeddings to disk after this many prompts")

    @model_validator(mode="after")
    def _named_model(self) -> EmbedderParameters:
        if self.kind == "sentence_transformers" and not self.model:
            raise ValueError("embedder.kind sentence_transformers needs embedder.model")
        return self


class SemanticParameters(Parameters):
    """Removal of prompts with nearly the meaning of an earlier one."""

    enabled: bool = Field(default=True, description="embed prompts and remove near-duplicates by meaning")
    threshold: float = Field(
        default=0.8, gt=-1, le=1, description="drop a prompt if its cosine with a kept one is above this"
    )
    block_size: int = Field(
        default=1024,
        ge=1,
        description="prompts compared at a time; memory is about 5 bytes times its square per core",
    )
    embedder: EmbedderParameters = Field(default_factory=EmbedderParameters, description="the embedding model")


class DiversityParameters(Parameters):
    """Choice of a diverse subset; off without a count."""

    count: int | None = Field(default=None, ge=1, description="prompts to choose; null keeps all")
    method: Literal["k_centre", "clusters"] = Field(
        default="k_centre",
        description="k_centre: always the prompt farthest from those chosen, for coverage; clusters: about equal "
        "numbers of prompts from many clusters, robust to outliers",
    )
    clusters: int = Field(default=100, ge=1, description="clusters of the method 'clusters'")
    seed: int = Field(default=0, ge=0, description="seed of the first choice and of the clustering")


class LanguageModelParameters(Parameters):
    """A language model for cleaning and rewriting; both are off by default."""

    clean: bool = Field(default=False, description="let the model keep, correct or drop each prompt")
    rewrite: bool = Field(default=False, description="let the model expand each prompt in the generator's style")
    backend: Literal["transformers", "openai"] = Field(
        default="transformers",
        description="a local transformers model, or an endpoint with the OpenAI chat protocol",
    )
    model: str = Field(default="", description="model name, or folder of a local model")
    revision: str | None = Field(default=None, description="commit of a local model on the hub; null: the newest")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32", description="precision of a local model"
    )
    device: str = Field(default="cpu", description="torch device of a local model; 'auto' uses CUDA if available")
    server: EndpointParameters = Field(
        default=EndpointParameters(), description="the endpoint; it is also asked again after unusable answers"
    )
    batch_size: int = Field(default=8, ge=1, description="prompts per forward pass of a local model")
    max_new_tokens: int = Field(default=400, ge=8, description="longest answer (tokens)")
    max_rewritten_words: int = Field(default=200, ge=1, description="longest rewritten prompt (words)")

    @model_validator(mode="after")
    def _named_model(self) -> LanguageModelParameters:
        if (self.clean or self.rewrite) and not self.model:
            raise ValueError("clean and rewrite need language_model.model")
        return self


class SplitParameters(Parameters):
    """Division into train, validation and test by hash of the prompt."""

    test_fraction: float = Field(default=0.05, ge=0, le=1, description="share of prompts in the test split")
    validation_fraction: float = Field(default=0.02, ge=0, le=1, description="share in the validation split")
    salt: str = Field(default="", description="changes the division; keep it the same within a project")
    train_prompts: int | None = Field(
        default=None,
        ge=1,
        description="training prompts to keep, drawn by hash of the prompt; null keeps all",
    )
    rouge_threshold: float = Field(
        default=0.6,
        gt=0,
        le=1,
        description="drop a prompt if its Rouge-L F1 with an earlier one of another split is above this; 1 turns this "
        "off",
    )
    semantic_threshold: float = Field(
        default=0.75,
        gt=-1,
        le=1,
        description="the same for the cosine of embeddings; 1 turns this off",
    )

    @model_validator(mode="after")
    def _room_for_training(self) -> SplitParameters:
        if not math.fsum((self.test_fraction, self.validation_fraction)) < 1:
            raise ValueError("test_fraction and validation_fraction leave no training prompts")
        return self


class ReportParameters(Parameters):
    """Content of the report; does not change which prompts are kept."""

    sample_size: int = Field(
        default=500, ge=0, description="prompts whose nearest neighbours are measured, before and after"
    )
    examples: Annotated[int, Field(ge=0)] = Field(default=3, description="examples per reason")


class PromptFilteringParameters(Parameters):
    """All parameters of prompt filtering."""

    cleaning: CleaningParameters = Field(default_factory=CleaningParameters, description="rules on single prompts")
    rouge: RougeParameters = Field(default_factory=RougeParameters, description="near-duplicates by words")
    semantic: SemanticParameters = Field(default_factory=SemanticParameters, description="near-duplicates by meaning")
    diversity: DiversityParameters = Field(default_factory=DiversityParameters, description="choice of a subset")
    language_model: LanguageModelParameters = Field(
        default_factory=LanguageModelParameters, description="optional steps by a language model"
    )
    split: SplitParameters = Field(default_factory=SplitParameters, description="train, validation and test")
    report: ReportParameters = Field(default_factory=ReportParameters, description="the report")
