"""Statistics of batch norm, estimated anew."""

import pytest
import torch
from torch import nn

from trials.training.norm_statistics import re_estimate


class Model(nn.Module):
    """A convolution with batch norm, a second norm behind it, and one that no image reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, momentum=0.03)
        self.second, self.unused = nn.BatchNorm2d(4, momentum=0.03), nn.BatchNorm2d(4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return maps `(batch, 4, height, width)`."""
        maps: torch.Tensor = self.second(torch.relu(self.norm(self.first(images))))
        return maps


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    made = Model()
    for norm in (made.norm, made.second, made.unused):
        nn.init.uniform_(norm.get_buffer("running_mean"), 5.0, 9.0)
        norm.get_buffer("num_batches_tracked").fill_(7)
    return made


def test_statistics_are_means_over_the_batches(model: Model) -> None:
    batches = [torch.randn(6, 3, 5, 5) + shift for shift in (0.0, 1.0, 2.0)]
    with torch.no_grad():
        maps = [model.first(batch).transpose(0, 1).flatten(1) for batch in batches]
        re_estimate(model, batches)
    means, variances = model.norm.get_buffer("running_mean"), model.norm.get_buffer("running_var")
    torch.testing.assert_close(means, torch.stack([each.mean(1) for each in maps]).mean(0))
    torch.testing.assert_close(variances, torch.stack([each.var(1) for each in maps]).mean(0))


def test_all_else_stays(model: Model) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    changed = {"norm.running_mean", "norm.running_var", "second.running_mean", "second.running_var"}
    model.train()
    re_estimate(model, [torch.randn(2, 3, 4, 4)])
    after = model.state_dict()
    assert {name for name, value in before.items() if not torch.equal(value, after[name])} == changed
    assert model.training
    assert all(module.training for module in model.modules())
    assert (model.norm.momentum, model.unused.momentum) == (0.03, 0.1)
