"""One inference on a GPU, timed by the GPU itself. Never run: written after the documentation of PyTorch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from search_spaces.errors import LatencyError


@dataclass(frozen=True)
class GpuIteration:
    """Iteration on a GPU, timed by CUDA events on its stream, without the synchronisation.

    Attributes:
        enqueue: enqueues the inference on the stream, and returns.
        description: of what is run, for errors.
    """

    enqueue: Callable[[], object]
    stream: Any
    description: str = "a graph"

    def __call__(self) -> None:
        """Run one inference, and wait for it."""
        self.time_ms()

    def time_ms(self) -> float:
        """Return the milliseconds of one inference by the GPU's clock.

        Raises:
            LatencyError: it failed.
        """
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        try:
            start.record(self.stream)
            self.enqueue()
            end.record(self.stream)
            end.synchronize()
        except Exception as error:
            raise LatencyError(f"inference of {self.description} failed: {error}") from error
        return float(start.elapsed_time(end))
