"""Check before a run that some pipeline reads every given parameter.

Kedro validates the blocks that the requested pipelines read. No pipeline reads a block with a misspelt name, so its
settings would be recorded but have no effect.
"""

import difflib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.pipeline import Pipeline

from vr_pipeline.errors import InputError
from vr_pipeline.lineage.figures import flattened
from vr_pipeline.project.configuration import section
from vr_pipeline.project.explain import blocks_of, settings_of
from vr_pipeline.project.rounds import use_rounds
from vr_pipeline.runtime.setting_names import perhaps_setting

logger = logging.getLogger(__name__)

_LISTED = 5


class ParametersHook:
    """Rejects parameters that no pipeline reads, and warns of those that this run does not read."""

    def __init__(self) -> None:
        self._loader: Any = None

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        self._loader = context.config_loader
        use_rounds(context.config_loader)

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline) -> None:
        from kedro.framework.project import pipelines

        registered = [*pipelines.values(), pipeline]
        if any("parameters" in one.inputs() for one in registered):
            return  # a node reads them all
        blocks = blocks_of(registered)
        given = run_params.get("runtime_params") or {}
        configured = section(self._loader, "parameters")
        unknown = [place for place in unknown_settings(configured, blocks) if not self._is_template(place, given)]
        if unknown:
            known = sorted({*blocks, *(f"{block}.{name}" for block in blocks for name in settings_of(block))})
            named = [f"{place}{_perhaps(place, known)}" for place in unknown[:_LISTED]]
            more = f" and {len(unknown) - _LISTED} more" if len(unknown) > _LISTED else ""
            by_option = any(place.partition(".")[0] in given for place in unknown)
            raise InputError(
                f"no pipeline has the parameter {'; '.join(named)}{more}",
                remedy="correct the name; the blocks are " + ", ".join(sorted(blocks)),
                field="--params" if by_option else "conf/<env>/parameters",
            )
        read = blocks_of([pipeline])
        if {"dpo_training", "evaluation"} & set(read):
            check_splits(configured, online="online_mpo" in read)
        if "pair_selection" in blocks:
            check_recipes(configured, run_params.get("pipeline_names") or ["__default__"])
        unused = sorted(name for name in given if name in blocks and name not in read)
        if unused:
            logger.warning(
                "--params sets %s, which no node of this run reads: it has no effect on this run.", ", ".join(unused)
            )

    def _is_template(self, place: str, given: Mapping[str, Any]) -> bool:
        """Return whether the configuration uses a value of the command line by ``${runtime_params:...}``."""
        name = place.partition(".")[0]
        files = sorted(Path(self._loader.conf_source).rglob("*.y*ml")) if name in given else []
        return any(f"runtime_params:{name}" in path.read_text("utf-8", errors="replace") for path in files)


def check_splits(parameters: Mapping[str, Any], *, online: bool = False) -> None:
    """Reject an evaluation on the prompts on which the policies' checkpoints are chosen.

    Args:
        parameters: the environment's.
        online: whether checkpoints are chosen by ``online_mpo.validation``, which changes ``dpo_training.validation``.

    Raises:
        InputError: ``dpo_training.validation.splits`` and ``evaluation.splits`` have a split in common.
    """
    from vr_pipeline.evaluation.config import EvaluationParameters
    from vr_pipeline.training.config import ValidationParameters

    training, evaluation = (_plain(parameters.get(name)) for name in ("dpo_training", "evaluation"))
    validation = _plain(training.get("validation"))
    if validation and online:
        validation = {**validation, **_plain(_plain(parameters.get("online_mpo")).get("validation"))}
    if not validation or not evaluation:
        return
    chosen = validation.get("splits", ValidationParameters.model_fields["splits"].default)
    tested = evaluation.get("splits", EvaluationParameters.model_fields["splits"].default)
    if both := sorted(set(chosen) & set(tested)):
        raise InputError(
            f"checkpoints are selected and policies evaluated on the same split, {' and '.join(both)}: the best of "
            "several looks better there than it is",
            remedy="use different splits in dpo_training.validation.splits and evaluation.splits",
            field="evaluation.splits",
        )


def check_recipes(parameters: Mapping[str, Any], pipelines: Sequence[str] = ()) -> None:
    """Reject recipes without a pair rule, and settings for unknown recipes.

    Args:
        parameters: the environment's.
        pipelines: names of the requested pipelines; none for any.

    Raises:
        InputError: the names under ``recipes`` of a block are not those of a system's recipes, or a recipe names a
            reward that the pipeline does not make.
    """
    from vr_pipeline.pairs.rules import NEEDS_COMPARISONS
    from vr_pipeline.pipelines.recipes import RECIPES
    from vr_pipeline.pipelines.systems import MPO_DPO, SYSTEMS

    known = list(dict.fromkeys(recipe.name for system in SYSTEMS for recipe in system.recipes))
    running = [one for one in SYSTEMS if one.name in pipelines or (one is MPO_DPO and "__default__" in pipelines)]
    given = {block: _plain(parameters.get(block)).get("recipes") or {} for block in ("pair_selection", "dpo_training")}
    for block, recipes in given.items():
        for name in recipes:
            if name not in known:
                raise InputError(
                    f"there is no recipe '{name}'",
                    remedy=f"use one of {', '.join(known)}, or add it to RECIPES in vr_pipeline/pipelines/recipes.py",
                    field=f"{block}.recipes.{name}",
                )
    selecting = given["pair_selection"]
    selected = [system.recipes for system in running if system.selects_pairs] or [RECIPES]
    for name in dict.fromkeys(recipe.name for recipes in selected for recipe in recipes):
        if name not in selecting:
            raise InputError(
                f"the recipe '{name}' has no pair rule",
                remedy="add this block with a rule, beside those of the other recipes",
                field=f"pair_selection.recipes.{name}",
            )
        rule = _plain(selecting[name]).get("rule")
        unranked = [
            one.name
            for one in running
            if one.selects_pairs and not one.ranks_pairs and name in {recipe.name for recipe in one.recipes}
        ]
        if rule in NEEDS_COMPARISONS and unranked:
            raise InputError(
                f"the rule '{rule}' needs comparisons of clips, which {unranked[0]} does not make",
                remedy=f"use another rule, or run {' or '.join(one.name for one in SYSTEMS if one.ranks_pairs)}",
                field=f"pair_selection.recipes.{name}.rule",
            )
        reward = _plain(selecting[name]).get("reward")
        made = {system.name: system.reward for system in running or SYSTEMS}
        if reward is not None and reward not in made.values():
            raise InputError(
                f"no pipeline makes rewards named '{reward}'",
                remedy="omit it, or use " + " or ".join(f"{own} in {system}" for system, own in made.items()),
                field=f"pair_selection.recipes.{name}.reward",
            )


def _plain(block: Any) -> Mapping[str, Any]:
    """Return a parameter block, validated or not, as a mapping; an empty one for None."""
    return block.model_dump() if hasattr(block, "model_dump") else block or {}


def _perhaps(place: str, known: Sequence[str]) -> str:
    """Return a suggestion: a similar full name, else a name elsewhere with the same last part."""
    near = difflib.get_close_matches(place, known, n=1, cutoff=0.8) if place.partition(".")[2] not in known else []
    return f" (perhaps '{near[0]}' is meant)" if near else perhaps_setting(place, known)


def unknown_settings(parameters: Mapping[str, Any], blocks: Mapping[str, Sequence[Any]]) -> list[str]:
    """Return dotted names in ``parameters`` that no model of a block has.

    Names with a leading underscore (YAML anchors and templates) are ignored.

    Args:
        blocks: block -> the pydantic models by which nodes read it; empty if a node reads a plain value.
    """
    found = []
    for name, value in parameters.items():
        if name.startswith("_") or (name in blocks and not blocks[name]):
            continue
        if name in blocks:
            found += [f"{name}.{place}" for place in _extra(value, blocks[name])]
        elif inner := {key.partition(".")[2] for key in blocks if key.startswith(f"{name}.")}:
            # Nodes read parts of the block.
            unread = set(value) - {key.partition(".")[0] for key in inner} if isinstance(value, Mapping) else set()
            found += [f"{name}.{key}" for key in sorted(unread)]
        else:
            found += [leaf for leaf, _ in flattened(value, name)]
    return found


def _extra(value: Any, models: Sequence[Any]) -> Iterator[str]:
    """Yield dotted names that a model forbids; other errors are reported when the block is used."""
    from pydantic import ValidationError

    for model in models:
        try:
            model.model_validate(value.model_dump() if hasattr(value, "model_dump") else value)
        except ValidationError as error:
            for detail in error.errors(include_url=False, include_context=False, include_input=False):
                if detail["type"] == "extra_forbidden":
                    yield ".".join(str(part) for part in detail["loc"])
