"""Synthetic learning curves, for tables without any.

A table of trained architectures has the final accuracy of each training only. The curves to it are made up, so that
early stopping can be replayed: they rise steeply, then slowly, some later than others, with noise that falls to 0.
"""

import numpy as np

from nas.algorithms.arrays import FloatArray

_LEFT, _LEFT_SPREAD = 0.25, 0.2
"""Accuracy, of 0 to 1, to be gained at the beginning, and its relative spread between rows."""
_BEND = 2.0
_NOISE = 0.02
"""Standard deviation at the beginning; it falls to 0 linearly."""


def synthetic(finals: FloatArray, epochs: int, rng: np.random.Generator) -> FloatArray:
    """Return synthetic learning curves that end in `finals`, `(trainings, epochs)`."""
    left = 1.0 - np.arange(1, epochs + 1) / epochs
    late = _LEFT * np.exp(_LEFT_SPREAD * rng.standard_normal((len(finals), 1)))
    noise = _NOISE * left * rng.standard_normal((len(finals), epochs))
    return np.maximum(0.0, finals[:, None] - late * left**_BEND + noise)
