"""Number formats by GPU, which need none."""

import pytest
import torch
from torch import nn

from trials.torch_devices import computes_fp16, fastest_precision, memory_format, training_format


@pytest.mark.parametrize(
    ("name", "capability", "computes"),
    [
        ("Tesla T4", (7, 5), True),
        ("Tesla V100-SXM2-16GB", (7, 0), True),
        ("NVIDIA GeForce RTX 2080 Ti", (7, 5), True),
        ("NVIDIA GeForce GTX 1660 Ti", (7, 5), False),
        ("NVIDIA T1000", (7, 5), False),
        ("NVIDIA GeForce GTX 1080", (6, 1), False),
    ],
)
def test_fp16_is_for_gpus_with_tensor_cores(*, name: str, capability: tuple[int, int], computes: bool) -> None:
    assert computes_fp16(name, capability) is computes


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Conv2d(1, 1, 1), torch.channels_last),
        (nn.Conv1d(1, 1, 1), torch.channels_last),
        (nn.Conv3d(1, 1, 1), torch.contiguous_format),
        (nn.Sequential(nn.Conv2d(8, 16, 1, 2)), torch.contiguous_format),
        (nn.Conv2d(8, 16, 1, 2, groups=8), torch.channels_last),
        (nn.Conv2d(8, 16, 3, 2), torch.channels_last),
        (nn.Conv2d(16, 16, 1, 2), torch.channels_last),
    ],
)
def test_model_is_trained_in_a_memory_format_that_its_weights_have(
    layer: nn.Module, expected: torch.memory_format
) -> None:
    assert training_format(layer) == expected
    assert memory_format(torch.device("cpu"), layer) == expected
    layer.to(memory_format=expected)


def test_cpu_trains_in_fp32_unless_asked() -> None:
    assert fastest_precision("cpu") == "fp32"
