"""A graph that a runtime has loaded."""

from collections.abc import Callable
from dataclasses import dataclass

from trials.latency.measurement import Iteration
from trials.latency.precision import FloatArray

Inference = Callable[[FloatArray], FloatArray]
"""Returns a graph's first output for one input."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """A graph that a runtime has loaded: the same settings are timed and scored.

    Attributes:
        iteration: one inference of zeros.
        infer: the first output for an image `(1, 3, height, width)`; of graphs with one input.
    """

    iteration: Iteration
    infer: Inference
