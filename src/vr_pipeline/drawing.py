"""Figures of matplotlib, which is imported when the first one is drawn.

Kedro looks at the annotations of all nodes when a run starts; importing matplotlib for them takes most of a second.
"""

from typing import TYPE_CHECKING, Any

__all__ = ["Axes", "Figure", "new_figure"]

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
else:
    Axes = Figure = Any


def new_figure(figsize: tuple[float, float], **options: Any) -> Figure:
    """Return an empty figure that belongs to no window.

    Args:
        figsize: width and height, inches.
        options: of :class:`matplotlib.figure.Figure`.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=figsize, **options)
