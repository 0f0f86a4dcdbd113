"""Trainings of the ablation as long work: one file per policy, so that a run can resume."""

import pkgutil
from collections.abc import Sequence
from typing import Any

import pandas as pd

from vr_pipeline.errors import InputError, PipelineError
from vr_pipeline.evaluation.ablation.config import AblationParameters, Training, settings_of, trainings_of
from vr_pipeline.generators import FAMILIES
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import resolve_device, weights_identity
from vr_pipeline.generators.policy import Adapter
from vr_pipeline.identifiers import content_hash
from vr_pipeline.items.folder import ItemFolder
from vr_pipeline.training.config import DpoTrainingParameters, PreferenceTrainingParameters
from vr_pipeline.training.inputs import contents_hash
from vr_pipeline.work import ItemFailure, WorkItem, WorkPlan

_LOG = "training_log/"
"""Prefix of the training log's columns in the file of weights."""


def plan_trainings(
    pairs: pd.DataFrame,
    latents: ItemFolder,
    conditions: ItemFolder,
    generator: GeneratorParameters,
    dpo_training: DpoTrainingParameters,
    parameters: AblationParameters,
) -> WorkPlan:
    """Plan all trainings; a failed training is recorded with the reason, and the others continue.

    Args:
        pairs: schema ``TrainingPairs``; ``recipe`` is the pair rule.
        latents, conditions: of their clips and prompts.
        generator: the generator to train.
        dpo_training: settings of trainings.
        parameters: the ablation.

    Raises:
        InputError: settings are inconsistent, or train all weights.
    """
    wanted = {training.name: training for training in trainings_of(parameters)}
    settings = {name: settings_of(training, dpo_training, parameters) for name, training in wanted.items()}
    if any(one.method != "lora" for one in settings.values()):
        raise InputError(
            "the ablation trains adapters, but dpo_training.training.method is full",
            field="ablation.training.method",
            remedy="Set it to lora: full models would fill the disk",
        )
    base = content_hash(
        *("ablation", generator.family, weights_identity(generator), generator.dtype, str(generator.threads)),
        resolve_device(generator.device).partition(":")[0],
    )
    of_rule = {rule: pairs[pairs["recipe"] == rule].reset_index(drop=True) for rule in parameters.pair_rules}
    hashes = {rule: content_hash(table.to_json(orient="records")) for rule, table in of_rule.items()}

    plain = dpo_training.model_copy(update={"validation": None, "recipes": {}})

    def train(_: Any, items: Sequence[WorkItem]) -> list[dict[str, Any] | ItemFailure]:
        own = [plain.model_copy(update={"training": settings[item.key]}) for item in items]
        tables = [of_rule[wanted[item.key].pairs] for item in items]
        return [_train(pairs, latents, conditions, generator, one) for pairs, one in zip(tables, own, strict=True)]

    items = [
        WorkItem(
            name,
            content_hash(base, settings[name].model_dump_json(), hashes[training.pairs]),
            {**training._asdict(), "trained_on": len(of_rule[training.pairs])},
        )
        for name, training in wanted.items()
    ]
    return WorkPlan(items, train, description="trainings")


def _train(
    pairs: pd.DataFrame,
    latents: ItemFolder,
    conditions: ItemFolder,
    generator: GeneratorParameters,
    parameters: DpoTrainingParameters,
) -> dict[str, Any] | ItemFailure:
    import torch

    from vr_pipeline.training.policies import pair_data, train_policy_on_pairs

    data = pair_data(pairs, latents, conditions, contents_hash(pairs))
    try:
        policy, log = train_policy_on_pairs(data, generator, parameters)
    except InputError:
        raise
    except PipelineError as error:
        return ItemFailure(str(error))
    columns = {f"{_LOG}{name}": torch.tensor(log[name].to_numpy(dtype="float64")) for name in log}
    return {**policy.tensors, **columns}


def trained_policies(
    stored: ItemFolder,
    generator: GeneratorParameters,
    dpo_training: DpoTrainingParameters,
    parameters: AblationParameters,
) -> dict[str, Adapter]:
    """Return the trained policies in the folder of :func:`plan_trainings` by name, in order."""
    base = weights_identity(generator)
    return {
        training.name: Adapter(
            {name: value for name, value in stored.load(training.name).items() if not name.startswith(_LOG)},
            _adapter_config(generator, settings_of(training, dpo_training, parameters)),
            base,
        )
        for training in trainings_of(parameters)
        if training.name in stored
    }


def _adapter_config(generator: GeneratorParameters, settings: PreferenceTrainingParameters) -> dict[str, Any]:
    """Return the configuration of an adapter, as made by the generator."""
    targets = settings.lora.target_modules or pkgutil.resolve_name(FAMILIES[generator.family]).lora_targets
    return {"r": settings.lora.rank, "lora_alpha": settings.lora.alpha, "target_modules": sorted(targets)}


def training_table(stored: ItemFolder, parameters: AblationParameters) -> pd.DataFrame:
    """Return every training with its figures, or the reason of its failure.

    Returns:
        schema ``AblationTrainings``; figures are means over the last tenth of the steps, or empty.
    """
    errors = stored.records.set_index("key")["error"].fillna("")
    rows = []
    for training in trainings_of(parameters):
        row: dict[str, Any] = {"policy": training.name, **training._asdict(), "error": errors.get(training.name, "")}
        log = _log_of(stored, training)
        for name in ("loss", "implicit_accuracy", "winner_change", "loser_change", "gradient_norm"):
            row[name] = float(log[name].tail(max(1, len(log) // 10)).mean()) if name in log else None
        rows.append(row | {"steps": len(log)})
    return pd.DataFrame(rows)


def _log_of(stored: ItemFolder, training: Training) -> pd.DataFrame:
    if training.name not in stored:
        return pd.DataFrame()
    content = stored.load(training.name)
    return pd.DataFrame({name.removeprefix(_LOG): content[name].numpy() for name in content if name.startswith(_LOG)})
