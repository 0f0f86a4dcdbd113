"""Check before a run that a judge or reward 'from: trained' is the one trained here, and trained before its use."""

from pathlib import Path

from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline

from vr_pipeline.errors import InputError
from vr_pipeline.project.places import stored_at

TRAINED = {
    "judge": "trained_judge",
    "reward_model": "trained_reward",
    "unified_reward_model": "trained_unified_reward",
}
"""Parameter block that names a model -> the dataset that its training makes."""


def check_trained_models(pipeline: Pipeline, catalog: CatalogProtocol) -> None:
    """Check the blocks of :data:`TRAINED` that a run reads.

    Raises:
        InputError: a block's trained model has another path than in the catalog; or a run waits for the trained model
            but uses another; or it trains and uses one without a defined order.
    """
    for block, dataset in TRAINED.items():
        place = stored_at(catalog, dataset)
        if f"params:{block}" not in pipeline.inputs() or place is None:
            continue
        settings = catalog.load(f"params:{block}")
        path = getattr(settings, "path", None)
        is_it = isinstance(path, str) and Path(path).expanduser().resolve() == Path(place).resolve()
        if settings.origin == "trained" and not is_it:
            raise InputError(
                f"the trained model should be in {path}, but the catalog keeps '{dataset}' in {place}",
                remedy=f"set '{block}.trained' to the folder of '{dataset}' in the catalog",
                field=f"{block}.trained",
            )
        waits = any(dataset in node.inputs for node in pipeline.nodes if f"params:{block}" in node.inputs)
        if waits and not is_it:
            raise InputError(
                f"this run uses the trained model '{dataset}', but {block} is another ({path})",
                remedy=f"set '{block}: {{from: trained}}' in the parameters, or use --params={block}.from=trained",
                field=f"{block}.from",
            )
        if is_it and dataset in pipeline.all_outputs() and not waits:
            raise InputError(
                f"this run trains '{dataset}' and also uses it, without a defined order",
                remedy="run one pipeline after the other"
                + (", or judge_mpo, which does both" if dataset == "trained_judge" else ""),
                field="--pipelines",
            )
