"""Held-out figures and the model card of what the embedded default ships."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from vr_pipeline.micro_world.clips import render_clips
from vr_pipeline.micro_world.config import MicroWorldParameters
from vr_pipeline.micro_world.oracle import Oracle


def balanced_accuracy(answers: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return mean of the accuracies on true yes and on true no, by question; arrays [clips, questions]."""
    right = answers == truth
    of_yes, of_no = (
        (right & (truth == side)).sum(axis=0) / np.maximum((truth == side).sum(axis=0), 1) for side in (True, False)
    )
    return np.asarray((of_yes + of_no) / 2.0)


def test_oracle(oracle: Oracle, question_ids: Sequence[str], parameters: MicroWorldParameters) -> dict[str, float]:
    """Measure the oracle's balanced accuracy on clips it was not fitted on: mean and lowest over the questions."""
    rendered = render_clips(parameters.clips.num_held_out_clips, seed=parameters.seed, purpose="oracle test")
    said = oracle.probabilities(rendered.frames, rendered.judged_prompts, question_ids) > 0.5
    balanced = balanced_accuracy(said, rendered.labels(list(question_ids)))
    return {
        "clips": len(rendered.frames),
        "balanced_accuracy": float(balanced.mean()),
        "lowest_balanced_accuracy": float(balanced.min()),
    }


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every weight file in a folder, by path relative to it."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.safetensors"))
    }


def model_card(
    judge_report: pd.DataFrame,
    oracle_figures: Mapping[str, float],
    hashes: Mapping[str, str],
    parameters: MicroWorldParameters,
) -> str:
    """Return the card in Markdown: what the models are, how they were made, what they reach on held-out clips.

    Args:
        judge_report: a row a source ('rendered', 'generated') and question: accuracy, balanced_accuracy, n.
        oracle_figures: of :func:`test_oracle`.
        hashes: SHA-256 by file.
        parameters: settings.
    """
    by_source = {str(source): part.set_index("question_id") for source, part in judge_report.groupby("source")}
    rendered, generated = by_source["rendered"], by_source.get("generated")
    counts = parameters.clips
    lines = [
        "# Models of the micro-world",
        "",
        "Tiny models that let the whole method run on two CPU cores. They know 16 x 16 pixel clips of one coloured",
        "shape and nothing else. All data they were trained on are rendered or generated; all preferences shipped with",
        "them are simulated. They are no use outside this demonstration.",
        "",
        "| model | class | trained on |",
        "|---|---|---|",
        "| generator | CogVideoXPipeline (CogVideoXTransformer3DModel, T5EncoderModel, patch autoencoder) "
        f"| {counts.num_pretraining_clips} rendered clips, {parameters.pretraining.steps} steps |",
        f"| judge | Qwen2VLForConditionalGeneration | {counts.num_judge_clips} rendered clips with exact "
        f"answers, {counts.num_generated_judge_clips} generated clips with the oracle's answers |",
        f"| oracle | randomised trees on pixel features | {counts.num_oracle_clips} rendered clips, as drawn "
        "and through the autoencoder |",
        "",
        "## How they were made",
        "",
        f"`kedro run --pipeline=micro_world`, seed {parameters.seed}. The same machine gives the same files; another",
        "processor may round differently.",
        "",
        "## Held-out figures",
        "",
        f"- judge, {int(rendered['n'].max())} rendered clips: balanced accuracy "
        f"{rendered['balanced_accuracy'].mean():.3f}, lowest question {rendered['balanced_accuracy'].min():.3f}",
        *(
            [
                f"- judge, {int(generated['n'].max())} generated clips: agreement with the oracle "
                f"{generated['accuracy'].mean():.3f}"
            ]
            if generated is not None
            else []
        ),
        f"- oracle, {oracle_figures['clips']} rendered clips: balanced accuracy "
        f"{oracle_figures['balanced_accuracy']:.3f}, lowest question {oracle_figures['lowest_balanced_accuracy']:.3f}",
        "",
        "| question | judge: balanced accuracy, rendered | judge: agreement with the oracle, generated |",
        "|---|---|---|",
        *(
            f"| {name} | {rendered.loc[name, 'balanced_accuracy']:.3f} | "
            + (f"{generated.loc[name, 'accuracy']:.3f} |" if generated is not None else "- |")
            for name in rendered.index
        ),
        "",
        "## Files",
        "",
        "| file | SHA-256 |",
        "|---|---|",
        *(f"| {path} | `{digest}` |" for path, digest in hashes.items()),
        "",
    ]
    return "\n".join(lines)
