"""What a counter prints that looks at modules alone, as articles' counters do, and what it overlooks."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import thop
import torch
from torch import Tensor, nn

from search_spaces import OPERATORS, build
from search_spaces.operators import Operator
from search_spaces.printed import PRINTED
from trials.costing.cost import gflops
from trials.costing.layers import traced


@dataclass(frozen=True, kw_only=True)
class ModuleCount:
    """What a counter finds that looks at modules and not at what they compute in their own `forward`.

    Attributes:
        gflops: what it prints; batch norm is counted, as `thop` does.
        overlooked: billions of operations that it misses, by operator.
    """

    gflops: float
    overlooked: dict[str, float]


def count(document: Mapping[str, Any], classes: int, image_size: int) -> ModuleCount:
    """What an article's counter prints for a model as built, and what it overlooks.

    Raises:
        CostError: a layer cannot be counted.
        SpecError: the document cannot be built.
    """
    overlooked: dict[str, int] = {}
    counting = {
        record.module: partial(_noted, overlooked, record)
        for record in (*OPERATORS.values(), *PRINTED.values())
        if record.unseen_macs is not None
    }
    seen = 0
    for step in traced(build.skeleton(document, classes), image_size):
        with torch.no_grad():
            macs, _ = thop.profile(step.layer, inputs=(step.received,), custom_ops=counting, verbose=False)
        seen += int(macs)
    missed = {name: gflops(macs) for name, macs in overlooked.items()}
    return ModuleCount(gflops=gflops(seen), overlooked=missed)


def _noted(overlooked: dict[str, int], record: Operator, module: nn.Module, x: tuple[Tensor, ...], y: Tensor) -> None:
    """Not counted, but noted: what an operator computes in its own `forward`."""
    assert record.unseen_macs is not None  # noqa: S101 - narrows the type; only those records have this rule
    name = record.name.removeprefix("Printed")
    overlooked[name] = overlooked.get(name, 0) + record.unseen_macs(module, x[0], y)
