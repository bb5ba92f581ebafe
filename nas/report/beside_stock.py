"""A trial beside the stock model: what it gains in accuracy, and its share of a cost."""

from collections.abc import Iterable

from nas.records.record import Record, has_learned


def accuracy_gain(record: Record, stock: Record | None) -> float | None:
    """Return mAP50-95 less that of the stock model; None without one of both, or if the stock model learned nothing."""
    if stock is None or stock.map50_95 is None or record.map50_95 is None or not has_learned(stock.map50_95):
        return None
    return record.map50_95 - stock.map50_95


def reference_in_words(members: Iterable[str]) -> str:
    """Return what each row is compared with: `stock`, or `own stock` where rows are of members of a study of several.

    Args:
        members: name of each row's member; empty in a study of one.
    """
    return "own stock" if any(members) else "stock"


def cost_share(record: Record, stock: Record | None, cost: str) -> float | None:
    """Return a cost as a share of the stock model's; None if one of both is not known."""
    value, of = getattr(record, cost), getattr(stock, cost) if stock is not None else None
    return None if value is None or not of else value / of
