"""Which points no other point is better than in every dimension at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def pareto_front(values: npt.ArrayLike, tolerance: float = 1e-9) -> npt.NDArray[np.bool_]:
    """Return whether each point is on the front: none is at least as good everywhere and better somewhere, [points].

    Args:
        values: higher is better, [points, dimensions].
        tolerance: values closer than this are equal; equal points do not remove each other.
    """
    points = np.asarray(values, dtype=np.float64)
    difference = points[None, :, :] - points[:, None, :]
    dominated = np.all(difference >= -tolerance, axis=2) & np.any(difference > tolerance, axis=2)
    return np.asarray(~np.any(dominated, axis=1), dtype=bool)
