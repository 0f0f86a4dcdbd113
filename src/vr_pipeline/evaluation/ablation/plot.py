"""Figure of an ablation: gains by dimension and combination."""

from __future__ import annotations

import numpy as np
import pandas as pd

from vr_pipeline.drawing import Figure, new_figure
from vr_pipeline.evaluation.ablation.gains import combinations
from vr_pipeline.evaluation.plots import colours
from vr_pipeline.generators.policy import ORIGINAL


def gains_by_dimension(gains: pd.DataFrame) -> Figure:
    """Draw the gains over the original with 95 % intervals, one panel per source."""
    gains = gains[gains["against"] == ORIGINAL]
    sources, names = list(dict.fromkeys(gains["source"])), combinations(gains)
    widest = max((gains[gains["source"] == source]["dimension"].nunique() for source in sources), default=1)
    figure = new_figure(figsize=((1.6 + 1.15 * max(widest, 3)) * max(len(sources), 1), 4.2), layout="constrained")
    shades = list(colours({ORIGINAL: "", **{".".join(name): "" for name in names}}).values())[1:]
    for axes, source in zip(figure.subplots(1, max(len(sources), 1), squeeze=False)[0], sources, strict=False):
        of_source = gains[gains["source"] == source]
        dimensions = list(dict.fromkeys(of_source["dimension"]))
        width = 0.7 / max(len(names), 1)
        for place, ((pairs, objective), shade) in enumerate(zip(names, shades, strict=True)):
            own = of_source[(of_source["pairs"] == pairs) & (of_source["objective"] == objective)]
            own = own.set_index("dimension").reindex(dimensions)
            reach = np.array([own["gain"] - own["ci_low"], own["ci_high"] - own["gain"]], dtype=np.float64)
            axes.errorbar(
                np.arange(len(dimensions)) - 0.35 + width * (place + 0.5),
                own["gain"],
                yerr=np.nan_to_num(reach),
                fmt="o",
                markersize=5,
                capsize=2.5,
                color=shade,
                label=f"{objective} on {pairs} pairs",
            )
        turned = len(dimensions) > 5
        axes.set_xticks(
            range(len(dimensions)), dimensions, rotation=30 if turned else 0, ha="right" if turned else "center"
        )
        axes.axhline(0.0, color="black", linewidth=0.8)
        axes.grid(axis="y", alpha=0.3)
        axes.set_ylabel(f"gain by the {source}")
        axes.set_title(f"{source.capitalize()}: gain over the original", fontsize=11)
        axes.spines[["top", "right"]].set_visible(False)
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.1 * len(names) * (high - low))
        axes.legend(fontsize=8, frameon=False, loc="upper left")
    figure.supxlabel("marks: mean over held-out clips of all seeds; whiskers: 95 % interval by prompt", fontsize=8)
    return figure
