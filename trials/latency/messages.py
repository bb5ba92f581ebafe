"""JSON messages between `runtimes.RemoteRuntime` and the timing server on the remote machine, one per line.

The two may be installed in different versions, so names of keys stay: iterations are `passes` there.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from trials.latency.measurement import Comparison, Latency


def latency_to_json(latency: Latency) -> dict[str, Any]:
    """Return a latency as a JSON object."""
    message = asdict(latency)
    message["passes"] = message.pop("iterations")
    return message


def latency_from_json(message: Mapping[str, Any]) -> Latency:
    """Return the latency of a JSON object."""
    fields = dict(message)
    return Latency(iterations=fields.pop("passes"), **fields)


def comparison_to_json(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as a JSON object."""
    return {
        "candidate": latency_to_json(comparison.candidate),
        "reference": latency_to_json(comparison.reference),
        "ratio": comparison.ratio,
        "drift": comparison.drift,
    }


def comparison_from_json(message: Mapping[str, Any]) -> Comparison:
    """Return the comparison of a JSON object."""
    return Comparison(
        candidate=latency_from_json(message["candidate"]),
        reference=latency_from_json(message["reference"]),
        ratio=message["ratio"],
        drift=message["drift"],
    )


def pack(graphs: Sequence[bytes]) -> list[str]:
    """Return ONNX graphs as base64 text."""
    return [base64.b64encode(graph).decode() for graph in graphs]


def unpack(graphs: Sequence[str]) -> list[bytes]:
    """Return the ONNX graphs that `pack` encoded."""
    return [base64.b64decode(graph) for graph in graphs]
