"""Held-out figures and the model card of what the embedded default ships."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from vr_pipeline.micro_world.clips import rendered_for
from vr_pipeline.micro_world.config import MicroWorldParameters
from vr_pipeline.micro_world.recogniser import Recogniser
from vr_pipeline.storage.atomic import sha256_of


def test_recogniser(
    recogniser: Recogniser, question_ids: Sequence[str], parameters: MicroWorldParameters
) -> dict[str, float]:
    """Measure balanced accuracy on clips on which nothing was fitted: mean and lowest over the questions."""
    from sklearn.metrics import balanced_accuracy_score

    rendered = rendered_for("oracle test", parameters.clips.num_held_out_clips, parameters)
    said = recogniser.probabilities(rendered.frames, rendered.judged_prompts, question_ids) > 0.5
    columns = zip(rendered.labels(list(question_ids)).T, said.T, strict=True)
    balanced = [float(balanced_accuracy_score(truth, answers)) for truth, answers in columns]
    return {
        "clips": len(rendered.frames),
        "balanced_accuracy": sum(balanced) / len(balanced),
        "lowest_balanced_accuracy": min(balanced),
    }


def file_hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every weight file in a folder by relative path, without folders that have a card."""
    cards = {path.parent for path in folder.glob("*/README.md")}
    files = (path for path in sorted(folder.rglob("*.safetensors")) if not cards.intersection(path.parents))
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}


def model_card(
    judge_report: pd.DataFrame,
    oracle_figures: Mapping[str, float],
    auditor_figures: Mapping[str, float],
    hashes: Mapping[str, str],
    parameters: MicroWorldParameters,
) -> str:
    """Return the card in Markdown: the models, how they were made, and their figures on held-out clips.

    Args:
        judge_report: one row per source ('rendered', 'generated') and question: accuracy, balanced_accuracy, n.
        oracle_figures, auditor_figures: of :func:`test_recogniser`.
    """
    by_source = {str(source): part.set_index("question_id") for source, part in judge_report.groupby("source")}
    return render_card(
        "card.md.j2",
        rendered=by_source["rendered"],
        generated=by_source.get("generated"),
        oracle=oracle_figures,
        auditor=auditor_figures,
        hashes=hashes,
        clips=parameters.clips,
        steps=parameters.pretraining.steps,
        seed=parameters.seed,
    )


def render_card(template: str, **values: Any) -> str:
    """Fill a template of this package; every name that it uses must be given."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("vr_pipeline.micro_world"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(values)
