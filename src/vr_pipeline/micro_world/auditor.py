"""The auditor: another recogniser of clips of the micro-world, for evaluation alone.

It shares no feature, no model and no label with the oracle and the judge: a small network reads the strongest
frequencies of a clip (its three-dimensional discrete cosine transform) and is fitted on rendered clips with exact
answers, which no other model is fitted on. It labels no clip, draws no preference and chooses no checkpoint. On
generated clips it extrapolates, as the oracle does, but errs in its own way.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from vr_pipeline.errors import InputError
from vr_pipeline.micro_world.recogniser import FREE_QUESTIONS, Floats, Recogniser
from vr_pipeline.micro_world.reward import RecogniserReward
from vr_pipeline.micro_world.world import ATTRIBUTES, NUM_FRAMES, SIZE, Scene, answers
from vr_pipeline.storage.tensors import read_tensors

_HEADS = {**{name: len(choices) for name, choices in ATTRIBUTES.items()}, **dict.fromkeys(FREE_QUESTIONS, 1)}
"""Outputs of the network by attribute and question, in their order."""

Singles = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Auditor(Recogniser):
    """A network with one hidden layer on chosen frequencies of a clip.

    Attributes:
        places: which coefficients of the transform it reads, [features], ascending.
        centre: their mean over the fitted clips, [features].
        scale: their standard deviation, [features].
        first: weights of the hidden layer, [features, hidden].
        first_bias: [hidden].
        second: weights of the outputs, [hidden, outputs].
        second_bias: [outputs].
    """

    num_frames: ClassVar[int | None] = NUM_FRAMES

    places: npt.NDArray[np.int32]
    centre: Singles
    scale: Singles
    first: Singles
    first_bias: Singles
    second: Singles
    second_bias: Singles

    @classmethod
    def fit(
        cls,
        clips: npt.NDArray[np.uint8],
        scenes: Sequence[Scene],
        *,
        seed: int,
        num_features: int = 256,
        hidden: int = 96,
        epochs: int = 20,
    ) -> "Auditor":
        """Fit on rendered clips: cross-entropy of every output, by Adam.

        Args:
            clips: uint8 [clips, frames, height, width, 3].
            scenes: what was rendered.
            seed: of the weights and of the order of clips.
            num_features: coefficients that are read, those of largest variance.
            hidden: units of the hidden layer.
            epochs: passes over the clips.
        """
        import warnings

        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPClassifier

        spectrum = _spectrum(clips)
        deviation = spectrum.std(axis=0)
        # Rounded, so that equal variances do not order by noise.
        places = np.sort(np.argsort(-np.round(deviation, 6), kind="stable")[:num_features])
        centre, scale = spectrum[:, places].mean(axis=0), deviation[places]
        network = MLPClassifier(
            (hidden,),
            learning_rate_init=2e-3,
            max_iter=epochs,
            random_state=seed,
            tol=0.0,
            n_iter_no_change=epochs + 1,
        )
        with warnings.catch_warnings():
            # The epochs are given; whether more would change the weights does not matter.
            warnings.simplefilter("ignore", ConvergenceWarning)
            network.fit((spectrum[:, places] - centre) / scale, _targets(scenes))
        weights = (network.coefs_[0], network.intercepts_[0], network.coefs_[1], network.intercepts_[1])
        singles = [np.ascontiguousarray(array, dtype=np.float32) for array in (centre, scale, *weights)]
        return cls(places.astype(np.int32), *singles)

    def recognise(self, clips: npt.NDArray[np.uint8]) -> dict[str, Floats]:
        """See :class:`~vr_pipeline.micro_world.recogniser.Recogniser`."""
        from scipy.special import expit

        # In double precision, so that an answer does not depend on how many clips are looked at together.
        values = (_spectrum(clips)[:, self.places].astype(np.float64) - self.centre) / self.scale
        hidden = np.maximum(values @ self.first + self.first_bias, 0.0)
        yes = expit(hidden @ self.second + self.second_bias)
        ends = np.cumsum(list(_HEADS.values()))
        parts = dict(zip(_HEADS, np.split(yes, ends[:-1], axis=1), strict=True))
        # Colours exclude each other, and so do the other values of one attribute; a question has yes and no.
        return {
            name: part / part.sum(axis=1, keepdims=True) if name in ATTRIBUTES else np.hstack([1.0 - part, part])
            for name, part in parts.items()
        }

    def arrays(self) -> dict[str, npt.NDArray]:
        """Return the weights and the frequencies that they read."""
        return dict(vars(self))

    @classmethod
    def load(cls, path: Path) -> "Auditor":
        """See :class:`~vr_pipeline.micro_world.recogniser.Recogniser`."""
        remedy = "run the pipeline micro_world again"
        found = {name: tensor.numpy() for name, tensor in read_tensors(path, remedy=remedy).items()}
        places = found.get("places", np.empty(0))
        hidden, outputs, features = found.get("first_bias", places).size, sum(_HEADS.values()), places.size
        shapes = {
            "places": (features,),
            "centre": (features,),
            "scale": (features,),
            "first": (features, hidden),
            "first_bias": (hidden,),
            "second": (hidden, outputs),
            "second_bias": (outputs,),
        }
        if (
            {name: array.shape for name, array in found.items()} != shapes
            or not features
            or not np.isin(places, np.arange(NUM_FRAMES * SIZE * SIZE * 3)).all()
        ):
            raise InputError("these are no weights of an auditor of this version", file=path, remedy=remedy)
        return cls(**{name: found[name] for name in shapes})


class AuditorReward(RecogniserReward):
    """The auditor's reward, for evaluation alone."""

    kind = "auditor answers"
    recogniser_class = Auditor


def _spectrum(clips: npt.NDArray[np.uint8]) -> Singles:
    """Return the orthonormal cosine transform over time, height and width, float32 [clips, coefficients]."""
    from scipy.fft import dctn

    return dctn(clips.astype(np.float32) / 127.5 - 1.0, axes=(1, 2, 3), norm="ortho").reshape(len(clips), -1)


def _targets(scenes: Sequence[Scene]) -> npt.NDArray[np.int64]:
    """Return the truth of every output, [clips, outputs]."""
    rows = []
    for scene in scenes:
        truth = answers(scene)
        drawn = [getattr(scene, name) == choice for name, choices in ATTRIBUTES.items() for choice in choices]
        rows.append([*drawn, *(truth[question] for question in FREE_QUESTIONS)])
    return np.array(rows, dtype=np.int64)
