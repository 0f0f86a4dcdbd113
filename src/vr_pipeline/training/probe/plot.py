"""Maps of settings: one labelled cell per learning rate and beta."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize, TwoSlopeNorm
from matplotlib.figure import Figure

from vr_pipeline.training.probe.advice import Advice, Health, value_of
from vr_pipeline.training.probe.grid import Grid
from vr_pipeline.training.probe.measure import Cell

_CHANCE = 0.5


def draw_map(
    axes: Axes,
    values: npt.NDArray[np.float64],
    learning_rates: Sequence[float],
    betas: Sequence[float],
    *,
    texts: Sequence[Sequence[str]],
    norm: Normalize,
    colours: str,
) -> None:
    """Draw one cell per combination.

    Args:
        axes: where.
        values: colour of the cells, [learning rates, betas]; NaN is grey.
        learning_rates: ascending, upwards.
        betas: ascending, to the right.
        texts: labels of the cells.
        norm: colour scale.
        colours: name of a matplotlib colour map.
    """
    import matplotlib

    scale: Colormap = matplotlib.colormaps[colours].with_extremes(bad="#D9D9D9")
    axes.imshow(np.ma.masked_invalid(values), cmap=scale, norm=norm, origin="lower", aspect="auto")
    for row, line in enumerate(texts):
        for column, text in enumerate(line):
            value = values[row, column]
            red, green, blue, _ = scale(norm(value)) if np.isfinite(value) else (1.0, 1.0, 1.0, 1.0)
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    axes.set_xticks(range(len(betas)), [f"{beta:g}" for beta in betas])
    axes.set_yticks(range(len(learning_rates)), [f"{rate:g}" for rate in learning_rates])
    axes.set_xlabel("beta")
    axes.set_ylabel("learning rate")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def around_centre(values: npt.NDArray[np.float64], centre: float) -> TwoSlopeNorm:
    """Return a symmetric scale around ``centre`` that reaches the farthest value."""
    finite = values[np.isfinite(values)]
    reach = max(float(np.abs(finite - centre).max()) if len(finite) else 0.0, 1e-3)
    return TwoSlopeNorm(centre, centre - reach, centre + reach)


def probe_map(cells: Sequence[Cell], grid: Grid, health: Health, advice: Advice, *, title: str) -> Figure:
    """Draw gain and rise of the winners' error for all combinations, with a frame around the recommended one.

    Args:
        cells: all of the grid.
        grid: learning rates and betas.
        health: limits of a healthy training; other cells are marked.
        advice: the recommendation.
        title: of the figure.
    """
    by_place = {(cell.learning_rate, cell.beta): cell for cell in cells}
    figure = Figure(figsize=(3.2 + 1.7 * len(grid.betas), 1.6 + 0.55 * len(grid.learning_rates)), layout="constrained")
    left, right = figure.subplots(1, 2)

    def table(value: Callable[[Cell], float | None]) -> npt.NDArray[np.float64]:
        rows = [[value(by_place[rate, beta]) for beta in grid.betas] for rate in grid.learning_rates]
        return np.array(rows, dtype=np.float64)

    def texts(values: npt.NDArray[np.float64], form: str) -> list[list[str]]:
        return [
            [
                ("–" if np.isnan(value) else form.format(value))
                + (" ✗" if health.trouble(by_place[rate, beta]) else "")
                for beta, value in zip(grid.betas, line, strict=True)
            ]
            for rate, line in zip(grid.learning_rates, values, strict=True)
        ]

    by_reward = any(cell.gain is not None for cell in cells)
    gains, rises = table(value_of), table(lambda cell: cell.winner_rise)
    centre = 0.0 if by_reward else _CHANCE
    settings = (grid.learning_rates, grid.betas)
    form = "{:+.2f}" if by_reward else "{:.2f}"
    draw_map(left, gains, *settings, texts=texts(gains, form), norm=around_centre(gains, centre), colours="RdBu")
    scale = Normalize(0.0, 2.0 * health.winner_rise, clip=True)
    draw_map(right, rises, *settings, texts=texts(rises, "{:+.0%}"), norm=scale, colours="YlOrRd")
    left.set_title("gain in validation reward" if by_reward else "accuracy on held-out pairs", fontsize=10)
    right.set_title("rise of the winners' error", fontsize=10)
    if advice.learning_rate is not None and advice.beta is not None:
        place = (grid.betas.index(advice.beta) - 0.5, grid.learning_rates.index(advice.learning_rate) - 0.5)
        for axes in (left, right):
            axes.add_patch(_frame(place))
    figure.suptitle(title, fontsize=11)
    figure.supxlabel("✗ failed; frame: recommended", fontsize=8)
    return figure


def _frame(place: tuple[float, float]) -> object:
    from matplotlib.patches import Rectangle

    return Rectangle(place, 1.0, 1.0, fill=False, edgecolor="black", linewidth=2.5)
