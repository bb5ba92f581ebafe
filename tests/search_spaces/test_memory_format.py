"""Models that Ultralytics converts to channels_last, with and without tensors of five dimensions."""

import pytest
import torch
from torch import nn
from ultralytics.nn import tasks

import search_spaces  # noqa: F401 - replaces functions of Ultralytics
from search_spaces.memory_format import keeping_contiguous


@pytest.mark.parametrize(
    ("layer", "is_last"), [(nn.Conv3d(2, 2, 1), False), (nn.Conv2d(2, 2, 1, 2), False), (nn.Conv1d(2, 2, 1), True)]
)
def test_model_is_converted_where_its_tensors_can_be(layer: nn.Module, *, is_last: bool) -> None:
    model = tasks.BaseModel()
    model.model = nn.Sequential(nn.Conv2d(3, 2, 3), layer)
    assert model.to(memory_format=torch.channels_last) is model
    assert model.model[0].weight.is_contiguous(memory_format=torch.channels_last) is is_last
    model.half().to(torch.float64)
    assert model.model[0].weight.dtype == torch.float64


def test_replacement_asks_for_the_contiguous_format() -> None:
    asked = keeping_contiguous(lambda _module, *arguments, **options: (arguments, options))
    format_ = torch.channels_last
    assert asked(nn.Conv3d(1, 1, 1), "cpu", memory_format=format_) == (
        ("cpu",),
        {"memory_format": torch.contiguous_format},
    )
    assert asked(nn.Conv2d(1, 1, 1), memory_format=format_) == ((), {"memory_format": format_})
    assert asked(nn.Conv3d(1, 1, 1), "cpu") == (("cpu",), {})
