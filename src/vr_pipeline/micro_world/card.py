"""Held-out figures and the model card of what the embedded default ships."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vr_pipeline.micro_world.clips import render_clips
from vr_pipeline.micro_world.config import MicroWorldParameters

if TYPE_CHECKING:
    from vr_pipeline.checklist.schema import Checklist
    from vr_pipeline.datasets.manifest import ItemFolder
    from vr_pipeline.judges.contract import Judge
    from vr_pipeline.micro_world.oracle import Oracle


def balanced_accuracy(answers: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Mean of the accuracies on true yes and on true no, by question; arrays [clips, questions]."""
    right = answers == truth
    sums = [
        np.where(truth == side, right, False).sum(axis=0) / np.maximum((truth == side).sum(axis=0), 1)
        for side in (True, False)
    ]
    return (sums[0] + sums[1]) / 2.0


def held_out_figures(
    judge: Judge,
    clips: ItemFolder,
    annotations: pd.DataFrame,
    index: pd.DataFrame,
    oracle: Oracle,
    checklist: Checklist,
    parameters: MicroWorldParameters,
) -> dict[str, Any]:
    """Test the judge on clips of split 'test', and the oracle on rendered clips of its own.

    Args:
        judge: the trained judge.
        clips: the clips of the judge's training and test.
        annotations: video_id, question_id, label, split, source.
        index: video index of the clips.
        oracle: the oracle.
        checklist: the questions.
        parameters: settings of the micro-world.

    Returns:
        by source ('rendered', 'generated'), the judge's balanced accuracy and agreement by question; the oracle's
        balanced accuracy by question.
    """
    questions = list(checklist.question_ids)
    texts = [question.text for question in checklist.questions]
    prompts = index.set_index("video_id")["prompt"]
    figures: dict[str, Any] = {"judge": {}}
    test = annotations[annotations["split"] == "test"]
    for source, part in test.groupby("source"):
        truth = part.pivot(index="video_id", columns="question_id", values="label")[questions]
        parts = []
        for start in range(0, len(truth), 64):
            ids = truth.index[start : start + 64].tolist()
            parts.append(judge.answer([clips.load(name) for name in ids], texts, [prompts[name] for name in ids])[0])
        answers = np.concatenate(parts) > 0.5
        known = truth.to_numpy().astype(bool)
        balanced = balanced_accuracy(answers, known)
        figures["judge"][str(source)] = {
            "clips": len(truth),
            "balanced_accuracy": float(balanced.mean()),
            "lowest_balanced_accuracy": float(balanced.min()),
            "agreement": float((answers == known).mean()),
            "questions": {
                name: {"balanced_accuracy": float(balanced[at]), "agreement": float((answers == known)[:, at].mean())}
                for at, name in enumerate(questions)
            },
        }
    rendered = render_clips(parameters.clips.num_held_out_clips, seed=parameters.seed, purpose="oracle test")
    balanced = balanced_accuracy(
        oracle.probabilities(rendered.frames, rendered.judged_prompts, questions) > 0.5, rendered.labels(questions)
    )
    figures["oracle"] = {
        "clips": len(rendered.frames),
        "balanced_accuracy": float(balanced.mean()),
        "lowest_balanced_accuracy": float(balanced.min()),
    }
    return figures


def file_hashes(folders: Sequence[Path]) -> dict[str, str]:
    """SHA-256 of every weight file in folders (or of files), by path."""
    paths = sorted(
        path for folder in folders for path in ([folder] if folder.is_file() else folder.rglob("*.safetensors"))
    )
    return {path.as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def model_card(figures: Mapping[str, Any], hashes: Mapping[str, str], parameters: MicroWorldParameters) -> str:
    """The card in Markdown: what the models are, how they were made, what they reach."""
    judge = figures["judge"]
    questions = judge["rendered"]["questions"]
    generated = judge.get("generated", {}).get("questions", {})
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
        f"| {parameters.clips.num_pretraining_clips} rendered clips, {parameters.pretraining.steps} steps |",
        f"| judge | Qwen2VLForConditionalGeneration | {parameters.clips.num_judge_clips} rendered clips with exact "
        f"answers, {parameters.clips.num_generated_judge_clips} generated clips with the oracle's answers |",
        f"| oracle | randomised trees on pixel features | {parameters.clips.num_oracle_clips} rendered clips, as drawn "
        "and through the autoencoder |",
        "",
        "## How they were made",
        "",
        f"`kedro run --pipeline=micro_world`, seed {parameters.seed}. The same machine gives the same files; another",
        "processor may round differently.",
        "",
        "## Held-out figures",
        "",
        f"- judge, rendered clips ({judge['rendered']['clips']}): balanced accuracy "
        f"{judge['rendered']['balanced_accuracy']:.3f}, lowest question "
        f"{judge['rendered']['lowest_balanced_accuracy']:.3f}",
        *(
            [
                f"- judge, generated clips ({judge['generated']['clips']}): agreement with the oracle "
                f"{judge['generated']['agreement']:.3f}"
            ]
            if "generated" in judge
            else []
        ),
        f"- oracle, rendered clips ({figures['oracle']['clips']}): balanced accuracy "
        f"{figures['oracle']['balanced_accuracy']:.3f}, lowest question "
        f"{figures['oracle']['lowest_balanced_accuracy']:.3f}",
        "",
        "| question | balanced accuracy, rendered | agreement with the oracle, generated |",
        "|---|---|---|",
        *(
            f"| {name} | {row['balanced_accuracy']:.3f} | "
            + (f"{generated[name]['agreement']:.3f} |" if name in generated else "- |")
            for name, row in questions.items()
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
