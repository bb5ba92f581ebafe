"""Learning curves of trainings that nobody has kept them of: made up, and said to be.

A table of trained architectures knows where each training ended. How it got there is made up here, so that early
judgement can be replayed: it rises steeply, then slowly, some later than others, and is the noisier the earlier it is.
"""

import numpy as np

from nas.algorithms.arrays import FloatArray

_LEFT, _LEFT_SPREAD = 0.25, 0.2
"""The accuracy, of 0 to 1, that is still to come at the beginning, and by what share of it rows differ."""
_BEND = 2.0
_NOISE = 0.02
"""The standard deviation at the beginning; it falls to 0 as the rest does."""


def synthetic(finals: FloatArray, epochs: int, rng: np.random.Generator) -> FloatArray:
    """A row for each training, a column for each epoch; the last column is where it ended."""
    left = 1.0 - np.arange(1, epochs + 1) / epochs
    late = _LEFT * np.exp(_LEFT_SPREAD * rng.standard_normal((len(finals), 1)))
    noise = _NOISE * left * rng.standard_normal((len(finals), epochs))
    return np.maximum(0.0, finals[:, None] - late * left**_BEND + noise)
