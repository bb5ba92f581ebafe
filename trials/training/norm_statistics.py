"""Statistics of batch norm, estimated anew on training images."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


@torch.no_grad()
def re_estimate(model: nn.Module, images: Iterable[Tensor]) -> None:
    """Replace the statistics of batch norm by their means over some batches.

    The running ones are an exponential average, in which the last batch has a weight of `momentum`. In a narrowed model
    one batch can move them far (docs/recipes.md, "Channels of narrowed models"). Layers that no image reaches keep
    theirs.

    Args:
        images: `(batch, 3, height, width)` each, as the training's first layer gets them.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d) and module.track_running_stats]
    before = [{name: value.clone() for name, value in norm.named_buffers()} for norm in norms]
    momenta, was_training = [norm.momentum for norm in norms], model.training
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
        norm.train()
    for batch in images:
        model(batch)
    for norm, values, momentum in zip(norms, before, momenta, strict=True):
        norm.momentum = momentum
        kept = {"num_batches_tracked"} if norm.num_batches_tracked else values.keys()
        for name in kept:
            norm.get_buffer(name).copy_(values[name])
    model.train(was_training)
