"""Find a reward of a training that rises more than another reward explains, with a bound on false alarms."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vr_pipeline.statistics.falls import clearest, p_of_rise
from vr_pipeline.statistics.labels import FloatArray


class Excess(NamedTuple):
    """The clearest excess of the training's reward.

    Attributes:
        name: of the other reward.
        since: number of the earlier checkpoint.
        change: mean over prompts of the other reward at the last checkpoint minus at the earlier.
        rise: the same of the training's reward.
        expected: the rise that the other reward explains.
        p_value: probability of so clear an excess over any reward since any checkpoint if all rises are explained.
    """

    name: str
    since: int
    change: float
    rise: float
    expected: float
    p_value: float


def moments(
    trained: npt.ArrayLike, other: npt.ArrayLike, prompts: Sequence[str]
) -> dict[str, tuple[float, float, float]]:
    """Return, by prompt, the sums over clips of ``trained * other``, ``other * other`` and ``trained * trained``.

    Both are centred by prompt, or over all clips if every prompt has one clip. The ratio of the sums over all prompts
    is the slope of the training's reward on the other one (the first two), and their correlation (all).

    Args:
        trained: reward of the training, [clips].
        other: the other reward of the same clips, [clips].
        prompts: of the clips.
    """
    names = np.asarray(prompts)
    first, second = np.asarray(trained, dtype=np.float64), np.asarray(other, dtype=np.float64)
    places = {name: np.flatnonzero(names == name) for name in sorted(set(prompts))}
    one_each = all(len(place) == 1 for place in places.values())
    found = {}
    for name, place in places.items():
        x, y = (values[place] - values[... if one_each else place].mean() for values in (first, second))
        found[name] = (float(x @ y), float(y @ y), float(x @ x))
    return found


def clearest_excess(
    rewards: Mapping[str, npt.ArrayLike],
    trained: npt.ArrayLike,
    original: Mapping[str, npt.ArrayLike],
    *,
    rise: float = 1.0,
    smallest: float = 0.0,
    agreement: float = 0.0,
    seed: int = 0,
) -> Excess | None:
    """Test whether the training's reward rises more than another reward explains, on the same prompts.

    A reward that is only optimised for what it measures rises with every other reward that measures the same, as it
    does from clip to clip of the original generator. So a rise ``h`` of the other reward explains the rise ``c * h`` of
    the training's, with the slope ``c`` of the training's reward on the other one over the original's clips (not the
    inverse, which noise of the training's reward would shrink). The rest is what the optimisation found and the other
    reward does not see: regressional Goodhart (Gao et al. 2023, section 4). By prompt, the excess is ``b - c * h`` with
    the rise ``b`` of the training's reward. The error of ``c`` is included by the delta method: each prompt's influence
    on ``c``, times ``mean(h)`` and the number of prompts, which is 0 on average, is subtracted.

    The clearest excess over rewards and earlier checkpoints is tested by random signs of the prompts, as
    :func:`~vr_pipeline.statistics.falls.clearest_fall` does.

    Args:
        rewards: mean reward by checkpoint and prompt, [checkpoints, prompts], by name.
        trained: the reward of the training, [checkpoints, prompts].
        original: :func:`moments` of each, [prompts, 3], by the same name; rewards without them are ignored.
        rise: largest p-value, of Student's one-sided paired test over prompts, at which the training's reward counts as
            risen; only checkpoints since which its mean has risen so clearly are compared.
        smallest: excess that counts, on average, as a part of the training's rise since the first checkpoint.
        agreement: rewards with a lower correlation with the training's over the original's clips, or one of 0 or less,
            are ignored: they measure something else and explain nothing.
        seed: of the random signs, with more than 12 prompts.

    Returns:
        the clearest excess; None if nothing can be compared or there is none.
    """
    own = np.asarray(trained, dtype=np.float64)
    prompts = own.shape[1]
    if len(own) < 2 or prompts < 2:
        return None
    rises = own[-1] - own[:-1]
    risen = np.flatnonzero((rises.mean(axis=1) > 0) & (p_of_rise(rises) <= rise)).tolist()
    differences: list[FloatArray] = []
    facts: list[tuple[str, int, float, float, float]] = []
    for name, values in rewards.items():
        both = np.asarray(original.get(name, np.zeros((prompts, 3))), dtype=np.float64)
        sums = both.sum(axis=0)
        if sums[0] <= 0 or sums[0] < agreement * np.sqrt(sums[1] * sums[2]):
            continue
        slope = float(sums[0] / sums[1])
        influence = (both[:, 0] - slope * both[:, 1]) / sums[1]
        other = np.asarray(values, dtype=np.float64)
        for since in risen:
            change = other[-1] - other[since]
            excess = rises[since] - slope * change - prompts * change.mean() * influence
            differences.append(-excess)
            facts.append((name, since, float(change.mean()), float(rises[since].mean()), slope * float(change.mean())))
    if not differences:
        return None
    table = np.array(differences)
    found = clearest(table, seed, -table.mean(axis=1) >= smallest * rises[0].mean())
    if found is None:
        return None
    place, p_value = found
    return Excess(*facts[place], p_value)
