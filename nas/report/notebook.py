"""A study as HTML in a cell of a notebook: its front as a drawing without scripts, and as a table."""

from collections.abc import Sequence

from nas.algorithms.pareto import main_cost
from nas.records.facts import LABELS
from nas.records.record import Record
from nas.report.front_points import front_points
from nas.report.front_table import front_table
from search_spaces.printable import html

_WIDTH, _HEIGHT, _MARGIN = 560, 260, 44
_OTHER, _FRONT, _STOCK = "#8b95a5", "#2563eb", "#ea580c"


def as_html(study: str, records: Sequence[Record], front: Sequence[Record], objectives: Sequence[str]) -> str:
    """Return a study as HTML that needs no script and no network.

    Args:
        records: of all trials.
        front: Pareto front.
        objectives: of the study.
    """
    cost = main_cost(objectives)
    finished, heading = sum(record.finished for record in records), f"<b>{html(study)}</b>"
    if not front:
        return f"<p>{heading}: no trial has finished yet ({len(records)} trials)</p>"
    columns, rows = front_table(records, front, cost)
    head = "".join(f"<th>{html(name)}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(f'<td>{html(cell)}</td>' for cell in row)}</tr>" for row in rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div><p>{heading}: {finished} trials finished</p>{_drawing(records, front, cost)}{table}</div>"


def _drawing(records: Sequence[Record], front: Sequence[Record], cost: str) -> str:
    """Return accuracy over cost as an SVG element; empty if all architectures have one cost or one accuracy."""
    groups = zip(front_points(records, front, cost), ((_OTHER, 3), (_FRONT, 5), (_STOCK, 5)), strict=True)
    points = [(*point, *marker, record) for some, marker in groups for record, point in some]
    xs, ys = [point[0] for point in points], [point[1] for point in points]
    if not points or min(xs) == max(xs) or min(ys) == max(ys):
        return ""
    circles = "".join(
        f'<circle cx="{_scaled(x, xs, _MARGIN, _WIDTH - 12):.1f}" cy="{_scaled(y, ys, _HEIGHT - _MARGIN, 12):.1f}" '
        f'r="{radius}" fill="{colour}"><title>trial {record.trial}: {html(record.summary)}</title></circle>'
        for x, y, colour, radius, record in points
    )
    bottom = _HEIGHT - _MARGIN + 16
    names = zip((_FRONT, _OTHER, _STOCK), ("front", "other trials", "stock model"), strict=True)
    legend = "   ".join(f'<tspan fill="{colour}">●</tspan> {name}' for colour, name in names)
    axes = f"M{_MARGIN - 6} 12V{bottom - 10}H{_WIDTH - 6}"
    labels = (
        _text(_MARGIN, bottom, f"{min(xs):.4g}", "start"),
        _text((_WIDTH + _MARGIN) / 2, bottom + 14, LABELS[cost], "middle"),
        _text(_WIDTH - 12, bottom, f"{max(xs):.4g}", "end"),
        _text(_MARGIN - 10, 16, f"{max(ys):.3f}", "end"),
        _text(_MARGIN - 10, _HEIGHT - _MARGIN + 4, f"{min(ys):.3f}", "end"),
        f'<text transform="translate({_MARGIN - 18} 122) rotate(-90)" text-anchor="middle">mAP50-95</text>',
        f'<text x="{_MARGIN}" y="{_HEIGHT - 4}" xml:space="preserve">{legend}</text>',
        f'<path d="{axes}" fill="none" stroke="{_OTHER}"/>',
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" aria-label="mAP50-95 over {LABELS[cost]}" '
        f'font-family="sans-serif" font-size="11" fill="currentColor">{circles}{"".join(labels)}</svg>'
    )


def _scaled(value: float, values: Sequence[float], at_least: float, at_most: float) -> float:
    """Return the place of a value between those of the least and the most of all values."""
    low, high = min(values), max(values)
    return at_least + (value - low) / (high - low) * (at_most - at_least)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{html(text)}</text>'
