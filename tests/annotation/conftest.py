"""A small study: clips on disk, their index, and a journal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vr_pipeline.annotation import queue
from vr_pipeline.annotation.secret import study_secret
from vr_pipeline.annotation.session import AnnotationSession
from vr_pipeline.annotation.store import Journal
from vr_pipeline.identifiers import prompt_id
from vr_pipeline.preferences.journal import Label, Study
from vr_pipeline.video.write import write_video

HOSTILE_PROMPT = "<img src=x onerror=alert(1)> & \"a\" 'b'"


def make_index(prompts: int = 3, clips: int = 3, policies: tuple[str, ...] = ("",)) -> pd.DataFrame:
    """A video index whose clips are named as users name theirs, policy and all."""
    return pd.DataFrame(
        [
            {
                "video_id": f"{policy or 'clip'}-{p}-{c}",
                "prompt_id": prompt_id(f"prompt {p}"),
                "prompt": HOSTILE_PROMPT if p == 0 else f"prompt {p}",
                "sample_index": c,
                "path": f"{policy or 'clip'}-{p}-{c}.mp4",
                "generator": "some model",
                "policy": policy,
                "status": "ok",
            }
            for policy in policies
            for p in range(prompts)
            for c in range(clips)
        ]
    )


def make_label(number: int, **changes: object) -> Label:
    values: dict[str, object] = {
        "label": f"label-{number:04d}",
        "pair": f"pair {number}",
        "prompt_id": prompt_id("a cat"),
        "prompt": "a cat\nand\u2028a dog",
        "criterion": "overall",
        "choice": "left",
        "left": "one",
        "right": "two",
        "left_file": "one.mp4",
        "right_file": "two.mp4",
        "left_generator": "mpo",
        "right_generator": "original",
        "annotator": "Ada",
        "seconds": 1.5,
        "at": "2026-01-01T00:00:00.000+00:00",
        "order": "random",
        "seed": 0,
    }
    return Label.model_validate(values | changes)


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    random = np.random.default_rng(0)
    for name in make_index(policies=("", "original", "mpo"))["path"]:
        write_video(folder / name, random.integers(0, 256, (4, 16, 16, 3), dtype=np.uint8), fps=8)
    return folder


@pytest.fixture
def make_session(tmp_path: Path, clip_folder: Path) -> Callable[..., AnnotationSession]:
    """Opens a study of nine pairs; opening it again continues its journal."""
    opened: list[Journal] = []

    def make(**options: object) -> AnnotationSession:
        while opened:
            opened.pop().close()
        policies = ("original", "mpo") if options.pop("blind", False) else ()
        study = Study(study="test", source="policies" if policies else "generated", policies=policies)
        index = make_index(policies=policies or ("",))
        pairs = (
            queue.policy_pairs(index, policies) if policies else queue.pairs_of_prompts(index, per_prompt=None, seed=0)
        )
        opened.append(Journal(tmp_path / "journal.jsonl", study))
        settings: dict[str, object] = {
            "criteria": ["overall"],
            "hints": {},
            "order": "random",
            "seed": 0,
            "files": {path.name: path for path in clip_folder.iterdir()},
            "secret": study_secret(opened[0].path),
        }
        ordered = queue.ordered(pairs, "random", seed=0, limit=None)
        return AnnotationSession(study, ordered, journal=opened[0], **(settings | options))  # type: ignore[arg-type]

    yield make  # type: ignore[misc]
    while opened:
        opened.pop().close()
