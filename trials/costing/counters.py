"""GFLOPs as counters of modules print them, such as those used in articles, and the operations that they miss."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import thop
import torch
from torch import Tensor, nn

from search_spaces import OPERATORS, build, model_file
from search_spaces.operators import Operator
from search_spaces.printed import PRINTED
from trials.costing import dispatch
from trials.costing.cost import gflops
from trials.costing.layers import traced


@dataclass(frozen=True, kw_only=True)
class ModuleCount:
    """Count of a tool that sees modules, and not the products that an operator computes in its `forward`.

    Attributes:
        gflops: the printed figure; batch norm is counted, as `thop` does.
        overlooked: missed billions of operations, by operator.
    """

    gflops: float
    overlooked: dict[str, float]


def count(document: Mapping[str, Any], classes: int, image_size: int) -> ModuleCount:
    """Count a model as built, at `image_size` pixels, with `thop`'s rules alone.

    Raises:
        CostError: a layer cannot be counted.
        SpecError: the document cannot be built.
    """
    overlooked: dict[str, int] = {}
    rules = {
        record.module: partial(_add_overlooked, overlooked, record)
        for record in (*OPERATORS.values(), *PRINTED.values())
        if record.extra_macs is not None
    }
    counted = 0
    channels = model_file.image_channels(document)
    for step in traced(build.skeleton(document, classes), image_size, channels=channels):
        if dispatch.is_counted_here(step.layer):  # its operations were counted; a counter of modules may not run it
            counted += dispatch.count(step.layer, step.received).macs
            continue
        with torch.no_grad():
            macs, _ = thop.profile(step.layer, inputs=(step.received,), custom_ops=rules, verbose=False)
        counted += int(macs)
    missed = {name: gflops(macs) for name, macs in overlooked.items()}
    return ModuleCount(gflops=gflops(counted), overlooked=missed)


def _add_overlooked(
    overlooked: dict[str, int], record: Operator, module: nn.Module, x: tuple[Tensor, ...], y: Tensor
) -> None:
    """Add the products of an operator's `forward` to `overlooked`, and nothing to `thop`'s total."""
    assert record.extra_macs is not None  # noqa: S101 - narrows the type; only those records have this rule
    name = record.name.removeprefix("Printed")
    overlooked[name] = overlooked.get(name, 0) + record.extra_macs(module, x[0], y)
