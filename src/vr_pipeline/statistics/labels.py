"""Labels of pairs of clips: which one is preferred."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vr_pipeline.errors import InputError

FloatArray = npt.NDArray[np.float64]


def checked_preference(preference: Sequence[str] | npt.ArrayLike, length: int) -> npt.NDArray[np.str_]:
    """Return labels as an array of 'a', 'b' and 'tie'.

    Raises:
        InputError: a label is unknown (with its row, from 1), or their number is not ``length``.
    """
    labels = np.asarray(preference)
    if labels.shape != (length,):
        raise InputError(
            f"{labels.size} labels for {length} pairs", remedy="Give one label per pair", field="preference"
        )
    if labels.dtype.kind != "U":
        labels = labels.astype(str) if length else np.empty(0, dtype="U3")
    known = (labels == "a") | (labels == "b") | (labels == "tie")
    if not known.all():
        row = int(np.flatnonzero(~known)[0])
        raise InputError(f"unknown label '{labels[row]}'", remedy="Use a, b or tie", field="preference", row=row + 1)
    return labels
