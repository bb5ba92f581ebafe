"""Drawing of a network as SVG: a box for each layer, at the height of its resolution, its operators in colour."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from nas.report.page.colours import colour_of
from search_spaces import build, rows
from search_spaces.trace import Feature, Traced, first

_SIZE = 256
"""Size in pixels of the image that the network is traced with: a multiple of every stride."""
_STEP, _TURN, _RISE, _WIDTH, _HEIGHT, _MARGIN, _AXIS = 80, 50, 78, 72, 42, 10, 34
"""Distance of two layers of one resolution and of two resolutions, of the resolutions' rows; width and height of a box;
margins at the edges and for the axis."""
_WRITTEN = _WIDTH - 6
"""Width of a line of text in a box."""
_LONGEST = 14
"""Characters of a line; longer names have two lines."""
_LARGEST, _LEAST, _WIDE = 13.0, 8.0, 0.56
"""Largest and least size of type, and the width of a character as a share of its size."""
_PARTS = re.compile(r"[A-Z]+[a-z0-9_]*|[^A-Z]+")
"""Parts of a name in camel case."""


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """Layer of the network.

    Attributes:
        name: of the stock module, or of the operator that replaces it as a whole.
        operator: None of a stock layer.
        sources: indices of the layers that it reads; -1 is the image.
        strides: image pixels per pixel of its output; of a head of all its inputs.
        hint: text that is shown while the pointer is on the box.
    """

    index: int
    name: str
    operator: str | None
    sources: tuple[int, ...]
    strides: tuple[int, ...]
    hint: str


def drawing(document: Mapping[str, Any], classes: int, *, title: str) -> str:
    """Return a network as an SVG element, coloured by CSS: boxes have the class `op-UIB` for an operator, or `stock`.

    Args:
        document: model YAML of an architecture.
        classes: number of classes.
        title: of the drawing, for screen readers.

    Raises:
        SpecError: the model cannot be built.
    """
    with build.addressed(document):
        traced = build.pass_through(build.skeleton(document, classes), _SIZE)
    written = [*document["backbone"], *document["head"]]
    layers = [_layer(step, row, is_head=step is traced[-1]) for step, row in zip(traced, written, strict=True)]
    level = {stride: row for row, stride in enumerate(sorted({each for layer in layers for each in layer.strides}))}
    boxes = _places(layers, level)
    both = list(zip(layers, boxes, strict=True))
    width = boxes[-1].x + _WIDTH + _MARGIN
    height = 2 * _MARGIN + _RISE * (len(level) - 1) + _HEIGHT
    parts = [
        *(_axis(stride, row, width) for stride, row in level.items()),
        *(_edge(boxes[source], box) for layer, box in both for source in layer.sources if source >= 0),
        *(_drawn(layer, box) for layer, box in both),
    ]
    size = f'viewBox="0 0 {width} {height}" style="--least:{width * 0.7:.0f}px"'
    return f'<svg class="network" role="img" {size}><title>{escape(title)}</title>{"".join(parts)}</svg>'


def style(operator: str) -> str:
    """Return the rule of CSS that colours the boxes of an operator, on the page's colour `--page`."""
    colour = colour_of(operator)
    return f".op-{operator} rect {{fill: color-mix(in srgb, {colour} 32%, var(--page)); stroke: {colour}}}"


@dataclass(frozen=True)
class _Box:
    """Rectangle of a layer: left, top, height; all boxes have the same width."""

    x: int
    y: int
    height: int = _HEIGHT


def _layer(step: Traced, row: Sequence[Any], *, is_head: bool) -> _Layer:
    lowered = rows.lower(list(row))
    stock = str(row[2] if lowered is None else lowered.row[2])
    operator = None if lowered is None else lowered.operator.name
    strides = _strides(step.received) if is_head else _strides(step.returned)[:1]
    facts = [f"layer {step.index}: {row[2]}", f"1/{strides[0]} of the image's width and height"]
    facts += [] if is_head else [f"{step.c_out} channels"]
    facts += [] if lowered is None else [f"{name} {value}" for name, value in lowered.parameters.items()]
    sources = row[0] if isinstance(row[0], list) else [row[0]]
    return _Layer(
        index=step.index,
        name=str(row[2]) if operator == row[2] else stock.removeprefix("nn."),
        operator=operator,
        sources=tuple(step.index + source if source < 0 else source for source in sources),
        strides=tuple(strides),
        hint="\n".join(facts),
    )


def _strides(features: Feature | list[Feature]) -> list[int]:
    maps = features if isinstance(features, list | tuple) else [features]
    return [_SIZE // first(one).shape[-1] for one in maps]


def _places(layers: Sequence[_Layer], level: Mapping[int, int]) -> list[_Box]:
    """Return the box of each layer; that of a head spans the resolutions which it reads."""
    places: list[_Box] = []
    x, before = _AXIS, layers[0].strides
    for layer in layers:
        if places:
            x += _STEP if layer.strides == before or len(layer.strides) > 1 else _TURN
        first_row, last_row = level[min(layer.strides)], level[max(layer.strides)]
        places.append(_Box(x, _MARGIN + _RISE * first_row, _HEIGHT + _RISE * (last_row - first_row)))
        before = layer.strides
    return places


def _axis(stride: int, row: int, width: int) -> str:
    y = _MARGIN + _RISE * row + _HEIGHT // 2
    return (
        f'<line class="level" x1="{_AXIS}" x2="{width}" y1="{y}" y2="{y}"/>'
        f'<text class="axis" x="0" y="{y + 4}">1/{stride}</text>'
    )


def _edge(start: _Box, end: _Box) -> str:
    """Return the line from a layer to one that reads it: straight, around a corner, or over the layers in between."""
    right, middle, centre = start.x + _WIDTH, start.x + _WIDTH // 2, start.y + start.height // 2
    entered = min(max(centre, end.y + _HEIGHT // 2), end.y + end.height - _HEIGHT // 2)
    if end.x - start.x <= _STEP and centre == entered:
        path = f"M{right} {centre}H{end.x}"
    elif end.x - start.x <= _STEP:
        path = f"M{middle} {start.y + start.height * (entered > centre)}Q{middle} {entered} {end.x} {entered}"
    elif centre != entered:
        bend = (end.x - right) // 2
        path = f"M{right} {centre}C{right + bend} {centre} {end.x - bend} {entered} {end.x} {entered}"
    else:
        over, low = start.y - _HEIGHT // 3, entered - _HEIGHT // 4
        path = f"M{middle} {start.y}C{middle + 20} {over} {end.x - 20} {over} {end.x} {low}"
    return f'<path class="edge" d="{path}"/>'


def _drawn(layer: _Layer, box: _Box) -> str:
    kind = "stock" if layer.operator is None else f"op-{layer.operator}"
    middle, centre = box.x + _WIDTH // 2, box.y + box.height // 2
    names = [layer.name] if layer.operator in {None, layer.name} else [layer.name, layer.operator]
    lines = [(line, _size(line)) for name in names for line in _lines(name)]
    y, text = centre + 3 - sum(size + 1 for _, size in lines) / 2, ""
    for line, size in lines:
        y += size + 1
        text += (
            f'<text style="font-size: {size:.1f}px"{_fitted(line)} x="{middle}" y="{y - 1:.1f}">{escape(line)}</text>'
        )
    return (
        f'<g class="{escape(kind)}"><title>{escape(layer.hint)}</title>'
        f'<rect x="{box.x}" y="{box.y}" width="{_WIDTH}" height="{box.height}" rx="5"/>'
        f'<text class="index" x="{box.x + 3}" y="{box.y + 10}">{layer.index}</text>{text}</g>'
    )


def _lines(name: str) -> list[str]:
    """Return a name whole, in two lines if it is long: broken where a part of it begins, near its middle."""
    if len(name) <= _LONGEST:
        return [name]
    at = min((part.start() for part in _PARTS.finditer(name)), key=lambda start: abs(2 * start - len(name)))
    return [line for line in (name[:at], name[at:]) if line]


def _size(line: str) -> float:
    """Return the size of type with which a line fits into its box."""
    return max(_LEAST, min(_LARGEST, _WRITTEN / (_WIDE * len(line))))


def _fitted(line: str) -> str:
    """Return the attributes that let a long line fit into its box, whatever the font."""
    is_long = _size(line) < _LARGEST
    return f' textLength="{_WRITTEN}" lengthAdjust="spacingAndGlyphs"' if is_long else ""
