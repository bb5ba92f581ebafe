"""Gradients that repeat to the bit on a GPU: another way to the same numbers, tested on the CPU."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.operators import sampling
from search_spaces.operators.dcnv4 import DCNv4
from search_spaces.operators.dysample import DySample
from search_spaces.operators.mmqa import MMQA
from search_spaces.operators.sampling import grid_sample


def drawn() -> tuple[Tensor, Tensor]:
    """Return maps, and places of which many are outside and many fall on one pixel."""
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    places = (1.2 * torch.randn(2, 6, 7, 2, dtype=torch.float64)).requires_grad_()
    return maps, places


@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_ordered_gradients_are_those_of_grid_sample(padding: str) -> None:
    maps, places = drawn()
    weights = torch.randn(2, 3, 6, 7, dtype=torch.float64)
    mine = grid_sample(maps, places, padding=padding, in_order=True, is_training=True)
    theirs = F.grid_sample(maps, places, padding_mode=padding, align_corners=False)
    assert torch.equal(mine, theirs)
    found, expected = (torch.autograd.grad((one * weights).sum(), (maps, places)) for one in (mine, theirs))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_ordered_gradients_of_a_place_that_is_nan_are_nan(padding: str) -> None:
    maps, places = drawn()
    with torch.no_grad():
        places[0, 0, 0] = torch.nan
        places[0, 0, 1] = torch.inf
    gradient = sampling._gradient_of_maps(torch.ones(2, 3, 6, 7, dtype=torch.float64), maps, places, padding)
    assert gradient.isnan().any()


def test_training_on_the_cpu_has_the_usual_gradients_to_the_bit() -> None:
    maps, places = (each.detach().float().requires_grad_() for each in drawn())
    mine = grid_sample(maps, places, padding="border", in_order=False, is_training=True)
    theirs = F.grid_sample(maps, places, padding_mode="border", align_corners=False)
    found, expected = (torch.autograd.grad((one**2).sum(), (maps, places)) for one in (mine, theirs))
    assert all(torch.equal(one, other) for one, other in zip((mine, *found), (theirs, *expected), strict=True))


def test_a_diverged_training_has_nan_gradients() -> None:
    """PyTorch's kernel would end the process, and the trial would not be known to have diverged."""
    module = DySample(8).train()
    x = torch.full((2, 8, 6, 6), torch.nan, requires_grad=True)
    (gradient,) = torch.autograd.grad(module(x).sum(), [x])
    assert gradient.isnan().all()


@pytest.mark.parametrize(
    "module",
    [DCNv4(8, groups=2), DySample(8), MMQA(8, 8, heads=2, key_dim=4, query_stride=2)],
    ids=["DCNv4", "DySample", "MMQA"],
)
def test_operators_compute_the_same(module: DCNv4 | DySample | MMQA) -> None:
    torch.manual_seed(0)
    module = module.double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 8, 6, 6, dtype=torch.float64, requires_grad=True)
    results = []
    for is_repeatable in (False, True):
        module.is_repeatable = is_repeatable
        y = module(x)
        results.append([y, *torch.autograd.grad((y**2).sum(), [x, *module.parameters()])])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
