"""Accuracy and costs of a record in words, and what they are called."""

from nas.records.record import Record

LABELS = {
    "map50_95": "mAP50-95",
    "map50": "mAP50",
    "gflops": "GFLOPs",
    "params": "parameters",
    "latency_ms": "latency in ms",
}
"""Objectives in words: labels of axes, tables and notes."""


def facts(record: Record) -> dict[str, str]:
    """Return the formatted accuracy and costs of a finished record, by heading."""
    unsteady = "" if record.latency_steady else " (unsteady)"
    mean = f" (mean of {record.seeds})" if record.seeds > 1 else ""
    return {
        "mAP50-95": f"{record.map50_95:.3f}{mean}",
        "GFLOPs": f"{record.gflops:.2f}",
        "params": f"{(record.params or 0) / 1e6:.2f} M",
        "latency": f"{record.latency_ms:.1f} ms{unsteady}" if record.latency_ms else "-",
    }
