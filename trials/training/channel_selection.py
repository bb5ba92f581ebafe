"""Channels that a narrower model inherits: of each group of the source the most important ones, in their order.

A channel's importance is the sum, over the convolutions that compute it, of the batch norm's |gamma| (Liu et al. 2017,
arXiv 1708.06519): a sum over the members of a group, as in DepGraph (Fang et al. 2023, arXiv 2301.12900, section 3.3).
A convolution without batch norm counts with the norm of its weights; behind a batch norm that norm has no effect.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from trials.training.channel_graph import Axis, ChannelGraph

Positions = tuple[Tensor, Tensor]
"""Positions on an axis of the narrower model, and those on the source's axis that are copied there."""
Groups = Sequence[Sequence[int]]
Run = tuple[int, range]


def select(graph: ChannelGraph, lengths: Mapping[Axis, int], scores: Mapping[int, float]) -> dict[Axis, Positions]:
    """Return what is copied of each axis.

    Channels that nothing reads are the model's outputs, which mean classes: all of them are copied, or none.

    Args:
        graph: of the source.
        lengths: of the axes that both models have, in the other model.
        scores: importance of the source's channels.
    """
    groups = graph.groups()
    numbers = {channel: number for number, group in enumerate(groups) for channel in group}
    by_axis = {axis: [numbers[channel] for channel in graph.axes[axis]] for axis in lengths}
    sizes = _sizes(groups, by_axis, lengths)
    kept = {
        channel
        for group, size in zip(groups, sizes, strict=True)
        for channel in _most_important(group, size, scores, graph)
    }
    merged = frozenset(
        number
        for number, group in enumerate(groups)
        if (of_head := _channels_of_a_head(group, graph)) and sizes[number] < len(group) and sizes[number] % of_head
    )
    read = {channel for (_, dimension), channels in graph.axes.items() if dimension == 1 for channel in channels}
    positions = {}
    for axis, length in lengths.items():
        channels = graph.axes[axis]
        runs = _runs(channels, by_axis[axis], merged)
        is_output = read.isdisjoint(channels)
        pairs = [] if is_output and length != len(channels) else _pairs(channels, runs, groups, sizes, kept)
        fitting = torch.tensor([pair for pair in pairs if pair[0] < length], dtype=torch.long).view(-1, 2)
        positions[axis] = fitting[:, 0], fitting[:, 1]
    return positions


def _sizes(groups: Groups, by_axis: Mapping[Axis, Sequence[int]], lengths: Mapping[Axis, int]) -> list[int]:
    """Return the size of each group in the other model.

    An axis of one group has its size. What an axis of several has beside those with a size is shared in proportion;
    only outputs count for that, since a deeper or shallower model concatenates another number of inputs.
    """
    contents = {axis: Counter(by_axis[axis]) for axis in sorted(lengths, key=lambda axis: axis[1])}
    sizes: dict[int, int] = {}
    for axis, content in contents.items():
        first = min(content)
        if content.keys() == {first} and content[first] == len(groups[first]):
            sizes.setdefault(first, lengths[axis])
    outputs = [axis for axis in contents if axis[1] == 0]
    for axis in sorted(outputs, key=lambda axis: len(contents[axis].keys() - sizes)):
        content = contents[axis]
        taken = sum(
            sizes[number] * count // len(groups[number]) for number, count in content.items() if number in sizes
        )
        missing = content.keys() - sizes
        total = sum(content[number] for number in missing)
        sizes |= {number: max(0, lengths[axis] - taken) * len(groups[number]) // total for number in missing}
    return [sizes.get(number, len(group)) for number, group in enumerate(groups)]


def _most_important(
    group: Sequence[int], size: int, scores: Mapping[int, float], graph: ChannelGraph
) -> Collection[int]:
    """Return the `size` most important channels of a group, or heads; the first ones where nothing may be selected."""
    if size >= len(group) or not graph.fixed.isdisjoint(group):
        return group[:size]
    of_head = _channels_of_a_head(group, graph)
    if of_head and size % of_head == 0:
        by_head: dict[tuple[int, int], float] = {}
        for channel, head in graph.heads.items():  # queries, keys and values of a head together
            by_head[head] = by_head.get(head, 0.0) + scores.get(channel, 0.0)
        heads = dict.fromkeys(graph.heads[channel] for channel in group)
        best = sorted(heads, key=lambda head: -by_head[head])[: size // of_head]
        return [channel for channel in group if graph.heads[channel] in best]
    return sorted(group, key=lambda channel: -scores.get(channel, 0.0))[:size]


def _channels_of_a_head(group: Sequence[int], graph: ChannelGraph) -> int:
    """Return how many channels of a group each head of an attention has; 0 if they are in none."""
    counts = Counter(graph.heads.get(channel) for channel in group)
    return 0 if None in counts or len(set(counts.values())) != 1 else len(group) // len(counts)


def _pairs(
    channels: Sequence[int], runs: Sequence[Run], groups: Groups, sizes: Sequence[int], kept: Collection[int]
) -> Iterator[tuple[int, int]]:
    """Yield the position on the other model's axis, and that on this one, of every channel that is kept."""
    offset = 0
    for number, run in runs:
        found = [position for position in run if channels[position] in kept]
        yield from zip(range(offset, offset + len(found)), found, strict=True)
        widened = sizes[number] * len(run) // len(groups[number])
        offset += len(found) if sizes[number] <= len(groups[number]) else widened


def _runs(channels: Sequence[int], numbers: Sequence[int], merged: frozenset[int]) -> list[Run]:
    """Return the group and the positions of each map on an axis, in the order that they have in the other model.

    Where channels do not rise within a group, another of its maps begins.

    Args:
        merged: groups whose heads the other model has as one: it has all queries first, then all keys, then all values.
    """
    begins = [
        position
        for position in range(1, len(channels))
        if numbers[position - 1] != numbers[position] or channels[position - 1] >= channels[position]
    ]
    runs = [(numbers[begin], range(begin, end)) for begin, end in pairwise([0, *begins, len(channels)])]
    if merged.isdisjoint(numbers):
        return runs
    earlier: Counter[int] = Counter()
    order: dict[tuple[int, int], list[Run]] = {}
    for number, run in runs:
        earlier[channels[run.start]] += 1
        order.setdefault((number, earlier[channels[run.start]]), []).append((number, run))
    return [run for alike in order.values() for run in alike]


def importance(graph: ChannelGraph, tensors: Mapping[str, Tensor]) -> dict[int, float]:
    """Return the importance of every channel: the sum of |gamma|, or of the weights' norm where there is no batch norm.

    Args:
        tensors: the model's `state_dict`.
    """
    scores: dict[int, float] = {}
    for (name, dimension), channels in graph.axes.items():
        if dimension == 1 or tensors[name].ndim < 2:
            continue
        weights = tensors[name].flatten(1).norm(dim=1)
        factors = tensors[graph.norms[name]].abs() if name in graph.norms else weights
        for channel, factor in zip(channels, factors.tolist(), strict=True):
            scores[channel] = scores.get(channel, 0.0) + factor
    return scores
