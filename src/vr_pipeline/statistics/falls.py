"""Find a reward that falls from one checkpoint of a training to a later one, with a bound on false alarms."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vr_pipeline.statistics.labels import FloatArray

_EXACT = 12
"""Prompts up to which every combination of signs is tried."""
_DRAWS = 1 << _EXACT


class Fall(NamedTuple):
    """The clearest fall of a reward.

    Attributes:
        name: of the reward.
        since: number of the earlier checkpoint.
        change: mean over prompts of the later reward minus the earlier.
        p_value: probability of so clear a fall of any reward since any checkpoint if none has changed.
    """

    name: str
    since: int
    change: float
    p_value: float


def clearest_fall(
    rewards: Mapping[str, npt.ArrayLike],
    trained: npt.ArrayLike | None = None,
    *,
    rise: float = 1.0,
    seen: Mapping[str, npt.ArrayLike] | None = None,
    seed: int = 0,
) -> Fall | None:
    """Test whether a reward is lower at the last checkpoint than at an earlier one, on the same prompts.

    The statistic is Student's t of the paired differences; the largest over rewards and earlier checkpoints is compared
    with its distribution under random signs of the prompts. The same sign is applied to all differences of a prompt,
    which accounts for the correlation between rewards and between checkpoints (Westfall and Young 1993). The test is
    exact where differences are symmetric about zero. The smallest possible p-value is 2^-prompts.

    Args:
        rewards: mean reward by checkpoint and prompt, [checkpoints, prompts], by name; all of the same shape.
        trained: the reward of the training, [checkpoints, prompts]: only checkpoints with a lower mean than the last
            one are compared. None compares all.
        rise: largest p-value, of Student's one-sided paired test over prompts, at which ``trained`` counts as risen;
            1 for any rise of the mean.
        seen: means of counterparts of rewards, [checkpoints], by the name of the reward: it is not compared with
            checkpoints at which its counterpart has a higher mean than at the last one.
        seed: of the random signs, with more than 12 prompts.

    Returns:
        the clearest fall; None if nothing can be compared or no reward fell.
    """
    names = list(rewards)
    if not names:
        return None
    table = np.stack([np.asarray(rewards[name], dtype=np.float64) for name in names], axis=1)
    earlier = np.arange(len(table) - 1)
    if trained is not None:
        rewards_of_training = np.asarray(trained, dtype=np.float64)
        rises = rewards_of_training[-1] - rewards_of_training[:-1]
        earlier = earlier[rises.mean(axis=1) > 0]
        if rise < 1 and len(earlier) and table.shape[2] > 1:
            earlier = earlier[p_of_rise(rises[earlier]) <= rise]
    prompts = table.shape[2]
    if not len(earlier) or prompts < 2:
        return None
    compared = np.ones((len(earlier), len(names)), dtype=bool)
    for name, means in (seen or {}).items():
        values = np.asarray(means, dtype=np.float64)
        compared[:, names.index(name)] = values[earlier] <= values[-1]
    differences = (table[-1] - table[earlier])[compared]
    if not len(differences):
        return None
    found = clearest(differences, seed)
    if found is None:
        return None
    place, p_value = found
    since, name = np.argwhere(compared)[place].tolist()
    return Fall(names[name], int(earlier[since]), float(differences[place].mean()), p_value)


def clearest(
    differences: FloatArray, seed: int = 0, among: npt.NDArray[np.bool_] | None = None
) -> tuple[int, float] | None:
    """Return the place of the difference that is most clearly below 0, and its p-value; None if none is below.

    Args:
        differences: by comparison and prompt, [comparisons, prompts].
        seed: of the random signs, with more than 12 prompts.
        among: the comparisons that may be returned, [comparisons]; the p-value accounts for all. None: all.
    """
    prompts = differences.shape[1]
    observed = _falling(differences, np.ones((1, prompts)))[0]
    if among is not None:
        observed = np.where(among, observed, -np.inf)
    place = int(np.argmax(observed))
    if observed[place] <= 0:
        return None
    if prompts <= _EXACT:
        signs: FloatArray = np.float64(1.0) - 2 * (np.arange(1 << prompts)[:, None] >> np.arange(prompts) & 1)
    else:
        drawn = np.random.default_rng(seed).integers(0, 2, size=(_DRAWS - 1, prompts))
        signs = np.vstack([np.ones(prompts), 1.0 - 2.0 * drawn])
    # Rounding must not separate equal statistics: the observed one is among those that are counted.
    as_clear = _falling(differences, signs).max(axis=1) >= observed[place] * (1 - 1e-9)
    return place, float(as_clear.mean())


def smallest_p_value(prompts: int) -> float:
    """Return the smallest p-value that :func:`clearest_fall` can reach."""
    return 1.0 / min(2**prompts, _DRAWS)


def p_of_rise(rises: FloatArray) -> FloatArray:
    """Return p-values of Student's one-sided test that means of [comparisons, prompts] are above 0, [comparisons]."""
    from scipy import stats

    prompts = rises.shape[1]
    deviation = rises.std(axis=1, ddof=1)
    means = rises.mean(axis=1)
    # Equal rises of all prompts are certain.
    statistic = np.divide(means, deviation, out=np.where(means > 0, np.inf, -np.inf), where=deviation > 0)
    return np.asarray(stats.t.sf(statistic * np.sqrt(prompts), prompts - 1), dtype=np.float64)


def _falling(differences: FloatArray, signs: FloatArray) -> FloatArray:
    """Return minus Student's t of each difference under each combination of signs, [signs, differences]."""
    prompts = differences.shape[1]
    means = signs @ differences.T / prompts
    # The mean square does not depend on the signs.
    squares = (differences**2).mean(axis=1)
    variance = np.maximum(squares - means**2, 1e-12 * squares) / (prompts - 1)
    return np.divide(-means, np.sqrt(variance), out=np.zeros_like(means), where=variance > 0)
