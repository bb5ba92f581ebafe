"""Measured latency: how long a deployed model takes for one image, on the device at hand."""

import statistics
import time
from dataclasses import dataclass

import torch
from torch import nn

from search_spaces.errors import LatencyError
from trials.cost import IMAGE_CHANNELS

STEADY = 0.10
"""The greatest distance between the quartiles, as a share of the median, at which a median still means something."""


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Of one image, in milliseconds.

    Attributes:
        spread_ms: the distance between the quartiles of the timed passes.
    """

    median_ms: float
    spread_ms: float

    @property
    def steady(self) -> bool:
        """Whether the passes agree; other work on the machine is what usually makes them disagree."""
        return self.spread_ms <= STEADY * self.median_ms


@torch.inference_mode()
def measure(model: nn.Module, image_size: int, *, rounds: int = 50) -> Latency:
    """Time one image through a model.

    In eval mode, batch 1, in the model's own precision and on its own device; `rounds` timed passes after
    `rounds // 5` untimed ones; the device is synchronised around each.

    Args:
        model: takes `(1, 3, image_size, image_size)`, fused and in the `layout` of its device if that is how it
            would be shipped; returned to the mode it came in.
        image_size: in pixels, a multiple of the model's stride.
        rounds: timed passes.

    Raises:
        LatencyError: a pass raised. An unsteady measurement is a mark, not an error.
    """
    parameter = next(model.parameters())
    image = torch.zeros(1, IMAGE_CHANNELS, image_size, image_size, device=parameter.device, dtype=parameter.dtype)
    image = image.contiguous(memory_format=layout(parameter.device))
    was_training = model.training
    model.eval()
    try:
        for _ in range(rounds // 5):
            model(image)
        passes = [_pass(model, image) for _ in range(rounds)]
    except Exception as error:
        raise LatencyError(f"a pass of one {image_size} px image failed: {error}") from error
    finally:
        model.train(was_training)
    quartiles = statistics.quantiles(passes, n=4)
    return Latency(median_ms=quartiles[1], spread_ms=quartiles[2] - quartiles[0])


def layout(device: torch.device) -> torch.memory_format:
    """Channels last on a CPU, for training and for latency; on a GPU Ultralytics chooses by itself.

    Ultralytics deploys a checkpoint so on a CPU (`nn/autobackend.py:262`), and a training step of v9t takes 0.19 s
    there instead of 0.25, with our operators in it 0.25 instead of 0.37 (128 px, batch 8).
    """
    return torch.channels_last if device.type == "cpu" else torch.contiguous_format


def _pass(model: nn.Module, image: torch.Tensor) -> float:
    _synchronise(image.device)
    start = time.perf_counter()
    model(image)
    _synchronise(image.device)
    return (time.perf_counter() - start) * 1000


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
