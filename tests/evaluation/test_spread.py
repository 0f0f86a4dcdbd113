"""Diversity and drift of clips."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from report_inputs import TITLES, ClipsInMemory
from vr_pipeline.evaluation.report.sections import spread as section
from vr_pipeline.evaluation.spread import measure_spread
from vr_pipeline.schemas import ClipSpread


def clips(shades: dict[str, list[int]], prompts: int = 6) -> tuple[ClipsInMemory, pd.DataFrame]:
    """Plain clips: the shade of each policy's clips, one for each seed, the same for every prompt up to one level."""
    folder, rows = ClipsInMemory(), []
    for prompt in range(prompts):
        for policy, values in shades.items():
            for seed, shade in enumerate(values):
                name = f"{prompt}-{policy}-{seed}"
                folder.clips[name] = np.full((3, 20, 24, 3), shade + prompt, np.uint8)
                rows.append((name, f"p{prompt}", policy, seed, "ok"))
    columns = ["video_id", "prompt_id", "policy", "sample_index", "status"]
    return folder, pd.DataFrame(rows, columns=columns)


def test_differences_are_those_of_the_shades() -> None:
    table = measure_spread(*clips({"original": [0, 51, 102], "mpo": [0, 0, 51]}))
    ClipSpread.validate(table)
    by_policy = table.groupby("policy")[["diversity", "drift"]].mean()
    assert by_policy.loc["original", "diversity"] == pytest.approx((0.2 + 0.2 + 0.4) / 3)
    assert by_policy.loc["mpo", "diversity"] == pytest.approx((0.0 + 0.2 + 0.2) / 3)
    assert by_policy.loc["mpo", "drift"] == pytest.approx((0.0 + 0.2 + 0.2) / 3)
    assert table.loc[table["policy"] == "original", "drift"].isna().all()


def test_a_single_clip_has_no_diversity_and_failed_clips_do_not_count() -> None:
    folder, index = clips({"original": [10, 200], "mpo": [10]})
    index.loc[(index["policy"] == "original") & (index["sample_index"] == 1), "status"] = "failed"
    table = measure_spread(folder, index)
    assert table["diversity"].isna().all()
    assert (table.loc[table["policy"] == "mpo", "drift"] == 0).all()
    assert section.make({"original": "Original", "mpo": "MPO"}, table.assign(drift=np.nan)) == []


def test_a_loss_of_diversity_is_named() -> None:
    lost = {"original": [0, 100, 200], "dpo": [0, 100, 200], "mpo": [0, 10, 20]}
    text = " ".join(section.make(TITLES, measure_spread(*clips(lost))))
    assert "MPO lost" not in text  # without spread over prompts there is no interval
    folder, index = clips(lost)
    for name, clip in folder.clips.items():
        if name.endswith("mpo-2"):
            folder.clips[name] = clip + np.uint8(3 * int(name[0]))
    text = " ".join(section.make(TITLES, measure_spread(folder, index)))
    assert "MPO lost" in text
    assert "DPO lost" not in text
