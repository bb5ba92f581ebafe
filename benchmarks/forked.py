"""A fork's Python file and its model file, as docs/operators.md assumes them."""

FORK = """\
import torch
from torch import nn
from ultralytics.nn.modules import Conv


class EnergyGate(nn.Module):
    def __init__(self, e_lambda=1e-4):
        super().__init__()
        self.e_lambda = e_lambda

    def forward(self, x):
        d = (x - x.mean((2, 3), keepdim=True)) ** 2
        n = x.shape[2] * x.shape[3] - 1
        return x * torch.sigmoid(d / (4 * (d.sum((2, 3), keepdim=True) / n + self.e_lambda)) + 0.5)


class ChannelGate(nn.Module):
    def __init__(self, channels, reduction=16):
        super().__init__()
        hidden = channels // reduction
        self.mlp = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1))
        self.spatial = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x):
        x = x * torch.sigmoid(self.mlp(x.mean((2, 3), keepdim=True)) + self.mlp(x.amax((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.spatial(torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), 1)))


class BiFPN_Concat(nn.Module):
    def __init__(self, dimension=1):
        super().__init__()
        self.dimension = dimension
        self.w = nn.Parameter(torch.ones(2))

    def forward(self, x):
        w = self.w.relu() / (self.w.relu().sum() + 1e-4)
        return torch.cat([w[0] * x[0], w[1] * x[1]], self.dimension)


class SPDConv(nn.Module):
    def __init__(self, inc, ouc):
        super().__init__()
        self.conv = Conv(4 * inc, ouc, 3)

    def forward(self, x):
        parts = [x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]]
        return self.conv(torch.cat(parts, 1))
"""

MODEL = """\
nc: 2
scales:
  n: [0.33, 0.25, 1024]
backbone:
  - [-1, 1, Conv, [64, 3, 2]]
  - [-1, 1, SPDConv, [128]]
  - [-1, 1, SPDConv, [256]]
  - [-1, 3, C2f, [256, True]]
  - [-1, 1, Conv, [512, 3, 2]]
  - [-1, 1, ChannelGate, []]
  - [-1, 1, SPPF, [512, 5]]
head:
  - [-1, 1, nn.Upsample, [None, 2, nearest]]
  - [[-1, 3], 1, BiFPN_Concat, [1]]
  - [-1, 3, C2f, [256]]
  - [[9, 6], 1, Detect, [nc]]
"""
