"""Result of the training of a UnifiedReward, and its figures for a run's metrics."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from vr_pipeline.rewards.unifiedreward.settings import MODEL_FOLDER, UnifiedArtifact
from vr_pipeline.rewards.unifiedreward.training.report import WHOLE
from vr_pipeline.storage.atomic import write_checksums
from vr_pipeline.vlm.families.base import Family


@dataclass(frozen=True, eq=False)
class TrainedUnifiedReward:
    """Result of a training.

    Attributes:
        family: the model with the best checkpoint's weights.
        artifact: template and provenance.
        report: see :func:`~.report.report_on`, on the test side.
        log: one row per step.
        summary: figures of the run.
    """

    family: Family
    artifact: UnifiedArtifact
    report: pd.DataFrame
    log: pd.DataFrame
    summary: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write the reward's folder: reward.json, model/ and checksums."""
        self.artifact.write(folder)
        self.family.save(folder / MODEL_FOLDER)
        write_checksums(folder)


def figures_by_task(report: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    """Return the figures of whole tasks, for a run's metrics."""
    columns = ["n", "diff", "tau", "three_way_accuracy", "always_first", "always_tie", "order_flips", "spearman"]
    whole = report[report["dimension"] == WHOLE]
    return {
        f"{row['task']}_{row['form']}": {name: None if pd.isna(row[name]) else float(row[name]) for name in columns}
        for _, row in whole.iterrows()
    }
