"""Draws what each reward selects: `python docs/figures/rewards.py` writes an SVG for each beside itself.

The curve is a front as detectors have it: seven points of mAP for every factor of e in GFLOPs. Grey lines join models
of equal reward, and the dot is the model of the front whose reward is the greatest.
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from nas.algorithms.rewards import Reward, reward

TARGET = 8.0
LEAST, MOST = 6.4, 11.1
FOLDER = Path(__file__).parent


def draw(kind: Reward) -> None:
    """One reward's figure."""
    costs = np.linspace(LEAST, MOST, 241)
    front = 0.30 + 0.07 * np.log(costs / 7)
    accuracies = np.linspace(0.26, 0.36, 161)
    plane = [[reward(kind, accuracy, [(cost, TARGET)]) for cost in costs] for accuracy in accuracies]
    earned = [reward(kind, accuracy, [(cost, TARGET)]) for cost, accuracy in zip(costs, front, strict=True)]
    best = int(np.argmax(earned))
    figure, axes = plt.subplots(figsize=(4.6, 3.2))
    axes.contour(costs, accuracies, plane, levels=12, colors="#b3b8c2", linewidths=0.8)
    axes.axvline(TARGET, color="#6b7280", linestyle=":", linewidth=1)
    axes.plot(costs, front, color="#2563eb", linewidth=1.6)
    axes.plot(costs[best], front[best], "o", color="#ea580c", markersize=8)
    axes.set_title(f"{kind}: {costs[best]:.1f} GFLOPs for a target of {TARGET:g}", fontsize=10)
    axes.set_xlabel("GFLOPs")
    axes.set_ylabel("mAP50-95")
    figure.tight_layout()
    figure.savefig(FOLDER / f"reward-{kind}.svg", metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    mpl.rcParams["svg.hashsalt"] = "nas"  # the same file each time
    for each in Reward:
        draw(each)
