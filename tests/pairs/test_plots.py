"""Pictures of pairs."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from vr_pipeline.pairs import plots
from vr_pipeline.pairs.candidates import Limits
from vr_pipeline.pairs.report import pair_selection_report
from vr_pipeline.pairs.rules import RULES
from vr_pipeline.pairs.selection import select_pairs


def drawn(figure: Figure) -> None:
    figure.savefig(io.BytesIO(), format="png")


def test_every_candidate_is_in_the_pictures() -> None:
    rng = np.random.default_rng(0)
    rewards = pd.DataFrame(rng.normal(size=(80, 2)), columns=["dim_x", "dim_y"])
    rewards = rewards.assign(
        total=rewards.sum(axis=1), video_id=[f"{i:02d}" for i in range(80)], prompt_id=[f"p{i // 4}" for i in range(80)]
    )
    figure = plots.gap_by_dimension(select_pairs(rewards, "dpo", max_pairs_per_prompt=None))
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert sum(int(text.split("(")[1].split()[0]) for text in texts) == 120
    drawn(figure)
    drawn(plots.gap_by_dimension(select_pairs(rewards.iloc[:1], "dpo")))
    selections = {}
    for name in ("dpo", "mpo"):
        pairs, counts = RULES[name](rewards, None, Limits())
        selections[name] = (pairs, counts.to_json())
    report = pair_selection_report(selections)
    drawn(plots.pair_fates(report))
