"""Nodes of prompt_filtering. Each step returns the prompts it keeps, and decisions on those it drops."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import IMAGE, image_content
from vr_pipeline.prompts.answer_store import AnswerPlan, Answers
from vr_pipeline.prompts.config import PromptFilteringParameters
from vr_pipeline.prompts.decisions import (
    Dropped,
    apply_scan,
    clean_table,
    decisions,
    drop_rows,
    no_decisions,
    scan_per_image,
)
from vr_pipeline.prompts.embedding_store import EmbeddingPlan, Embeddings

if TYPE_CHECKING:
    from vr_pipeline.prompts.language_tasks import TaskName

logger = logging.getLogger(__name__)


def clean_prompts(
    raw_prompts: pd.DataFrame, parameters: PromptFilteringParameters
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Clean prompts and drop unusable ones, in the configured order of rules."""
    return clean_table(raw_prompts, parameters.cleaning)


def drop_same_words(
    clean_prompts: pd.DataFrame, parameters: PromptFilteringParameters
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Drop prompts whose words repeat those of an earlier one (Rouge-L)."""
    from vr_pipeline.prompts.rouge import greedy_rouge_scan
    from vr_pipeline.prompts.segments import segments

    threshold = parameters.rouge.threshold
    texts = clean_prompts["prompt"].tolist()
    scan = scan_per_image(clean_prompts, texts, partial(greedy_rouge_scan, threshold=threshold, tokens=segments))
    reason = f"Rouge-L F1 {{similarity:.3f}} with an earlier prompt, above {threshold}"
    return apply_scan(clean_prompts, scan, step="rouge", rule="same_words", reason=reason)


def plan_embeddings(lexically_distinct_prompts: pd.DataFrame, parameters: PromptFilteringParameters) -> EmbeddingPlan:
    """List the texts that need embeddings; the catalog entry makes those it does not have."""
    from vr_pipeline.prompts.embedders import embedder_identity, load_embedder

    embedder = parameters.semantic.embedder
    if not parameters.semantic.enabled:
        return EmbeddingPlan([], "off", partial(load_embedder, embedder))
    texts = lexically_distinct_prompts["prompt"].tolist()
    return EmbeddingPlan(texts, embedder_identity(embedder), partial(load_embedder, embedder), embedder.part_size)


def drop_same_meaning(
    lexically_distinct_prompts: pd.DataFrame, prompt_embeddings: Embeddings, parameters: PromptFilteringParameters
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Drop prompts that mean the same as an earlier one (cosine of embeddings)."""
    from vr_pipeline.prompts.report import warn_of_uncovered
    from vr_pipeline.prompts.semantic import greedy_cosine_scan

    settings = parameters.semantic
    if not settings.enabled:
        return lexically_distinct_prompts, no_decisions()
    vectors = prompt_embeddings.of(lexically_distinct_prompts["prompt"].tolist())
    warn_of_uncovered(lexically_distinct_prompts["prompt"].tolist(), vectors)
    compare = partial(greedy_cosine_scan, threshold=settings.threshold, block_size=settings.block_size)
    scan = scan_per_image(lexically_distinct_prompts, vectors, compare)
    reason = f"cosine {{similarity:.3f}} with an earlier prompt, above {settings.threshold}"
    return apply_scan(lexically_distinct_prompts, scan, step="semantic", rule="same_meaning", reason=reason)


def plan_reviews(distinct_prompts: pd.DataFrame, parameters: PromptFilteringParameters) -> AnswerPlan:
    """List the prompts that a text model should review; none unless the step is enabled."""
    texts = distinct_prompts["prompt"].tolist() if parameters.language_model.clean else []
    return _plan_answers("review", texts, parameters)


def apply_reviews(distinct_prompts: pd.DataFrame, prompt_reviews: Answers) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Drop or correct prompts as the text model decided; if it failed, the prompt is unchanged.

    Adds cleaned_prompt (the text before), embedded_prompt (the text that was embedded) and language_model.
    """
    from vr_pipeline.prompts.language_model import Failure

    table = distinct_prompts.assign(
        cleaned_prompt=distinct_prompts["prompt"], embedded_prompt=distinct_prompts["prompt"], language_model=""
    )
    texts, outcomes, dropped = [], [], []
    for index, text in enumerate(distinct_prompts["prompt"]):
        answer = prompt_reviews.of(text)
        outcome = ""
        if isinstance(answer, Failure):
            outcome = "review failed"
        elif answer is not None and answer["decision"] == "drop":
            dropped.append(Dropped(index, answer["reason"]))
        elif answer is not None and answer["decision"] == "mend":
            outcome, text = "mended", answer["prompt"]
        texts.append(text)
        outcomes.append(outcome)
    table = table.assign(prompt=texts, language_model=outcomes)
    return drop_rows(table, dropped, step="language_model", rule="not_usable")


def choose_prompts(
    usable_prompts: pd.DataFrame, prompt_embeddings: Embeddings, parameters: PromptFilteringParameters
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Keep the configured number of most diverse prompts, or all."""
    import numpy as np

    from vr_pipeline.prompts.diversity import choose_diverse
    from vr_pipeline.prompts.semantic import is_seen, nearest_among

    settings = parameters.diversity
    if settings.count is None or len(usable_prompts) <= settings.count:
        return usable_prompts, no_decisions()
    if not parameters.semantic.enabled:
        raise InputError(
            "the selection of diverse prompts needs embeddings",
            remedy="set semantic.enabled to true (with threshold 1 it drops nothing), or diversity.count to null",
            field="prompt_filtering.diversity.count",
        )
    vectors = prompt_embeddings.of(usable_prompts["embedded_prompt"].tolist())
    chosen = choose_diverse(usable_prompts["prompt_id"].tolist(), vectors, settings)
    others = np.setdiff1d(np.arange(len(usable_prompts)), chosen)
    seen = is_seen(vectors)
    measured, unseen = others[seen[others]], others[~seen[others]]
    nearest, similarity = nearest_among(vectors, measured, chosen)
    dropped = [
        Dropped(index, f"not among the {settings.count} most diverse ({settings.method})", close, cosine)
        for index, close, cosine in zip(measured.tolist(), nearest.tolist(), similarity.tolist(), strict=True)
    ]
    reason = f"not among the {settings.count} chosen, at random: the embedder does not cover its language"
    dropped += [Dropped(index, reason) for index in unseen.tolist()]
    return drop_rows(usable_prompts, dropped, step="diversity", rule=f"not_chosen_by_{settings.method}")


def split_prompts(
    chosen_prompts: pd.DataFrame, prompt_embeddings: Embeddings, parameters: PromptFilteringParameters
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Assign splits by hash of the prompt, and drop prompts too similar to an earlier one of another split.

    Prompts with first frames are assigned by the hash of the image, and similar words about other images stay. Then
    draws the configured number of training prompts.
    """
    from vr_pipeline.prompts.split import find_leaks, split_of, surplus

    images = chosen_prompts[IMAGE].map(image_content) if IMAGE in chosen_prompts else None
    units = chosen_prompts["prompt_id"] if images is None else images
    splits = [split_of(identifier, parameters.split) for identifier in units]
    vectors = None
    if parameters.semantic.enabled:
        vectors = prompt_embeddings.of(chosen_prompts["embedded_prompt"].tolist())
    texts = chosen_prompts["prompt"].tolist()
    leaks = []
    if images is None:
        leaks = find_leaks(texts, splits, parameters.split, vectors, block_size=parameters.semantic.block_size)
    dropped = [
        Dropped(
            leak.index,
            f"{leak.measure} {leak.similarity:.3f} with a prompt in {splits[leak.nearest]}; its own split is "
            f"{splits[leak.index]}",
            leak.nearest,
            leak.similarity,
        )
        for leak in leaks
    ]
    stay, leaked = drop_rows(chosen_prompts.assign(split=splits), dropped, step="split", rule="leak_between_splits")
    wanted, found = parameters.split.train_prompts, int((stay["split"] == "train").sum())
    if wanted is None or found <= wanted:
        if wanted is not None and found < wanted:
            logger.warning("%d training prompts are left, fewer than the %d of split.train_prompts.", found, wanted)
        return stay, leaked
    reason = f"not among the {wanted} training prompts, at random"
    above = [
        Dropped(index, reason)
        for index in surplus(stay["prompt_id"].tolist(), stay["split"].tolist(), parameters.split)
    ]
    stay, left_over = drop_rows(stay, above, step="split", rule="above_train_prompts")
    return stay, pd.concat([leaked, left_over], ignore_index=True)


def plan_rewrites(divided_prompts: pd.DataFrame, parameters: PromptFilteringParameters) -> AnswerPlan:
    """List the prompts that a text model should rewrite for the generator; none unless the step is enabled."""
    texts = divided_prompts["prompt"].tolist() if parameters.language_model.rewrite else []
    return _plan_answers("rewrite", texts, parameters)


def apply_rewrites(
    divided_prompts: pd.DataFrame, prompt_rewrites: Answers, prompt_filter_decisions: pd.DataFrame
) -> pd.DataFrame:
    """Replace prompts by the text model's; if it failed, the prompt is unchanged.

    Raises:
        InputError: no prompt is left; the message has the most frequent reasons.
    """
    from vr_pipeline.prompts.language_model import Failure

    if divided_prompts.empty:
        rules = prompt_filter_decisions["rule"].value_counts().head(3)
        raise InputError(
            f"none of the {len(prompt_filter_decisions)} prompts passed filtering; most often they failed by "
            + ", ".join(f"{rule} ({count})" for rule, count in rules.items()),
            remedy="see the reasons in prompt_filter_decisions, then relax those rules or add prompts",
            field="prompt_filtering",
        )
    texts, outcomes = [], []
    for text, outcome in zip(divided_prompts["prompt"], divided_prompts["language_model"], strict=True):
        answer = prompt_rewrites.of(text)
        found = ""
        if isinstance(answer, Failure):
            found = "rewrite failed"
        elif answer is not None:
            found, text = "rewritten", answer["prompt"]
        texts.append(text)
        outcomes.append(", ".join(part for part in (outcome, found) if part))
    columns = ["prompt_id", "prompt", "source", "split", "original_prompt", "cleaned_prompt", "embedded_prompt"]
    table = divided_prompts.assign(prompt=texts, language_model=outcomes)
    return table[[*columns, "language_model", "source_id", "row", *([IMAGE] if IMAGE in table else [])]]


def collect_decisions(divided_prompts: pd.DataFrame, *dropped: pd.DataFrame) -> pd.DataFrame:
    """Return one row per prompt in the order of the file; ``divided_prompts`` are the kept ones."""
    everything = pd.concat([*dropped, decisions(divided_prompts, step="kept")], ignore_index=True)
    return everything.sort_values("row", kind="stable", ignore_index=True)


def _plan_answers(name: TaskName, texts: list[str], parameters: PromptFilteringParameters) -> AnswerPlan:
    from vr_pipeline.prompts.language_model import load_text_model
    from vr_pipeline.prompts.language_tasks import make_task

    settings = parameters.language_model
    task = make_task(name, settings) if texts else None
    batch_size = settings.batch_size if settings.backend == "transformers" else 8 * settings.server.concurrency
    return AnswerPlan(texts, task, partial(load_text_model, settings), batch_size)
