"""The oracle: a second opinion on clips of the micro-world, from hand-made features instead of a network.

Hand-made pixel features and randomised trees (Geurts et al. 2006), fitted on rendered clips with known answers. It
never sees a prompt: it recognises what is drawn, and answers about prompts follow by comparison. On generated clips it
extrapolates, as any judge does. It is not independent of the judge: its answers on generated clips are among the labels
that the embedded judge learned from, and the simulated people are drawn from its probabilities. A reward that rises for
the judge and not for the oracle is a sign of reward hacking; one that rises for both is no proof of the contrary, for
which there is the auditor (:mod:`vr_pipeline.micro_world.auditor`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vr_pipeline.errors import InputError
from vr_pipeline.micro_world.recogniser import FREE_QUESTIONS, Floats, Recogniser
from vr_pipeline.micro_world.world import ATTRIBUTES, SIZE, Scene, answers
from vr_pipeline.storage.tensors import read_tensors


def features(clips: npt.NDArray[np.uint8]) -> Floats:
    """Return pixel statistics that determine a scene.

    The background is the median of the border pixels of each frame, the shape is where the frame differs from it;
    the rest is position, size, roundness, hollowness, edge steepness and colour of the shape over time.

    Args:
        clips: uint8 [clips, frames, height, width, 3].

    Returns:
        float64 [clips, features].
    """
    video = clips.astype(np.float64) / 255.0
    count, frames = video.shape[:2]
    border = np.concatenate([video[:, :, 0], video[:, :, -1], video[:, :, :, 0], video[:, :, :, -1]], axis=2)
    background = np.median(border, axis=2)
    difference = video - background[:, :, None, None, :]
    strength = np.abs(difference).max(axis=-1)
    peak = strength.max(axis=(2, 3))
    weight = np.clip(strength / np.maximum(peak, 1e-3)[:, :, None, None] - 0.12, 0.0, None)
    mass = weight.sum(axis=(2, 3)) + 1e-6
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] + 0.5
    x = (weight * columns).sum(axis=(2, 3)) / mass
    y = (weight * rows).sum(axis=(2, 3)) / mass
    dx, dy = columns - x[:, :, None, None], rows - y[:, :, None, None]
    distance = np.hypot(dx, dy)
    spread = np.sqrt((weight * distance**2).sum(axis=(2, 3)) / mass)
    radius = distance / np.maximum(spread, 0.5)[:, :, None, None]

    def profile(low: float, high: float) -> Floats:
        inside = (radius >= low) & (radius < high)
        return (strength * inside).sum(axis=(2, 3)) / (inside.sum(axis=(2, 3)) + 1e-6) / np.maximum(peak, 1e-3)

    profiles = [profile(low, low + 0.25) for low in np.arange(0.0, 2.25, 0.25)]
    four_fold = np.sqrt(
        ((weight * np.cos(4 * np.arctan2(dy, dx)) * (distance > 1)).sum(axis=(2, 3)) / mass) ** 2
        + ((weight * np.sin(4 * np.arctan2(dy, dx)) * (distance > 1)).sum(axis=(2, 3)) / mass) ** 2
    )
    colour = (difference * weight[..., None] ** 2).sum(axis=(2, 3)) / ((weight**2).sum(axis=(2, 3)) + 1e-6)[..., None]
    shown = colour + background
    gradient_x = np.abs(np.diff(strength, axis=3)).max(axis=(2, 3))
    gradient_y = np.abs(np.diff(strength, axis=2)).max(axis=(2, 3))
    steepness = np.maximum(gradient_x, gradient_y) / np.maximum(peak, 1e-3)
    area = (strength > 0.5 * peak[:, :, None, None]).sum(axis=(2, 3)).astype(np.float64)

    time = np.linspace(-1.0, 1.0, frames)

    def slope(values: Floats) -> Floats:
        return (values * time).sum(axis=1) / (time**2).sum()

    def alternation(values: Floats) -> Floats:
        signs = np.where(np.arange(frames) % 2, 1.0, -1.0)
        return (values * signs).mean(axis=1)

    brightness = background.mean(axis=2)
    columns_of_features = [
        *background.mean(axis=1).T,
        *shown.mean(axis=1).T,
        *shown[:, :2].mean(axis=1).T,
        *shown[:, -2:].mean(axis=1).T,
        *(shown[:, -2:].mean(axis=1) - shown[:, :2].mean(axis=1)).T,
        *colour.mean(axis=1).T,
        peak.mean(axis=1),
        peak.min(axis=1),
        np.abs(alternation(brightness)),
        alternation(brightness),
        brightness.std(axis=1),
        np.abs(np.diff(brightness, axis=1)).mean(axis=1),
        alternation(peak),
        np.abs(np.diff(peak, axis=1)).mean(axis=1),
        slope(x),
        np.abs(slope(x)),
        x[:, -2:].mean(axis=1) - x[:, :2].mean(axis=1),
        np.abs(np.diff(x, axis=1)).mean(axis=1),
        np.abs(alternation(y)),
        np.abs(np.diff(y, axis=1)).mean(axis=1),
        y.std(axis=1),
        slope(spread) / np.maximum(spread.mean(axis=1), 1e-9),
        spread.mean(axis=1),
        spread[:, 0],
        spread[:, -2:].mean(axis=1) / np.maximum(spread[:, :2].mean(axis=1), 1e-9),
        slope(area) / np.maximum(area.mean(axis=1), 1),
        area.mean(axis=1),
        area[:, -2:].mean(axis=1) / np.maximum(area[:, :2].mean(axis=1), 1),
        steepness.mean(axis=1),
        steepness[:, :3].mean(axis=1),
        steepness.max(axis=1),
        four_fold.mean(axis=1),
        four_fold[:, :3].mean(axis=1),
        *[values.mean(axis=1) for values in profiles],
        *[values[:, :3].mean(axis=1) for values in profiles],
    ]
    return np.nan_to_num(np.stack(columns_of_features, axis=1).reshape(count, -1))


@dataclass(frozen=True)
class Forest:
    """One ensemble of trees with class probabilities in its leaves, as plain arrays that safetensors can hold.

    Attributes:
        roots: index of each tree's root.
        feature: feature a node splits on; -1 in leaves.
        threshold: value at or below which a clip goes left.
        children: left and right child of each node, [nodes, 2].
        probability: class probabilities of each node, [nodes, classes].
    """

    roots: npt.NDArray[np.int32]
    feature: npt.NDArray[np.int32]
    threshold: npt.NDArray[np.float32]
    children: npt.NDArray[np.int32]
    probability: npt.NDArray[np.float32]

    def predict(self, values: Floats) -> Floats:
        """Return class probabilities averaged over the trees, [clips, classes]."""
        values = values.astype(np.float32)
        # All trees go down one level at a time.
        node = np.tile(self.roots, (len(values), 1))
        rows = np.arange(len(values))[:, None]
        while (inner := (split := self.feature[node]) >= 0).any():
            right = values[rows, np.maximum(split, 0)] > self.threshold[node]
            node = np.where(inner, self.children[node, right.astype(int)], node)
        total = np.zeros((len(values), self.probability.shape[1]))
        for leaves in node.T:
            total += self.probability[leaves]
        return total / len(self.roots)


def _fit_forest(values: Floats, classes: npt.NDArray[np.int64], *, seed: int, trees: int) -> Forest:
    from sklearn.ensemble import ExtraTreesClassifier

    model = ExtraTreesClassifier(
        trees, min_samples_leaf=4, max_features=0.5, class_weight="balanced", random_state=seed, n_jobs=1
    ).fit(values.astype(np.float32), classes)
    roots, feature, threshold, children, probability = [], [], [], [], []
    offset = 0
    for estimator in model.estimators_:
        tree = estimator.tree_
        roots.append(offset)
        feature.append(np.where(tree.children_left < 0, -1, tree.feature))
        threshold.append(tree.threshold)
        pair = np.stack([tree.children_left, tree.children_right], axis=1)
        children.append(np.where(pair < 0, -1, pair + offset))
        leaf = tree.value[:, 0, :]
        probability.append(leaf / leaf.sum(axis=1, keepdims=True))
        offset += tree.node_count
    return Forest(
        np.array(roots, np.int32),
        np.concatenate(feature).astype(np.int32),
        np.concatenate(threshold).astype(np.float32),
        np.concatenate(children).astype(np.int32),
        np.concatenate(probability).astype(np.float32),
    )


@dataclass(frozen=True)
class Oracle(Recogniser):
    """One forest for each attribute a prompt can name and for each question without a prompt."""

    forests: dict[str, Forest]

    @classmethod
    def fit(cls, clips: npt.NDArray[np.uint8], scenes: Sequence[Scene], *, seed: int, trees: int = 24) -> Oracle:
        """Fit on rendered clips.

        Args:
            clips: uint8 [clips, frames, height, width, 3].
        """
        values = features(clips)
        truths = [answers(scene) for scene in scenes]
        targets = {
            name: np.array([choices.index(getattr(scene, name)) for scene in scenes])
            for name, choices in ATTRIBUTES.items()
        }
        targets |= {name: np.array([int(truth[name]) for truth in truths]) for name in FREE_QUESTIONS}
        return cls({name: _fit_forest(values, target, seed=seed, trees=trees) for name, target in targets.items()})

    def recognise(self, clips: npt.NDArray[np.uint8]) -> dict[str, Floats]:
        """See :class:`~vr_pipeline.micro_world.recogniser.Recogniser`."""
        values = features(clips)
        return {name: forest.predict(values) for name, forest in self.forests.items()}

    def arrays(self) -> dict[str, npt.NDArray]:
        """Return the arrays of all forests."""
        forests = self.forests.items()
        return {f"{name}.{field}": getattr(forest, field) for name, forest in forests for field in _FOREST}

    @classmethod
    def load(cls, path: Path) -> Oracle:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: the file is damaged, or has other content.
        """
        remedy = "run the pipeline micro_world again"
        stored: dict[str, dict[str, npt.NDArray]] = {}
        for key, value in read_tensors(path, remedy=remedy).items():
            name, _, field = key.rpartition(".")
            kind = _FOREST.get(field)
            stored.setdefault(name, {})[field] = value.double().numpy().astype(kind)
        if stored.keys() != {*ATTRIBUTES, *FREE_QUESTIONS} or any(
            fields.keys() != _FOREST.keys() or not _is_forest(**fields) for fields in stored.values()
        ):
            raise InputError("these are no trees of an oracle of this version", file=path, remedy=remedy)
        return cls({name: Forest(**fields) for name, fields in stored.items()})


_FOREST = {
    "roots": np.int32,
    "feature": np.int32,
    "threshold": np.float32,
    "children": np.int32,
    "probability": np.float32,
}
"""Fields of a forest in a file."""


def _is_forest(
    roots: npt.NDArray,
    feature: npt.NDArray,
    threshold: npt.NDArray,
    children: npt.NDArray,
    probability: npt.NDArray,
) -> bool:
    """Return whether arrays are finite trees: the children of every inner node come after it."""
    nodes = len(feature)
    if feature.ndim != 1 or threshold.shape != (nodes,) or children.shape != (nodes, 2) or len(probability) != nodes:
        return False
    inner = feature >= 0
    behind = children[inner] > np.flatnonzero(inner)[:, None]
    return bool(
        behind.all() and (children < nodes).all() and len(roots) and (roots >= 0).all() and (roots < nodes).all()
    )
