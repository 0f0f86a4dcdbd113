"""Parameters of prompt filtering. The defaults suit prompts that people wrote for real generators."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from vr_pipeline.config import Parameters
from vr_pipeline.prompts.rules import RULES, Limits

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
    """Which rules run on every prompt, in which order, and their limits."""

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
            raise ValueError("a cleaning rule is named twice")
        if value[-1:] != ("drop_exact_duplicates",):
            raise ValueError(
                "the last cleaning rule must be drop_exact_duplicates: a prompt's identifier is its normalised text"
            )
        return value


class RougeParameters(Parameters):
    """Removal of prompts that repeat the words of an earlier one."""

    threshold: float = Field(
        default=0.7, gt=0, le=1, description="a prompt goes if its Rouge-L F1 with a kept one is above this; 1 is off"
    )


class EmbedderParameters(Parameters):
    """The model that turns prompts into vectors."""

    kind: Literal["wordllama", "sentence_transformers"] = Field(
        default="wordllama",
        description="wordllama ships its weights in its package; sentence_transformers takes any model by name",
    )
    model: str = Field(
        default="",
        description="for sentence_transformers: a name on the model hub, a folder, or 'package:NAME' for a Python "
        "package that carries the model's files; unused for wordllama",
    )
    scripts: tuple[str, ...] = Field(
        default=("LATIN",),
        description="Unicode scripts that the model covers (LATIN, CYRILLIC, CJK ...), LATIN up to U+024F; other "
        "prompts are not compared by meaning, and the report says how many; empty: the model covers all",
    )
    device: str = Field(default="cpu", description="torch device of a sentence_transformers model")
    batch_size: int = Field(default=64, ge=1, description="prompts a batch (prompts)")
    part_size: int = Field(
        default=8192, ge=1, description="prompts after which finished embeddings are written to disk (prompts)"
    )

    @model_validator(mode="after")
    def _named_model(self) -> EmbedderParameters:
        if self.kind == "sentence_transformers" and not self.model:
            raise ValueError("embedder.model must name a model when embedder.kind is sentence_transformers")
        return self


class SemanticParameters(Parameters):
    """Removal of prompts that mean the same as an earlier one."""

    enabled: bool = Field(default=True, description="embed prompts and remove near-duplicates by meaning")
    threshold: float = Field(
        default=0.8, gt=-1, le=1, description="a prompt goes if its cosine with a kept one is above this"
    )
    block_size: int = Field(
        default=1024,
        ge=1,
        description="prompts compared at a time; bounds memory to about 5 x its square in bytes a core",
    )
    embedder: EmbedderParameters = Field(default_factory=EmbedderParameters, description="the embedding model")


class DiversityParameters(Parameters):
    """Choice of a diverse subset, off unless a count is given."""

    count: int | None = Field(default=None, ge=1, description="prompts to choose; null keeps all (prompts)")
    method: Literal["k_centre", "clusters"] = Field(
        default="k_centre",
        description="k_centre: each choice is the prompt farthest from those chosen, good for coverage; "
        "clusters: about equally many prompts from each of many clusters, good against outliers",
    )
    clusters: int = Field(default=100, ge=1, description="clusters of the method 'clusters'")
    seed: int = Field(default=0, ge=0, description="seed of the first choice and of the clustering")


class LanguageModelParameters(Parameters):
    """A text model for cleaning and rewriting; both steps are off by default."""

    clean: bool = Field(default=False, description="ask the model whether each prompt is usable: keep, mend or drop")
    rewrite: bool = Field(default=False, description="let the model expand each prompt to the generator's style")
    backend: Literal["transformers", "openai"] = Field(
        default="transformers",
        description="a local model of the transformers library, or an endpoint that speaks the OpenAI chat protocol",
    )
    model: str = Field(default="", description="model name, or folder of a local model")
    device: str = Field(default="cpu", description="torch device of a local model")
    base_url: str = Field(default="http://localhost:8000/v1", description="address of the endpoint, up to /v1")
    api_key_variable: str = Field(
        default="OPENAI_API_KEY", description="environment variable with the endpoint's key; unset sends none"
    )
    timeout: float = Field(default=60.0, gt=0, description="longest wait for one answer of the endpoint (seconds)")
    retries: int = Field(default=2, ge=0, description="further attempts after a failed request or unusable answer")
    workers: int = Field(default=4, ge=1, description="requests to the endpoint at a time")
    batch_size: int = Field(default=8, ge=1, description="prompts a forward pass of a local model (prompts)")
    max_new_tokens: int = Field(default=400, ge=8, description="longest answer (tokens)")
    max_rewritten_words: int = Field(default=200, ge=1, description="longest rewritten prompt (words)")

    @model_validator(mode="after")
    def _named_model(self) -> LanguageModelParameters:
        if (self.clean or self.rewrite) and not self.model:
            raise ValueError("language_model.model must name a model when clean or rewrite is on")
        return self


class SplitParameters(Parameters):
    """Division into train, validation and test by hash of the prompt."""

    test_fraction: float = Field(default=0.05, ge=0, le=1, description="share of prompts in the test split")
    validation_fraction: float = Field(default=0.02, ge=0, le=1, description="share in the validation split")
    salt: str = Field(default="", description="another text gives another division; keep it for the project's life")
    rouge_threshold: float = Field(
        default=0.6,
        gt=0,
        le=1,
        description="a prompt whose Rouge-L F1 with an earlier one of another split is above this is dropped; 1 is off",
    )
    semantic_threshold: float = Field(
        default=0.75,
        gt=-1,
        le=1,
        description="the same for the cosine of embeddings; 1 is off",
    )

    @model_validator(mode="after")
    def _room_for_training(self) -> SplitParameters:
        if not math.fsum((self.test_fraction, self.validation_fraction)) < 1:
            raise ValueError("test_fraction and validation_fraction leave nothing to train on")
        return self


class ReportParameters(Parameters):
    """What the report shows; none of it changes which prompts are kept."""

    sample_size: int = Field(
        default=500, ge=0, description="prompts whose nearest neighbours are measured, before and after (prompts)"
    )
    examples: Annotated[int, Field(ge=0)] = Field(default=3, description="examples shown of each reason")


class PromptFilteringParameters(Parameters):
    """All of prompt filtering."""

    cleaning: CleaningParameters = Field(default_factory=CleaningParameters, description="rules on single prompts")
    rouge: RougeParameters = Field(default_factory=RougeParameters, description="near-duplicates by words")
    semantic: SemanticParameters = Field(default_factory=SemanticParameters, description="near-duplicates by meaning")
    diversity: DiversityParameters = Field(default_factory=DiversityParameters, description="choice of a subset")
    language_model: LanguageModelParameters = Field(
        default_factory=LanguageModelParameters, description="optional steps by a text model"
    )
    split: SplitParameters = Field(default_factory=SplitParameters, description="train, validation and test")
    report: ReportParameters = Field(default_factory=ReportParameters, description="the report")
