"""Rules by which parsers of forks build a class otherwise than its row says; this package names them only."""

from typing import Any

from ultralytics.nn.modules import C3k2

_LINE = "`arguments: {HyperACE: [in, out, repeats, rest, false], DownsampleConv: [in, false]}`"

_HYPEREDGES = {
    "n": "halves HyperACE's hyperedges at scale n, which is not done here: write 4 for 8 in its row",
    "x": "takes one and a half times HyperACE's hyperedges at scale x, which is not done here: write 12 for 8",
}

_WITHOUT_ADJUSTING = frozenset({"DownsampleConv", "FullPAD_Tunnel", "HyperACE"})
"""Classes that YOLOv13's parser builds otherwise at l and x, and the one that adds up what they return."""


def of_yolov13(name: str, scale: Any) -> str:
    """Return what YOLOv13's parser adds for a class at a scale, and how a model file says it; empty if nothing."""
    parts = [_HYPEREDGES[scale]] if name == "HyperACE" and scale in _HYPEREDGES else []
    if name in _WITHOUT_ADJUSTING and scale in {"l", "x"}:
        parts.append(
            f"gives HyperACE and DownsampleConv a last False at scale {scale}, which is not done here: {_LINE}"
        )
    return f"YOLOv13's own parser {', and '.join(parts)}" if parts else ""


def of_c3k2(name: str, module: Any, scale: Any) -> str:
    """Return what parsers of forks do for their variants of `C3k2`; empty for other classes."""
    if not name.startswith("C3k2") and not (isinstance(module, type) and issubclass(module, C3k2)):
        return ""
    deeper = ", and c3k=True at m, l and x (write True in the rows)" if scale in {"m", "l", "x"} else ""
    return (
        "built of its rows' arguments; it does not choose the head's branches, which C3k2, A2C2f or C2fCIB among the "
        f"rows make YOLO11's. Many forks take it as C3k2, which gives YOLO11's branches{deeper}"
    )
