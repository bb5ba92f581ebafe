"""Speed of the operators, each compared with a straightforward implementation, in one process.

    python benchmarks/operators.py [--format table|json] [--layout contiguous|channels_last] [--rounds 11]

A row is one operator at one shape. `ours / theirs` is a ratio of times, below 1 if ours is faster: the median over the
rounds, with the quartiles in brackets. Each round times both implementations in alternating order, in CPU time of this
process, on one thread, so that other load on the machine mostly cancels. Before, the outputs of both are compared where
they compute the same. Each pair has a separate process, forked before any measurement: otherwise a large tensor of one
row would decide whether the memory of the next ones comes fresh from the system.

Memory is the peak of PyTorch's allocations during one inference, from the profiler's log, in units of the input map; of
the sampling alone, in which the two implementations of DCNv4 differ.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_VERBOSE", "false")

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from ultralytics.nn.modules import Conv

from search_spaces.operators.dcnv4 import DCNv4
from search_spaces.operators.dynamic_conv import DynamicConv
from search_spaces.operators.dysample import DySample
from search_spaces.operators.mmqa import MMQA
from search_spaces.operators.uib import UIB

SHAPES = ((64, 20), (64, 40), (128, 20), (256, 20))
"""Channels, and the side of a square map: stride 32 and 16 of a 640 px image, and deeper."""
BATCH = 16
"""Batch of a dynamic convolution, which is a static one for a single image."""
SAMPLE_SECONDS = 0.004
"""Approximate duration of one timing, which repeats the call."""


class MatmulAttention(MMQA):
    """Attention of MMQA as two matrix products and a softmax, with keys and values repeated for each head."""

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        height, width = x.shape[-2:]
        query = self.query(x).reshape(-1, self.heads, self.key_dim, height * width).transpose(2, 3)
        key = self.key(x).flatten(2).unsqueeze(1).repeat(1, self.heads, 1, 1)
        value = self.value(x).flatten(2).transpose(1, 2).unsqueeze(1).repeat(1, self.heads, 1, 1)
        context = (query @ key / self.key_dim**0.5).softmax(dim=-1) @ value
        return self.output(context.transpose(2, 3).reshape(len(x), -1, height, width))


class OneShotDCNv4(DCNv4):
    """DCNv4 with one `grid_sample` for all taps, weighed and summed afterwards."""

    def _sample(self, value: Tensor, offset_mask: Tensor) -> Tensor:
        batch, height, width, channels = value.shape
        taps, groups = len(self.taps), batch * self.groups
        maps = value.permute(0, 3, 1, 2).reshape(groups, channels // self.groups, height, width)
        packed = offset_mask[..., : self.groups * 3 * taps].permute(0, 3, 1, 2).reshape(groups, 3 * taps, height, width)
        offsets, weights = packed[:, : 2 * taps].unflatten(1, (taps, 2)), packed[:, 2 * taps :]
        shifts = torch.tensor(self.taps)[:, :, None, None]
        across = torch.arange(width) + (shifts[:, 0] + offsets[:, :, 0]) * self.offset_scale
        down = torch.arange(height)[:, None] + (shifts[:, 1] + offsets[:, :, 1]) * self.offset_scale
        grid = torch.stack(((2 * across + 1) / width - 1, (2 * down + 1) / height - 1), dim=-1)
        grid = grid.reshape(groups, taps * height, width, 2)
        samples = F.grid_sample(maps, grid, padding_mode="zeros", align_corners=False)
        samples = samples.reshape(groups, -1, taps, height, width) * weights.unsqueeze(1)
        return samples.sum(dim=2).reshape(batch, channels, height, width).permute(0, 2, 3, 1)


class MixedConvolutions(DynamicConv):
    """Dynamic convolution as the weighted sum of all kernels' outputs."""

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        each = F.conv2d(x, self.weight, stride=self.stride, padding=self.kernel // 2, groups=self.groups)
        mixed = (each.unflatten(1, (self.kernels, -1)) * self.shares(x)[:, :, None, None, None]).sum(dim=1)
        return self.act(self.bn(mixed))


class OriginalDySample(DySample):
    """DySample in its authors' order: coordinates of x and y together, normalised, then shuffled."""

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        batch, channels, height, width = x.shape
        shift = self.shifts(x).reshape(batch, 2, -1, height, width)
        down, across = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        size = torch.tensor([width, height], dtype=x.dtype).reshape(1, 2, 1, 1, 1)
        coordinates = 2 * (torch.stack((across, down)).unsqueeze(1) + shift) / size - 1
        coordinates = F.pixel_shuffle(coordinates.reshape(batch, -1, height, width), self.scale)
        coordinates = coordinates.reshape(batch, 2, -1, self.scale * height, self.scale * width).permute(0, 2, 3, 4, 1)
        maps = x.reshape(batch * self.groups, -1, height, width)
        y = F.grid_sample(maps, coordinates.contiguous().flatten(0, 1), padding_mode="border", align_corners=False)
        return y.reshape(batch, channels, self.scale * height, self.scale * width)


Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Operator and its other implementation, at one shape; `same` if both compute the same."""

    operator: str
    against: str
    ours: nn.Module
    theirs: nn.Module
    batch: int
    channels: int
    side: int
    same: bool = True

    def image(self, layout: torch.memory_format) -> Tensor:
        """Return a random batch of the shape."""
        return torch.randn(self.batch, self.channels, self.side, self.side).to(memory_format=layout)


@dataclass(frozen=True, kw_only=True)
class Row:
    """Times of one pair: medians in milliseconds; quartiles and median of the ratio `ours / theirs`."""

    operator: str
    against: str
    batch: int
    channels: int
    side: int
    what: str
    ours_ms: float
    theirs_ms: float
    ratio: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Peak memory of the sampling, in units of the input map."""

    operator: str
    against: str
    channels: int
    side: int
    ours_maps: float
    theirs_maps: float


def pairs() -> Iterator[Pair]:
    for c, side in SHAPES:
        pair = partial(Pair, channels=c, side=side, batch=1)
        dense = nn.Sequential(Conv(c, c, 3), Conv(c, c, 3))
        uib = UIB(c, c, start_kernel=3, mid_kernel=3)
        yield pair(operator="UIB 3+3", against="two dense 3x3", ours=uib, theirs=dense, same=False)
        for heads, dim in ((4, 32), (8, 48)):
            attention, matmul = (kind(c, c, heads=heads, key_dim=dim) for kind in (MMQA, MatmulAttention))
            yield pair(operator=f"MMQA {heads}x{dim}", against="matmul", ours=attention, theirs=matmul)
        by_taps, at_once = (kind(c, groups=c // 16) for kind in (DCNv4, OneShotDCNv4))
        yield pair(operator="DCNv4", against="all taps at once", ours=by_taps, theirs=at_once)
        dynamic, mixed = (kind(c, c, temperature=1.0) for kind in (DynamicConv, MixedConvolutions))
        pair16 = partial(pair, operator="DynamicConv", ours=dynamic, batch=BATCH)
        yield pair16(against="static", theirs=Conv(c, c, 3), same=False)
        if c == 64:  # four times the work: deeper rows would only take long
            yield pair16(against="4 convolutions", theirs=mixed)
        dysample, original = (kind(c) for kind in (DySample, OriginalDySample))
        yield pair(operator="DySample", against="its original", ours=dysample, theirs=original)
        nearest = nn.Upsample(scale_factor=2.0)
        yield pair(operator="DySample", against="nearest", ours=dysample, theirs=nearest, same=False)


def prepare(pair: Pair, layout: torch.memory_format) -> None:
    """Set random weights instead of zeros, equal ones in both modules, and check that both outputs are equal."""
    for parameter in pair.ours.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    if pair.same:
        pair.theirs.load_state_dict(pair.ours.state_dict())
    for module in (pair.ours, pair.theirs):
        module.to(memory_format=layout)
    if pair.same:
        x = pair.image(layout)
        with torch.inference_mode():
            ours, theirs = pair.ours.eval()(x), pair.theirs.eval()(x)
        if (ours - theirs).abs().max() > 1e-4 * theirs.abs().max():
            raise RuntimeError(f"{pair.operator} and {pair.against} compute different things")


def inference(module: nn.Module, x: Tensor) -> Callable[[], None]:
    module.eval()

    def call() -> None:
        with torch.inference_mode():
            module(x)

    return call


def step(module: nn.Module, x: Tensor) -> Callable[[], None]:
    module.train()
    x = x.clone().requires_grad_()

    def call() -> None:
        module(x).sum().backward()
        module.zero_grad()
        x.grad = None

    return call


def seconds(call: Callable[[], None], repeats: int) -> float:
    began = time.process_time()
    for _ in range(repeats):
        call()
    return (time.process_time() - began) / repeats


def measure(pair: Pair, layout: torch.memory_format, rounds: int) -> list[Row]:
    prepare(pair, layout)
    return list(_measure(pair, layout, rounds))


def _measure(pair: Pair, layout: torch.memory_format, rounds: int) -> Iterator[Row]:
    for what, make in (("inference", inference), ("forward + backward", step)):
        calls = [make(module, pair.image(layout)) for module in (pair.ours, pair.theirs)]
        for call in calls:
            call()
        repeats = [max(1, round(SAMPLE_SECONDS / max(seconds(call, 2), 1e-6))) for call in calls]
        times: list[list[float]] = [[], []]
        for turn in range(rounds):
            for side in (0, 1) if turn % 2 else (1, 0):
                times[side].append(seconds(calls[side], repeats[side]))
        ratios = [ours / theirs for ours, theirs in zip(*times, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        yield Row(
            operator=pair.operator,
            against=pair.against,
            batch=pair.batch,
            channels=pair.channels,
            side=pair.side,
            what=what,
            ours_ms=1e3 * statistics.median(times[0]),
            theirs_ms=1e3 * statistics.median(times[1]),
            ratio=(low, middle, high),
        )


def peak_bytes(call: Callable[[], object]) -> int:
    """Return the peak of the memory that a call allocates, in bytes."""
    call()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as log:
        call()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, "trace.json")
        log.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    allocated = peak = 0
    for event in sorted((event for event in events if event["name"] == "[memory]"), key=lambda event: event["ts"]):
        allocated += event["args"]["Bytes"]
        peak = max(peak, allocated)
    return peak


def memory(channels: int, side: int) -> Memory:
    x = torch.randn(1, channels, side, side)
    peaks = []
    for kind in (DCNv4, OneShotDCNv4):
        layer = kind(channels, groups=channels // 16)
        with torch.inference_mode():
            pixels = x.permute(0, 2, 3, 1)
            value, offset_mask = layer.value_proj(pixels), layer.offset_mask(pixels)
            peaks.append(peak_bytes(lambda: layer._sample(value, offset_mask)) / (4 * x.numel()))  # noqa: B023, SLF001
    return Memory(
        operator="DCNv4",
        against="all taps at once",
        channels=channels,
        side=side,
        ours_maps=peaks[0],
        theirs_maps=peaks[1],
    )


def apart(function: Callable[..., Result], *arguments: object) -> Result:
    """Return the result of a function that is called in a new process."""
    with multiprocessing.get_context("fork").Pool(1) as process:
        return process.apply(function, arguments)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--format", choices=("table", "json"), default="table")
    options.add_argument("--layout", choices=("contiguous", "channels_last"), default="contiguous")
    options.add_argument("--rounds", type=int, default=11)
    given = options.parse_args()
    layout = torch.channels_last if given.layout == "channels_last" else torch.contiguous_format
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows: list[Row] = []
    if given.format == "table":
        print(f"torch {torch.__version__}, one thread, {given.layout}; ours / theirs: median [quartiles]")
        print(f"{'operator':<14}{'against':<18}{'shape':<14}{'':<20}{'ours ms':>9}{'theirs':>9}  ratio")
    for pair in pairs():
        for row in apart(measure, pair, layout, given.rounds):
            rows.append(row)
            if given.format == "table":
                low, middle, high = row.ratio
                shape = f"{row.batch}x{row.channels}x{row.side}x{row.side}"
                print(
                    f"{row.operator:<14}{row.against:<18}{shape:<14}{row.what:<20}"
                    f"{row.ours_ms:9.2f}{row.theirs_ms:9.2f}  {middle:.2f} [{low:.2f} {high:.2f}]",
                    flush=True,
                )
    peaks = [apart(memory, channels, side) for channels, side in SHAPES]
    if given.format == "json":
        print(
            json.dumps({"times": [asdict(row) for row in rows], "memory": [asdict(peak) for peak in peaks]}, indent=1)
        )
        return
    print("\npeak memory of the sampling, inference, in input maps")
    for peak in peaks:
        share = peak.ours_maps / peak.theirs_maps
        shape = f"1x{peak.channels}x{peak.side}x{peak.side}"
        print(
            f"{peak.operator:<14}{peak.against:<18}{shape:<14}{'':<20}"
            f"{peak.ours_maps:9.2f}{peak.theirs_maps:9.2f}  {share:.2f}"
        )


if __name__ == "__main__":
    main()
