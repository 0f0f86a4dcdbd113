"""Record which commit and MLflow run made the report page, without changing the page."""

from pathlib import Path
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline

from vr_pipeline.hooks.mlflow_tracking import MlflowHook
from vr_pipeline.hooks.summary import REPORT
from vr_pipeline.project.places import shown, stored_at
from vr_pipeline.storage.atomic import write_text


class ReportRunHook:
    """Writes the run's lines beside the page and into MLflow's copy (:mod:`vr_pipeline.evaluation.report.run_lines`).

    Called after the hook of MLflow, both before and after a run.
    """

    def __init__(self, mlflow: MlflowHook) -> None:
        self._lines: dict[str, str] = {}
        self._mlflow = mlflow

    @hook_impl(trylast=True)
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        self._lines = {}
        if REPORT not in pipeline.all_outputs():
            return
        from vr_pipeline import __version__
        from vr_pipeline.lineage.provenance import lock_hash
        from vr_pipeline.lineage.repository import code_state

        project = Path(run_params["project_path"])
        # Results tracked by git, such as the metrics, are not changes of the code.
        places = (stored_at(catalog, name) for name in pipeline.all_outputs())
        results = [shown(place, project) for place in places if place is not None]
        code, log = self._mlflow.code or code_state(project, results), self._mlflow.log
        self._lines = {
            "vr_pipeline": __version__,
            "Commit": f"{code.commit}{', with changes' if code.dirty else ''}"
            if code.commit
            else " ".join(code.troubles) or "not in a repository",
            "Data, dvc.lock": lock_hash(project / "dvc.lock"),
            "MLflow run": log.delivery.run_id if log is not None else "not recorded",
            "Started": str(run_params["run_id"]),
            "Environment": run_params.get("env") or "",
        }

    @hook_impl(trylast=True)
    def after_pipeline_run(self, catalog: CatalogProtocol) -> None:
        page = stored_at(catalog, REPORT) if self._lines else None
        if page is None or page.suffix != ".html" or not page.is_file():
            return
        from vr_pipeline.evaluation.report.run_lines import RUN_FILE, run_document, with_run

        write_text(page.parent / RUN_FILE, run_document(self._lines))
        if self._mlflow.log is not None:
            self._mlflow.log.text(with_run(page.read_text(encoding="utf-8"), self._lines), page.name)
