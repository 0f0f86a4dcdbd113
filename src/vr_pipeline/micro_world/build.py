"""Builds what the embedded default ships, from a seed."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import Generator, batches
from vr_pipeline.generators.pipeline_kinds import VideoPipelineGenerator
from vr_pipeline.identifiers import content_hash, prompt_id, sample_seed, video_id
from vr_pipeline.micro_world.auditor import Auditor
from vr_pipeline.micro_world.clips import RenderedClips, generate_clips, rendered_for
from vr_pipeline.micro_world.config import MicroWorldParameters, PretrainingParameters
from vr_pipeline.micro_world.oracle import Oracle
from vr_pipeline.micro_world.preferences import overall_utilities, simulate_preferences, utilities_by_criterion
from vr_pipeline.micro_world.reward_pairs import compare_pairs, draw_pairs, sample_clips
from vr_pipeline.micro_world.world import FRAMES_PER_SECOND, SIZE, all_prompts
from vr_pipeline.rewards.training.held_out import HeldOutParameters, split_by_unit
from vr_pipeline.rewards.videoreward.training.task import TrainedReward
from vr_pipeline.work import WorkItem, WorkPlan

logger = logging.getLogger(__name__)

Frames = npt.NDArray[np.uint8]

LARGEST_ENLARGEMENT = 32
"""Largest edge, in pixels, of the square that stands for one pixel of the micro-world."""


def load_micro_generator(folder: Path, generator: GeneratorParameters) -> Generator:
    """Return the pretrained generator in a folder."""
    return load_generator(generator.model_copy(update={"path": str(folder)}))


def load_flow_generator(folder: Path, generator: GeneratorParameters) -> Generator:
    """Return the pretrained tiny Wan in a folder, with the parameters of sampling."""
    return load_generator(generator.model_copy(update={"path": str(folder), "family": "micro_wan"}))


def pretrain(generator: GeneratorParameters, parameters: MicroWorldParameters) -> tuple[Any, pd.DataFrame]:
    """Render clips, fit the autoencoder, train the tiny CogVideoX.

    Returns:
        the diffusers pipeline and the training log.
    """
    from vr_pipeline.micro_world.patch_vae import PatchVAE
    from vr_pipeline.micro_world.pretraining import untrained

    clips, own = _pretraining_clips(parameters), parameters.pretraining
    vae = PatchVAE.fit(clips.frames)
    return _pretrained(clips, lambda: untrained(vae, generator, own, parameters.seed), own, parameters.seed)


def pretrain_flow(generator: GeneratorParameters, parameters: MicroWorldParameters) -> tuple[Any, pd.DataFrame]:
    """Pretrain the tiny Wan likewise; it is returned in half precision.

    Args:
        generator: sizes of clips; its family is ignored.
    """
    import torch

    from vr_pipeline.micro_world.flow import untrained
    from vr_pipeline.micro_world.patch_vae import WanPatchVAE

    clips, own = _pretraining_clips(parameters), parameters.flow_pretraining
    vae = WanPatchVAE.fit(clips.frames)
    pipeline, log = _pretrained(clips, lambda: untrained(vae, generator, own, parameters.seed), own, parameters.seed)
    return pipeline.to(torch.float16), log


def _pretraining_clips(parameters: MicroWorldParameters) -> RenderedClips:
    return rendered_for("pretraining", parameters.clips.num_pretraining_clips, parameters)


def _pretrained(
    clips: RenderedClips, make: Callable[[], VideoPipelineGenerator], own: PretrainingParameters, seed: int
) -> tuple[Any, pd.DataFrame]:
    from vr_pipeline.micro_world.pretraining import pretrain_generator

    pipeline, log = pretrain_generator(clips.frames, [scene.prompt for scene in clips.scenes], make, own, seed=seed)
    return pipeline, pd.DataFrame(log)


def reconstruct(generator: Generator, clips: Frames) -> Frames:
    """Encode and decode clips by the autoencoder."""
    import torch

    pipeline = generator.pipeline  # type: ignore[attr-defined]
    parts = []
    for part in batches(len(clips), 512):
        with torch.no_grad():
            pixels = pipeline.decode_latents(generator.encode_frames(clips[part]))
        values = ((pixels.permute(0, 2, 3, 4, 1).numpy() + 1.0) * 127.5).clip(0, 255)
        parts.append(np.round(values).astype(np.uint8))
    return np.concatenate(parts)


def fit_oracle(folder: Path, generator: GeneratorParameters, parameters: MicroWorldParameters) -> Oracle:
    """Fit the oracle.

    Half of its clips were encoded and decoded, so that the autoencoder's residue, which every generated clip has, does
    not count as blur or flicker.
    """
    clips = rendered_for("oracle", parameters.clips.num_oracle_clips, parameters)
    again = reconstruct(load_micro_generator(folder, generator), clips.frames)
    return Oracle.fit(np.concatenate([clips.frames, again]), clips.scenes * 2, seed=parameters.seed)


def fit_auditor(parameters: MicroWorldParameters) -> Auditor:
    """Fit the auditor on separate rendered clips; it uses no generated clip and no other model."""
    clips = rendered_for("auditor", parameters.clips.num_auditor_clips, parameters)
    return Auditor.fit(clips.frames, clips.scenes, seed=parameters.seed)


def stored_clips(ids: Sequence[str], frames: Frames, rows: Sequence[dict[str, Any]], *, description: str) -> WorkPlan:
    """Return a plan for clips in memory."""
    by_id = dict(zip(ids, frames, strict=True))
    items = [
        WorkItem(key=name, identity=content_hash("clip", clip.tobytes()), metadata=row)
        for (name, clip), row in zip(by_id.items(), rows, strict=True)
    ]
    return WorkPlan(
        items=items,
        make_batch=lambda _, batch: [by_id[item.key] for item in batch],
        batch_size=64,
        description=description,
    )


def judge_clips(
    generator: Generator, oracle: Oracle, checklist: Checklist, parameters: MicroWorldParameters
) -> tuple[WorkPlan, pd.DataFrame]:
    """Return clips with known answers, for training and testing the judge.

    Rendered clips have exact answers and a caption; generated clips have the oracle's answers. Clips of the held-out
    sets are of split 'test'.

    Returns:
        the clips, and the answers as a table (video_id, question_id, label, caption, split, source).
    """
    counts, seed = parameters.clips, parameters.seed
    questions = list(checklist.question_ids)
    ids: list[str] = []
    frames: list[Frames] = []
    rows: list[dict[str, Any]] = []
    labels: list[npt.NDArray[np.bool_]] = []
    notes: list[dict[str, str]] = []
    for source, split, count in (
        ("rendered", "train", counts.num_judge_clips),
        ("rendered", "test", counts.num_held_out_clips),
        ("generated", "train", counts.num_generated_judge_clips),
        ("generated", "test", counts.num_held_out_clips),
    ):
        if source == "rendered":
            rendered = rendered_for(f"judge {split}", count, parameters)
            prompts, clips, known = rendered.judged_prompts, rendered.frames, rendered.labels(questions)
            captions = [scene.caption for scene in rendered.scenes]
        elif count:
            prompts, clips = generate_clips(generator, count, seed=seed, purpose=f"judge {split}")
            known = oracle.probabilities(clips, prompts, questions) > 0.5
            captions = [""] * count
        else:
            continue
        frames.append(clips)
        labels.append(known)
        purpose = f"{source} {split}"
        for index, (prompt, caption) in enumerate(zip(prompts, captions, strict=True)):
            identifier = prompt_id(prompt)
            ids.append(video_id(identifier, index, content_hash("micro-world judge", purpose, seed)))
            rows.append(
                {
                    "prompt_id": identifier,
                    "prompt": prompt,
                    "sample_index": index,
                    "seed": sample_seed(seed, purpose, index),
                    "generator": f"micro_world {source}",
                    "fps": FRAMES_PER_SECOND,
                }
            )
            notes.append({"caption": caption, "split": split, "source": source})

    table = pd.DataFrame(notes).assign(video_id=ids)
    long = table.loc[table.index.repeat(len(questions))].reset_index(drop=True)
    long["question_id"] = np.tile(questions, len(table))
    long["label"] = np.concatenate(labels).ravel()
    plan = stored_clips(ids, np.concatenate(frames), rows, description="clips for the judge")
    return plan, long[["video_id", "question_id", "label", "caption", "split", "source"]]


def preferences(
    generator: Generator, oracle: Oracle, checklist: Checklist, parameters: MicroWorldParameters
) -> tuple[WorkPlan, pd.DataFrame, pd.DataFrame]:
    """Return clips of the pretrained generator, and simulated comparisons of pairs of them.

    Returns:
        the clips, their table (video_id, prompt, file, sample_index, seed, generator) and the preferences.
    """
    settings = parameters.preferences
    questions = list(checklist.question_ids)
    prompts, ids, seeds, rows = [], [], [], []
    for prompt in all_prompts():
        identifier = prompt_id(prompt)
        for index in range(settings.clips_per_prompt):
            seed = sample_seed(parameters.seed, f"preferences {identifier}", index)
            prompts.append(prompt)
            seeds.append(seed)
            ids.append(video_id(identifier, index, content_hash("micro-world preferences", generator.identity)))
            rows.append(
                {"prompt": prompt, "sample_index": index, "seed": seed, "generator": "micro_world (simulated data)"}
            )
    frames = generator.sample(prompts, seeds)
    said = oracle.probabilities(frames, prompts, questions)
    compared = simulate_preferences(
        ids,
        prompts,
        overall_utilities(said, checklist, settings.taste),
        settings,
        seed=parameters.seed,
        by_criterion=utilities_by_criterion(said, checklist),
    )
    logger.info("simulated preferences: %s", compared["preference"].value_counts().to_dict())
    table = pd.DataFrame(rows).assign(video_id=ids, file=[f"{name}.mp4" for name in ids])
    plan = stored_clips(
        ids, frames, [{"fps": FRAMES_PER_SECOND, **row} for row in rows], description="clips to compare"
    )
    return plan, table[["video_id", "prompt", "file", "sample_index", "seed", "generator"]], compared


def reward_pairs(
    generator: Generator,
    oracle: Oracle,
    checklist: Checklist,
    parameters: MicroWorldParameters,
    held_out: HeldOutParameters,
) -> tuple[WorkPlan, pd.DataFrame]:
    """Return clips of the pretrained generator, and simulated comparisons of pairs of them for the VideoReward.

    Pairs of held-out prompts are pairs of clips that no other pair has.

    Returns:
        the clips and the preferences.
    """
    settings, seed = parameters.reward_pairs, parameters.seed
    prompts = pd.Series(all_prompts())
    side = split_by_unit(prompts.map(prompt_id), held_out)
    tables, ids, frames, rows = [], [], [], []
    for purpose, clips_per_prompt, num_pairs, asked in (
        ("reward training", settings.clips_per_prompt, settings.num_pairs, side == "train"),
        ("reward held out", settings.num_held_out_clips_per_prompt, settings.num_held_out_pairs, side != "train"),
    ):
        clips = sample_clips(generator, clips_per_prompt, seed=seed, purpose=purpose)
        pairs = draw_pairs(
            clips, num_pairs, settings.cross_prompt_share, prompts=set(prompts[asked]), seed=seed, purpose=purpose
        )
        tables.append(compare_pairs(pairs, clips, oracle.recognise(clips.frames), checklist, settings, seed=seed))
        ids += clips.video_ids
        frames.append(clips.frames)
        rows += clips.metadata(f"micro_world {purpose}")
    plan = stored_clips(ids, np.concatenate(frames), rows, description="clips for the reward")
    return plan, pd.concat(tables, ignore_index=True)


def of_any_enlargement(reward: TrainedReward) -> TrainedReward:
    """Return the reward with clips of every enlargement among those that it knows.

    Stored clips are enlarged by whole factors, and averaging over areas reverses this exactly: the reward sees the
    same pixels.
    """
    seen = reward.calibration.seen
    if seen is None:
        return reward
    areas = (float(SIZE**2), float((LARGEST_ENLARGEMENT * SIZE) ** 2))
    calibration = reward.calibration.model_copy(update={"seen": seen.model_copy(update={"pixels": areas})})
    return replace(reward, calibration=calibration)
